import gzip
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
    prompts = recorded.pop("prompts", PROMPTS)
    how = Recorded.model_validate({"path": str(path), "columns": columns} | recorded)
    landed = list(read_recorded(how, [prompts], lane, detect=detect, config_id="c" * 32, batch_rows=2))
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


def test_a_text_of_several_columns_is_that_of_a_prompt_with_an_input(tmp_path: Path, lane: Lane) -> None:
    prompts = PROMPTS.with_columns(
        messages=pl.Series([[{"role": "user", "content": text}] for text in ("Sum up.\n\náb", "Sum up.", "c", "d")])
    )
    rows = [
        {"i": "Sum up.", "in": "áb", "text": "1"},
        {"i": "Sum up.", "in": "", "text": "2"},
        {"i": "Sum up.", "text": "3"},
    ]
    columns = {"key": ["i", "in"]}
    landed = read(tmp_path, rows, lane, join="prompt_text", columns=columns, prompts=prompts)
    assert landed.rows["prompt_id"].to_list() == ["p1", "p2", "p2"]


def turns(*texts: str, **last: Any) -> list[dict[str, Any]]:
    roles = ["user", "assistant"] * len(texts)
    said: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    said[-1] |= last
    return said


@pytest.mark.parametrize(
    "answer",
    [
        [{"type": "text", "text": "لأ"}, {"type": "text", "text": "ن"}],
        {"role": "assistant", "content": "لأن"},
        [{"role": "assistant", "content": "لأن"}],
        [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": [{"type": "text", "text": "لأن"}]}],
        turns("Why?", "لأن", weight=1),
    ],
)
def test_an_answer_may_be_parts_a_message_or_the_end_of_a_conversation(tmp_path: Path, lane: Lane, answer: Any) -> None:
    landed = read(tmp_path, [{"key": 1, "text": answer}], lane, source="mine")
    assert landed.rows["text"].to_list() == ["لأن"]
    assert landed.rows["reasoning"].to_list() == [None]


@pytest.mark.parametrize(
    "conversation",
    [
        turns("Why?", "Because"),
        json.dumps(turns("Why?", "Because")),
        [{"from": "system", "value": "S"}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because"}],
        "\n\nHuman: Why?\n\nAssistant: Because",
    ],
)
def test_a_conversation_names_its_prompt_itself(tmp_path: Path, lane: Lane, conversation: Any) -> None:
    rows = [{"c": conversation}, {"c": turns("a", "b", "c", "d")}]
    landed = read(tmp_path, rows, lane, join="prompt_text", columns={"text": None, "key": None, "messages": "c"})
    assert landed.rows.select("prompt_id", "text").rows() == [("p1", "Because")]
    assert "the row names no prompt" in landed.rejections["detail"][0]


def test_reasoning_is_kept_apart(tmp_path: Path, lane: Lane) -> None:
    rows = [{"key": 1, "text": turns("Why?", "Because", reasoning_content="Let me see.")}]
    landed = read(tmp_path, rows, lane, source="mine")
    assert landed.rows.select("text", "reasoning").rows() == [("Because", "Let me see.")]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (turns("Why?", "x", tool_calls=[{"function": {"name": "f"}}]), "uses tools"),
        (turns("Why?"), "must end with one message of the assistant"),
        ([*turns("Why?", "x"), {"role": "assistant", "content": "y"}], "must end with one message of the assistant"),
        (turns("Why?", "x", name="Ada"), "has 'name', which recorded answers cannot have"),
        (turns("Why?", "x", refusal="no"), "has the key 'refusal', of which nothing is known"),
        ([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "y"}}], "only text can be used"),
        (turns("Why?", "x", content=None), "turn 1 of 'text' is the assistant's and has no content"),
    ],
)
def test_an_answer_that_is_more_than_text_is_rejected(tmp_path: Path, lane: Lane, answer: Any, said: str) -> None:
    landed = read(tmp_path, [{"key": 1, "text": "good"}, {"key": 1, "text": answer}], lane, source="mine")
    assert landed.rejections["reason"].to_list() == ["invalid_row"]
    assert said in landed.rejections["detail"][0]


def test_an_absent_column_is_a_null_one(tmp_path: Path, lane: Lane) -> None:
    rows = [
        {"key": 1, "text": "x", "l": "en"},
        {"key": 1, "text": "x", "l": None},
        {"key": 1, "text": "x"},
        {"text": "x"},
    ]
    landed = read(tmp_path, rows, lane, columns={"language": "l"}, source="mine")
    assert landed.rows.height == 1
    assert landed.rejections["reason"].to_list() == ["unknown_language", "unknown_language", "no_such_prompt"]
    assert landed.rejections["detail"].str.contains("names no language").to_list() == [True, True, False]


def test_a_compressed_file_in_utf_16_is_read(tmp_path: Path, lane: Lane) -> None:
    path = tmp_path / "answers.CSV.gz"
    path.write_bytes(gzip.compress("key,text\n1,لأن\n".encode("utf-16")))
    how = Recorded.model_validate({"path": str(path), "columns": {"text": "text", "key": "key"}, "source": "mine"})
    (landed,) = read_recorded(how, [PROMPTS], lane, detect=None, config_id="c" * 32)
    assert landed.rows["text"].to_list() == ["لأن"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"key": "k"}, "exactly one of 'text'"),
        ({"text": "t", "messages": "m", "key": "k"}, "exactly one of 'text'"),
        ({"text": "t"}, "'columns.key' is needed"),
    ],
)
def test_a_table_that_names_no_answer_or_key_is_refused(columns: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Recorded.model_validate({"path": "a.jsonl", "join": "prompt_text", "columns": columns})


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
