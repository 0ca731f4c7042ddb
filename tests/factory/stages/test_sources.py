import csv
import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.inputs.files import read_file_rows
from factory.stages.sources import RAW_ROWS, read_source
from schemas.errors import InputError
from schemas.languages import LANGUAGES, find_language
from schemas.recipe.prompts import PromptSource


def make_source(path: Path | str, **columns: str) -> PromptSource:
    chosen = None if "language" in columns else "en"
    return PromptSource.model_validate({"name": "mine", "path": str(path), "columns": columns, "language": chosen})


def read(source: PromptSource) -> list[dict[str, Any]]:
    return pl.concat([pl.DataFrame(schema=RAW_ROWS), *read_source(source)]).to_dicts()


def write_jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def first_texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["messages"][-1]["content"] for row in rows]


ROWS = [
    {"id": 7, "text": "What is dew?", "lang": "en", "nested": {"turns": ["سؤال", "b"]}},
    {"id": 8, "text": 'A "quoted", two-\nline one', "lang": "ja", "nested": {"turns": ["質問", "b"]}},
]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "tsv"])
def test_reads_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pl.DataFrame(ROWS).write_parquet(path)
    elif kind == "jsonl":
        write_jsonl(path, ROWS)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if kind == "tsv" else ",")
            writer.writerow(["id", "text", "lang"])
            writer.writerows([row["id"], row["text"], row["lang"]] for row in ROWS)
    rows = read(make_source(path, prompt="text", id="id", language="lang"))
    assert [row["source_row"] for row in rows] == ["7", "8"]
    assert [row["row"] for row in rows] == ["1", "2"]
    assert [row["language"] for row in rows] == ["en", "ja"]
    assert first_texts(rows) == [row["text"] for row in ROWS]
    assert [row["reason"] for row in rows] == [None, None]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_dots_reach_into_fields_and_lists(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pl.DataFrame(ROWS).write_parquet(path)
    else:
        write_jsonl(path, ROWS)
    assert first_texts(read(make_source(path, prompt="nested.turns.0"))) == ["سؤال", "質問"]


def test_a_column_whose_name_holds_a_dot_comes_first(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"a.b": "flat", "a": {"b": "deep"}}])
    assert first_texts(read(make_source(path, prompt="a.b"))) == ["flat"]


def test_columns_by_number_mean_no_header(tmp_path: Path) -> None:
    path = tmp_path / "mgsm.tsv"
    path.write_text("Wie viel ist 2+2?\t4\nUnd 3+3?\t6\n", encoding="utf-8")
    assert first_texts(read(make_source(path, prompt="0"))) == ["Wie viel ist 2+2?", "Und 3+3?"]


def test_a_glob_reads_all_files_in_order_and_names_rows_by_file(tmp_path: Path) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl"):
        (tmp_path / name).parent.mkdir()
        write_jsonl(tmp_path / name, [{"q": name}, {"q": "again"}])
    rows = read(make_source(f"{tmp_path}/*/x.jsonl", prompt="q"))
    assert [row["row"] for row in rows] == ["a/x.jsonl:1", "a/x.jsonl:2", "b/x.jsonl:1", "b/x.jsonl:2"]
    assert rows[0]["messages"][0]["content"] == "a/x.jsonl"


