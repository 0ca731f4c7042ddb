from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.stages.outputs import StageOutput
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.sources import RAW_ROWS, make_prompt_id
from factory.texts.langid import Detect
from schemas.ids import content_id
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.tables import Prompts, Rejections

SOURCE = PromptSource.model_validate(
    {"name": "mine", "path": "a.jsonl", "columns": {"prompt": "q", "language": "l"}, "eval_percent": 10}
)
GATES = PromptGates()
LONG = "Please explain in simple words how a heat pump warms a house in winter and what it costs each year. "


def raw_row(text: str, row: int = 1, language: str = "en", **other: Any) -> dict[str, Any]:
    raw = {"row": str(row), "source_row": f"id{row}", "language": language} | other
    messages = raw.setdefault("messages", [{"role": "user", "content": text}])
    return raw | {"prompt_id": make_prompt_id(language, messages) if messages else None}


def build(
    rows: list[dict[str, Any]],
    gates: PromptGates = GATES,
    seen: SeenPrompts | None = None,
    detect: Detect | None = None,
) -> StageOutput:
    frame = pl.DataFrame([{"reason": None, "detail": None} | row for row in rows], schema=RAW_ROWS)
    seen = seen or SeenPrompts(gates)
    landed = build_prompts(frame, source=SOURCE, gates=gates, config_id="c" * 32, seen=seen, detect=detect)
    Prompts.validate(landed.rows)
    Rejections.validate(landed.rejections)
    assert len(landed.rows) + len(landed.rejections) == len(rows)
    return landed


def test_a_prompt_carries_its_origin_and_its_language(detect: Detect) -> None:
    row = build([raw_row("Why is the sky blue?")], detect=detect).rows.to_dicts()[0]
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    assert row["prompt_id"] == row["root_id"] == content_id("prompt", ["en", messages])
    assert (row["source"], row["source_row"], row["parent_id"]) == ("mine", "id1", None)
    assert (row["detected_language"], row["language_score"]) == ("en", 0.9)


@pytest.mark.parametrize(
    ("row", "reason", "stage"),
    [
        (raw_row(" \n\u3000"), "empty_prompt", "read"),
        (raw_row("", messages=[]), "empty_prompt", "read"),
        (raw_row("x", messages=[{"role": "system", "content": "Be brief."}]), "invalid_row", "read"),
        (raw_row("nuqneH", language="Klingon"), "unknown_language", "read"),
        (raw_row("", messages=None, reason="invalid_text", detail="a.jsonl:1: U+D800"), "invalid_text", "read"),
        (raw_row("x" * 200_001), "too_long", "prompt_gate"),
        (raw_row("مرحبا بالعالم", language="he"), "wrong_language", "prompt_gate"),
    ],
)
def test_what_is_no_prompt_is_rejected(row: dict[str, Any], reason: str, stage: str, detect: Detect) -> None:
    rejection = build([raw_row("A good one"), row | {"row": "2"}], detect=detect).rejections.to_dicts()[0]
    assert (rejection["reason"], rejection["stage"], rejection["config_id"]) == (reason, stage, "c" * 32)
    assert rejection["row_id"] == content_id("source_row", ["mine", "2"])


def test_the_language_gate_needs_evidence(detect: Detect) -> None:
    unsure = build([raw_row("مرحبا", language="fa")], PromptGates(min_language_score=0.95), detect=detect)
    silent = build([raw_row("2 + 2 = ?", language="zh-Hant")], detect=detect)
    off = build([raw_row("مرحبا", language="he")], PromptGates(language=False), detect=detect)
    assert [len(landed.rows) for landed in (unsure, silent, off)] == [1, 1, 1]


def test_both_chinese_are_one_to_the_detector() -> None:
    landed = build([raw_row("你好", language="zh-Hant")], detect=lambda texts: [("zh", 1.0) for _ in texts])
    assert len(landed.rows) == 1


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("el", "Pes mou mia istoria gia ti thalassa."),
        ("ja", "Umi ni tsuite no hanashi o shite kudasai."),
        ("zh", "請給我講一個關於大海的故事。"),
        ("zh-Hant", "请给我讲一个关于大海的故事。"),
        ("hi", "مجھے سمندر کے بارے میں ایک کہانی سناؤ۔"),
    ],
)
def test_a_prompt_in_another_script_is_rejected(language: str, text: str) -> None:
    def detect(texts: Any) -> list[tuple[str | None, float]]:
        return [(language.partition("-")[0], 0.9) for _ in texts]

    (rejection,) = build([raw_row(text, language=language)], detect=detect).rejections.to_dicts()
    assert (rejection["reason"], rejection["stage"]) == ("wrong_script", "prompt_gate")
    assert f"0% of the letters are in the script of {language}, at least 50% needed" in rejection["detail"]
    for gates in (PromptGates(min_script_share=0), PromptGates(language=False)):
        (row,) = build([raw_row(text, language=language)], gates, detect=detect).rows.to_dicts()
        assert row["script_share"] == 0


