"""Sampling: turns pending prompts into requests, and replies into completions."""

from collections.abc import Sequence

from factory.engines.base import Message, Reply, Request
from factory.inputs.row import Row
from factory.stages.measures import measure, measure_languages
from factory.stages.outputs import Provenance
from factory.stages.single_reply import SingleReplyStage
from factory.texts.langid import Detect

STAGE = "sample"


class Sampler(SingleReplyStage):
    """The stage of one teacher or policy.

    Pending rows have the columns completion_id, which is the request's id, prompt_id, language, messages and
    sample_index.
    """

    stage = STAGE
    table = "completions"
    kept = ("prompt_id", "language", "sample_index")

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
        super().__init__(lane)
        self._detect = detect
        self._made = {"origin": origin, "round": round}
        self._system_prompt = system_prompt
        self._seed = seed

    def make_request(self, request_id: str, row: Row) -> Request:
        """Return the prompt as a request."""
        messages = add_system_prompt(row["messages"], self._system_prompt)
        return Request(request_id, messages, seed=make_seed(self._seed, request_id))

    def make_rows(self, answered: Sequence[tuple[Row, Reply]]) -> list[Row]:
        """Return the completions, measured."""
        completions = [self._make_completion(row, reply) for row, reply in answered]
        languages = measure_languages([(row["text"], row["language"]) for row in completions], self._detect)
        return [completion | found for completion, found in zip(completions, languages, strict=True)]

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


def add_system_prompt(messages: Sequence[Message], system_prompt: str | None) -> tuple[Message, ...]:
    """Return a conversation with a model's system prompt, which comes before the conversation's own, if it has one."""
    own = [Message(role=turn["role"], content=turn["content"]) for turn in messages]
    if not system_prompt:
        return tuple(own)
    if own[0]["role"] == "system":
        system_prompt = f"{system_prompt}\n\n{own.pop(0)['content']}"
    return (Message(role="system", content=system_prompt), *own)


def make_seed(seed: int | None, request_id: str) -> int | None:
    """Return a request's seed in [0, 2**31), different for each sample and the same in every run, or None."""
    return None if seed is None else (seed + int(request_id[:8], 16)) % 2**31
