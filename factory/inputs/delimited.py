"""Records of CSV and TSV files, and whether the quotes of a TSV file are those around fields."""

import csv
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TextIO

from factory.inputs.finding import Stamp, stamp
from factory.inputs.opening import find_kind, open_text
from schemas.errors import InputError


def open_records(path: Path, file: TextIO) -> Iterator[tuple[str, list[str]]]:
    """Return an iterator over the locations and fields of a file's records.

    Most programs that write TSV do not quote fields, so whether quotes are special is found out for each file.
    """
    csv.field_size_limit(sys.maxsize)
    if find_kind(path) == "csv":
        return _records(path, csv.reader(file, strict=True))
    if _is_quoted(stamp(path)):
        return _records(path, csv.reader(file, delimiter="\t", strict=True))
    return _records(path, csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


@lru_cache(maxsize=10_000)
def _is_quoted(stamp: Stamp) -> bool:
    """Whether the quotes in a TSV file surround fields; cached, since the whole file must be read.

    Ordinary quotes may by chance be placed as if they surrounded a field, and would then swallow whole rows.

    Raises:
        InputError: the quotes are ambiguous, or some look like ordinary characters and some as if around fields.
    """
    path, signs = Path(stamp[0]), set[bool | None]()
    try:
        with open_text(path, newline="") as file:
            for line, sign in _find_signs(file):
                signs.add(sign)
                if sign is None or len(signs) > 1:
                    raise InputError(
                        f"{path}:{line}: the text between quotes may be one field or parts of several rows; save the "
                        "file as JSON, or as CSV, where quotes always surround a field"
                    )
    except csv.Error:
        return False
    return False not in signs


def _find_signs(file: TextIO) -> Iterator[tuple[int, bool | None]]:
    """Yield the line number and a verdict on the quotes for each record with line breaks or tabs between quotes.

    False: the quotes are ordinary characters. True: they surround a field. None: they may be either.
    """
    kept: list[str] = []
    first: tuple[int, int] | None = None  # number of fields in the first record: with quotes ignored, and honoured
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
                "quotes inside a quoted field must be doubled"
            ) from error
        if fields:
            yield f"{begin}", fields