@pytest.mark.parametrize("pattern", ["*.jsonl", "part-[0-9].jsonl", "*/x.jsonl"])
def test_a_folder_whose_name_has_brackets_is_no_glob(tmp_path: Path, pattern: str) -> None:
    for folder in ("exp1", "exp[1]"):
        for name in ("part-2.jsonl", "deep/x.jsonl"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(tmp_path / folder / name, [{"q": folder}])
    rows = read(make_source(tmp_path / "exp[1]" / pattern, prompt="q"))
    assert first_texts(rows) == ["exp[1]"]
    assert not rows[0]["row"].startswith("exp")
    assert first_texts(read(make_source(tmp_path / "exp[0-9]" / pattern, prompt="q"))) == ["exp1"]


def test_conversations_keep_their_turns_and_lose_a_final_answer(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because"},
    ]
    path = write_jsonl(tmp_path / "a.jsonl", [{"m": turns, "s": "Be brief."}, {"m": turns[:1], "s": None}])
    rows = read(make_source(path, messages="m", system="s"))
    assert rows[0]["messages"] == [{"role": "system", "content": "Be brief."}, *turns[:3]]
    assert rows[1]["messages"] == turns[:1]


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        ({"q": 3}, "invalid_row", "must be text, got int"),
        ({"r": "x"}, "invalid_row", "no field 'q'"),
        ([1], "invalid_row", "a JSON object is needed"),
        ({"q": "a\0b"}, "invalid_text", "null character at position 1"),
        ({"q": "a\ud800"}, "invalid_text", "U+D800"),
        ({"q": "x", "id": "\udfff"}, "invalid_text", "U+DFFF"),
    ],
)
def test_one_bad_row_is_rejected_with_its_place(tmp_path: Path, value: object, reason: str, said: str) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", [{"q": "fine", "id": 1}, {"id": 2} | value if isinstance(value, dict) else value]
    )
    rows = read(make_source(path, prompt="q", id="id"))
    assert rows[0]["reason"] is None
    assert rows[1]["reason"] == reason
    assert said in rows[1]["detail"]
    assert "a.jsonl:2" in rows[1]["detail"]
    assert rows[1]["messages"] is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [(b'{"q": "torn', "invalid_row"), (b'{"q": "\xff"}', "invalid_text"), (b"[" * 9999, "invalid_row")],
)
def test_an_unreadable_line_is_rejected(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"q": "one"}\n\n' + line + b'\n{"q": "two"}')
    rows = read(make_source(path, prompt="q"))
    assert [(row["row"], row["reason"]) for row in rows] == [("1", None), ("2", reason), ("3", None)]
    assert "a.jsonl:3: " in rows[1]["detail"]  # its line


def test_a_csv_row_of_another_width_and_bytes_that_are_no_utf8_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"q,n\nfine,1\nshort\n\xff,2\n")
    assert [row["reason"] for row in read(make_source(path, prompt="q"))] == [None, "invalid_row", "invalid_text"]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_file_whose_every_row_is_no_utf8_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    lines = ['{"q": "café"}', '{"q": "où"}'] if kind == "jsonl" else ["q", "café", "où"]
    path.write_bytes("\n".join(lines).encode("latin-1"))
    with pytest.raises(InputError, match=rf"no row of 'mine' can be read; first row: a\.{kind}:\d: not UTF-8: .*0xe9"):
        read(make_source(path, prompt="q"))
    path.write_bytes("\n".join([*lines, lines[-1].replace("où", "fine")]).encode("latin-1"))
    assert [row["reason"] for row in read(make_source(path, prompt="q"))] == ["invalid_text", "invalid_text", None]


@pytest.mark.parametrize(("kind", "separator"), [("csv", ","), ("tsv", "\t")])
def test_a_column_that_a_header_has_twice_is_refused_where_it_is_asked_for(
    tmp_path: Path, kind: str, separator: str
) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text("\n".join(map(separator.join, ["iqni", "1a12"])), encoding="utf-8")
    for columns in ({"prompt": "q", "id": "i"}, {"prompt": "i"}):
        with pytest.raises(InputError, match=rf"a\.{kind} has the column 'i' 2 times; column names must differ"):
            read(make_source(path, **columns))
    assert first_texts(read(make_source(path, prompt="q", id="n"))) == ["a"]


def test_a_field_that_a_json_object_has_twice_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "a", "id": 1}\n{"id": 1, "q": "b", "id": 2}\n{"q": {"x": 1, "x": 2}}\n', encoding="utf-8")
    rows = read(make_source(path, prompt="q", id="id"))
    assert [row["reason"] for row in rows] == [None, "invalid_row", "invalid_row"]
    assert "a.jsonl:2: not JSON: the field 'id' occurs twice" in rows[1]["detail"]


