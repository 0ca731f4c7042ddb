"""Rows of Parquet, JSON and CSV files and of Hugging Face datasets as plain dictionaries, one at a time."""

import csv
import glob
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from factory.engines.base import Failure
from factory.inputs.folders import has_card_with_files, list_data_files, refuse_several, refuse_several_kinds
from factory.inputs.hf_datasets import find_folder_files, find_labels, is_saved_dataset, name_labels, number_rows
from factory.inputs.json_lists import Form, JsonListError, JsonStream, find_form
from factory.inputs.json_values import parse_json
from factory.inputs.opening import ALLOWED, DAMAGES, find_kind, open_text
from factory.inputs.text_faults import find_byte_fault
from schemas.errors import InputError
from schemas.reasons import Reason
from schemas.toml.paths import is_path, split_glob

if TYPE_CHECKING:
    from factory.inputs.row import Row

Stamp: TypeAlias = tuple[str, int, int, int]
"""A file's path, number on its disk, bytes, and time of its last change in nanoseconds."""

_BATCH_ROWS = 1000

_LOOKED_AT_ROWS = 100
"""So many rows say which columns a file of JSON objects has."""

_SPLIT = re.compile(r"(?:^|[^a-z])(train|test|eval|validation|valid|val|dev)(?![a-z])")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read: its ``value``, or the ``fault`` that kept it from being read.

    ``row`` is unique within the source: the row's number, counted from 1 in the file or split (``12``), after its name
    where a glob, folder or sum may give several (``b.jsonl:12``, ``test:12``). Blank lines are not rows. ``where`` says
    the place in words for a person, by its line where a file has lines.
    """

    row: str
    where: str
    value: "Row | None"
    fault: Failure | None = None


def read_file_rows(pattern: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[RawRow]:
    """Yield the rows of every file that a path, folder or glob names, in the order of the files' names.

    Of Parquet only the ``columns`` are read, and the ``optional`` ones that a file has. A CSV or TSV file whose
    ``columns`` are all asked for by number, from 0, has no header line; else the header may have a column that is asked
    for but once. Both may hold quoted fields, with quotes in them written twice. In a TSV file where any is not well
    formed, or would join lines that are whole rows, every quote is an ordinary character.

    Raises:
        InputError: a file is missing, is of no known kind, cannot be read, or lacks a column or has it twice, or a
            quoted field of a CSV file is not well formed.
    """
    paths, base = find_files(pattern)
    for path in paths:
        prefix = "" if base is None else f"{path.relative_to(base).as_posix()}:"
        for number, place, value, fault in _read_file(path, columns, optional):
            yield RawRow(f"{prefix}{number}", f"{path.name}:{place}", value, fault)


def read_file_columns(pattern: str, known: Collection[str] = ()) -> list[str]:
    """Return the columns of the first file with rows that a path, folder or glob names; of JSON those of its first objects.

    Where no file has rows, they are those of the first that has columns. A JSON file that is one object with one of the
    ``known`` columns is one row, whatever lists it has.

    Raises:
        InputError: a file is missing, is of no known kind, or cannot be read; or none has a column.
    """
    headers: list[str] = []
    for path in find_files(pattern)[0]:
        found, has_rows = _find_columns(path, known)
        if has_rows:
            return found
        headers = headers or found
    if headers:
        return headers
    first = next(read_file_rows(pattern, list(known)), None)
    if first is None:
        raise InputError(f"{pattern} has no rows")
    why = first.fault.detail if first.fault else "a row has no fields"
    raise InputError(f"no row of {pattern} can be read; the first: {first.where}: {why}")


def _find_columns(path: Path, known: Collection[str]) -> tuple[list[str], bool]:
    """Return the columns of a file, and whether it has rows."""
    match find_kind(path):
        case "parquet":
            return _columns_of_parquet(path), _has_rows(path)
        case "csv" | "tsv":
            records = list(islice(_read_headers(path), 2))
            return records[0] if records else [], len(records) > 1
        case _:
            rows = (value for _, _, value, _ in _read_file(path, list(known), ()) if value is not None)
            found = list(dict.fromkeys(name for row in islice(rows, _LOOKED_AT_ROWS) for name in row))
            return found, bool(found)


def refuse_absent(pattern: str, needed: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse columns that no row has: then a column's name is wrong, not a row. Rows are read until each was there.

    Raises:
        InputError: a column is in no row, though there are rows; or a file cannot be read.
    """
    lacking, names = list(columns), dict[str, None]()
    for raw in read_file_rows(pattern, needed, columns) if columns else ():
        lacking = [column for column in lacking if raw.value is None or not _has(raw.value, column)]
        if not lacking:
            return
        names |= dict.fromkeys(raw.value or ())
    if names:
        raise InputError(
            f"no row of {pattern} has a column '{lacking[0]}'; there are {show_columns(read_file_columns(pattern, needed))}"
        )


