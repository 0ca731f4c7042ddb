"""What an engine is: something that answers a stream of requests, in the order in which they finish.

Every request is answered exactly once, by a text, a score or a failure. Engines bound what is in flight, so that
memory does not grow with the number of requests, and take requests lazily from the iterable they are given.
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
    """One thing to ask of a model.

    ``messages`` is the conversation to continue (generation), or to judge, its last turn being the completion
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
    """Why a request has no answer. ``detail`` is one line for a person."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one request: ``text`` (generation), ``score`` (raw, before any sigmoid) or ``failure``.

    ``reasoning`` is the thinking part of a reasoning model, kept apart from ``text``. ``finish_reason`` is "stop",
    "length" or what the engine says. Token counts are those of this request alone.
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
    """A machine that answers requests; a context manager that frees the machine on exit."""

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        """Yield one reply per request as each finishes.

        Closing the iterator early drops what is in flight; those requests are unanswered and may be sent again.

        Raises:
            EngineError: the model or server cannot be used at all (as opposed to failing on one request).
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...