def test_half_of_a_surrogate_pair_in_json_is_no_byte(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"q": "caf\udce9"}])
    assert "half of a surrogate pair, U+DCE9" in read(make_source(path, prompt="q"))[0]["detail"]


def test_quotes_that_are_not_well_formed_are_ordinary_characters_in_a_tsv(tmp_path: Path) -> None:
    texts = ["Plain", '"Quoted" word', '"To be, or not to be?', "Four", '"Whole"', 'a 19" screen']
    path = tmp_path / "a.tsv"
    path.write_text("\ufeffn\tq\n" + "".join(f"{at}\t{text}\n" for at, text in enumerate(texts)), encoding="utf-8")
    assert first_texts(read(make_source(path, prompt="q"))) == texts
    assert first_texts(read(make_source(path, prompt="1"))) == ["q", *texts]


@pytest.mark.parametrize("header", ["q\ta\n", ""])
@pytest.mark.parametrize(
    "rows",
    [
        ['"Never mind, he said\tanswer one', "q two\tfine", 'q three"\tanswer three'],
        ['q one\t"he said', 'q two\t"fine"', 'he"\tanswer three'],
        ["plain\tone", '2 "\ttwo', '"three\tq', "broken", 'four"\tfour'],
        ['"A\tb', "", "c\td", "broken", 'e\tf"', 'g\t"h"'],
    ],
)
def test_quotes_that_would_join_whole_rows_are_ordinary_characters_in_a_tsv(
    tmp_path: Path, header: str, rows: list[str]
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(header + "\n".join(rows), encoding="utf-8")
    found = read(make_source(path, prompt="q" if header else "0"))
    expected = [row.split("\t") for row in rows if row]
    assert [row["reason"] for row in found] == [
        None if len(row) == 2 or not header else "invalid_row" for row in expected
    ]
    assert first_texts([row for row in found if row["messages"]]) == [
        row[0] for row in expected if len(row) == 2 or not header
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(2, 3).flatmap(
        lambda width: st.lists(st.lists(st.text('ab" ', max_size=3), min_size=width, max_size=width), min_size=1)
    )
)
def test_no_line_of_a_tsv_without_quoting_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    found = None
    with suppress(InputError):
        found = len(list(read_file_rows(str(path), ["0"])))
    assert found in {None, len(rows)}
    assert found or not all(map(all, rows))  # none is refused but for fields without text


def test_quotes_around_line_breaks_and_tabs_are_those_of_fields_in_a_tsv(tmp_path: Path) -> None:
    texts = ["two\nlines", "a\ttab", "a\ttable\nof\tfour", 'He said "no"\n\n\n', "Plain", "one\n\ttwo\n\tthree\t4\n"]
    path = tmp_path / "a.tsv"
    for names in (["q", "n"], ["n", "q"], ["n", "q", "m", "k"]):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names, delimiter="\t")
            writer.writeheader()
            writer.writerows({name: text if name == "q" else "1" for name in names} for text in texts)
        assert first_texts(read(make_source(path, prompt="q"))) == texts


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('q\nplain\n"one\ntwo"\n', 3),  # a single column
        ('make\ta\nhow\t"all:\n\tcc"\n', 2),  # a line that begins with a tab
        ('q\ta\n"two\nlines"\tx\n\n"Never\tone\nmind"\ttwo\n', 5),  # quotes of both kinds
    ],
)
def test_quotes_that_may_be_either_are_refused_in_a_tsv_with_their_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(text, encoding="utf-8")
    refused = rf"a\.tsv:{line}: the text between quotes may be one field or parts of several rows; save the file"
    with pytest.raises(InputError, match=refused):
        read(make_source(path, prompt="0"))