def _has(row: "Row", column: str) -> bool:
    try:
        find_value(row, column)
    except LookupError:
        return False
    return True


def read_dataset_rows(
    dataset: Any, name: str, columns: Sequence[str], optional: Sequence[str] = (), *, split: str
) -> Iterator[RawRow]:
    """Yield the rows of what ``open_dataset`` returned for ``name`` and ``split``. Class labels come as their names.

    Raises:
        InputError: the dataset lacks a column.
    """
    tops = find_top_columns(columns, dataset.column_names, f"dataset '{name}'")
    tops = list(dict.fromkeys([*tops, *_find_optional(optional, dataset.column_names)]))
    labels = find_labels(dataset.features.to_dict())
    numbers = number_rows(dataset, split)
    for batch in dataset.select_columns(tops).iter(batch_size=_BATCH_ROWS):
        for values in zip(*(batch[top] for top in tops), strict=True):
            number = next(numbers)
            yield RawRow(number, f"{name}:{number}", _with_names(dict(zip(tops, values, strict=True)), labels))


def find_value(row: "Row", column: str) -> object:
    """Return the value of a column; dots reach into nested fields and, by number, into lists.

    Raises:
        LookupError: there is no such field; the message says what there is instead.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        match value:
            case dict() if part in value:
                value = value[part]
            case list() if part.lstrip("-").isdecimal() and -len(value) <= int(part) < len(value):
                value = value[int(part)]
            case dict():
                raise LookupError(
                    f"no field '{part}' for column '{column}'; there are {', '.join(map(repr, value)) or 'none'}"
                )
            case list():
                raise LookupError(f"no item '{part}' for column '{column}'; the list has {len(value)}")
            case _:
                raise LookupError(
                    f"no field '{part}' for column '{column}' in {type(value).__name__} {str(value)[:40]!r}"
                )
    return value


def find_top_columns(columns: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    """Return the columns of a table that hold the asked ones, which may be nested in them.

    Raises:
        InputError: the table lacks one.
    """
    tops: dict[str, None] = {}
    for column in columns:
        parts = column.split(".")
        top = next((top for end in range(len(parts), 0, -1) if (top := ".".join(parts[:end])) in names), None)
        if top is None:
            raise InputError(f"{where} has no column '{column}'; there are {show_columns(names)}")
        tops[top] = None
    return list(tops)


def show_columns(names: Sequence[str]) -> str:
    """Return the names of columns for a sentence, with what makes them other than they look.

    That is white space around them, which is a part of them, or a delimiter within the only one.
    """
    spaced = [name for name in names if name != name.strip()]
    hint = f" (with the white space in {', '.join(map(repr, spaced))})" if spaced else ""
    if len(names) == 1 and any(sign in names[0] for sign in ";\t"):
        hint = " (one column: commas separate the fields of a CSV file, tabs those of a TSV file)"
    return ", ".join(map(repr, names)) + hint


def is_on_hub(data: str) -> bool:
    """Whether a name is that of a data set of the hub: no file or folder has it, and it has the form of none."""
    return not (is_path(data) or find_kind(Path(data)) or glob.has_magic(data) or Path(data).exists())


def find_files(pattern: str) -> tuple[list[Path], Path | None]:
    """Return the files that a path, folder or glob names, by name, and, but for a path, the folder above all of them.

    A file or folder of that very name comes before what its brackets would stand for in a glob. Of a folder those
    files count that the card of its data set names, in their order, and without a card all that can be read.

    Raises:
        InputError: there is none, or one is of no known kind, or a folder holds more than the shards of one table.
    """
    if Path(pattern).is_file():
        paths, base = [Path(pattern)], None
    elif Path(pattern).is_dir():
        base = Path(pattern)
        paths = _find_shards(base)
    else:
        base, below = split_glob(pattern)
        paths = sorted(path for path in base.glob(below) if path.is_file())
    if not paths:
        raise InputError(f"no file at {pattern}")
    for path in paths:
        if find_kind(path) is None:
            raise InputError(f"{path} is not a kind of file that can be read; allowed are {ALLOWED}")
    return paths, base


def _find_shards(folder: Path) -> list[Path]:
    if is_saved_dataset(folder):
        raise InputError(f"{folder} is a data set saved to disk, not a folder of files; name it as a data set")
    if has_card_with_files(folder):
        return _list_by_card(folder)
    paths = list_data_files(folder)
    if not paths:
        raise InputError(f"no file in {folder} can be read; allowed are {ALLOWED}")
    names = [path.relative_to(folder).as_posix().lower() for path in paths]
    refuse_several_kinds(folder, paths)
    refuse_several(folder, "the splits", {match[1] for name in names if (match := _SPLIT.search(name))})
    return paths


def _list_by_card(folder: Path) -> list[Path]:
    found = find_folder_files(folder)
    refuse_several(folder, "the splits", set(found.splits))
    if found.options:
        raise InputError(
            f"the card of the data set in {folder} says how its files are read ({', '.join(found.options)}); "
            "name it as a data set, or the wanted files by a glob"
        )
    return list(chain(*found.splits.values()))


def stamp_files(pattern: str) -> list[Stamp]:
    """Return a stamp of each file that a path or glob names; it is another one once the file was written to.

    Raises:
        InputError: there is none, or one is of no known kind or cannot be opened.
    """
    try:
        return [_stamp(path) for path in find_files(pattern)[0]]
    except OSError as error:
        raise InputError(f"{pattern} cannot be read: {error}") from error


def _stamp(path: Path) -> Stamp:
    with path.open("rb") as file:  # a network disk tells the latest times only of a file that is opened
        found = os.fstat(file.fileno())
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns


Place: TypeAlias = "tuple[int, str, Row | None, Failure | None]"


def _read_file(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Place]:
    kind = find_kind(path)
    try:
        if kind == "parquet":
            yield from _read_parquet(path, columns, optional)
        elif kind in {"csv", "tsv"}:
            yield from _read_csv(path, columns, optional)
        else:
            yield from _read_json(path, columns)
    except DAMAGES as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _read_parquet(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Place]:
    import polars as pl  # the trainer, which reads its rows here, mostly has no use for it

    names = _columns_of_parquet(path)
    if not names:
        return  # what is written of a frame without columns, which has no rows either
    tops = list(dict.fromkeys([*find_top_columns(columns, names, str(path)), *_find_optional(optional, names)]))
    numbers = count(1)
    try:
        described = json.loads(pl.read_parquet_metadata(path).get("huggingface", "{}"))
        labels = find_labels(described.get("info", {}).get("features") or {})
        for batch in pl.scan_parquet(path, glob=False).select(tops).collect_batches(chunk_size=_BATCH_ROWS, lazy=True):
            for row in batch.iter_rows(named=True):
                number = next(numbers)
                yield number, str(number), _with_names(row, labels), None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _with_names(row: "Row", labels: Mapping[str, object]) -> "Row":
    """Return a row with its class labels by name; ``labels`` are the features of the columns that have some."""
    return row | {column: name_labels(row[column], labels[column]) for column in labels if column in row}


def _columns_of_parquet(path: Path) -> list[str]:
    import polars as pl

    try:
        return list(pl.read_parquet_schema(path))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _has_rows(path: Path) -> bool:
    import polars as pl

    return bool(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def _find_optional(columns: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """Yield the columns of a table that hold those of the asked ones that it has."""
    for column in columns:
        parts = column.split(".")
        yield from (top for end in range(len(parts), 0, -1) if (top := ".".join(parts[:end])) in names)


def _read_json(path: Path, columns: Collection[str]) -> Iterator[Place]:
    try:
        form = Form("lines")
        if find_kind(path) == "json":
            with open_text(path) as file:
                form = find_form(file, columns)
        with open_text(path) as file:
            yield from _read_lines(file) if form.kind == "lines" else _read_values(JsonStream(file), form, columns)
    except JsonListError as error:
        raise InputError(f"{path} {error}") from error


def _read_lines(file: TextIO) -> Iterator[Place]:
    lines = ((place, line) for place, line in enumerate(file, start=1) if line.strip())
    for number, (place, line) in enumerate(lines, start=1):
        yield number, str(place), *_parse_object(line, "on each line")


def _read_values(stream: JsonStream, form: Form, columns: Collection[str]) -> Iterator[Place]:
    texts = stream.rows() if form.kind == "values" else stream.rows_of_object(form, columns)
    for number, text in enumerate(texts, start=1):
        yield number, str(number), *_parse_object(text, "for each row")


def _parse_object(text: str, where: str) -> "tuple[Row | None, Failure | None]":
    fault = find_byte_fault(text)
    if fault is not None:
        return None, fault
    try:
        value = parse_json(text)
    except ValueError as error:
        hint = "; only in a .json file an object may go on over several lines" if text.strip() in {"{", "["} else ""
        return None, Failure(Reason.INVALID_ROW, f"no JSON: {error}{hint}")
    if isinstance(value, dict):
        return value, None
    detail = f"a JSON object is needed {where}, got {type(value).__name__} {str(value)[:40]!r}"
    return None, Failure(Reason.INVALID_ROW, detail)


def _read_headers(path: Path) -> Iterator[list[str]]:
    with open_text(path, newline="") as file:
        for _, fields in _open_records(path, file):
            yield fields


def _open_records(path: Path, file: TextIO) -> Iterator[tuple[str, list[str]]]:
    """Yield a file's records. Most programs that write TSV do not quote: their quotes are ordinary characters."""
    csv.field_size_limit(sys.maxsize)
    if find_kind(path) == "csv":
        return _records(path, csv.reader(file, strict=True))
    if _is_quoted(_stamp(path)):
        return _records(path, csv.reader(file, delimiter="\t", strict=True))
    return _records(path, csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _read_csv(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Place]:
    asked = [*columns, *optional]
    with open_text(path, newline="") as file:
        records = _open_records(path, file)
        has_header = not columns or not all(column.isdecimal() for column in columns)
        header = next((fields for _, fields in records), None) if has_header else None
        if header is not None:
            _refuse_twice(find_top_columns(columns, header, str(path)), header, path)
            _refuse_twice([column for column in optional if column in header], header, path)
        for number, (place, fields) in enumerate(records, start=1):
            names = header if header is not None else [str(at) for at in range(len(fields))]
            if len(fields) != len(names):
                detail = f"the header has {len(names)} columns, this row {len(fields)}"
                yield number, place, None, Failure(Reason.INVALID_ROW, detail)
                continue
            row = dict(zip(names, fields, strict=True))
            fault = find_byte_fault("".join(row.get(column, "") for column in asked))
            yield number, place, None if fault else row, fault


def _refuse_twice(columns: Sequence[str], header: Sequence[str], path: Path) -> None:
    """Refuse a header that has one of the asked columns more than once: nobody can say which of them is meant."""
    twice = next((column for column in columns if header.count(column) > 1), None)
    if twice is not None:
        raise InputError(
            f"{path} has the column '{twice}' {header.count(twice)} times; a column's name must be its own"
        )


@lru_cache(maxsize=10_000)
def _is_quoted(stamp: Stamp) -> bool:
    """Whether the quotes in a TSV file are those around fields; remembered, since this reads the file to its end.

    Ordinary quotes may stand as those around a field do, by chance, and then take whole rows for a part of it.

    Raises:
        InputError: nothing tells, or some quotes look like the one and some like the other.
    """
    path, signs = Path(stamp[0]), set[bool | None]()
    try:
        with open_text(path, newline="") as file:
            for line, sign in _find_signs(file):
                signs.add(sign)
                if sign is None or len(signs) > 1:
                    raise InputError(
                        f"{path}:{line}: what stands between quotes here may be one field or parts of several rows; save "
                        "the file as JSON, or as CSV, where quotes always surround a field"
                    )
    except csv.Error:
        return False
    return False not in signs


def _find_signs(file: TextIO) -> Iterator[tuple[int, bool | None]]:
    """Yield what the records with line breaks or tabs between quotes tell of these, each with the number of its first line.

    False: they are ordinary characters. True: they are around a field. None: they may be either.
    """
    kept: list[str] = []
    first: tuple[int, int] | None = None  # how wide the first record is, if tabs alone count, and if quotes do
    reader = csv.reader(_keep(file, kept), delimiter="\t", strict=True)
    for fields in reader:
        lines = kept.copy()
        kept.clear()
        if not fields:
            continue
        first = first or (lines[0].count("\t") + 1, len(fields))
        if len(lines) == 1 and lines[0].count("\t") + 1 == len(fields):
            continue
        ends = [line.rstrip("\r\n").split("\t") for line in (lines[0], lines[-1])]
        are_rows = {len(end) for end in ends} == {first[0]} and (first[0] > 1 or first[1] == 1)
        is_row = len(fields) == first[1]
        is_doubtful = first[0] == 1 or not all(map(all, ends))  # a line of code may begin with a tab
        if are_rows or is_row:
            yield reader.line_num - len(lines) + 1, None if are_rows and is_row and is_doubtful else not are_rows


def _keep(lines: Iterable[str], kept: list[str]) -> Iterator[str]:
    for line in lines:
        kept.append(line)
        yield line


def _records(path: Path, lines: Iterable[list[str]]) -> Iterator[tuple[str, list[str]]]:
    reader = iter(lines)
    while True:
        begin = reader.line_num + 1  # type: ignore[attr-defined]
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}:{begin}: a quoted field has no closing quote, or text after it ({error}); "
                "a quote within a quoted field is written twice"
            ) from error
        if fields:
            yield f"{begin}", fields
