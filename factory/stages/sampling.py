"""Sampling: pending prompts in, requests out; replies in, completions out."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import polars as pl

from factory.engines.base import Failure, Message, Reply, Request
from factory.inputs.row import Row
from factory.stages.measures import measure, measure_languages
from factory.stages.outputs import Detect, Provenance, StageOutput, find_reply_fault, make_frame, make_rejection

STAGE = "sample"


class Sampler:
    """The stage (``rows.Stage``) of one teacher or policy.

    Pending rows have the columns completion_id, which is the request's id, prompt_id, language, messages and
    sample_index.
    """

    def __init__(
        self,
        lane: Provenance,
        *,
        detect: Detect | None,
        origin: str = "in_language",
        round: int = 0,  # noqa: A002 (the column's name)
        system_prompt: str | None = None,
        seed: int | None = None,
    ) -> None:
        self._lane = lane
        self._detect = detect
        self._made = {"origin": origin, "round": round}
        self._system_prompt = system_prompt
        self._seed = seed
        self._in_flight: dict[str, Row] = {}
        self._answered: deque[tuple[Row, Reply]] = deque()

    def requests(self, pending: Iterable[pl.DataFrame]) -> Iterator[Request]:
        """Yield one request per pending row."""
        for frame in pending:
            for row in frame.iter_rows(named=True):
                request_id = row["completion_id"]
                messages = add_system_prompt(row["messages"], self._system_prompt)
                self._in_flight[request_id] = {name: row[name] for name in ("prompt_id", "language", "sample_index")}
                yield Request(request_id, messages, seed=make_seed(self._seed, request_id))

    def add(self, reply: Reply) -> int:
        """Take a reply; it finishes its row."""
        self._answered.append((self._in_flight.pop(reply.request_id), reply))
        return 1

    def take(self) -> StageOutput:
        """Return the completions and rejections of the replies since the last call."""
        answered = [self._answered.popleft() for _ in range(len(self._answered))]
        completions, rejections = [], []
        for row, reply in answered:
            fault = find_reply_fault(reply)
            if fault is None:
                completions.append(self._make_completion(row, reply))
            else:
                rejections.append(self._make_rejection(row, reply, fault))
        languages = measure_languages([(row["text"], row["language"]) for row in completions], self._detect)
        measured = [completion | found for completion, found in zip(completions, languages, strict=True)]
        return StageOutput(make_frame("completions", measured), make_frame("rejections", rejections))

    def _make_completion(self, row: Row, reply: Reply) -> Row:
        assert reply.text is not None
        return {
            **row,
            **self._made,
            "completion_id": reply.request_id,
            "settings_id": self._lane.settings_id,
            "model": self._lane.model,
            "model_fingerprint": self._lane.model_fingerprint,
            "text": reply.text,
            "reasoning": reply.reasoning,
            "finish_reason": reply.finish_reason,
            "num_prompt_tokens": reply.num_prompt_tokens,
            "num_completion_tokens": reply.num_completion_tokens,
            **measure(reply.text),
        }

    def _make_rejection(self, row: Row, reply: Reply, fault: Failure) -> Row:
        return make_rejection(
            reply.request_id,
            STAGE,
            fault,
            lane=self._lane,
            language=row["language"],
        )


def add_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """Return a conversation under a model's system prompt, which stands before the conversation's own, if any."""
    own = [Message(role=turn["role"], content=turn["content"]) for turn in messages]
    if not system_prompt:
        return tuple(own)
    if own[0]["role"] == "system":
        system_prompt = f"{system_prompt}\n\n{own.pop(0)['content']}"
    return (Message(role="system", content=system_prompt), *own)


def make_seed(seed: int | None, request_id: str) -> int | None:
    """Return a request's own seed, in [0, 2**31): another for every sample, the same on every run."""
    return None if seed is None else (seed + int(request_id[:8], 16)) % 2**31
