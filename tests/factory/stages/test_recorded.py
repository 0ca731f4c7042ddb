import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory.stages.recorded import read_recorded
from factory.stages.rows import Detect, Landed, Lane
from factory.stages.sources import read_source
from schemas.errors import InputError
from schemas.ids import content_id
from schemas.models import Recorded
from schemas.prompts import PromptSource
from schemas.tables import MESSAGES, Completions, Rejections

PROMPTS = pl.DataFrame(
    [
        ("p1", "en", "mine", "1", None, [{"role": "user", "content": "Why?"}]),
        ("p2", "en", "mine", "2", None, [{"role": "system", "content": "S"}, {"role": "user", "content": "How? "}]),
        ("p1-ar", "ar", "mine", "1", "p1", [{"role": "user", "content": "لماذا؟"}]),
        ("p3", "en", "other", "2", None, [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
    ],
    schema={
        **dict.fromkeys(["prompt_id", "language", "source", "source_row", "parent_id"], pl.String()),
        "messages": MESSAGES,
    },
    orient="row",
)


def read(path: Path, rows: list[Any], lane: Lane, detect: Detect | None = None, **recorded: Any) -> Landed:
    path = path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = {"text": "text", "key": "key"} | recorded.pop("columns", {})
    how = Recorded.model_validate({"path": str(path), "columns": columns} | recorded)
    landed = list(read_recorded(how, [PROMPTS], lane, detect=detect, config_id="c" * 32, batch_rows=2))
    joined = Landed(pl.concat([one.rows for one in landed]), pl.concat([one.rejections for one in landed]))
    Completions.validate(joined.rows)
    Rejections.validate(joined.rejections)
    assert len(joined.rows) + len(joined.rejections) == len(rows)
    return joined


def test_answers_join_by_row_id_and_are_numbered_by_prompt(tmp_path: Path, lane: Lane, detect: Detect) -> None:
    rows = [{"key": 1, "text": "Because."}, {"key": "2", "text": "Thus."}, {"key": 1, "text": "Since."}]
    landed = read(tmp_path, rows, lane, detect, source="mine")
    assert landed.rows["prompt_id"].to_list() == ["p1", "p2", "p1"]
    assert landed.rows["sample_index"].to_list() == [0, 0, 1]
    assert landed.rows["completion_id"][2] == content_id("completion", [lane.settings_id, "p1", 1])
    assert set(landed.rows["origin"]) == {"recorded"}
    assert landed.rows["detected_language"].to_list() == ["en"] * 3
    assert landed.rows["model"][0] == lane.model


def test_a_language_picks_the_translation(tmp_path: Path, lane: Lane) -> None:
    rows = [
        {"key": 1, "text": "لأن", "l": "Arabic"},
        {"key": 1, "text": "Because", "l": "eng_Latn"},
        {"key": 1, "text": "x", "l": "xx"},
    ]
    landed = read(tmp_path, rows, lane, columns={"language": "l"})
    assert landed.rows["prompt_id"].to_list() == ["p1-ar", "p1"]
    assert landed.rejections["reason"].to_list() == ["unknown_language"]


def test_answers_join_by_the_text_of_the_prompt(tmp_path: Path, lane: Lane) -> None:
    rows = [
        {"q": [{"t": " Why?\n"}], "text": "x"},
        {"q": [{"t": "How?"}], "text": "y"},
        {"q": [{"t": "b"}], "text": "z"},
    ]
    landed = read(tmp_path, rows, lane, join="prompt_text", columns={"key": "q.0.t"})
    assert landed.rows["prompt_id"].to_list() == ["p1", "p2"]
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"]


def test_the_thinking_of_recorded_answers_is_kept_apart(tmp_path: Path, lane: Lane) -> None:
    texts = ["<think>为什么</think>\n四", "just so", "<think>never clo"]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"key": 1, "text": text}) + "\n" for text in texts), encoding="utf-8")
    how = Recorded.model_validate({"path": str(path), "columns": {"text": "text", "key": "key"}})
    tags = ("<think>", "</think>")
    (landed,) = read_recorded(how, [PROMPTS], lane, detect=None, config_id="c" * 32, reasoning=tags)
    assert landed.rows.select("text", "reasoning", "finish_reason", "num_chars").rows() == [
        ("四", "为什么", None, 1),
        ("just so", None, None, 7),
        ("", "never clo", "length", 0),
    ]


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        ({"key": 9, "text": "x"}, "no_such_prompt", "no prompt in scope has the source_row '9'"),
        ({"key": 2, "text": "x"}, "no_such_prompt", "2 prompts in scope"),
        ({"key": None, "text": "x"}, "no_such_prompt", "names no prompt"),
        ({"key": 1, "text": ""}, "empty", "no text"),
        ({"key": 1, "text": None}, "empty", "no text"),
        ({"key": 1, "text": 5}, "invalid_row", "must be text"),
        ({"key": 1}, "invalid_row", "no field 'text'"),
        ({"key": 1, "text": "\ud800"}, "invalid_text", "U+D800"),
        ({"key": "\ud800", "text": "x"}, "invalid_text", "U+D800"),
        ({"key": "a\0", "text": "x"}, "invalid_text", "null character"),
    ],
)
def test_what_joins_to_nothing_is_rejected(tmp_path: Path, lane: Lane, row: Any, reason: str, said: str) -> None:
    rejection = read(tmp_path, [{"key": 1, "text": "good"}, row], lane).rejections.to_dicts()[0]
    assert (rejection["reason"], rejection["config_id"], rejection["stage"]) == (reason, "c" * 32, "read")
    assert said in rejection["detail"]
    assert "answers.jsonl:2" in rejection["detail"]


