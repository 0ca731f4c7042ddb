from typing import Any

import pytest

from factory.engines.base import Failure, Reply, Request
from factory.stages.outputs import Provenance
from factory.stages.scoring import Scorer
from schemas.reasons import Reason


def pending(completion_id: str = "c", text: str = "答え") -> dict[str, Any]:
    messages = [{"role": "user", "content": "質問"}]
    return {"completion_id": completion_id, "language": "ja", "messages": messages, "text": text}


def test_the_completion_is_the_last_turn_and_the_raw_score_the_reward(lane: Provenance, run_stage: Any) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Reply(request.request_id, score=1001.5)

    landed = run_stage(Scorer(lane), [pending("a"), pending("b")], answer, "rewards")
    assert [turn["role"] for turn in asked[0].messages] == ["user", "assistant"]
    assert asked[0].messages[-1]["content"] == "答え"
    assert landed.rows.sort("completion_id").to_dicts() == [
        {"completion_id": name, "reward_fingerprint": lane.settings_id, "reward": 1001.5} for name in ("a", "b")
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("c", score=float("nan")), "invalid_reply"),
        (Reply("c", score=float("-inf")), "invalid_reply"),
        (Reply("c", text="good"), "invalid_reply"),
        (Reply("c", failure=Failure(Reason.PROMPT_TOO_LONG, "9000 tokens")), "prompt_too_long"),
    ],
)
def test_what_is_no_score_is_a_rejection(lane: Provenance, run_stage: Any, reply: Reply, reason: str) -> None:
    landed = run_stage(Scorer(lane), [pending()], lambda request: reply, "rewards")
    row = landed.rejections.to_dicts()[0]
    assert landed.rows.is_empty()
    assert (row["row_id"], row["stage"], row["config_id"]) == ("c", "score", "")
    assert (row["reason"], row["language"], row["settings_id"]) == (reason, "ja", lane.settings_id)
