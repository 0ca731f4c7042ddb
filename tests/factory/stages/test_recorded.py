import gzip
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory.stages.outputs import Provenance, StageOutput
from factory.stages.prompt_index import PromptIndex
from factory.stages.prompts import SeenPrompts, build_prompts, list_rows, make_text_id
from factory.stages.recorded import Declared, Tally, read_recorded
from factory.stages.sources import MESSAGES, read_source
from factory.texts.langid import Detect
from schemas.errors import InputError
from schemas.ids import content_id
from schemas.recipe.models import Recorded
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.tables import Completions, Rejections, SourceRows

PROMPTS = pl.DataFrame(
    [
        ("p1", "en", "mine", "1", None, [{"role": "user", "content": "Why?"}]),
        ("p2", "en", "mine", "2", None, [{"role": "system", "content": "S"}, {"role": "user", "content": "How? "}]),
        ("p1-ar", "ar", "mine", None, "p1", [{"role": "user", "content": "لماذا؟"}]),
        ("p3", "en", "other", "2", None, [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
    ],
    schema={
        **dict.fromkeys(["prompt_id", "language", "source", "source_row", "parent_id"], pl.String()),
        "messages": MESSAGES,
    },
    orient="row",
).with_columns(is_kept=pl.lit(True))


def rows_of(prompts: pl.DataFrame) -> pl.DataFrame:
    """Return rows of sources, one for each prompt that is not a translation."""
    names = ["source", "row", "key", "language", "prompt_id", "text_id", "why"]
    rows = []
    for row in prompts.filter(pl.col("parent_id").is_null()).to_dicts():
        turns = [message["content"] for message in row["messages"] if message["role"] == "user"]
        text_id = make_text_id(turns[0]) if len(turns) == 1 else None
        key = json.dumps([row["source_row"]])
        rows.append(row | {"row": f"at {row['source_row']}", "key": key, "text_id": text_id, "why": None})
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String))


def join(path: Path, lane: Provenance, rows: pl.DataFrame, prompts: pl.DataFrame, **recorded: Any) -> StageOutput:
    """Join a file by rows and prompts."""
    detect = recorded.pop("detect", None)
    how = Recorded.model_validate({"path": str(path)} | recorded)
    landed = list(
        read_recorded(PromptIndex(how, [rows], [prompts]), lane, detect=detect, config_id="c" * 32, batch_rows=2)
    )
    joined = StageOutput(pl.concat([one.rows for one in landed]), pl.concat([one.rejections for one in landed]))
    Completions.validate(joined.rows)
    Rejections.validate(joined.rejections)
    return joined


def read(path: Path, rows: list[Any], lane: Provenance, detect: Detect | None = None, **recorded: Any) -> StageOutput:
    path = write_rows(path / "answers.jsonl", rows)
    columns = {"text": "text", "key": "key"} | recorded.pop("columns", {})
    prompts = recorded.pop("prompts", PROMPTS)
    joined = join(path, lane, rows_of(prompts), prompts, columns=columns, detect=detect, **recorded)
    assert len(joined.rows) + len(joined.rejections) == len(rows)
    return joined


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_answers_join_by_row_id_and_are_numbered_by_prompt(tmp_path: Path, lane: Provenance, detect: Detect) -> None:
    rows = [{"key": 1, "text": "Because."}, {"key": "2", "text": "Thus."}, {"key": 1, "text": "Since."}]
    landed = read(tmp_path, rows, lane, detect, source="mine")
    assert landed.rows["prompt_id"].to_list() == ["p1", "p2", "p1"]
    assert landed.rows["sample_index"].to_list() == [0, 0, 1]
    assert landed.rows["completion_id"][2] == content_id("completion", [lane.settings_id, "p1", 1])
    assert set(landed.rows["origin"]) == {"recorded"}
    assert landed.rows["detected_language"].to_list() == ["en"] * 3
    assert landed.rows["model"][0] == lane.model


def test_a_language_picks_the_translation(tmp_path: Path, lane: Provenance) -> None:
    rows = [
        {"key": 1, "text": "لأن", "l": "Arabic"},
        {"key": 1, "text": "Because", "l": "eng_Latn"},
        {"key": 1, "text": "x", "l": "xx"},
    ]
    landed = read(tmp_path, rows, lane, columns={"language": "l"})
    assert landed.rows["prompt_id"].to_list() == ["p1-ar", "p1"]
    assert landed.rejections["reason"].to_list() == ["unknown_language"]


