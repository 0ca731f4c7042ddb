"""What the SQL shell prints: tables for people, JSON lines, CSV and Parquet for programs. Results stream."""

import csv
import itertools
import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import polars as pl

Form = Literal["table", "json", "csv", "parquet"]

UNBOUNDED_WIDTH = 100_000
"""Where no terminal sets a limit, a table is as wide as its rows."""

Row = Mapping[str, Any]
"""A row as JSON values."""

Columns = Mapping[str, str]
"""Names and DuckDB types of the columns, in order."""

_NUMBERS = re.compile(r"^(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*)$")
_INFINITE = re.compile(r"NaN|Infinity")

_ISOLATE, _POP = "\u2068", "\u2069"
"""Unicode isolates: between them, right-to-left text does not reorder what stands beside it."""


def print_table(columns: Columns, lines: Iterator[str], out: TextIO, *, max_rows: int) -> int:
    """Print the first ``max_rows`` rows as a table, and whether there are more; return how many were printed.

    Columns are as wide as the terminal allows by the width of their characters. Control characters are shown as
    escapes, so that no answer of a model can steer the terminal.
    """
    table = Table(show_lines=False)
    for name, kind in columns.items():
        is_number = bool(_NUMBERS.match(kind))
        table.add_column(_show(name), justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    rows = list(itertools.islice(lines, max_rows + 1))
    for line in rows[:max_rows]:
        table.add_row(*(_show(value) for value in json.loads(line).values()))
    width = None if out.isatty() else UNBOUNDED_WIDTH
    console = Console(file=out, width=width, highlight=False, emoji=False, markup=False)
    console.print(table)
    if len(rows) > max_rows:
        console.print(f"the first {max_rows:,} rows; the other formats give all of them")
    return min(len(rows), max_rows)


def print_json(lines: Iterator[str], out: TextIO) -> int:
    """Print one JSON object a line; return how many. NaN and the infinities, which JSON lacks, become null."""
    num_rows = 0
    for line in lines:
        out.write(_to_json(_finite(json.loads(line))) if _INFINITE.search(line) else line)
        out.write("\n")
        num_rows += 1
    return num_rows


def print_csv(columns: Columns, lines: Iterator[str], out: TextIO) -> int:
    """Print a header and one record for each row; return how many rows. Nested values are JSON, nulls are empty."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    num_rows = 0
    for line in lines:
        writer.writerow("" if value is None else _to_text(value) for value in json.loads(line).values())
        num_rows += 1
    return num_rows


def write_parquet(empty: "pl.DataFrame", frames: "Iterator[pl.DataFrame]", out: IO[bytes]) -> int:
    """Write a Parquet file with the columns of ``empty``; return how many rows."""
    import pyarrow.parquet as pq

    schema = empty.to_arrow().schema
    num_rows = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(frame.to_arrow().cast(schema))
            num_rows += frame.height
    return num_rows


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _to_text(value: object) -> str:
    return value if isinstance(value, str) else _to_json(value)


def _show(value: object) -> Text:
    if value is None:
        return Text("NULL", style="dim")
    if isinstance(value, float):
        return Text(f"{value:.6g}")
    text = "".join(map(_escape, _to_text(value)))
    is_right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    return Text(f"{_ISOLATE}{text}{_POP}" if is_right_to_left else text)


def _escape(character: str) -> str:
    """Show control characters, line separators and marks that turn the direction of the text as escapes."""
    if character == "\n":
        return "\\n"
    category = unicodedata.category(character)
    is_turn = unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return f"\\u{ord(character):04x}" if category in ("Cc", "Zl", "Zp", "Cs") or is_turn else character


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
        case _:
            return value
