"""The cursors of an open lake: each is set up once, sees the views of one schema, and serves one statement after another."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, TypeAlias

import duckdb

from schemas.ids import CONTENT_ID_SQL
from schemas.splits import SPLIT_SQL
from warehouse.lake.slices import LOOK_AT_ALL, SLICE_SQL, look_at_slices
from warehouse.statements import literal

Values: TypeAlias = tuple[Any, ...]
"""A row of a result: a value for each column."""

SHARED = "main"
"""The schema beside the tables whose views and tables every cursor sees."""

_MACROS = (CONTENT_ID_SQL, SPLIT_SQL, SLICE_SQL)
"""What every cursor starts with, before its search path: else each function in them would be looked for in the catalog."""


_SHORT = 0.03
"""Seconds in which no statement takes much memory."""

_SMALL = 32 * 2**20
"""Bytes of a lake that one thread reads as fast as several, which would spend a third of their time on one another."""


class Cursors:
    """Cursors of one connection, on which the catalog is attached as ``lake``. Thread-safe."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._is_closed = False
        self._spare: dict[str, list[duckdb.DuckDBPyConnection]] = defaultdict(list)
        self._planning = threading.Lock()
        self._num_as_written = 0
        self._threading = threading.Lock()
        self._num_frugal = 0
        self._is_small = self._has_one_thread = False
        self.memory_limit = str(connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0])

    def close(self) -> None:
        """Close those that serve nobody; the others are closed by whom they serve."""
        self._is_closed = True
        self._close_spare()

    def drop(self, schema: str) -> None:
        """Close those that see a schema, which is to be dropped."""
        for cursor in self._spare.pop(schema, []):
            cursor.close()

    @contextlib.contextmanager
    def use(self, schema: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Have a cursor for the length of a ``with`` block; after that it serves the next one, unless there was an error.

        To set up a new one takes as long as a small query.
        """
        cursor, is_kept, started = self._take(schema), True, time.monotonic()
        try:
            yield cursor
        except BaseException:
            is_kept = False
            raise
        finally:
            if is_kept:
                self._spare[schema].append(cursor)
            else:
                cursor.close()
            if self._is_closed:
                self._close_spare()
            if time.monotonic() - started > _SHORT:
                self.give_back()

    def _take(self, schema: str) -> duckdb.DuckDBPyConnection:
        with contextlib.suppress(IndexError):
            return self._spare[schema].pop()
        cursor = self._connection.cursor()
        places = ("lake.main", f"memory.{schema}", *(() if schema == SHARED else (f"memory.{SHARED}",)))
        try:
            for statement in (*_MACROS, f"SET search_path = '{','.join(places)}'"):
                cursor.execute(statement)
        except BaseException:
            cursor.close()
            raise
        return cursor

    def _close_spare(self) -> None:
        for spare in list(self._spare.values()):
            with contextlib.suppress(IndexError):
                while True:
                    spare.pop().close()

    def each_slice(self, cursor: duckdb.DuckDBPyConnection, num_slices: int) -> Iterator[None]:
        """Let a cursor look at one slice after another, all at one snapshot; a single one is everything."""
        if num_slices == 1:
            yield
            return
        cursor.execute("BEGIN")
        for statement in look_at_slices(num_slices):
            cursor.execute(statement)
            yield
            self.give_back()
        cursor.execute(LOOK_AT_ALL)
        cursor.execute("COMMIT")

    def give_back(self) -> None:
        """Let the system have what is free, so that the peaks of queries do not add up.

        Whenever its limit is set, DuckDB empties its allocator's caches, at a tenth of a millisecond; there is no other
        statement for it.
        """
        with contextlib.suppress(duckdb.Error):
            self._run(f"SET memory_limit = {literal(self.memory_limit)}")

    @contextlib.contextmanager
    def joined_as_written(self) -> Iterator[None]:
        """Let statements that are planned meanwhile hash the right side of each join.

        DuckDB would take the side with fewer rows, which for equal numbers may be the one with the text. It has this
        setting for all cursors only, and plans anew whatever was prepared, so the last thread that needs it takes it
        back; what others plan meanwhile is as right, if perhaps slower.
        """
        with self._planning:
            self._num_as_written += 1
            self._run("SET disabled_optimizers = 'build_side_probe_side'")
        try:
            yield
        finally:
            with self._planning:
                self._num_as_written -= 1
                if not self._num_as_written:
                    self._run("SET disabled_optimizers = ''")

    def fit_threads(self, num_bytes: int) -> None:
        """Have as many threads at work as a lake of a size gives work to."""
        with self._threading:
            self._is_small = num_bytes < _SMALL
            self._set_threads()

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """Have one thread at work, whatever is fitting; this setting, too, is one for all cursors."""
        with self._threading:
            self._num_frugal += 1
            self._set_threads()
        try:
            yield
        finally:
            with self._threading:
                self._num_frugal -= 1
                self._set_threads()

    def _set_threads(self) -> None:
        if (is_one := self._is_small or self._num_frugal > 0) != self._has_one_thread:
            self._run("SET threads = 1" if is_one else "RESET threads")
            self._has_one_thread = is_one

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:  # a statement on a cursor ends the stream that is read from it
            cursor.execute(statement)


def count_changed(cursor: duckdb.DuckDBPyConnection, statement: str) -> int:
    """Run an INSERT, UPDATE or DELETE; return how many rows it has changed."""
    row = cursor.execute(statement).fetchone()
    return int(row[0]) if row else 0
