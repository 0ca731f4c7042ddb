import threading
from typing import Any

import polars as pl
import pytest

from factory.engines.base import Failure, Message, Reply, Request
from factory.stages.outputs import Provenance
from factory.stages.sampling import Sampler, add_system_prompt, make_seed
from factory.texts.langid import Detect
from schemas.ids import content_id
from schemas.reasons import Reason


def pending(number: int = 0, language: str = "ar", **other: Any) -> dict[str, Any]:
    return {
        "completion_id": content_id("completion", ["s", "p", number]),
        "prompt_id": "p",
        "language": language,
        "messages": [{"role": "user", "content": "ما هو الندى؟"}],
        "sample_index": number,
    } | other


def say(request: Request, text: str | None = "الندى ماء") -> Reply:
    return Reply(request.request_id, text=text, finish_reason="stop", num_prompt_tokens=5, num_completion_tokens=3)


def test_replies_become_completions_with_their_measures(lane: Provenance, detect: Detect, run_stage: Any) -> None:
    sampler = Sampler(lane, detect=detect, origin="on_policy", round=2)
    rows = run_stage(sampler, [pending(0), pending(1)], say, "completions").rows.sort("sample_index").to_dicts()
    assert [row["completion_id"] for row in rows] == [pending(0)["completion_id"], pending(1)["completion_id"]]
    shown = {name: rows[1][name] for name in ("model", "settings_id", "origin", "round", "sample_index", "prompt_id")}
    assert shown == {
        "model": lane.model,
        "settings_id": lane.settings_id,
        "origin": "on_policy",
        "round": 2,
        "sample_index": 1,
        "prompt_id": "p",
    }
    assert (rows[0]["num_chars"], rows[0]["repetition"], rows[0]["detected_language"]) == (9, 0.0, "ar")
    assert rows[0]["script_share"] is None
    romanised = run_stage(
        sampler, [pending(2)], lambda request: say(request, "al-nada ma' yatakathaf laylan"), "completions"
    )
    assert romanised.rows["script_share"].to_list() == [0]
    assert (rows[0]["num_prompt_tokens"], rows[0]["num_completion_tokens"], rows[0]["finish_reason"]) == (5, 3, "stop")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("", failure=Failure(Reason.TIMEOUT, "no answer\0 in 600 s\ud800")), "timeout"),
        (Reply("", text=None), "invalid_reply"),
        (Reply("", text="a\ud800"), "invalid_reply"),
        (Reply("", text="a\0"), "invalid_reply"),
        (Reply("", text="a", reasoning="\udfff"), "invalid_reply"),
    ],
)
def test_what_is_no_answer_is_a_rejection(lane: Provenance, run_stage: Any, reply: Reply, reason: str) -> None:
    def answer(request: Request) -> Reply:
        return Reply(request.request_id, text=reply.text, reasoning=reply.reasoning, failure=reply.failure)

    landed = run_stage(Sampler(lane, detect=None), [pending()], answer, "completions")
    row = landed.rejections.to_dicts()[0]
    assert landed.rows.is_empty()
    assert row["row_id"] == pending()["completion_id"]
    assert (row["stage"], row["config_id"], row["settings_id"]) == ("sample", "", lane.settings_id)
    assert (row["reason"], row["language"], row["model"]) == (reason, "ar", lane.model)


def test_an_empty_answer_is_a_fact_for_the_gates_to_judge(lane: Provenance, run_stage: Any) -> None:
    landed = run_stage(Sampler(lane, detect=None), [pending()], lambda request: say(request, ""), "completions")
    assert landed.rows["text"].to_list() == [""]


def test_system_prompts_stand_first_and_alone() -> None:
    user, own = Message(role="user", content="Hi"), Message(role="system", content="Be kind.")
    assert add_system_prompt([user], None) == (user,)
    assert add_system_prompt([user], "Be brief.") == (Message(role="system", content="Be brief."), user)
    assert add_system_prompt([own, user], "Be brief.")[0]["content"] == "Be brief.\n\nBe kind."
    assert [turn["role"] for turn in add_system_prompt([own, user], "Be brief.")] == ["system", "user"]


def test_seeds_differ_by_sample_and_stay() -> None:
    seeds = [make_seed(7, str(pending(number)["completion_id"])) for number in range(100)]
    assert len(set(seeds)) == 100
    assert seeds == [make_seed(7, str(pending(number)["completion_id"])) for number in range(100)]
    assert make_seed(8, "0" * 32) == 8
    assert make_seed(None, "0" * 32) is None
    assert all(0 <= seed < 2**31 for seed in seeds if seed is not None)


def test_requests_are_planned_lazily_and_only_rows_in_flight_are_held(lane: Provenance) -> None:
    sampler = Sampler(lane, detect=None)
    asked: list[int] = []

    def frames() -> Any:
        for number in range(1000):
            asked.append(number)
            yield pl.DataFrame([pending(number)])

    requests = sampler.requests(frames())
    for _ in range(10):
        next(requests)
    assert len(asked) == 10
    for request in requests:
        sampler.add(say(request))
    assert len(sampler._in_flight) == 10


def test_rows_survive_planning_and_taking_in_two_threads(lane: Provenance) -> None:
    sampler, planned = Sampler(lane, detect=None), list[Request]()
    rows = [pl.DataFrame([pending(number) for number in range(at, at + 50)]) for at in range(0, 2000, 50)]
    thread = threading.Thread(target=lambda: planned.extend(sampler.requests(rows)))
    thread.start()
    num_answered = num_landed = 0
    while thread.is_alive() or num_answered < len(planned):
        for request in planned[num_answered:]:
            num_answered += sampler.add(say(request))
        num_landed += len(sampler.take().rows)
    assert num_answered == num_landed == 2000