def test_answers_join_by_the_text_of_the_prompt(tmp_path: Path, lane: Provenance) -> None:
    rows = [
        {"q": [{"t": " Why?\n"}], "text": "x"},
        {"q": [{"t": "How?"}], "text": "y"},
        {"q": [{"t": "b"}], "text": "z"},
    ]
    landed = read(tmp_path, rows, lane, join="prompt_text", columns={"key": "q.0.t"})
    assert landed.rows["prompt_id"].to_list() == ["p1", "p2"]
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"]


def test_the_thinking_of_recorded_answers_is_kept_apart(tmp_path: Path, lane: Provenance) -> None:
    texts = ["<think>为什么</think>\n四", "just so", "<think>never clo"]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"key": 1, "text": text}) + "\n" for text in texts), encoding="utf-8")
    how = Recorded.model_validate({"path": str(path), "columns": {"text": "text", "key": "key"}})
    tags, index = ("<think>", "</think>"), PromptIndex(how, [rows_of(PROMPTS)], [PROMPTS])
    (landed,) = read_recorded(index, lane, Declared(reasoning=tags), detect=None, config_id="c" * 32)
    assert landed.rows.select("text", "reasoning", "finish_reason", "num_chars").rows() == [
        ("四", "为什么", None, 1),
        ("just so", None, None, 7),
        ("", "never clo", "length", 0),
    ]