@pytest.mark.parametrize("row", ['2,"Unclosed', '2,"Quoted" word', '2,"Unclosed\n3,fine\n4,"Closed"'])
def test_quotes_that_are_not_well_formed_are_refused_in_a_csv_with_their_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'n,q\n1,"two ""quoted""\nlines"\n\n{row}\n5,fine\n', encoding="utf-8")
    assert first_texts(read(make_source(path, prompt="q").model_copy(update={"limit": 1}))) == ['two "quoted"\nlines']
    with pytest.raises(InputError, match=r"a\.csv:5: a quoted field has no closing quote, or text after it"):
        read(make_source(path, prompt="q"))
    path.write_text(f"{row}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.csv:1: a quoted field"):
        read(make_source(path, prompt="q"))


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ("text", "must be a list"),
        ([{"from": "human"}], "turn 0 of 'm' is the user's and has no content"),
        ([{"content": "x"}], "must be {role, content}"),
        ([{"role": "tool", "content": "x"}], "uses tools"),
        ([{"role": "user", "content": ["x"]}], "must be {type, text}, got 'x'"),
        ([{"role": "user", "content": "x"}, {"role": "system", "content": "x"}], "first only"),
    ],
)
def test_conversations_of_another_shape_are_refused(tmp_path: Path, turns: object, said: str) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"m": turns}])
    with pytest.raises(InputError, match=r"a\.jsonl:1") as refused:
        read(make_source(path, messages="m"))
    assert said in str(refused.value)


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_missing_column_names_the_file_the_column_and_what_there_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    frame = pl.DataFrame({"prompt": ["x"], "n": [1]})
    write: dict[str, Callable[[Path], object]] = {
        "parquet": frame.write_parquet,
        "csv": frame.write_csv,
        "jsonl": frame.write_ndjson,
    }
    write[kind](path)
    with pytest.raises(InputError) as refused:
        read(make_source(path, prompt="promt"))
    assert f"a.{kind}" in str(refused.value)
    assert "'promt'" in str(refused.value)
    assert "'prompt', 'n'" in str(refused.value)


def test_missing_and_unknown_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").touch()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(InputError, match="no file at"):
        read(make_source(tmp_path / "*.csv", prompt="q"))
    with pytest.raises(InputError, match=r"allowed are \.parquet"):
        read(make_source(tmp_path / "a.xlsx", prompt="q"))
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        read(make_source(tmp_path / "a.parquet", prompt="q"))


def test_reading_is_lazy_and_stops_at_the_limit(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ({"q": str(number)} for number in range(50)))
    source = make_source(path, prompt="q")
    frames = read_source(source, batch_rows=20)
    assert len(next(frames)) == 20
    assert [len(frame) for frame in frames] == [20, 10]
    assert len(read(source.model_copy(update={"limit": 7}))) == 7


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    rows = {"inputs": ["Why?", "Wozu?"], "language": ["English", "German"], "id": ["a", "b"], "extra": [[1], [2]]}
    datasets.DatasetDict({"test": datasets.Dataset.from_dict(rows)}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_reads_a_saved_dataset(saved: Path) -> None:
    columns = {"prompt": "inputs", "language": "language", "id": "id"}
    source = PromptSource.model_validate({"name": "s", "dataset": str(saved), "split": "test", "columns": columns})
    rows = read(source)
    assert [(row["source_row"], row["language"]) for row in rows] == [("a", "en"), ("b", "de")]
    with pytest.raises(InputError, match="split 'train'"):
        read(source.model_copy(update={"split": "train"}))
    with pytest.raises(InputError, match="no column 'input'"):
        read(source.model_copy(update={"columns": source.columns.model_copy(update={"prompt": "input"})}))


def test_reads_a_folder_of_data_files_as_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"q": "Why?"}])
    source = PromptSource.model_validate(
        {"name": "s", "dataset": str(tmp_path / "data"), "columns": {"prompt": "q"}, "language": "en"}
    )
    assert first_texts(read(source)) == ["Why?"]


