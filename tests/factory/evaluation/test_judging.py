"""What a judge is asked, and what is read from its replies."""

import json
from typing import Any

import polars as pl
import pytest

from factory.engines.base import Failure, Reply
from factory.evaluation.judging import JudgeStage, make_messages, make_structure
from factory.evaluation.verdicts import MIRRORED, compare_scores, parse_verdict
from factory.stages.outputs import Provenance
from schemas.reasons import Reason
from schemas.tables import TABLES

GAME: dict[str, Any] = {
    "game_id": "g1",
    "completion_a": "a" * 32,
    "completion_b": "b" * 32,
    "order": "ab",
    "prompt_id": "p1",
    "language": "he",
    "messages": [{"role": "user", "content": "מה {prompt} בירת צרפת?"}],
    "text_a": "פריז {first}",
    "text_b": "لندن 伦敦",
}


@pytest.mark.parametrize(
    ("reply", "scale", "verdict"),
    [
        ("A", "aya", "A>B"),
        (" TIE\n", "aya", "A=B"),
        ("B>>A", "arena", "B>>A"),
        ('{"reason": "A says [[B]]", "verdict": "B"}', "aya", "B>A"),
        ('{"reason": "更好", "verdict": "A>>B"}', "arena", "A>>B"),
        ('{"reason": "first\nsecond", "verdict": "B"}', "aya", "B>A"),
        ("A is better, since … so: [[A]]", "aya", "A>B"),
        ("[[A=B]] is my verdict: [[A=B]]", "arena", "A=B"),
        ("a", "aya", "unreadable"),
        ("A.", "aya", "unreadable"),
        ("A>B", "aya", "unreadable"),
        ("A", "arena", "unreadable"),
        ("C", "aya", "unreadable"),
        ("", "aya", "unreadable"),
        ("[[A]] or rather [[B]]", "aya", "unreadable"),
        ("[[ A ]]", "aya", "unreadable"),
        ("Answer A is better", "aya", "unreadable"),
        ('{"reason": "cut o', "aya", "unreadable"),
        ('{"verdict": "A or B"}', "aya", "unreadable"),
        ('{"verdict": ["A"]}', "aya", "unreadable"),
        ('{"reason": "[[A]]"}', "aya", "unreadable"),
        ("التعادل", "aya", "unreadable"),
    ],
)
def test_verdicts_are_read_strictly(reply, scale, verdict):
    assert parse_verdict(reply, scale) == verdict


def test_turning_a_verdict_round_twice_changes_nothing():
    assert all(MIRRORED[MIRRORED[verdict]] == verdict for verdict in MIRRORED)
    assert [MIRRORED[verdict] for verdict in ("A>>B", "B>A", "A=B", "unreadable")] == [
        "B>>A",
        "A>B",
        "A=B",
        "unreadable",
    ]


def test_scores_within_the_margin_are_a_tie():
    assert compare_scores(1.0, 0.5, 0.0) == "A>B"
    assert compare_scores(0.5, 1.0, 0.4) == "B>A"
    assert compare_scores(1.0, 0.5, 0.5) == "A=B"


def test_the_judge_is_told_language_criteria_and_scale():
    system, user = make_messages(GAME, "aya", "json")
    assert "Hebrew" in system["content"]
    assert "grammatical and fluent" in system["content"]
    assert "A (answer A is better), B (answer B is better) or TIE" in user["content"]
    assert GAME["messages"][0]["content"] in user["content"]
    assert user["content"].index(GAME["text_a"]) < user["content"].index(GAME["text_b"])
    swapped = make_messages(GAME | {"order": "ba"}, "arena", "text")[1]["content"]
    assert swapped.index(GAME["text_b"]) < swapped.index(GAME["text_a"])
    assert "[[A>>B]]" in swapped


