"""Rows beside the lake for the length of a ``with`` block: heavy queries run there, outside the writers' lock."""

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import duckdb

from warehouse.lake.cursors import Values, count_changed
from warehouse.lake.lake import Lake
from warehouse.statements import TableName, literal

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Derived:
    """Rows that one step of curation derives: which rows of the table are its own, and the SELECT of what they shall be."""

    own: str
    select: str


class Source(Protocol):
    """What answers queries: a lake, or a scope of it."""

    def rows(self, sql: str) -> list[Values]: ...

    def hold(self, name: str, select: str, *, slices: int = 1) -> None: ...


@contextlib.contextmanager
def stage(source: Source, select: str, *, slices: int = 1) -> Iterator[TableName]:
    """Run a query of a lake or a scope, on ``slices``, and hold its rows in a table of this process; yield its name."""
    name = TableName(f"memory.main.staged_{uuid.uuid4().hex}")
    source.hold(name, select, slices=slices)
    try:
        yield name
    finally:
        source.rows(f"DROP TABLE {name}")


class Frames:
    """Rows of one table that come in frames, in temporary Parquet files, so that ``select`` can read all of them."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._folder = tempfile.TemporaryDirectory()
        self._num_files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()

    def add(self, frame: "pl.DataFrame") -> None:
        """Add rows, as ``Lake.append`` takes them."""
        if not frame.is_empty():
            from warehouse.lake.append import conform

            conform(self._table, frame).write_parquet(Path(self._folder.name) / f"{self._num_files}.parquet")
            self._num_files += 1

    @property
    def select(self) -> str:
        """A SELECT of the rows so far."""
        if not self._num_files:
            return f"SELECT * FROM {self._table} LIMIT 0"
        return f"SELECT * FROM read_parquet({literal(f'{self._folder.name}/*.parquet')})"


def replace_rows(lake: Lake, derived: Mapping[str, Derived]) -> tuple[int, int]:
    """Bring tables to what was derived for them, in one transaction; return how many rows were added and removed.

    Rows that are there already are left alone, so that a rerun without change writes nothing and makes no snapshot.
    """

    def change(cursor: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        counts = [_replace(cursor, table, rows) for table, rows in derived.items()]
        return sum(added for added, _ in counts), sum(removed for _, removed in counts)

    return lake.transact(change)


def _replace(cursor: duckdb.DuckDBPyConnection, table: str, rows: Derived) -> tuple[int, int]:
    from schemas.tables import KEYS, TABLES  # takes half a second, and who only reads does not need it

    columns, keys = ", ".join(TABLES[table].column_names()), ", ".join(KEYS[table])
    if not cursor.execute(f"FROM {table} WHERE {rows.own} LIMIT 1").fetchone():
        return count_changed(cursor, f"INSERT INTO {table} ({columns}) SELECT {columns} FROM ({rows.select})"), 0
    stale = f"SELECT {columns} FROM {table} WHERE {rows.own} EXCEPT SELECT {columns} FROM ({rows.select})"
    removed = count_changed(
        cursor, f"DELETE FROM {table} WHERE {rows.own} AND ({keys}) IN (SELECT ({keys}) FROM ({stale}))"
    )
    missing = f"SELECT {columns} FROM ({rows.select}) ANTI JOIN (FROM {table} WHERE {rows.own}) USING ({keys})"
    return count_changed(cursor, f"INSERT INTO {table} ({columns}) {missing}"), removed