@pytest.mark.parametrize("join", ["source_row", "prompt_text"])
def test_a_key_that_is_no_utf8_is_rejected(tmp_path: Path, lane: Lane, join: str) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(b"key,text\n1,good\ncaf\xe9,x\n")
    how = Recorded.model_validate({"path": str(path), "join": join, "columns": {"text": "text", "key": "key"}})
    (landed,) = read_recorded(how, [PROMPTS], lane, detect=None, config_id="c" * 32)
    assert "invalid_text" in landed.rejections["reason"].to_list()


def test_a_key_column_that_a_header_has_twice_is_refused(tmp_path: Path, lane: Lane) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("key,text,key\n1,good,2\n", encoding="utf-8")
    how = Recorded.model_validate({"path": str(path), "columns": {"text": "text", "key": "key"}})
    with pytest.raises(InputError, match=r"answers\.csv has the column 'key' 2 times"):
        list(read_recorded(how, [PROMPTS], lane, detect=None, config_id="c" * 32))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_several_columns_join_with_as_many_of_the_source(tmp_path: Path, lane: Lane, suffix: str) -> None:
    """Nested fields, numbers against text, and values that would be the same when only strung together."""
    asked = [
        {"q": "Why?", "meta": {"topic": "a", "ids": [1]}},
        {"q": "How?", "meta": {"topic": "a", "ids": [11]}},
        {"q": "When?", "meta": {"topic": "a 1", "ids": [1]}},
        {"q": "متى؟", "meta": {"topic": "تاريخ", "ids": [1]}},
        {"q": "Where?", "meta": {"topic": None, "ids": [1]}},
    ]
    given = [
        {"from": {"item": {"n": str(row["meta"]["ids"][0]), "topic": row["meta"]["topic"]}}, "text": f"on {row['q']}"}
        for row in reversed(asked)
    ]
    sources, answers = tmp_path / f"prompts{suffix}", tmp_path / f"answers{suffix}"
    for path, rows in ((sources, asked), (answers, given)):
        frame = pl.DataFrame(rows)
        frame.write_parquet(path) if suffix == ".parquet" else frame.write_ndjson(path)
    columns = {"prompt": "q", "id": ["meta.topic", "meta.ids.0"]}
    source = PromptSource.model_validate({"name": "s", "path": str(sources), "language": "en", "columns": columns})
    prompts = pl.concat(read_source(source)).with_columns(
        pl.col("row").alias("prompt_id"), pl.lit("s").alias("source"), pl.lit(None, pl.String).alias("parent_id")
    )
    assert prompts["source_row"].to_list() == ['["a", "1"]', '["a", "11"]', '["a 1", "1"]', '["تاريخ", "1"]', "5"]
    how = {"path": str(answers), "columns": {"text": "text", "key": ["from.item.topic", "from.item.n"]}}
    landed = list(read_recorded(Recorded.model_validate(how), [prompts], lane, detect=None, config_id="c" * 32))
    joined = dict(zip(landed[0].rows["prompt_id"], landed[0].rows["text"], strict=True))
    assert joined == {"1": "on Why?", "2": "on How?", "3": "on When?", "4": "on متى؟"}
    assert landed[0].rejections["reason"].to_list() == ["no_such_prompt"]


def test_a_text_is_one_column() -> None:
    with pytest.raises(ValidationError, match="'prompt_text' needs one column"):
        Recorded.model_validate({"path": "a.jsonl", "join": "prompt_text", "columns": {"text": "t", "key": ["a", "b"]}})


def test_a_wrong_mapping_is_refused(tmp_path: Path, lane: Lane) -> None:
    with pytest.raises(InputError, match="no field 'answer'"):
        read(tmp_path, [{"key": 1, "text": "x"}], lane, columns={"text": "answer"})


def test_ids_are_the_same_each_time_and_stay_when_the_file_grows(tmp_path: Path, lane: Lane) -> None:
    rows = [{"key": 1, "text": str(number)} for number in range(5)]
    before, after = read(tmp_path, rows, lane), read(tmp_path, [*rows, {"key": 1, "text": "new"}], lane)
    assert after.rows.head(5).equals(before.rows)
    assert after.rows["sample_index"].to_list() == list(range(6))


ANY = st.text(st.characters(exclude_categories=()), max_size=15)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.fixed_dictionaries({"key": st.one_of(st.integers(0, 3), ANY, st.none()), "text": ANY}), max_size=8))
def test_every_row_is_joined_or_rejected(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    lane = Lane("s", "m", "f")
    landed = read(tmp_path_factory.mktemp("any"), [{"key": 1, "text": "good"}, *rows], lane)
    assert landed.rejections["row_id"].is_unique().all()
    assert landed.rows["completion_id"].is_unique().all()
