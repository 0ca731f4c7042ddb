"""Scoring: pending completions in, requests out; replies in, raw rewards out."""

import math
from collections import deque
from collections.abc import Iterable, Iterator

import polars as pl

from factory.engines.base import Failure, Message, Reply, Request
from factory.inputs.row import Row
from factory.stages.outputs import Provenance, StageOutput, make_frame, make_rejection
from factory.stages.sampling import add_system_prompt
from schemas.reasons import Reason

STAGE = "score"


class Scorer:
    """The stage (``rows.Stage``) of one reward model.

    Pending rows have the columns completion_id, language, messages (the prompt) and text (the completion). The request
    id is the completion id; the reward fingerprint is the lane's settings id.
    """

    def __init__(self, lane: Provenance, *, system_prompt: str | None = None) -> None:
        self._lane = lane
        self._system_prompt = system_prompt
        self._in_flight: dict[str, str | None] = {}
        self._answered: deque[tuple[str | None, Reply]] = deque()

    def requests(self, pending: Iterable[pl.DataFrame]) -> Iterator[Request]:
        """Yield one request per pending row: the prompt with the completion as the assistant's turn."""
        for frame in pending:
            for row in frame.iter_rows(named=True):
                prompt = add_system_prompt(row["messages"], self._system_prompt)
                self._in_flight[row["completion_id"]] = row["language"]
                yield Request(row["completion_id"], (*prompt, Message(role="assistant", content=row["text"])))

    def add(self, reply: Reply) -> int:
        """Take a reply; it finishes its row."""
        self._answered.append((self._in_flight.pop(reply.request_id), reply))
        return 1

    def take(self) -> StageOutput:
        """Return the rewards and rejections of the replies since the last call."""
        answered = [self._answered.popleft() for _ in range(len(self._answered))]
        rewards, rejections = [], []
        for language, reply in answered:
            fault = find_score_fault(reply)
            if fault is None:
                rewards.append(self._make_reward(reply))
            else:
                rejections.append(self._make_rejection(language, reply, fault))
        return StageOutput(make_frame("rewards", rewards), make_frame("rejections", rejections))

    def _make_reward(self, reply: Reply) -> Row:
        return {
            "completion_id": reply.request_id,
            "reward_fingerprint": self._lane.settings_id,
            "reward": reply.score,
        }

    def _make_rejection(self, language: str | None, reply: Reply, fault: Failure) -> Row:
        return make_rejection(
            reply.request_id,
            STAGE,
            fault,
            lane=self._lane,
            language=language,
        )


def find_score_fault(reply: Reply) -> Failure | None:
    """Return a reply's failure, or the reason why its score is not a reward."""
    if reply.failure is not None:
        return reply.failure
    if reply.score is None:
        return Failure(Reason.INVALID_REPLY, "the reply has no score")
    if not math.isfinite(reply.score):
        return Failure(Reason.INVALID_REPLY, f"the score is {reply.score}")
    return None