@pytest.mark.parametrize(
    ("row", "reason", "said"),
    [
        ({"key": 9, "text": "x"}, "no_such_prompt", "no prompt in scope has the source_row '9'"),
        (
            {"key": 2, "text": "x"},
            "ambiguous_key",
            "several prompts have the source_row '2': that of row at 2 of 'mine', that of row at 2 of 'other'",
        ),
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
def test_what_joins_to_nothing_is_rejected(tmp_path: Path, lane: Provenance, row: Any, reason: str, said: str) -> None:
    rejection = read(tmp_path, [{"key": 1, "text": "good"}, row], lane).rejections.to_dicts()[0]
    assert (rejection["reason"], rejection["config_id"], rejection["stage"]) == (reason, "c" * 32, "read")
    assert said in rejection["detail"]
    assert "answers.jsonl:2" in rejection["detail"]


@pytest.mark.parametrize("by", ["source_row", "prompt_text"])
def test_a_key_that_is_no_utf8_is_rejected(tmp_path: Path, lane: Provenance, by: str) -> None:
    path = tmp_path / "answers.csv"
    path.write_bytes(b"key,text\n1,good\ncaf\xe9,x\n")
    landed = join(path, lane, rows_of(PROMPTS), PROMPTS, join=by, columns={"text": "text", "key": "key"})
    assert "invalid_text" in landed.rejections["reason"].to_list()


def test_a_key_column_that_a_header_has_twice_is_refused(tmp_path: Path, lane: Provenance) -> None:
    path = tmp_path / "answers.csv"
    path.write_text("key,text,key\n1,good,2\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"answers\.csv has the column 'key' 2 times"):
        join(path, lane, rows_of(PROMPTS), PROMPTS, columns={"text": "text", "key": "key"})


class World:
    """Sources that are read as a build reads them, and recorded answers that are joined to what came of them."""

    def __init__(self, folder: Path, lane: Provenance, **gates: Any) -> None:
        self.folder, self.lane = folder, lane
        self.gates = PromptGates.model_validate({"language": False, "near_duplicate_similarity": 0} | gates)
        self.seen = SeenPrompts(self.gates)
        self.prompts: list[pl.DataFrame] = []
        self.rows: list[pl.DataFrame] = []
        self.dropped: dict[str, str] = {}

    def add(self, name: str, rows: list[Any], suffix: str = ".jsonl", **source: Any) -> None:
        path = self.folder / f"{name}{suffix}"
        if suffix == ".parquet":
            pl.DataFrame(rows).write_parquet(path)
        else:
            write_rows(path, rows)
        columns = {"prompt": "q"} | source.pop("columns", {"id": "id"})
        language = {} if "language" in columns else {"language": "en"}
        self.read(
            PromptSource.model_validate({"name": name, "path": str(path), "columns": columns} | language | source)
        )

    def read(self, source: PromptSource) -> None:
        for raw in read_source(source, beyond=None):
            self.rows.append(list_rows(raw, source, "c" * 32))
            if not raw["is_read"].all():
                continue
            landed = build_prompts(
                raw, source=source, gates=self.gates, config_id="c" * 32, seen=self.seen, detect=None
            )
            self.prompts.append(landed.rows)
            self.dropped |= dict(landed.rejections.select("row_id", "detail").iter_rows())

    def join(self, answers: list[Any], **recorded: Any) -> StageOutput:
        rows = pl.concat(self.rows)
        SourceRows.validate(rows)
        ids = (content_id("source_row", [*row]) for row in rows.select("source", "row").iter_rows())
        why = pl.Series("why", [self.dropped.get(row_id) for row_id in ids], pl.String)
        prompts = pl.concat(self.prompts).with_columns(is_kept=pl.lit(True))
        path = write_rows(self.folder / "answers.jsonl", answers)
        return join(
            path, self.lane, rows.with_columns(why), prompts, **{"columns": {"text": "a", "key": "id"}} | recorded
        )

    def questions(self, landed: StageOutput) -> dict[str, str]:
        """Return the question that each answer that was joined was joined to."""
        asked = {row["prompt_id"]: row["messages"][-1]["content"] for row in pl.concat(self.prompts).to_dicts()}
        return {row["text"]: asked[row["prompt_id"]] for row in landed.rows.to_dicts()}


@pytest.fixture
def world(tmp_path: Path, lane: Provenance) -> World:
    return World(tmp_path, lane, max_chars=20)


def test_the_key_of_a_dropped_row_is_not_taken_for_that_of_another_source(world: World) -> None:
    world.add("a", [{"id": 1, "q": "Why?"}, {"id": 2, "q": "ما هي عاصمة فرنسا؟ قل لي الآن"}])
    world.add("b", [{"id": 2, "q": "何時ですか"}])
    landed = world.join([{"id": 1, "a": "of a"}, {"id": 2, "a": "of a, too"}])
    assert world.questions(landed) == {"of a": "Why?"}
    assert landed.rejections["reason"].to_list() == ["ambiguous_key"]
    assert "that of row 1 of 'b', that of row 2 of 'a'" in landed.rejections["detail"][0]
    landed = world.join([{"id": 1, "a": "of a"}, {"id": 2, "a": "of a, too"}], source="a")
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"]
    assert (
        "row 2 of 'a', was dropped or is not in scope: row 2: 29 characters, allowed are 20"
        in landed.rejections["detail"][0]
    )


@pytest.mark.parametrize(
    "fault", [{"q": "too long to be a prompt"}, {"q": ""}, {"q": 5}, {}, {"q": "\ud800"}, {"q": "Why?", "lang": "xx"}]
)
def test_an_id_twice_in_a_source_names_no_prompt_whatever_its_other_row_is(world: World, fault: Any) -> None:
    rows = [{"id": 7, "q": "Which?", "lang": "en"}, {"id": "7", "lang": "en"} | fault]
    world.add("a", rows, columns={"id": "id", "language": "lang"})
    for recorded in ({}, {"columns": {"text": "a", "key": "id", "language": "l"}}):
        landed = world.join([{"id": 7, "a": "x", "l": "en"}], **recorded)
        assert landed.rejections["reason"].to_list() == ["ambiguous_key"]


def test_an_id_in_two_rows_of_one_prompt_names_that_prompt(world: World) -> None:
    world.add("a", [{"id": 1, "q": "Why?"}, {"id": 1, "q": "Why?"}, {"id": 2, "q": "Why?"}])
    landed = world.join([{"id": 1, "a": "x"}, {"id": 2, "a": "y"}])
    assert world.questions(landed) == {"x": "Why?", "y": "Why?"}
    world.add("b", [{"q": "Why?"}], columns={})
    assert world.questions(world.join([{"id": 1, "a": "of both"}])) == {"of both": "Why?"}


def test_an_id_that_rows_of_several_languages_have_names_one_with_the_language(world: World) -> None:
    rows = [
        {"id": 1, "q": "Why?", "l": "en"},
        {"id": 1, "q": "למה?", "l": "he"},
        {"id": 1, "q": "何故、何故、何故、何故、何故、何故", "l": "ja"},
    ]
    world.add("a", rows, columns={"id": "id", "language": "l"})
    answers = [{"id": 1, "a": name, "l": name} for name in ("Hebrew", "jpn", "en", "fr")]
    landed = world.join(answers, columns={"text": "a", "key": "id", "language": "l"})
    assert world.questions(landed) == {"Hebrew": "למה?", "en": "Why?", "jpn": "何故、何故、何故、何故、何故、何故"}
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"]
    assert world.join(answers).rejections["reason"].to_list() == ["ambiguous_key"] * 4


def test_a_dropped_row_is_as_good_as_another_for_an_answer_to_a_translation(tmp_path: Path, lane: Provenance) -> None:
    """Had the row been kept it would have been translated too, and nobody knows whose translation was answered."""
    dropped = {"source": "b", "row": "at 1", "key": '["1"]', "why": "too_long: 9 characters, allowed are 5"}
    answers = write_rows(
        tmp_path / "answers.jsonl", [{"key": 1, "text": "لأن", "l": "ar"}, {"key": 2, "text": "x", "l": "ar"}]
    )
    how = {"columns": {"text": "text", "key": "key", "language": "l"}, "source": "mine"}
    known = rows_of(PROMPTS)
    landed = join(answers, lane, known, PROMPTS, **how)
    assert landed.rows["prompt_id"].to_list() == ["p1-ar"]
    assert "that of row at 2 of 'mine', was dropped or is not in scope" in landed.rejections["detail"][0]
    for language in ("en", None, "ja"):
        extra = pl.DataFrame(
            [dropped | {"language": language, "prompt_id": "p9", "text_id": "t9"}], schema=known.schema
        )
        landed = join(answers, lane, pl.concat([known, extra]), PROMPTS, **how | {"source": None})
        assert landed.rejections["reason"].to_list() == ["ambiguous_key", "ambiguous_key"]


def test_an_answer_to_a_translation_goes_by_its_text_and_language(tmp_path: Path, lane: Provenance) -> None:
    rows = [
        {"key": "لماذا؟ ", "text": "لأن", "l": "ar"},
        {"key": "Why?", "text": "x", "l": "ar"},
        {"key": "لماذا؟", "text": "y"},
    ]
    answers = write_rows(tmp_path / "answers.jsonl", rows)
    columns = {"text": "text", "key": "key", "language": "l"}
    known = rows_of(PROMPTS)
    landed = join(answers, lane, known, PROMPTS, columns=columns, join="prompt_text")
    assert landed.rows.select("prompt_id", "text").rows() == [("p1-ar", "لأن")]
    assert landed.rejections["reason"].to_list() == ["no_such_prompt", "unknown_language"]
    source = {"source": "b", "row": "1", "language": "ar", "prompt_id": "p9", "text_id": make_text_id("لماذا؟")}
    landed = join(
        answers,
        lane,
        pl.concat([known, pl.DataFrame([source], schema=known.schema)]),
        PROMPTS,
        columns=columns,
        join="prompt_text",
    )
    assert landed.rejections["reason"].to_list() == ["ambiguous_key", "no_such_prompt", "unknown_language"]


def test_a_row_beyond_the_limit_has_its_id_too(world: World) -> None:
    rows = [{"id": number % 3, "q": f"Number {number}?"} for number in range(5)]
    world.add("a", rows, limit=2)
    landed = world.join([{"id": number, "a": str(number)} for number in range(3)])
    assert landed.rows.is_empty()
    assert landed.rejections["reason"].to_list() == ["ambiguous_key", "ambiguous_key", "no_such_prompt"]


def test_the_place_of_a_row_is_no_id(world: World) -> None:
    world.add("a", [{"id": 2, "q": "Of id 2"}, {"id": None, "q": "Without"}, {"id": "", "q": "Empty"}])
    landed = world.join([{"id": number, "a": str(number)} for number in (1, 2, 3)])
    assert world.questions(landed) == {"2": "Of id 2"}
    world.add("b", [{"q": "First of b"}, {"q": "Second of b"}], columns={})
    landed = world.join([{"id": number, "a": str(number)} for number in (1, 2, 3)])
    assert world.questions(landed) == {"1": "First of b"}
    assert landed.rejections["reason"].to_list() == ["ambiguous_key", "no_such_prompt"]
    landed = world.join([{"id": number, "a": str(number)} for number in (1, 2, 3)], source="b")
    assert world.questions(landed) == {"1": "First of b", "2": "Second of b"}


@pytest.mark.parametrize(
    ("key", "question"),
    [
        (1, "One"),
        (1.0, "One"),
        ("1", "One"),
        ("01", "Zero one"),
        ("1.0", None),
        (True, None),
        (1.5, "A half"),
        ("1 ", None),
    ],
)
def test_numbers_and_texts_are_one_id_where_they_are_the_same(world: World, key: Any, question: str | None) -> None:
    world.add("a", [{"id": 1, "q": "One"}, {"id": "01", "q": "Zero one"}, {"id": "1.5", "q": "A half"}])
    found = world.questions(world.join([{"id": 1, "a": "x"}, {"id": key, "a": "y"}]))
    assert found.get("y") == question


def test_numbers_that_a_float_cannot_tell_apart_are_no_ids(world: World) -> None:
    world.add("a", [{"id": 2**53 + at, "q": f"Number {at}"} for at in range(3)])
    assert world.join([{"id": float(2**53), "a": "x"}]).rows.is_empty()


def test_a_text_that_was_dropped_is_not_taken_for_another(tmp_path: Path, lane: Provenance) -> None:
    world = World(tmp_path, lane, near_duplicate_similarity=0.6)
    text = "Please tell me what you know about the river that flows through Cairo"
    world.add("a", [{"q": text}, {"q": f"{text}!"}, {"q": "Why?"}], columns={})
    world.add("b", [{"q": "Why?"}, {"q": f"{text}?"}], columns={})
    answers = [
        {"id": text, "a": "x"},
        {"id": f"{text}!", "a": "y"},
        {"id": "Why? ", "a": "z"},
        {"id": f"{text}?", "a": "v"},
    ]
    landed = world.join(answers, join="prompt_text")
    assert world.questions(landed) == {"x": text, "z": "Why?"}
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"] * 2
    assert all("similar to prompt" in detail for detail in landed.rejections["detail"])
    assert world.questions(world.join(answers, join="prompt_text", source="b")) == {"z": "Why?"}


def test_a_text_under_two_system_prompts_or_in_two_languages_names_none(world: World) -> None:
    world.add("a", [{"q": "Why?", "s": "Be brief"}, {"q": "How?", "s": None}], columns={"system": "s"})
    world.add("b", [{"q": "Why?", "l": "en"}, {"q": "How?", "l": "de"}], columns={"language": "l"})
    answers = [{"id": "Why?", "a": "x", "l": "en"}, {"id": "How?", "a": "y", "l": "de"}]
    assert world.join(answers, join="prompt_text").rejections["reason"].to_list() == ["ambiguous_key"] * 2
    with_language = {"columns": {"text": "a", "key": "id", "language": "l"}}
    assert world.questions(world.join(answers, join="prompt_text", **with_language)) == {"y": "How?"}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_several_columns_join_with_as_many_of_the_source(world: World, suffix: str) -> None:
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
    world.add("s", asked, suffix, columns={"id": ["meta.topic", "meta.ids.0"]})
    world.add("single", [{"q": "Alone", "id": '["a", "1"]'}])
    ids = pl.concat(world.prompts)["source_row"].to_list()
    assert ids == ['["a", "1"]', '["a", "11"]', '["a 1", "1"]', '["تاريخ", "1"]', None, '["a", "1"]']
    columns = {"text": "text", "key": ["from.item.topic", "from.item.n"]}
    landed = world.join(given, columns=columns)
    assert world.questions(landed) == {f"on {question}": question for question in ("Why?", "How?", "When?", "متى؟")}
    assert landed.rejections["reason"].to_list() == ["no_such_prompt"]


IDS = st.sampled_from([1, "1", 1.0, 2, "2", "x", None, 0, "0", 0.0, "", "01", 2.5, "עברית"])
"""Few, so that rows share them."""
FAULTS = st.sampled_from([None, "same", "long", "empty", "number", "absent"])
SOURCES = st.lists(
    st.fixed_dictionaries(
        {
            "has_ids": st.booleans(),
            "limit": st.none() | st.integers(1, 4),
            "rows": st.lists(
                st.fixed_dictionaries(
                    {
                        "id": st.sampled_from([1, 2]) | IDS,
                        "l": st.sampled_from(["en", "ja"]) | st.sampled_from(["en", "ja", "xx", ""]),
                        "s": st.sampled_from([None, "S", "تكلم"]),
                        "fault": st.sampled_from(["same", None]) | FAULTS,
                    }
                ),
                min_size=2,
                max_size=5,
            ),
        }
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("by", ["source_row", "prompt_text"])
@pytest.mark.parametrize("with_language", [False, True])
@settings(max_examples=60, deadline=None)
@given(sources=SOURCES, named=st.booleans())
def test_an_answer_joins_the_row_that_it_was_made_for_or_none(
    tmp_path_factory: pytest.TempPathFactory, by: str, with_language: bool, sources: list[Any], named: bool
) -> None:
    """Every readable row is answered under its own id, place or text; the answer says what was asked."""
    world = World(tmp_path_factory.mktemp("any"), Provenance("s", "m", "f"), max_chars=12)
    answers = []
    for at, source in enumerate(sources):
        rows = [make_row(at, number, row) for number, row in enumerate(source["rows"])]
        columns = {"language": "l", "system": "s"} | ({"id": "id"} if source["has_ids"] else {})
        write_rows(world.folder / f"{at}.jsonl", rows)
        with suppress(InputError):  # no row can be used
            world.add(f"{at}", rows, columns=columns, limit=source["limit"])
            answers += [
                {"id": row["q"] if by == "prompt_text" else row["id"] if source["has_ids"] else number, "of": at}
                | {"l": row["l"], "a": f"{row['l']} {[row['s'], row['q']]}"}
                for number, row in enumerate(rows, start=1)
                if isinstance(row.get("q"), str)
            ]
    answers = [answer for answer in answers if not named or answer["of"] == 0]
    if not answers or not world.rows:
        return
    columns = {"text": "a", "key": "id"} | ({"language": "l"} if with_language else {})
    landed = world.join(answers, join=by, columns=columns, **({"source": "0"} if named else {}))
    assert landed.rows.height + landed.rejections.height == len(answers)
    prompts = pl.concat(world.prompts)
    asked = {row["prompt_id"]: f"{row['language']} {said_in(row['messages'])}" for row in prompts.to_dicts()}
    assert all(asked[row["prompt_id"]] == row["text"] for row in landed.rows.to_dicts())
    if by == "source_row":
        assert_no_clear_answer_is_lost(world, landed, answers, None if not named else "0")


def said_in(messages: list[Any]) -> list[str | None]:
    """Return what the system turn of a single-turn prompt says, if it has one, and what the user says."""
    return [None, *(message["content"] for message in messages)][-2:]


def make_row(at: int, number: int, row: Any) -> Any:
    texts = {"long": f"{at} {number} too long for it", "empty": " ", "number": 5, "same": "the same"}
    made = {"id": row["id"], "l": row["l"], "s": row["s"], "q": texts.get(row["fault"], f"{at} {number}")}
    return {name: value for name, value in made.items() if (name, row["fault"]) != ("q", "absent")}


def assert_no_clear_answer_is_lost(world: World, landed: StageOutput, answers: list[Any], source: str | None) -> None:
    """Whatever names one row alone, by what people see of ids and places, and this is a prompt, is joined."""
    rows = pl.concat(world.rows).filter(pl.lit(source is None) | (pl.col("source") == (source or "")))
    shown = [json.loads(key) if key else None for key in rows["key"]]
    names = Counter("".join(key) for key in shown if key is not None)
    kept = set(pl.concat(world.prompts)["prompt_id"])
    clear = {
        "".join(key)
        for key, prompt_id in zip(shown, rows["prompt_id"], strict=True)
        if key is not None and names["".join(key)] == 1 and prompt_id in kept
    }
    joined = set(landed.rows["text"])
    lost = [answer for answer in answers if str(answer["id"]) in clear and answer["a"] not in joined]
    assert not lost


def test_a_tally_says_how_few_answers_could_be_joined(tmp_path: Path, lane: Provenance) -> None:
    tally = Tally()
    rows = [
        {"key": 1, "text": "good"},
        *({"key": f"q{at}", "text": "x"} for at in range(9)),
        {"key": None, "text": "x"},
    ]
    for number in (10, 11):
        tally = Tally()
        tally.count(read(tmp_path, rows[:number], lane))
        assert tally.is_poor == (number == 11)
    assert tally.describe() == (
        "only 1 of 11 recorded answers could be joined to a prompt; 10 are no_such_prompt, such as "
        "answers.jsonl:2: no prompt in scope has the source_row 'q0'"
    )


def test_a_text_of_several_columns_is_that_of_a_prompt_with_an_input(tmp_path: Path, lane: Provenance) -> None:
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
def test_an_answer_may_be_parts_a_message_or_the_end_of_a_conversation(
    tmp_path: Path, lane: Provenance, answer: Any
) -> None:
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
def test_a_conversation_names_its_prompt_itself(tmp_path: Path, lane: Provenance, conversation: Any) -> None:
    rows = [{"c": conversation}, {"c": turns("a", "b", "c", "d")}]
    landed = read(tmp_path, rows, lane, join="prompt_text", columns={"text": None, "key": None, "messages": "c"})
    assert landed.rows.select("prompt_id", "text").rows() == [("p1", "Because")]
    assert "the row names no prompt" in landed.rejections["detail"][0]


def test_reasoning_is_kept_apart(tmp_path: Path, lane: Provenance) -> None:
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
        (turns("Why?", "x", refusal="no"), "has the unknown key 'refusal'"),
        ([{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "y"}}], "only text can be used"),
        (turns("Why?", "x", content=None), "turn 1 of 'text' is the assistant's and has no content"),
    ],
)
def test_an_answer_that_is_more_than_text_is_rejected(tmp_path: Path, lane: Provenance, answer: Any, said: str) -> None:
    landed = read(tmp_path, [{"key": 1, "text": "good"}, {"key": 1, "text": answer}], lane, source="mine")
    assert landed.rejections["reason"].to_list() == ["invalid_row"]
    assert said in landed.rejections["detail"][0]


def test_an_absent_column_is_a_null_one(tmp_path: Path, lane: Provenance) -> None:
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


def test_a_compressed_file_in_utf_16_is_read(tmp_path: Path, lane: Provenance) -> None:
    path = tmp_path / "answers.CSV.gz"
    path.write_bytes(gzip.compress("key,text\n1,لأن\n".encode("utf-16")))
    columns = {"text": "text", "key": "key"}
    landed = join(path, lane, rows_of(PROMPTS), PROMPTS, columns=columns, source="mine")
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


def test_a_wrong_mapping_is_refused(tmp_path: Path, lane: Provenance) -> None:
    with pytest.raises(InputError, match="no field 'answer'"):
        read(tmp_path, [{"key": 1, "text": "x"}], lane, columns={"text": "answer"})


def test_ids_are_the_same_each_time_and_stay_when_the_file_grows(tmp_path: Path, lane: Provenance) -> None:
    rows = [{"key": 1, "text": str(number)} for number in range(5)]
    before, after = read(tmp_path, rows, lane), read(tmp_path, [*rows, {"key": 1, "text": "new"}], lane)
    assert after.rows.head(5).equals(before.rows)
    assert after.rows["sample_index"].to_list() == list(range(6))


ANY = st.text(st.characters(exclude_categories=()), max_size=15)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.fixed_dictionaries({"key": st.one_of(st.integers(0, 3), ANY, st.none()), "text": ANY}), max_size=8))
def test_every_row_is_joined_or_rejected(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    lane = Provenance("s", "m", "f")
    landed = read(tmp_path_factory.mktemp("any"), [{"key": 1, "text": "good"}, *rows], lane)
    assert landed.rejections["row_id"].is_unique().all()
    assert landed.rows["completion_id"].is_unique().all()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("blank", ["", "\n", "\n  \n"])
def test_rows_are_counted_and_not_lines(world: World, suffix: str, blank: str) -> None:
    """The number of a row is the same whatever blank lines the file has; a line that cannot be read is a row."""
    lines = ['{"q": "First?"}', "{torn", '{"q": "Third?"}']
    if suffix == ".csv":
        lines = ["q,n", "First?,1", "Second?,2,2", "Third?,3"]
        blank = blank.replace(" ", "")  # white space is a field of a CSV
    (world.folder / f"a{suffix}").write_text(f"\n{blank}".join([*lines, ""]), encoding="utf-8")
    world.read(
        PromptSource.model_validate(
            {"name": "a", "path": str(world.folder / f"a{suffix}"), "columns": {"prompt": "q"}, "language": "en"}
        )
    )
    answers = [{"id": 3, "a": "to third"}, {"id": 1, "a": "to first"}, {"id": 4, "a": "to none"}]
    assert world.questions(world.join(answers)) == {"to third": "Third?", "to first": "First?"}


@pytest.mark.parametrize("split", ["train", "train[-1:]", "train[:1]+train[3:]", "train[50%:]", "all"])
@pytest.mark.parametrize("kind", ["saved", "files"])
def test_a_slice_keeps_the_numbers_of_the_whole_split(
    world: World, monkeypatch: pytest.MonkeyPatch, split: str, kind: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", world.folder / "cache")
    # What was saved of a larger data set still says how large that was.
    info = datasets.DatasetInfo.from_dict({"splits": [{"name": "train", "num_examples": 9}]})
    rows = datasets.Dataset.from_dict({"q": [f"Number {number}?" for number in range(1, 5)]}, info=info)
    if kind == "saved":
        datasets.DatasetDict({"train": rows}).save_to_disk(str(world.folder / "set"))
    else:
        (world.folder / "set").mkdir()
        rows.to_json(str(world.folder / "set" / "train.jsonl"))
    source = {"name": "a", "dataset": str(world.folder / "set"), "split": split, "columns": {"prompt": "q"}}
    world.read(PromptSource.model_validate(source | {"language": "en"}))
    joined = world.questions(world.join([{"id": number, "a": f"to {number}"} for number in range(1, 5)]))
    assert joined.items() <= {f"to {number}": f"Number {number}?" for number in range(1, 5)}.items()
    assert len(joined) == {"train[-1:]": 1, "train[:1]+train[3:]": 2, "train[50%:]": 2}.get(split, 4)


def test_rows_of_several_splits_have_the_names_of_these(world: World) -> None:
    parts = {
        name: datasets.Dataset.from_dict({"q": [f"{name} {at}" for at in (1, 2, 3)]}) for name in ("train", "test")
    }
    datasets.DatasetDict(parts).save_to_disk(str(world.folder / "set"))
    source = {"name": "a", "dataset": str(world.folder / "set"), "columns": {"prompt": "q"}, "language": "en"}
    world.read(PromptSource.model_validate(source | {"split": "test[2:]+train"}))
    landed = world.join([{"id": "test:3", "a": "x"}, {"id": "train:1", "a": "y"}, {"id": 3, "a": "z"}])
    assert world.questions(landed) == {"x": "test 3", "y": "train 1"}
    with pytest.raises(InputError, match=r"answers\.jsonl:1 of the recorded answers has the key 'test:0'"):
        world.join([{"id": "test:0", "a": "x"}])
    with pytest.raises(
        InputError, match=r"split 'test\[:2\]\+test\[1:\]' of dataset .* selects rows of 'test' more than"
    ):
        world.read(PromptSource.model_validate(source | {"split": "test[:2]+test[1:]"}))


@pytest.mark.parametrize("zero", [0, "0", 0.0])
def test_a_file_that_counts_rows_from_0_is_refused(world: World, zero: Any) -> None:
    world.add("a", [{"q": f"Number {number}?"} for number in range(4)], columns={})
    answers = [{"id": 1, "a": "x"}, {"id": zero, "a": None}, {"id": 2, "a": "y"}]
    refused = (
        r"answers\.jsonl:2 of the recorded answers has the key '0'; the rows of a source without ids are counted from 1"
    )
    with pytest.raises(InputError, match=refused):
        world.join(answers)
    assert len(world.join([answers[0], answers[2], {"id": 10, "a": "z"}]).rows) == 2
    world.add("b", [{"id": "one", "q": "One?"}])
    with pytest.raises(InputError, match=refused):
        world.join(answers)  # of a, since b has no such id
    world.join(answers, source="b")
    world.add("c", [{"id": 0, "q": "Zero?"}])
    assert "z" in world.questions(world.join([{"id": 0, "a": "z"}]))


def asking(*texts: str, system: str = "") -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


@pytest.mark.parametrize("by", ["id", "number", "text"])
@pytest.mark.parametrize("column", ["messages", "text"])
def test_the_question_that_an_answer_brings_along_is_that_of_its_prompt(world: World, by: str, column: str) -> None:
    prompts = {1: ["Why?"], 2: ["How?"], 3: ["Hi", "Hello", "Go on"], 4: ["What?"]}
    rows = [{"id": at, "m": asking(*turns, system="S")} for at, turns in prompts.items()]
    world.add("a", rows, columns={"prompt": None, "messages": "m"} | ({"id": "id"} if by == "id" else {}))
    key = {at: turns[0] if by == "text" else at for at, turns in prompts.items()}
    answers = [
        {"id": key[1], "a": asking(" Why?\n", "right", system="Translated")},
        {"id": key[2], "a": asking("Why?", "that of 1")},
        {"id": key[3], "a": asking("Hi", "after one turn")},
        {"id": key[3], "a": asking("Hi", "Hello", "Go on", "after three")},
        {"id": key[4], "a": {"role": "assistant", "content": "without"}},
    ]
    landed = world.join(
        answers, columns={column: "a", "key": "id"}, join="prompt_text" if by == "text" else "source_row"
    )
    right = {"right": "Why?", "without": "What?"} | ({} if by == "text" else {"after three": "Go on"})
    assert world.questions(landed) == right
    wrong = landed.rejections.filter(pl.col("reason") == "other_question")["detail"].to_list()
    assert len(wrong) == (1 if by == "text" else 2)
    assert "answers.jsonl:2: the row asks 'Why?' (4 characters, turn 1 of 1), " in wrong[0]
    assert "but the prompt of its key asks 'How?' (4 characters, turn 1 of 1)" in wrong[0]
    assert wrong[1:] == [] or "turn 1 of 3" in wrong[1]


def test_the_question_of_a_translation_is_that_of_the_translation(tmp_path: Path, lane: Provenance) -> None:
    rows = [
        {"key": 1, "l": "ar", "m": asking("لماذا؟ ", "لأن")},
        {"key": 1, "l": "ar", "m": asking("كيف؟", "هكذا")},
    ]
    path = write_rows(tmp_path / "answers.jsonl", rows)
    columns = {"messages": "m", "key": "key", "language": "l"}
    landed = join(path, lane, rows_of(PROMPTS), PROMPTS, columns=columns)
    assert landed.rows.select("prompt_id", "text").rows() == [("p1-ar", "لأن")]
    assert landed.rejections["reason"].to_list() == ["other_question"]


@pytest.mark.parametrize("column", ["messages", "text"])
def test_an_answer_that_is_not_to_be_learnt_from_is_rejected(tmp_path: Path, lane: Provenance, column: str) -> None:
    answers = [[{"role": "assistant", "content": f"of {weight}", "weight": weight}] for weight in (0, 1, 0.0)]
    rows = [{"key": 1, "a": answer} for answer in answers]
    path = write_rows(tmp_path / "answers.jsonl", rows)
    landed = join(path, lane, rows_of(PROMPTS), PROMPTS, columns={column: "a", "key": "key"})
    assert landed.rows["text"].to_list() == ["of 1"]
    assert landed.rejections["reason"].to_list() == ["invalid_row"] * 2
    assert "the answer in 'a' has weight 0, so it must not be trained on" in landed.rejections["detail"][0]
