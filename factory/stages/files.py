"""Rows of Parquet, JSONL and CSV files and of Hugging Face datasets as plain dictionaries, one at a time."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from factory.engines.base import Failure
from factory.stages.hf_datasets import find_labels, name_labels, open_dataset
from schemas.errors import InputError
from schemas.paths import split_glob
from schemas.reasons import Reason

if TYPE_CHECKING:
    from factory.stages.rows import Row

SUFFIXES = (".parquet", ".jsonl", ".csv", ".tsv")

Stamp: TypeAlias = tuple[str, int, int, int]
"""A file's path, number on its disk, bytes, and time of its last change in nanoseconds."""

_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read: its ``value``, or the ``fault`` that kept it from being read.

    ``row`` is unique within the source: the row's number from 1 (in JSONL the line's), after the file's name where a
    glob gave several files. ``where`` says the place in words for a person.
    """

    row: str
    where: str
    value: "Row | None"
    fault: Failure | None = None


def read_file_rows(pattern: str, columns: Sequence[str]) -> Iterator[RawRow]:
    """Yield the rows of every file that a path or glob names, in the order of the files' names.

    Of Parquet only the ``columns`` are read. A CSV or TSV file whose columns are all asked for by number, from 0, has
    no header line; else the header may have a column that is asked for but once. Both may hold quoted fields, with quotes in them written twice. In a TSV file where any is not well
    formed, every quote is an ordinary character.

    Raises:
        InputError: a file is missing, is of no known kind, cannot be read, or lacks a column or has it twice, or a
            quoted field of a CSV file is not well formed.
    """
    paths, base = find_files(pattern)
    for path in paths:
        prefix = "" if base is None else f"{path.relative_to(base).as_posix()}:"
        try:
            for number, place, value, fault in _READERS[path.suffix](path, columns):
                yield RawRow(f"{prefix}{number}", f"{path.name}:{place}", value, fault)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}") from error


def read_dataset_rows(
    name: str, columns: Sequence[str], *, config: str | None, split: str, revision: str | None
) -> Iterator[RawRow]:
    """Yield the rows of a Hugging Face dataset: a hub id, a folder of data files, or one made by ``save_to_disk``.

    ``split`` may be cut and added up (``train[:10%]+test``). Class labels come as their names.

    Raises:
        InputError: the dataset, its configuration or its split is missing, or it lacks a column.
    """
    dataset = open_dataset(name, config=config, split=split, revision=revision)
    tops = find_top_columns(columns, dataset.column_names, f"dataset '{name}'")
    labels = find_labels(dataset.features.to_dict())
    numbers = count(1)
    for batch in dataset.select_columns(tops).iter(batch_size=_BATCH_ROWS):
        for values in zip(*(batch[top] for top in tops), strict=True):
            number = next(numbers)
            yield RawRow(str(number), f"{name}:{number}", _with_names(dict(zip(tops, values, strict=True)), labels))


def read_dataset_columns(name: str, *, config: str | None, split: str) -> list[str]:
    """Return the names of the columns of a Hugging Face dataset.

    Raises:
        InputError: the dataset, its configuration or its split is missing.
    """
    return list(open_dataset(name, config=config, split=split, revision=None).column_names)


def find_value(row: "Row", column: str) -> Any:
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
            raise InputError(f"{where} has no column '{column}'; there are {', '.join(map(repr, names))}")
        tops[top] = None
    return list(tops)


def find_files(pattern: str) -> tuple[list[Path], Path | None]:
    """Return the files that a path or glob names, by name, and, for a glob, the folder above all of them.

    A file or folder of that very name comes before what its brackets would stand for in a glob.

    Raises:
        InputError: there is none, or one is of no known kind.
    """
    if Path(pattern).is_file():
        paths, base = [Path(pattern)], None
    else:
        base, below = split_glob(pattern)
        paths = sorted(path for path in base.glob(below) if path.is_file())
    if not paths:
        raise InputError(f"no file at {pattern}")
    for path in paths:
        if path.suffix not in _READERS:
            raise InputError(f"{path} is no kind of file that can be read; allowed are {', '.join(SUFFIXES)}")
    return paths, base


def stamp_files(pattern: str) -> list[Stamp]:
    """Return a stamp of each file that a path or glob names; it is another one once the file was written to.

    Raises:
        InputError: there is none, or one is of no known kind or cannot be opened.
    """
    stamps = []
    try:
        for path in find_files(pattern)[0]:
            with path.open("rb") as file:  # a network disk tells the latest times only of a file that is opened
                found = os.fstat(file.fileno())
            stamps.append((str(path), found.st_ino, found.st_size, found.st_mtime_ns))
    except OSError as error:
        raise InputError(f"{pattern} cannot be read: {error}") from error
    return stamps


Place: TypeAlias = "tuple[int, str, Row | None, Failure | None]"


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Place]:
    import polars as pl  # the trainer, which reads its rows here, mostly has no use for it

    try:
        tops = find_top_columns(columns, list(pl.read_parquet_schema(path)), str(path))
        described = json.loads(pl.read_parquet_metadata(path).get("huggingface", "{}"))
        labels = find_labels(described.get("info", {}).get("features") or {})
        numbers = count(1)
        for batch in pl.scan_parquet(path, glob=False).select(tops).collect_batches(chunk_size=_BATCH_ROWS, lazy=True):
            for row in batch.iter_rows(named=True):
                number = next(numbers)
                yield number, str(number), _with_names(row, labels), None
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _with_names(row: "Row", labels: Mapping[str, Any]) -> "Row":
    """Return a row with its class labels by name; ``labels`` are the features of the columns that have some."""
    return row | {column: name_labels(row[column], labels[column]) for column in labels if column in row}


def _read_jsonl(path: Path, columns: Sequence[str]) -> Iterator[Place]:  # noqa: ARG001 (rows may differ in their fields)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode(), object_pairs_hook=_make_object)
            except UnicodeDecodeError as error:
                yield number, str(number), None, Failure(Reason.INVALID_TEXT, f"no UTF-8: {error}")
                continue
            except (ValueError, RecursionError) as error:
                yield number, str(number), None, Failure(Reason.INVALID_ROW, f"no JSON: {error}")
                continue
            if not isinstance(value, dict):
                detail = f"a JSON object is needed on each line, got {type(value).__name__} {str(value)[:40]!r}"
                yield number, str(number), None, Failure(Reason.INVALID_ROW, detail)
                continue
            yield number, str(number), value, None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; one that has a field twice says two things, of which none is to be taken."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"the field {twice!r} is there twice")
    return found


def _read_csv(path: Path, columns: Sequence[str]) -> Iterator[Place]:
    csv.field_size_limit(sys.maxsize)
    # Bytes that are no UTF-8 become lone surrogates, which are refused row by row, as those in JSON are.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        records = _tsv_records(path, file) if path.suffix == ".tsv" else _records(path, csv.reader(file, strict=True))
        has_header = not columns or not all(column.isdecimal() for column in columns)
        header = next((fields for _, fields in records), None) if has_header else None
        if header is not None:
            _refuse_twice(find_top_columns(columns, header, str(path)), header, path)
        for number, (place, fields) in enumerate(records, start=1):
            names = header if header is not None else [str(at) for at in range(len(fields))]
            if len(fields) == len(names):
                yield number, place, dict(zip(names, fields, strict=True)), None
            else:
                detail = f"the header has {len(names)} columns, this row {len(fields)}"
                yield number, place, None, Failure(Reason.INVALID_ROW, detail)


def _refuse_twice(columns: Sequence[str], header: Sequence[str], path: Path) -> None:
    """Refuse a header that has one of the asked columns more than once: nobody can say which of them is meant."""
    twice = next((column for column in columns if header.count(column) > 1), None)
    if twice is not None:
        raise InputError(
            f"{path} has the column '{twice}' {header.count(twice)} times; a column's name must be its own"
        )


def _tsv_records(path: Path, file: TextIO) -> Iterator[tuple[str, list[str]]]:
    """Yield a file's records. Most programs that write TSV do not quote: their quotes are ordinary characters."""
    is_quoted = _is_well_quoted(csv.reader(file, delimiter="\t", strict=True))
    file.seek(0)
    if is_quoted:
        return _records(path, csv.reader(file, delimiter="\t", strict=True))
    return _records(path, csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _is_well_quoted(lines: Iterable[list[str]]) -> bool:
    try:
        for _ in lines:
            pass
    except csv.Error:
        return False
    return True


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


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".csv": _read_csv, ".tsv": _read_csv}