def test_exact_duplicates_name_what_they_duplicate() -> None:
    landed = build([raw_row("سؤال", 1, "ar"), raw_row("سؤال", 2, "fa"), raw_row("سؤال", 3, "ar")])
    assert landed.rows["language"].to_list() == ["ar", "fa"]
    rejection = landed.rejections.to_dicts()[0]
    assert rejection["reason"] == "duplicate"
    assert landed.rows["prompt_id"][0] in rejection["detail"]


def test_a_duplicate_names_a_prompt_that_was_kept(detect: Detect) -> None:
    landed = build([raw_row("hello", 1, "he"), raw_row("hello", 2, "he"), raw_row("hello", 3)], detect=detect)
    assert landed.rejections["reason"].to_list() == ["wrong_language", "wrong_language"]


def test_near_duplicates_are_found_across_frames_and_the_first_wins() -> None:
    seen = SeenPrompts(GATES)
    first = build([raw_row(LONG, 1)], seen=seen)
    second = build([raw_row(LONG.upper() + "Thanks", 2), raw_row("Something else entirely, please.", 3)], seen=seen)
    assert second.rows["source_row"].to_list() == ["id3"]
    assert first.rows["prompt_id"][0] in second.rejections["detail"][0]
    assert second.rejections["reason"][0] == "near_duplicate"


def test_near_duplicates_can_be_switched_off() -> None:
    assert len(build([raw_row(LONG, 1), raw_row(LONG + ".", 2)], PromptGates(near_duplicate_similarity=0)).rows) == 2


def test_one_long_system_prompt_makes_no_near_duplicates() -> None:
    rows = [
        raw_row("", number, messages=[{"role": "system", "content": LONG * 5}, {"role": "user", "content": text}])
        for number, text in enumerate(["What is dew?", "Who wrote Faust?"])
    ]
    assert len(build(rows).rows) == 2


def test_a_decision_stays_when_the_source_is_reordered_and_grows() -> None:
    before = build([raw_row(LONG, 1), raw_row(LONG + "Thanks", 2), raw_row("Who wrote Faust, and when?", 3)])
    seen = SeenPrompts(GATES)
    seen.remember(before.rows)
    again = build(
        [
            raw_row(LONG + "Thanks", 1),
            raw_row("Something new to ask you today.", 2),
            raw_row(LONG, 3),
            raw_row(LONG, 4),
        ],
        seen=seen,
    )
    assert again.rows["source_row"].to_list() == ["id2", "id3"]
    assert again.rejections["reason"].to_list() == ["near_duplicate", "duplicate"]
    assert again.rows["prompt_id"][1] == before.rows["prompt_id"][0]


def test_a_second_reading_gives_the_same_prompts() -> None:
    rows = [raw_row(LONG, 1), raw_row(LONG + "Thanks", 2), raw_row("Who wrote Faust, and when?", 3)]
    first, seen = build(rows), SeenPrompts(GATES)
    seen.remember(first.rows)
    second = build(rows, seen=seen)
    assert second.rows.equals(first.rows)
    assert second.rejections.equals(first.rejections)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(["en", "zh", "ar", "xx"])), max_size=12))
def test_every_row_is_kept_or_rejected_however_it_is_batched(rows: list[tuple[str, str]]) -> None:
    raw = [raw_row(text, number, language) for number, (text, language) in enumerate(rows)]
    whole, seen = build(raw), SeenPrompts(GATES)
    parts = [build([row], seen=seen) for row in raw]
    assert sum(len(part.rows) for part in parts) == len(whole.rows)
    assert whole.rejections["row_id"].is_unique().all()
    assert [part.rows["prompt_id"][0] for part in parts if len(part.rows)] == whole.rows["prompt_id"].to_list()


def test_the_detector_reads_what_the_user_says(detect: Detect) -> None:
    heard: list[str] = []

    def listen(texts: Any) -> Any:
        heard.extend(texts)
        return detect(texts)

    turns = [("system", "Sei kurz."), ("user", "Hello"), ("assistant", "Hallo"), ("user", "Bye")]
    build([raw_row("", messages=[{"role": role, "content": text} for role, text in turns])], detect=listen)
    assert heard == ["Hello\nBye"]


def test_detectors_are_called_once_a_frame(detect: Callable[..., Any]) -> None:
    calls: list[int] = []

    def count(texts: Any) -> Any:
        calls.append(len(texts))
        return detect(texts)

    build([raw_row(f"Question number {number}?", number) for number in range(20)], detect=count)
    assert calls == [20]
