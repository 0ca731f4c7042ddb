"""Files of every kind, compression and encoding give the same rows to prompts, recorded answers and training."""

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.inputs.files import read_file_columns, read_file_rows
from factory.inputs.finding import find_files
from schemas.errors import InputError

ROWS = [
    {"id": "1", "text": "متى؟ 為什麼？", "language": "ar"},
    {"id": "2", "text": 'A "quoted", two-\nline e\u0301', "language": "en"},
    {"id": "3", "text": "क्यों 一二三", "language": "hi"},
]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".zst": zstd, ".ZST": zstd, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


def as_csv(delimiter: str) -> str:
    return pl.DataFrame(ROWS).write_csv(separator=delimiter)


TEXTS = {
    ".jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    ".ndjson": "\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    ".JSONL": "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS),
    ".json": json.dumps(ROWS, ensure_ascii=False),
    ".Json": json.dumps(ROWS, ensure_ascii=False, indent=2),
    "-lines.json": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS),
    "-pretty.json": "\n".join(json.dumps(row, ensure_ascii=False, indent=1) for row in ROWS),
    "-data.json": json.dumps({"version": "1", "about": ["x"], "data": ROWS}, ensure_ascii=False),
    "-rows.json": json.dumps({"rows": ROWS, "count": 3}, indent=1),
    ".csv": as_csv(","),
    ".CSV": as_csv(","),
    ".tsv": as_csv("\t"),
}


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(path: Path | str, **options: Any) -> list[Any]:
    rows = list(read_file_rows(str(path), ["text", "id"], **options))
    assert not [row.fault for row in rows if row.fault]
    return [row.value for row in rows]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("ending", TEXTS)
def test_every_kind_and_compression_gives_the_same_rows(tmp_path: Path, ending: str, compression: str) -> None:
    path = write(tmp_path / f"a{ending}{compression}", COMPRESS[compression](TEXTS[ending].encode()))
    assert read(path) == ROWS
    assert read_file_columns(str(path)) == list(ROWS[0])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".csv.gz"])
def test_a_byte_order_mark_is_believed(tmp_path: Path, ending: str, encoding: str) -> None:
    data = TEXTS[ending.removesuffix(".gz")].encode(encoding)
    assert read(write(tmp_path / f"a{ending}", gzip.compress(data) if ending.endswith(".gz") else data)) == ROWS


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv.zst"])
def test_two_bytes_a_character_without_a_mark_are_one_sentence(tmp_path: Path, ending: str, encoding: str) -> None:
    data = TEXTS[ending.removesuffix(".zst")].encode(encoding)
    path = write(tmp_path / f"a{ending}", zstd(data) if ending.endswith(".zst") else data)
    with pytest.raises(InputError) as refused:
        read(path)
    assert str(refused.value) == (
        f"{path} is {encoding} without a byte order mark; save it as UTF-8, as `iconv -f {encoding} -t UTF-8` does"
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv"])
def test_bytes_of_an_older_encoding_are_a_rejection_that_says_what_to_do(
    tmp_path: Path, ending: str, encoding: str
) -> None:
    lines = ['{"id": 1, "text": "fine"}', '{"id": 2, "text": "café"}'] if "js" in ending else ["id\ttext", "2\tcafé"]
    text = "\n".join(lines).replace("\t", "," if ending == ".csv" else "\t")
    path = write(tmp_path / f"a{ending}", text.encode(encoding))
    faults = [row.fault for row in read_file_rows(str(path), ["text", "id"]) if row.fault]
    assert [fault.reason.value for fault in faults] == ["invalid_text"]
    assert faults[0].detail.startswith("not UTF-8: byte 0xe9; convert a file in Latin-1 or Windows-1252 with `iconv")


@pytest.mark.parametrize("compression", [".gz", ".zst", ".bz2", ".xz"])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path: Path, compression: str) -> None:
    whole = COMPRESS[compression]("".join(json.dumps({"id": n, "text": str(n**9)}) + "\n" for n in range(999)).encode())
    for data in (whole[: len(whole) // 2], b"no such thing" * 9):
        with pytest.raises(InputError, match=r"a\.jsonl\.\w+ cannot be read"):
            read(write(tmp_path / f"a.jsonl{compression}", data))


STREAMS: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    ".gz": (gzip.compress, b"\0" * 8),
    ".bz2": (bz2.compress, b"\0" * 8),
    ".xz": (lzma.compress, b"\0" * 8),
    ".zst": (zstd, b""),  # which has no padding
}


@pytest.mark.parametrize("compression", STREAMS)
def test_the_streams_of_a_file_are_all_read_or_it_is_refused(tmp_path: Path, compression: str) -> None:
    """As parallel compressors write them."""
    compress, padding = STREAMS[compression]
    rows = [{"id": number, "text": f"{number}" * 9} for number in range(900)]
    first, second, third = (
        compress("".join(json.dumps(row) + "\n" for row in rows[at : at + 300]).encode()) for at in (0, 300, 600)
    )
    path = tmp_path / f"a.jsonl{compression}"
    for whole in (first + second + third, first + padding + second + padding + third + padding):
        assert [row.value for row in read_file_rows(str(write(path, whole)), ["id", "text"])] == rows
    zeroed = bytes(4) + second[4:]
    for bad in (zeroed, second[1:], b"#" + second[1:], second[: len(second) // 2], b"stray"):
        with pytest.raises(InputError, match=r"a\.jsonl\.\w+ cannot be read"):
            read(write(path, first + bad + third))
        with pytest.raises(InputError, match=r"a\.jsonl\.\w+ cannot be read"):
            read(write(path, first + third + bad))


def test_a_stray_line_is_a_rejection_wherever_it_is(tmp_path: Path) -> None:
    good = TEXTS[".jsonl"].splitlines()
    for ending in (".jsonl", ".json", ".ndjson"):
        for stray in ("# made on Monday", '["id", "text"]', "{torn"):
            for at in range(3):
                lines = [*good[:at], stray, *good[at:]]
                rows = list(read_file_rows(str(write(tmp_path / f"a{ending}", "\n".join(lines).encode())), ["text"]))
                assert [row.fault is not None for row in rows] == [line == stray for line in lines]
                assert read_file_columns(str(tmp_path / f"a{ending}")) == list(ROWS[0])


@pytest.mark.parametrize(
    "text", ['[{"id": 1}, {"id": 2]', '[{"id": 1} {"id": 2}]', '{"data": [{"id": 1},', '[{"a": nul}]']
)
def test_a_list_that_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "a.json", text.encode())
    with pytest.raises(InputError, match=r"a\.json cannot be read: not JSON"):
        list(read_file_rows(str(path), ["id"]))


def test_a_folder_is_its_shards(tmp_path: Path) -> None:
    for number, name in enumerate(["b/x.jsonl.gz", "a/x.JSONL.gz"]):
        line = json.dumps(ROWS[number]).encode()
        write(tmp_path / "set" / name, gzip.compress(line))
    for name in ("README.md", "_SUCCESS", ".a.jsonl.crc", ".cache/b.jsonl", "dataset_info.json"):
        write(tmp_path / "set" / name, b"{}")
    rows = list(read_file_rows(str(tmp_path / "set"), ["text"]))
    assert [(row.row, row.value) for row in rows] == [("a/x.JSONL.gz:1", ROWS[1]), ("b/x.jsonl.gz:1", ROWS[0])]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.jsonl", "b.csv"], r"contains files of the kinds csv and jsonl; choose files by a glob"),
        (["train-0.jsonl", "test-0.jsonl"], r"contains the splits test and train; choose"),
        (["train/0.jsonl", "validation/0.jsonl"], r"contains the splits train and validation; choose"),
        (["state.json", "data.arrow"], r"is a data set saved to disk"),
        (["notes.md"], r"no file in .* can be read; allowed are \.parquet, \.jsonl"),
    ],
)
def test_a_folder_that_is_not_one_table_is_refused(tmp_path: Path, names: list[str], said: str) -> None:
    for name in names:
        write(tmp_path / "set" / name, b"{}")
    with pytest.raises(InputError, match=said):
        find_files(str(tmp_path / "set"))