def test_a_conversation_is_shown_turn_by_turn():
    turns = [("user", "שלום"), ("assistant", "你好"), ("user", "?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    shown = make_messages(GAME | {"messages": messages}, "aya", "choice")[1]["content"]
    assert "[user]\nשלום\n\n[assistant]\n你好\n\n[user]\n?" in shown


@pytest.mark.parametrize("scale", ["aya", "arena"])
def test_whatever_the_engine_is_held_to_can_be_read(scale):
    schema = make_structure(scale, "json").json_schema
    choice = make_structure(scale, "choice").choice
    assert tuple(schema["properties"]["verdict"]["enum"]) == choice
    assert "unreadable" not in {parse_verdict(label, scale) for label in choice}
    assert "unreadable" not in {parse_verdict(json.dumps({"reason": "", "verdict": x}), scale) for x in choice}
    assert make_structure(scale, "text") is None
    bounded = make_structure(scale, "json", 80).json_schema
    assert bounded["properties"].pop("reason") == {"type": "string", "maxLength": 80}
    assert schema["properties"].pop("reason") == {"type": "string"}
    assert bounded == schema


def test_replies_become_verdicts_about_a_and_b():
    stage = JudgeStage(Provenance("j" * 32, "judge", "f" * 32), scale="aya", output="choice")
    games = [GAME, GAME | {"game_id": "g2", "order": "ba"}, GAME | {"game_id": "g3"}, GAME | {"game_id": "g4"}]
    requests = list(stage.requests([pl.DataFrame(games[:2]), pl.DataFrame(games[2:])]))
    assert [request.request_id for request in requests] == ["g1", "g2", "g3", "g4"]
    stage.add(Reply("g2", text="A"))
    stage.add(Reply("g4", failure=Failure(Reason.TIMEOUT, "no answer")))
    first = stage.take()
    stage.add(Reply("g1", text="A"))
    stage.add(Reply("g3", text="أ\0"))
    second = stage.take()
    for landed in (first, second):
        TABLES["verdicts"].validate(landed.rows)
        TABLES["rejections"].validate(landed.rejections)
    assert first.rows.select("order", "verdict", "judge_fingerprint").rows() == [("ba", "B>A", "j" * 32)]
    assert second.rows.select("order", "verdict").rows() == [("ab", "A>B")]
    assert first.rejections.select("row_id", "stage", "reason", "language").rows() == [("g4", "judge", "timeout", "he")]
    assert second.rejections["reason"].to_list() == ["invalid_reply"]


@pytest.mark.parametrize(
    ("reply", "finish_reason"),
    [
        ("<think>At first sight [[A]]", "length"),
        ("<think>[[A]] it is</think>", "stop"),
        ("At first sight [[A]], but no</think>\nHm.", "stop"),
        ("[THINK][[A]][/THINK][[A]]", "stop"),
    ],
)
@pytest.mark.parametrize("output", ["text", "json", "choice"])
def test_no_verdict_is_read_from_thinking(reply, finish_reason, output):
    stage = JudgeStage(Provenance("j" * 32, "judge", "f" * 32), scale="aya", output=output)
    list(stage.requests([pl.DataFrame([GAME])]))
    stage.add(Reply("g1", text=reply, finish_reason=finish_reason))
    landed = stage.take()
    assert landed.rows.is_empty()
    assert landed.rejections["reason"].to_list() == ["stray_reasoning"]


@pytest.mark.parametrize(
    ("reply", "detail"),
    [
        ({"text": "At first <analysis>[[A]]"}, "thinks aloud: <analysis>"),
        ({"text": "[[A]], but</analysis>"}, "thinks aloud: </analysis>"),
        (
            {"text": "", "reasoning": "[[A]], but", "finish_reason": "length"},
            "the thinking was cut off or never closed",
        ),
    ],
)
def test_a_judge_that_thinks_is_read_by_its_own_tags(reply, detail):
    lane = Provenance("j" * 32, "judge", "f" * 32)
    stage = JudgeStage(lane, scale="aya", output="text", reasoning=("<analysis>", "</analysis>"))
    list(stage.requests([pl.DataFrame([GAME])]))
    stage.add(Reply("g1", **{"finish_reason": "stop"} | reply))
    landed = stage.take()
    assert landed.rows.is_empty()
    assert landed.rejections.select("reason", "detail").rows() == [("stray_reasoning", detail)]


def test_a_judge_that_was_cut_off_has_not_come_to_its_verdict():
    stage = JudgeStage(Provenance("j" * 32, "judge", "f" * 32), scale="aya", output="text")
    list(stage.requests([pl.DataFrame([GAME, GAME | {"game_id": "g2"}])]))
    stage.add(Reply("g1", text="At first sight it is [[A]], but", finish_reason="length"))
    stage.add(Reply("g2", text='{"reason": "B says <think>", "verdict": "A"}', finish_reason="stop"))
    assert stage.take().rows["verdict"].to_list() == ["unreadable", "A>B"]


def test_an_unreadable_reply_is_a_row_with_its_text():
    stage = JudgeStage(Provenance("j" * 32, "judge", "f" * 32), scale="arena", output="text")
    list(stage.requests([pl.DataFrame([GAME | {"order": "ba"}])]))
    stage.add(Reply("g1", text="Both are fine."))
    (row,) = stage.take().rows.to_dicts()
    assert (row["verdict"], row["text"]) == ("unreadable", "Both are fine.")