@pytest.mark.parametrize(
    ("row", "columns", "language"),
    [
        (
            {"question_id": "q", "category": "c", "subcategory": "s", "prompt": "p", "language": "de"},
            {"prompt": "prompt", "id": "question_id", "language": "language"},
            "de",
        ),
        (
            {"inputs": "p", "targets": "t", "language": "Iranian Persian", "language_code": "pes", "user_id": "u"},
            {"prompt": "inputs", "language": "language_code"},
            "fa",
        ),
        (
            {"id": 1, "inputs": "p", "targets": "t", "language": "arb", "script": "Arab"},
            {"prompt": "inputs", "id": "id", "language": "language"},
            "ar",
        ),
        (
            {"language": "Greek", "country": "Greece", "question": "p", "option_a": "a", "answer": 0},
            {"prompt": "question", "language": "language"},
            "el",
        ),
    ],
)
def test_shapes_that_users_bring(tmp_path: Path, row: dict[str, Any], columns: dict[str, str], language: str) -> None:
    found = read(make_source(write_jsonl(tmp_path / "a.jsonl", [row]), **columns))[0]
    assert found["language"] == language
    assert found["messages"] == [{"role": "user", "content": "p"}]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *((language.flores, code) for code, language in LANGUAGES.items()),
        *((language.name, code) for code, language in LANGUAGES.items()),
        ("zh-CN", "zh"),
        ("zh_TW", "zh-Hant"),
        ("zh-Hant-HK", "zh-Hant"),
        *((f"{code}-Hans-{place}", "zh") for code in ("zh", "cmn", "zho") for place in ("CN", "TW", "HK", "MO", "TWN")),
        *((f"{code}_Hant_{place}", "zh-Hant") for code in ("zh", "cmn") for place in ("CN", "SG", "TW", "CHN")),
        ("zh-HK-Hans", "zh"),
        ("zh-Hani-TW", "zh-Hant"),
        ("zh_TWN", "zh-Hant"),
        ("zho-SGP", "zh"),
        ("zh-cmn-Hans", "zh"),
        ("zh-cmn-TW", "zh-Hant"),
        *((f"zh-{name}", None) for name in ("yue", "min-nan", "min", "wuu", "hak", "yue-Hant-HK", "Hant-yue", "Latn")),
        ("zh-Hans-Hant", None),
        ("ar-arb", "ar"),
        ("ara_EGY", "ar"),
        ("ar-arz", None),
        ("fa-prs", None),
        ("fas_IRN", "fa"),
        ("hi-Latn", None),
        ("hin_Deva_IN", "hi"),
        ("hin_IND", "hi"),
        ("es-PER", "es"),
        ("ja-Latn-JP", None),
        ("ja_Jpan", "ja"),
        ("ko-Kore-KR", "ko"),
        ("Chinese (Traditional)", "zh-Hant"),
        ("pt-BR", "pt"),
        ("EN-us", "en"),
        ("arb", "ar"),
        ("fas", "fa"),
        ("Iranian Persian", "fa"),
        ("Klingon", None),
        ("arz", None),
        ("", None),
    ],
)
def test_language_names(name: str, code: str | None) -> None:
    assert find_language(name) == code


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=20), max_size=8))
def test_every_row_comes_back_whatever_its_text(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = write_jsonl(tmp_path_factory.mktemp("any") / "a.jsonl", ({"q": text} for text in texts))
    rows = read(make_source(path, prompt="q"))
    assert len(rows) == len(texts)
    for row, text in zip(rows, texts, strict=True):
        if row["reason"] is None:
            assert row["messages"][0]["content"] == text
        else:
            assert row["reason"] == "invalid_text"
            assert "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_any_language_name_is_answered(name: str) -> None:
    assert find_language(name) in {None, *LANGUAGES}
