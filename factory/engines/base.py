"""The engine protocol: a stream of requests in, a stream of replies out, in the order in which they finish.

Every request is answered exactly once, with a text, a score or a failure. Engines take requests lazily from an iterable
and limit how many are in flight, so memory does not grow with the number of requests.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self, TypedDict

from schemas.reasons import Reason


class Message(TypedDict):
    """One turn of a conversation. ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model.

    ``messages`` is the conversation to continue (generation), or to score, with the completion as its last turn
    (scoring). An encoder-decoder translator reads the content of the last message and the two languages, which are
    codes of ``schemas.languages``. ``seed`` is optional; it does not make batched sampling repeatable.
    """

    request_id: str
    messages: tuple[Message, ...]
    source_language: str | None = None
    target_language: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer. ``detail`` is one line of text for people."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request: ``text`` (generation), ``score`` (raw, before any sigmoid) or ``failure``.

    ``reasoning`` is the thinking of a reasoning model, separate from ``text``. ``finish_reason`` is "stop", "length",
    or another reason that the engine reports. Token counts are those of this request.
    """

    request_id: str
    text: str | None = None
    reasoning: str | None = None
    score: float | None = None
    finish_reason: str | None = None
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    failure: Failure | None = None


class Engine(Protocol):
    """Answers requests; a context manager that frees the engine's resources on exit."""

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request as each finishes.

        Closing the iterator early drops the requests in flight; they are unanswered and may be sent again.

        Raises:
            EngineError: the model or server cannot be used at all. The failure of a single request is a reply instead.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
