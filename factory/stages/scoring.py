"""Scoring: turns pending completions into requests, and replies into raw rewards."""

import math
from collections.abc import Sequence

from factory.engines.base import Failure, Message, Reply, Request
from factory.inputs.row import Row
from factory.stages.outputs import Provenance
from factory.stages.sampling import add_system_prompt
from factory.stages.single_reply import SingleReplyStage
from schemas.reasons import Reason

STAGE = "score"


class Scorer(SingleReplyStage):
    """The stage of one reward model.

    Pending rows have the columns completion_id, language, messages (the prompt) and text (the completion). The request
    id is the completion id; the reward fingerprint is the lane's settings id.
    """

    stage = STAGE
    table = "rewards"
    kept = ("language",)

    def __init__(self, lane: Provenance, *, system_prompt: str | None = None) -> None:
        super().__init__(lane)
        self._system_prompt = system_prompt

    def make_request(self, request_id: str, row: Row) -> Request:
        """Return the prompt with the completion as the assistant's turn."""
        prompt = add_system_prompt(row["messages"], self._system_prompt)
        return Request(request_id, (*prompt, Message(role="assistant", content=row["text"])))

    def find_fault(self, reply: Reply) -> Failure | None:
        """Return a reply's failure, or why its score cannot be used as a reward, or None."""
        if reply.failure is not None:
            return reply.failure
        if reply.score is None:
            return Failure(Reason.INVALID_REPLY, "the reply has no score")
        if not math.isfinite(reply.score):
            return Failure(Reason.INVALID_REPLY, f"the score is {reply.score}")
        return None

    def make_rows(self, answered: Sequence[tuple[Row, Reply]]) -> list[Row]:
        """Return the rewards."""
        made_by = {"reward_fingerprint": self._lane.settings_id}
        return [made_by | {"completion_id": reply.request_id, "reward": reply.score} for _, reply in answered]
