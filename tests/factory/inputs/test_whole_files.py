"""Every row of a file or folder is read or rejected, however the file holds them; what may be meant in two ways is refused."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.inputs.files import RawRow, read_file_columns, read_file_rows
from factory.stages.recorded import open_recorded
from factory.stages.sources import RAW_ROWS, read_source
from factory.training.data.reading import Rejected, TextRow, read_rows
from schemas.errors import InputError
from schemas.recipe.models import Recorded
from schemas.recipe.prompts import PromptSource
from schemas.recipe.training import TrainSettings

ROWS = [
    {"id": n, "prompt": text, "completion": "e\u0301"} for n, text in enumerate(["متى؟", "為什麼？", "क्यों", "why]["])
]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def raw(path: Path, *columns: str) -> list[RawRow]:
    return list(read_file_rows(str(path), columns or ("prompt",)))


def values(path: Path, *columns: str) -> list[Any]:
    rows = raw(path, *columns)
    assert [row.fault for row in rows if row.fault] == []
    return [row.value for row in rows]


def train_on(path: Path, **given: Any) -> list[TextRow | Rejected]:
    chosen = TrainSettings.model_validate({"model": "m", "data": str(path), "objective": "sft", **given})
    return list(read_rows(chosen, str(path), "train"))


def prompts_of(path: Path, **given: Any) -> list[dict[str, Any]]:
    place = given if "dataset" in given else {"path": str(path), **given}
    source = PromptSource.model_validate({"name": "mine", "language": "en", **place})
    return pl.concat([pl.DataFrame(schema=RAW_ROWS), *read_source(source)]).to_dicts()


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("between", ["\n", "", " \n\n"])
def test_lists_one_after_another_are_read_to_the_end(tmp_path: Path, between: str, indent: int | None) -> None:
    lists: tuple[list[Any], ...] = (ROWS[:2], [], ROWS[2:])
    path = write(tmp_path / "a.json", between.join(json.dumps(part, indent=indent) for part in lists))
    assert values(path) == ROWS
    assert [row.row for row in raw(path)] == ["1", "2", "3", "4"]
    assert read_file_columns(str(path)) == list(ROWS[0])


def test_lists_and_rows_may_follow_one_another(tmp_path: Path) -> None:
    texts = [json.dumps(ROWS[:2], indent=1), json.dumps(ROWS[2], indent=1), json.dumps(ROWS[3:], indent=1)]
    assert values(write(tmp_path / "a.json", "\n".join(texts))) == ROWS
    assert values(write(tmp_path / "b.json", "\n".join(texts[1:] + texts[:1]))) == [*ROWS[2:], *ROWS[:2]]


@pytest.mark.parametrize("stray", ["garbage here", "]", "{torn", ", 1"])
@pytest.mark.parametrize("form", ["list", "data"])
def test_what_follows_the_rows_and_is_none_is_refused_with_its_line(tmp_path: Path, form: str, stray: str) -> None:
    text = json.dumps(ROWS, indent=1) if form == "list" else json.dumps({"data": ROWS}, indent=1)
    path = write(tmp_path / "a.json", f"{text}\n{stray}")
    with pytest.raises(InputError, match=rf"a\.json cannot be read: .*in line {text.count(chr(10)) + 2}\b"):
        raw(path)


@pytest.mark.parametrize(
    "found",
    [
        {"data": ROWS[:2], "rows": ROWS[2:]},
        {"rows": ROWS[:2], "n": 4, "others": ROWS[2:]},
        {"columns": [{"name": "id"}], "data": ROWS},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_with_several_lists_of_objects_is_refused(tmp_path: Path, found: Any, indent: int | None) -> None:
    path = write(tmp_path / "a.json", json.dumps(found, indent=indent))
    lists = " and ".join(repr(key) for key, value in found.items() if isinstance(value, list))
    with pytest.raises(InputError, match=f"a.json is one object with the lists {lists}; its rows must be in one list"):
        raw(path)
    with pytest.raises(InputError, match="is one object with the lists"):
        read_file_columns(str(path))


def test_lists_are_compared_though_the_second_begins_far_behind_the_first(tmp_path: Path) -> None:
    many = [{"id": n, "prompt": "x" * 1000} for n in range(2000)]
    path = write(tmp_path / "a.json", json.dumps({"data": many, "rows": ROWS}))
    with pytest.raises(InputError, match="the lists 'data' and 'rows'"):
        raw(path)
    path = write(tmp_path / "b.json", json.dumps({"data": many, "prompt": "?"}))
    with pytest.raises(InputError, match="the list 'data' and 'prompt' beside it"):
        raw(path)
    path = write(tmp_path / "c.json", json.dumps({"data": many, "version": 1, "of": ["a"]}))
    assert len(values(path)) == 2000


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("key", ["data", "rows", "examples", "instances"])
def test_a_row_with_a_list_of_objects_is_a_row(tmp_path: Path, key: str, indent: int | None) -> None:
    rows: list[dict[str, Any]] = [
        {key: [{"q": "ب"}], "prompt": "?", "id": 1},
        {"id": 2, "prompt": "!", key: [{"q": "1"}]},
    ]
    for found in (rows[:1], rows[1:], rows):
        path = write(tmp_path / "a.json", "\n".join(json.dumps(row, indent=indent) for row in found))
        assert values(path) == found
        assert [prompt["messages"][0]["content"] for prompt in prompts_of(path)] == [row["prompt"] for row in found]


def test_a_column_of_any_name_makes_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"q": "?", "data": [{"a": 1}]}))
    assert values(path, "q") == [{"q": "?", "data": [{"a": 1}]}]


def test_an_object_that_may_be_a_row_or_hold_them_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps({"prompt": "how these were made", "data": ROWS}, indent=1))
    said = "is one object with the list 'data' and 'prompt' beside it, so it may be a row or contain the rows"
    with pytest.raises(InputError, match=said):
        raw(path)
    with pytest.raises(InputError, match=said):
        prompts_of(path)


DEEP = "[" * 600 + "]" * 600
BIG = "1" * 5000
BAD = {"nested": DEEP, "deeply nested": "[" * 20_000 + "]" * 20_000, "digits": BIG, "null character": '"a\0b"'}


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.json", "list.json", "data.json", "pretty.json"])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_value_that_cannot_be_kept_is_one_rejection(tmp_path: Path, name: str, bad: str, at: int) -> None:
    texts = [json.dumps(row, indent=1 if name == "pretty.json" else None) for row in ROWS[:2]]
    texts.insert(at, '{\n"prompt": "?", "more": {"]": BAD, "of": "\\"]}"}}'.replace("BAD", BAD[bad]))
    if "lines" in name:
        texts[at] = texts[at].replace("\n", "")
    forms = {"list.json": f"[{', '.join(texts)}]", "data.json": f'{{"data": [{", ".join(texts)}]}}'}
    path = write(tmp_path / name, forms.get(name, "\n".join(texts) + "\n"))
    rows = raw(path)
    assert [row.fault.reason.value if row.fault else row.value for row in rows] == [
        *ROWS[:at], "invalid_row", *ROWS[at:2]
    ]  # fmt: skip
    assert [row["reason"] is None for row in prompts_of(path)] == [row.fault is None for row in rows]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("is_text", [False, True])
def test_tools_and_calls_nested_without_end_are_one_rejection(tmp_path: Path, is_text: bool, suffix: str) -> None:
    def nest(depth: int) -> Any:
        value: Any = {"type": "string"}
        for _ in range(depth):
            value = {"type": "object", "properties": {"a": value}}
        return value

    def row(of_tool: int, of_call: int) -> dict[str, Any]:
        call: Any = {"id": "1", "type": "function", "function": {"name": "f", "arguments": nest(of_call)}}
        tools: Any = [{"type": "function", "function": {"name": "f", "parameters": nest(of_tool)}}]
        if is_text:
            call["function"]["arguments"] = json.dumps(nest(of_call))
        turns: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        as_text = is_text or suffix == ".parquet"
        return {
            "messages": json.dumps(turns) if as_text else turns,
            "tools": json.dumps(tools) if as_text else tools,
        }

    found = [row(45, 45), row(300, 1), row(1, 250), row(120, 120)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pl.DataFrame(found).write_parquet(path)
    else:
        write(path, "\n".join(map(json.dumps, found)) + "\n")
    rows = train_on(path)
    assert [type(one) for one in rows] == [TextRow, Rejected, Rejected, Rejected]
    assert {one.reason.value for one in rows if isinstance(one, Rejected)} == {"invalid_row"}
    assert all("nested more than 100 deep" in one.detail for one in rows if isinstance(one, Rejected))
    with pytest.raises(InputError, match=r"no row of 'mine' can be read; first row: .*:1: the conversation uses tools"):
        prompts_of(path)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("holder", ["body", "custom.body"])
def test_what_belongs_to_a_conversation_is_looked_for_beside_it(tmp_path: Path, suffix: str, holder: str) -> None:
    turns = [{"role": "user", "content": "متى؟"}, {"role": "assistant", "content": "הערב"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    bodies: list[dict[str, Any]] = [
        {},
        {"tools": json.dumps(tools)},
        {"functions": "[]"},
        {"images": ["a.png"]},
        {"documents": ["b"]},
    ]
    rows: list[Any] = [{"messages": turns} | body for body in bodies]
    for step in reversed(holder.split(".")):
        rows = [{step: row} for row in rows]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    else:
        write(path, "".join(json.dumps(row) + "\n" for row in rows))
    found = train_on(path, columns={"messages": f"{holder}.messages"})
    assert [type(row) for row in found] == [TextRow, TextRow, TextRow, Rejected, Rejected]
    assert [list(row.tools) for row in found if isinstance(row, TextRow)] == [[], tools, []]
    faults = [row.detail.split(": ", 1)[1] for row in found if isinstance(row, Rejected)]
    assert faults == [f"the row has '{holder}.{name}', which cannot be used" for name in ("images", "documents")]
    asked = prompts_of(path, columns={"messages": f"{holder}.messages"})
    assert [row["reason"] for row in asked] == [None, "invalid_row", None, "invalid_row", "invalid_row"]
    assert f"'{holder}.images'" in asked[3]["detail"]


def test_a_field_that_is_twice_in_a_text_of_turns_is_a_rejection(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"messages": '[{"role": "user", "content": "a", "content": "b"}]'}))
    (found,) = train_on(path)
    assert isinstance(found, Rejected)
    assert "the field 'content' occurs twice" in found.detail


EMPTY = {
    ".jsonl": ["", "\n\n"], ".json": ["", "[]", '{"data": []}'], ".csv": ["", "prompt,completion\n"], ".tsv": [""]
}  # fmt: skip


@pytest.mark.parametrize(("suffix", "text"), [(suffix, text) for suffix in EMPTY for text in EMPTY[suffix]])
def test_shards_without_rows_are_passed_over(tmp_path: Path, suffix: str, text: str) -> None:
    write(tmp_path / f"set/part-0{suffix}", text)
    write(tmp_path / f"set/part-2{suffix}", text)
    row = {"prompt": "?", "completion": "!"}
    full = pl.DataFrame([row]).write_csv(separator="\t" if suffix == ".tsv" else ",")
    write(tmp_path / f"set/part-1{suffix}", full if "sv" in suffix else json.dumps(row))
    assert [prompt["messages"] for prompt in prompts_of(tmp_path / "set")] == [[{"role": "user", "content": "?"}]]
    assert [(one.prompt, one.answers) for one in train_on(tmp_path / "set") if isinstance(one, TextRow)] == [
        ("?", ("!",))
    ]
    assert read_file_columns(str(tmp_path / "set")) == list(row)


@pytest.mark.parametrize(
    ("suffix", "text"), [(suffix, text) for suffix in EMPTY for text in EMPTY[suffix] if "," not in text]
)
def test_a_file_without_rows_is_refused_as_such(tmp_path: Path, suffix: str, text: str) -> None:
    path = write(tmp_path / f"a{suffix}", text)
    for reader in (prompts_of, train_on):
        with pytest.raises(InputError, match=rf"a\{suffix} has no rows$"):
            reader(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            json.dumps({"prompt": "?", "completion": "!"}, indent=1),
            "only in a .json file may an object span several",
        ),
        (
            json.dumps([{"prompt": "?", "completion": "!"}], indent=1),
            "only in a .json file may an object span several",
        ),
        ("prompt,completion\n?,!\n", "not JSON: Expecting value"),
        ('["prompt"]\n', "a JSON object is needed on each line, got list"),
        ("{}\n", "the row has no fields"),
    ],
)
def test_a_file_of_which_no_line_is_a_row_says_what_the_first_is(tmp_path: Path, text: str, said: str) -> None:
    path = write(tmp_path / "a.jsonl", text)
    for reader in (prompts_of, train_on):
        with pytest.raises(
            InputError, match=rf"no row of .*a\.jsonl can be read; first row: a\.jsonl:1: .*{re.escape(said)}"
        ):
            reader(path)
    if text.startswith(("{\n", "[\n")):
        with pytest.raises(InputError, match=re.escape(said)):
            prompts_of(path, columns={"prompt": "prompt"})


def test_white_space_in_a_header_can_be_seen(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id, prompt,completion \n1,?,!\n")
    said = re.escape("'id', ' prompt', 'completion ' (with the white space in ' prompt', 'completion ')")
    with pytest.raises(InputError, match=f"has the columns {said}"):
        prompts_of(path)
    for column in ({"prompt": "prompt"}, {"prompt": " prompt", "id": "completion"}):
        with pytest.raises(InputError, match=f"there are {said}"):
            prompts_of(path, columns=column)
    with pytest.raises(InputError, match=f"there are {said}"):
        train_on(path, columns={"prompt": "prompt", "completion": "completion"})


def test_parquet_shards_without_rows_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    full = pl.DataFrame([{"prompt": "?", "completion": "!"}])
    for name, frame in (("a", pl.DataFrame()), ("b", full.clear()), ("c", full)):
        frame.write_parquet(tmp_path / "set" / f"{name}.parquet")
    assert [type(row) for row in train_on(tmp_path / "set")] == [TextRow]
    assert len(prompts_of(tmp_path / "set")) == 1
    (tmp_path / "set" / "c.parquet").unlink()
    assert read_file_columns(str(tmp_path / "set")) == ["prompt", "completion"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_training_on_files_of_several_kinds_is_refused_as_it_is_for_prompts(tmp_path: Path, split: str) -> None:
    write(tmp_path / "set/a.jsonl", json.dumps(ROWS[0]) + "\n")
    write(tmp_path / "set/b.csv", "prompt,completion\n?,!\n")
    said = r"set contains files of the kinds csv and jsonl; choose files by a glob"
    chosen = TrainSettings.model_validate({"model": "m", "data": "x", "objective": "sft"})
    with pytest.raises(InputError, match=said):
        list(read_rows(chosen, str(tmp_path / "set"), split))
    with pytest.raises(InputError, match=said):
        prompts_of(tmp_path / "set")
    with pytest.raises(InputError, match=said):
        prompts_of(tmp_path, dataset=str(tmp_path / "set"), split=split)


def test_files_of_several_kinds_may_be_told_apart_by_the_card_of_the_data_set(tmp_path: Path) -> None:
    write(tmp_path / "set/a.jsonl", json.dumps(ROWS[0]) + "\n")
    write(tmp_path / "set/b.csv", "prompt,completion\n?,!\n")
    write(tmp_path / "set/README.md", "---\nconfigs:\n- config_name: default\n  data_files: a.jsonl\n---\n")
    assert [row.prompt for row in train_on(tmp_path / "set") if isinstance(row, TextRow)] == ["متى؟"]


def test_everybody_reads_of_a_folder_what_its_card_names(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name in "abc":
        write(folder / f"{name}.jsonl", json.dumps({"id": name, "prompt": name, "completion": name}) + "\n")
    card = "---\nconfigs:\n- config_name: one\n  data_files: [c.jsonl, a.jsonl]\n{}---\n"
    write(folder / "README.md", card.format(""))
    assert [row.prompt for row in train_on(folder) if isinstance(row, TextRow)] == ["c", "a"]
    for where in ({}, {"dataset": str(folder)}):
        found = prompts_of(tmp_path if where else folder, **where)
        assert [row["messages"][0]["content"] for row in found] == ["c", "a"]
    recorded = Recorded.model_validate({"path": str(folder), "columns": {"text": "completion", "key": "id"}})
    assert [row.value["completion"] for row in open_recorded(recorded) if row.value] == ["c", "a"]
    assert [row.row for row in open_recorded(recorded)] == ["c.jsonl:1", "a.jsonl:1"]
    write(folder / "README.md", card.format("  encoding: latin-1\n"))
    with pytest.raises(InputError, match=r"sets options for reading its files \(encoding\); give it as a data set"):
        prompts_of(folder)
    write(folder / "README.md", card.format("- config_name: two\n  data_files: b.jsonl\n"))
    with pytest.raises(InputError, match="available configs: \\['one', 'two'\\]"):
        prompts_of(folder)
    write(
        folder / "README.md",
        "---\nconfigs:\n- config_name: one\n  data_files:\n  - split: x\n    path: a.jsonl\n  - split: y\n    path: b.jsonl\n---\n",
    )
    with pytest.raises(InputError, match="set contains the splits x and y; choose files by a glob"):
        prompts_of(folder)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_null_character_in_a_small_file_is_the_fault_of_its_row(tmp_path: Path, name: str) -> None:
    for text in ("prompt\nhel\0lo\nfine\n", "prompt\nhell\0o\nfine\n", "prompt\n\0a\0b\0c\nfine\n"):
        path = write(tmp_path / name, text)
        assert [row["reason"] for row in prompts_of(path, columns={"prompt": "prompt"})] == ["invalid_text", None]


TURNS = [{"role": "user", "content": "متى؟"}]
SAID = [{"role": "assistant", "content": "為什麼"}]


@pytest.mark.parametrize("column", ["completion", "response"])
@pytest.mark.parametrize("form", ["openai", "sharegpt"])
def test_turns_as_json_text_are_turns(tmp_path: Path, column: str, form: str) -> None:
    sharegpt = ([{"from": "human", "value": "متى؟"}], [{"from": "gpt", "value": "為什麼"}])
    asked, said = (TURNS, SAID) if form == "openai" else sharegpt
    path = write(tmp_path / "a.jsonl", json.dumps({"prompt": json.dumps(asked), column: json.dumps(said)}))
    (found,) = train_on(path)
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (TURNS, (SAID,))
    assert prompts_of(path)[0]["messages"] == TURNS
    (found,) = train_on(path, format="text")
    assert isinstance(found, TextRow)
    assert found.prompt == json.dumps(asked)


def test_turns_as_json_text_may_be_answered_by_a_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"prompt": json.dumps(TURNS), "completion": "為什麼"}))
    (found,) = train_on(path)
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (TURNS, (SAID,))


@pytest.mark.parametrize(
    "prompt", ["[1, 2]", '[{"role": "admin", "content": "x"}]', '[{"role": "user"}]', '["role"]', "[{", "[] is empty"]
)
def test_json_that_is_no_turns_stays_a_text(tmp_path: Path, prompt: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"prompt": prompt, "completion": json.dumps(SAID)}))
    assert prompts_of(path)[0]["messages"] == [{"role": "user", "content": prompt}]
    (found,) = train_on(path)
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (prompt, (json.dumps(SAID),))


def test_a_transcript_in_the_column_of_prompts_is_turns(tmp_path: Path) -> None:
    text = "\n\nHuman: a\n\nAssistant: b\n\nHuman: متى؟\n\nAssistant:"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, *TURNS]
    path = write(tmp_path / "a.jsonl", json.dumps({"prompt": text, "response": "為什麼"}))
    assert prompts_of(path)[0]["messages"] == turns
    (found,) = train_on(path)
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (turns, (SAID,))
    path = write(tmp_path / "b.jsonl", json.dumps({"prompt": text, "completion": "為什麼"}))
    (found,) = train_on(path)
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (turns, (SAID,))
    (found,) = train_on(path, format="text")
    assert isinstance(found, TextRow)
    assert (found.prompt, found.answers) == (text, ("為什麼",))


NAMES = st.sampled_from(["id", "prompt", "data", "rows", "n"])
LISTS = st.lists(st.dictionaries(NAMES, st.integers() | st.text(max_size=3), min_size=1), max_size=3)
FILES = st.lists(LISTS | st.dictionaries(NAMES, st.integers() | LISTS, min_size=1), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(FILES, st.sampled_from([None, 1]))
def test_no_value_of_a_file_is_ever_lost(
    tmp_path_factory: pytest.TempPathFactory, found: list[Any], indent: int | None
) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a.json", "\n".join(json.dumps(one, indent=indent) for one in found))
    try:
        rows = raw(path)
    except InputError as error:
        if "is one object with the list" not in str(error):
            raise
        return
    spread = [row for one in found for row in (one if isinstance(one, list) else [one])]
    if [row.value for row in rows] == spread:
        return
    if len(found) == 1 and isinstance(found[0], dict):  # one object that holds the rows
        assert "prompt" not in found[0]
        assert [row.value for row in rows] in found[0].values()
    else:  # a list that stands on one line among rows that do
        assert [row.value for row in rows] == [None if isinstance(one, list) else one for one in found]
        assert all(row.fault for row in rows if row.value is None)