def test_words_in_names_are_no_splits(tmp_path: Path) -> None:
    for name in ("training-devices-0.jsonl", "latest.jsonl", "evaluate.jsonl"):
        write(tmp_path / "set" / name, b"{}")
    assert len(find_files(str(tmp_path / "set"))[0]) == 3


@pytest.mark.parametrize("ending", [".parquet.gz", ".txt", ".gz", ".jsonl.zip", ""])
def test_other_kinds_are_refused(tmp_path: Path, ending: str) -> None:
    with pytest.raises(InputError, match=r"is of a kind that cannot be read; allowed are \.parquet, \.jsonl"):
        read(write(tmp_path / f"a{ending}", b""))


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".jsonl"])
def test_an_optional_column_may_be_absent_and_a_needed_one_not(tmp_path: Path, kind: str) -> None:
    frame, path = pl.DataFrame({"text": ["x"], "id": ["1"], "more": [None]}), tmp_path / f"a{kind}"
    write: dict[str, Callable[[Path], object]] = {
        ".parquet": frame.write_parquet,
        ".csv": frame.write_csv,
        ".jsonl": frame.write_ndjson,
    }
    write[kind](path)
    assert read(path, optional=["system", "meta.id"])[0]["text"] == "x"


@pytest.mark.parametrize(("ending", "compress"), [(".jsonl.zst", zstd), (".json.gz", gzip.compress)])
def test_memory_does_not_follow_the_size_of_a_file(tmp_path: Path, ending: str, compress: Any) -> None:
    line = json.dumps({"id": "1", "text": "x" * 2000})
    text = f"[{','.join([line] * 20_000)}]" if "json." in ending else f"{line}\n" * 20_000
    path = write(tmp_path / f"a{ending}", compress(text.encode()))
    del text
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_file_rows(str(path), ["id"])) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=4), min_size=2, max_size=6)


@settings(max_examples=100, deadline=None)
@given(OBJECTS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from(["list", "data", "lines"]))
def test_any_json_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], indent: int | None, ascii_only: bool, form: str
) -> None:
    def dump(value: Any) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=ascii_only)

    text = {"list": dump(rows), "data": dump({"n": 1, "data": rows}), "lines": "\n".join(map(dump, rows))}[form]
    path = write(tmp_path_factory.mktemp("any") / "a.json", text.encode(errors="replace"))
    assert [row.value for row in read_file_rows(str(path), [])] == json.loads(
        dump(rows).encode(errors="replace").decode()
    )
