"""Rows of Parquet, JSON and CSV files and of Hugging Face datasets as plain dictionaries, one at a time."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from factory.engines.base import Failure
from factory.inputs.delimited import open_records
from factory.inputs.finding import find_files
from factory.inputs.hf_datasets import find_labels, name_labels, number_rows
from factory.inputs.json_lists import Form, JsonListError, JsonStream, find_form
from factory.inputs.json_values import parse_json
from factory.inputs.opening import DAMAGES, find_kind, open_text
from factory.inputs.text_faults import find_byte_fault
from schemas.errors import InputError
from schemas.names import suggest
from schemas.reasons import Reason

if TYPE_CHECKING:
    from factory.inputs.row import Row

_BATCH_ROWS = 1000

_LOOKED_AT_ROWS = 100
"""How many rows are read to find the columns of a file of JSON objects."""


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row of a source: its ``value``, or the ``fault`` that made it unreadable.

    ``row`` is unique within the source: the row's number, counted from 1 in its file or split (``12``), with the name
    of the file or split before it where there may be several (``b.jsonl:12``, ``test:12``). Blank lines are not rows.
    ``where`` is the location for people: with the line number if the file has lines.
    """

    row: str
    where: str
    value: "Row | None"
    fault: Failure | None = None


def read_file_rows(pattern: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[RawRow]:
    """Yield the rows of all files that a path, folder or glob matches, in the order of the files' names.

    Of Parquet files, only ``columns`` are read, and those of the ``optional`` columns that exist. If all ``columns`` of
    a CSV or TSV file are numbers (from 0), the file has no header line; otherwise a requested column may occur only
    once in the header. Both kinds may have quoted fields, in which quotes are doubled. If a TSV file has a quoted field
    that is malformed or would join lines that are whole rows, all its quotes are ordinary characters.

    Raises:
        InputError: a file is missing, of an unknown kind or unreadable, lacks a column or has it twice, or is a CSV
            file with a malformed quoted field.
    """
    paths, base = find_files(pattern)
    for path in paths:
        prefix = "" if base is None else f"{path.relative_to(base).as_posix()}:"
        for number, place, value, fault in _read_file(path, columns, optional):
            yield RawRow(f"{prefix}{number}", f"{path.name}:{place}", value, fault)


def read_file_columns(pattern: str, known: Collection[str] = ()) -> list[str]:
    """Return the columns of the first file with rows that a path, folder or glob matches.

    The columns of a JSON file are the keys of its first objects. If no file has rows, the first file with columns
    counts. A JSON file that is one object with one of the ``known`` columns is a single row, even if it contains lists.

    Raises:
        InputError: a file is missing, of an unknown kind or unreadable, or no file has columns.
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
    why = first.fault.detail if first.fault else "the row has no fields"
    raise InputError(f"no row of {pattern} can be read; first row: {first.where}: {why}")


def _find_columns(path: Path, known: Collection[str]) -> tuple[list[str], bool]:
    """Return the columns of a file, and whether the file has rows."""
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
    """Refuse columns that no row has, because then the column's name is wrong rather than the rows.

    Rows are read until each column has been seen.

    Raises:
        InputError: there are rows but none has the column, or a file cannot be read.
    """
    lacking, names = list(columns), dict[str, None]()
    for raw in read_file_rows(pattern, needed, columns) if columns else ():
        lacking = [column for column in lacking if raw.value is None or not _has(raw.value, column)]
        if not lacking:
            return
        names |= dict.fromkeys(raw.value or ())
    if names:
        there = read_file_columns(pattern, needed)
        raise InputError(
            f"no row of {pattern} has a column '{lacking[0]}'{suggest(lacking[0], there)}; there are {show_columns(there)}"
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
    """Yield the rows of a dataset opened with ``open_dataset(name, split=split)``; class labels are given by name.

    Raises:
        InputError: the dataset lacks one of ``columns``.
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
        LookupError: there is no such field; the message lists the existing ones.
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
    """Return the top-level columns ``names`` of a table that contain ``columns``, which may be nested in them.

    Raises:
        InputError: the table lacks a column.
    """
    tops: dict[str, None] = {}
    for column in columns:
        parts = column.split(".")
        top = next((top for end in range(len(parts), 0, -1) if (top := ".".join(parts[:end])) in names), None)
        if top is None:
            raise InputError(
                f"{where} has no column '{column}'{suggest(column, names)}; there are {show_columns(names)}"
            )
        tops[top] = None
    return list(tops)


def show_columns(names: Sequence[str]) -> str:
    """Return column names as a list for a message, with a hint at likely mistakes.

    These are white space around a name, or a delimiter inside the only name (a file with another delimiter).
    """
    spaced = [name for name in names if name != name.strip()]
    hint = f" (with the white space in {', '.join(map(repr, spaced))})" if spaced else ""
    if len(names) == 1 and any(sign in names[0] for sign in ";\t"):
        hint = " (one column: commas separate the fields of a CSV file, tabs those of a TSV file)"
    return ", ".join(map(repr, names)) + hint


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
    import polars as pl  # slow to import, and the trainer, which uses this module, rarely needs it

    names = _columns_of_parquet(path)
    if not names:
        return  # written from a frame without columns, which has no rows either
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
    """Return a row with names for class labels; ``labels`` maps the columns that contain some to their features."""
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
    """Yield the top-level columns ``names`` of a table that contain ``columns``; missing ones are skipped."""
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
        hint = "; only in a .json file may an object span several lines" if text.strip() in {"{", "["} else ""
        return None, Failure(Reason.INVALID_ROW, f"not JSON: {error}{hint}")
    if isinstance(value, dict):
        return value, None
    detail = f"a JSON object is needed {where}, got {type(value).__name__} {str(value)[:40]!r}"
    return None, Failure(Reason.INVALID_ROW, detail)


def _read_headers(path: Path) -> Iterator[list[str]]:
    with open_text(path, newline="") as file:
        for _, fields in open_records(path, file):
            yield fields


def _read_csv(path: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[Place]:
    asked = [*columns, *optional]
    with open_text(path, newline="") as file:
        records = open_records(path, file)
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
    """Refuse a header that contains one of ``columns`` more than once, because it is ambiguous."""
    twice = next((column for column in columns if header.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"{path} has the column '{twice}' {header.count(twice)} times; column names must differ")
