"""The lake: the one door to the warehouse's tables.

A DuckLake: Parquet files, and a catalog in SQLite or Postgres that says which of them are which table at which
snapshot. Every write is one short transaction under the warehouse's write lock, so that no key ever comes in twice,
whoever else writes; a process killed at any instant leaves whole transactions only.
"""

import contextlib
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import duckdb

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from warehouse.catalog.catalog import (
    Catalog,
    attach,
    check_folders,
    connect,
    copy_file,
    count_bytes,
    find_catalog,
    is_read_only,
    make_file,
    make_folders,
    note_empty_tables,
)
from warehouse.catalog.data_folder import DataFolder
from warehouse.catalog.locks import WRITE, Locks, open_locks
from warehouse.lake import migrations
from warehouse.lake.compaction import clean_up, compact_tables
from warehouse.lake.cursors import SHARED, Cursors, Values, count_changed
from warehouse.lake.duckdb_errors import explain, is_passing
from warehouse.statements import Value, bind

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from warehouse.lake.spool import Spool

_Result = TypeVar("_Result")

_PATIENCE = 60.0
"""Seconds for which a write is tried again while other programs keep the catalog busy."""

_QUIET = 3.0
"""Seconds for which a compaction waits for readers to end, while new ones wait for it."""

_THRIFT = {"allocator_flush_threshold": "1MB", "allocator_bulk_deallocation_flush_threshold": "1MB"}
"""What a query is done with goes back to the system early."""


class Lake:
    """An open warehouse. Thread-safe: each call uses its own cursor. The catalog is attached as ``lake``."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, locks: Locks, *, read_only: bool
    ) -> None:
        self._connection = connection
        self._catalog = catalog
        self._locks = locks
        self._read_only = read_only
        self._has_written = False
        self._num_bytes = 0
        self._copied: tempfile.TemporaryDirectory[str] | None = None
        self._schema_numbers = itertools.count()
        self._cursors = Cursors(connection)

    @classmethod
    def open(cls, settings: WarehouseSettings, *, read_only: bool = False, as_of: int | None = None) -> Self:
        """Open a warehouse and bring older tables up to date; when writing, make it where there is none.

        Args:
            settings: where it lies.
            read_only: only read, but for bringing it up to date; fails where there is none.
            as_of: the snapshot to read at; implies ``read_only``.

        Raises:
            WarehouseError: it cannot be opened, is not a warehouse, or is of a newer version.
        """
        catalog = find_catalog(settings)
        check_folders(catalog)
        read_only = read_only or as_of is not None
        if read_only and catalog.sqlite and not catalog.sqlite.exists():
            raise WarehouseError(f"there is no warehouse at {catalog.shown}; a build makes one")
        spill = Path(tempfile.gettempdir()) / f"factory-spill-{random.getrandbits(48):x}"
        limit = {"memory_limit": settings.memory} if settings.memory else {}
        # What is read from a disk is cached by the system; a copy of it would grow with the warehouse.
        cache = {"enable_external_file_cache": catalog.data_folder is None}
        folder = {"temp_directory": str(spill)}
        with _explained(catalog):
            connection = connect(catalog, {"python_enable_replacements": False, **folder, **_THRIFT, **limit, **cache})
        lake = cls(connection, catalog, open_locks(catalog), read_only=read_only)
        try:
            with _explained(catalog):
                lake._prepare_read_only_disk()
                if read_only:
                    lake._attach(as_of)
                    lake._check_version(settings, is_past=as_of is not None)
                else:
                    with lake._locks.hold(WRITE, wait=True):
                        lake._attach_for_writing()
                        lake._transact(migrations.migrate)
                        lake._retried(lambda: note_empty_tables(connection))
                lake._num_bytes = count_bytes(connection)
        except BaseException:
            lake.close()
            raise
        lake._cursors.fit_threads(lake._num_bytes)
        return lake

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the warehouse. A stream that is being read goes on to its end."""
        if self._has_written:  # if another writer is at it, that one notes the snapshot
            with contextlib.suppress(duckdb.Error, OSError, WarehouseError), self._locks.hold(WRITE, wait=False):
                DataFolder(self._catalog, self._connection).note_snapshot()
        self._connection.close()
        self._cursors.close()
        self._locks.close()
        if self._copied:
            self._copied.cleanup()

    def append(self, table: str, frame: "pl.DataFrame") -> int:
        """Add the rows whose keys the table does not have yet; return how many were written.

        Raises:
            WarehouseError: the rows do not fit the table's schema, or cannot be written.
        """
        from warehouse.lake.append import conform, find_few, insert_new  # with the schemas, which readers do not need
        from warehouse.lake.frame_table import as_table

        rows = conform(table, frame)
        if rows.is_empty():
            return 0
        self._num_bytes += int(rows.estimated_size())
        self._cursors.fit_threads(self._num_bytes)
        with as_table(rows) as incoming:
            return self.transact(lambda cursor: insert_new(cursor, table, incoming, find_few(table, rows)))

    def insert_select(self, table: str, select: str, *, slices: int = 1, schema: str = SHARED) -> int:
        """Add the rows of a query whose keys the table does not have yet; return how many were written.

        The query gives the table's columns, in any order. It runs before the write lock is taken; of rows with the
        same key one is taken. With ``slices`` the query runs on each slice of the build that its views speak of, which
        are those of ``schema``, as in ``query``.
        """
        from warehouse.lake.append import insert_new

        def change(cursor: duckdb.DuckDBPyConnection) -> int:
            num_new = insert_new(cursor, table, "temp.incoming")
            cursor.execute("DROP TABLE temp.incoming")
            return num_new

        return self.transact(
            change, before=lambda cursor: self._fill(cursor, "temp.incoming", select, slices), schema=schema
        )

    def hold(self, name: str, select: str, *, slices: int = 1, schema: str = SHARED) -> None:
        """Make a table beside the lake, in ``memory.main``, of the rows of a query that runs on ``slices``."""
        with self._reading(schema) as cursor:
            self._fill(cursor, name, select, slices)

    def delete(self, table: str, where: str, parameters: Sequence[Value] = ()) -> int:
        """Delete the rows for which ``where`` holds; return how many there were. Older snapshots keep them."""
        sql = f'DELETE FROM "{table}" WHERE {bind(where, parameters)}'
        return self.transact(lambda cursor: count_changed(cursor, sql))

    def transact(
        self,
        change: Callable[[duckdb.DuckDBPyConnection], _Result],
        *,
        before: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
        schema: str = SHARED,
    ) -> _Result:
        """Run ``change`` as one transaction, alone among the warehouse's writers; after a conflict it runs again.

        ``before`` is what the same cursor does without the lock. It sees the views of ``schema``.
        """
        if self._read_only:
            raise WarehouseError(f"warehouse {self._catalog.shown} is open for reading only")
        with _explained(self._catalog):
            self._locks.check()
            self._has_written = True
            return self._transact(change, before=before, lock=True, schema=schema)

    def query(
        self, sql: str, parameters: Sequence[Value] = (), *, joined_as_written: bool = False, schema: str = SHARED
    ) -> "pl.DataFrame":
        """Return the rows of a query; ``joined_as_written`` as in ``stream``. Times are in UTC.

        Names in it are looked up among the lake's tables, then among what ``make_schema`` has made under ``schema``.
        """
        from warehouse.lake.results import read_frame

        planned = self._cursors.joined_as_written if joined_as_written else contextlib.nullcontext
        with self._reading(schema) as cursor:
            with planned():
                result = cursor.execute(bind(sql, parameters))
            return read_frame(result)

    def rows(self, sql: str, parameters: Sequence[Value] = (), *, schema: str = SHARED) -> list[Values]:
        """Return the few rows of a query as Python has them, which loads neither Polars nor Arrow; see ``query``."""
        with self._reading(schema) as cursor:
            return cursor.execute(bind(sql, parameters)).fetchall()

    def value(self, sql: str, parameters: Sequence[Value] = (), *, schema: str = SHARED) -> Any:
        """Return the one value of a query; see ``rows``."""
        ((value,),) = self.rows(sql, parameters, schema=schema)
        return value

    def stream_rows(self, sql: str, *, batch_rows: int = 10_000, schema: str = SHARED) -> Iterator[Values]:
        """Yield the rows of a query as Python has them, in bounded memory; see ``rows``."""
        with self._reading(schema) as cursor:
            result = cursor.execute(sql)
            while batch := result.fetchmany(batch_rows):
                yield from batch

    def stream(
        self,
        sql: str,
        parameters: Sequence[Value] = (),
        *,
        batch_rows: int = 10_000,
        joined_as_written: bool = False,
        slices: int = 1,
        schema: str = SHARED,
    ) -> "Iterator[pl.DataFrame]":
        """Yield the rows of a query in frames of at most ``batch_rows``, all of one snapshot, in bounded memory.

        Args:
            sql, parameters: a SELECT, and the values of its question marks.
            batch_rows: how many rows a frame has at most.
            joined_as_written: hold the right side of each join in memory, and not the left one, where the text should be.
            slices: into how many the build that its views speak of is cut; the query runs on one after another.
            schema: whose views it sees, as in ``query``.
        """
        from warehouse.lake.results import read_frames

        planned = self._cursors.joined_as_written if joined_as_written else contextlib.nullcontext
        with self._reading(schema) as cursor:
            for _ in self._cursors.each_slice(cursor, slices):
                with planned():
                    batches = cursor.execute(bind(sql, parameters)).to_arrow_reader(batch_rows)
                yield from read_frames(batches)

    def spool(self, sql: str, *, batch_rows: int = 1000, slices: int = 1, schema: str = SHARED) -> "Spool":
        """Run a query to its end and return its rows in a temporary file, for whoever takes hours to read them.

        It is joined as written, otherwise as in ``stream``. Raises a WarehouseError if the rows do not fit there.
        """

        from warehouse.lake.spool import Spool

        def read(cursor: duckdb.DuckDBPyConnection) -> "Iterator[pa.RecordBatchReader]":
            for _ in self._cursors.each_slice(cursor, slices):
                with self._cursors.joined_as_written():
                    batches = cursor.execute(sql).to_arrow_reader(batch_rows)
                yield batches

        with self._reading(schema) as cursor:
            try:
                return Spool(read(cursor))
            except OSError as error:
                raise WarehouseError(
                    f"the rows of a query cannot be held in {tempfile.gettempdir()}: {error.strerror or error}; "
                    "name another folder in TMPDIR"
                ) from error

    def make_schema(self, name: str) -> str:
        """Make a schema beside the tables for views of this lake's own, also when it is read-only; return its full name."""
        schema = f"{name}_{number}" if (number := next(self._schema_numbers)) else name
        self._run_beside(f'CREATE SCHEMA memory."{schema}"', schema=SHARED)
        return schema

    def make_views(self, schema: str, selects: Mapping[str, str]) -> None:
        """Make the views of a schema, or make them anew, each after those that it reads.

        In one transaction: each look at the catalog's tables would cost milliseconds otherwise.
        """
        views = [f'CREATE OR REPLACE VIEW memory."{schema}"."{name}" AS {select}' for name, select in selects.items()]
        self._run_beside("BEGIN", *views, "COMMIT", schema=schema)

    def drop_schema(self, schema: str) -> None:
        """Drop a schema with its views."""
        self._cursors.drop(schema)
        self._run_beside(f'DROP SCHEMA memory."{schema}" CASCADE', schema=SHARED)

    def _run_beside(self, *statements: str, schema: str) -> None:
        with self._reading(schema) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def snapshot(self) -> int:
        """Return the id of the snapshot that a query reads now."""
        return int(self.value("SELECT id FROM ducklake_current_snapshot('lake')"))

    def compact(self, *, keep: timedelta = timedelta(hours=1)) -> None:
        """Merge small files, and leave deleted rows out of the new ones; every snapshot stays readable.

        Beside a SQLite catalog this waits for a moment without readers; when there is none for a while, small files
        stay as they are until the next compaction.

        Files that no snapshot needs any more are removed from the day (UTC) after ``keep`` is over, which is how long
        a reader may still be at them; none where another copy of the catalog may need them.

        Raises:
            WarehouseError: the data folder has become another catalog's.
        """
        with self._locks.rewriting(patience=_QUIET) as is_alone:
            if is_alone:
                with self._cursors.one_thread():  # every thread of a writer holds row groups in memory
                    self.transact(compact_tables)
        self.transact(lambda cursor: clean_up(cursor, self._catalog, keep))

    def memory_limit(self) -> int:
        """Return how many bytes DuckDB may take."""
        number, unit = self._cursors.memory_limit.split()
        return int(float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB").index(unit))

    @contextlib.contextmanager
    def lease(self, name: str) -> Iterator[None]:
        """Hold a name, alone among all processes that use this warehouse, for the length of a ``with`` block.

        Raises:
            HeldError: somebody else holds it; says which process on which machine.
        """
        with self._locks.hold(name, wait=False):
            yield

    @contextlib.contextmanager
    def _reading(self, schema: str) -> Iterator[duckdb.DuckDBPyConnection]:
        with _explained(self._catalog), self._locks.reading(), self._cursors.use(schema) as cursor:
            yield cursor

    def _fill(self, cursor: duckdb.DuckDBPyConnection, table: str, select: str, num_slices: int) -> None:
        kind = "TEMP TABLE" if table.startswith("temp.") else "TABLE"
        for number, _ in enumerate(self._cursors.each_slice(cursor, num_slices)):
            cursor.execute(f"INSERT INTO {table} {select}" if number else f"CREATE {kind} {table} AS {select}")

    def _transact(
        self,
        change: Callable[[duckdb.DuckDBPyConnection], _Result],
        *,
        before: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
        lock: bool = False,
        schema: str = SHARED,
    ) -> _Result:
        def attempt() -> _Result:
            with self._cursors.use(schema) as cursor:
                if before:
                    with self._locks.reading():
                        before(cursor)
                with self._locks.hold(WRITE, wait=True) if lock else contextlib.nullcontext():
                    cursor.execute("BEGIN")
                    result = change(cursor)
                    cursor.execute("COMMIT")
                return result

        return self._retried(attempt)

    def _retried(self, attempt: Callable[[], _Result]) -> _Result:
        deadline = time.monotonic() + _PATIENCE
        for number in itertools.count():
            try:
                return attempt()
            except duckdb.Error as error:
                if not is_passing(error) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.01, min(2.0, 0.05 * 2**number)))
        raise AssertionError("unreachable")

    def _check_version(self, settings: WarehouseSettings, *, is_past: bool) -> None:
        with self._cursors.use(SHARED) as cursor:
            version, known = migrations.read_version(cursor), migrations.schema_version()
        if is_past or version is None or version >= known:
            migrations.check(version, is_past=is_past)
        else:
            self._bring_up_to_date(settings, version)

    def _bring_up_to_date(self, settings: WarehouseSettings, version: int) -> None:
        known = migrations.schema_version()
        says = f"the warehouse {self._catalog.shown} has schema version {version}, and this factory reads {known}"
        print(f"{says}: bringing it up to date", file=sys.stderr, flush=True)
        try:
            type(self).open(settings).close()
        except WarehouseError as error:
            raise WarehouseError(
                f"{says}: run this command once as a user who may write there; it cannot be brought up "
                f"to date now: {error}"
            ) from None

    def _prepare_read_only_disk(self) -> None:
        """Read the catalog from a copy where SQLite could make no files beside it."""
        if not (self._catalog.sqlite and self._catalog.sqlite.exists() and is_read_only(self._catalog)):
            return
        if not self._read_only:
            raise WarehouseError(
                f"warehouse {self._catalog.shown}: its file system is mounted for reading only, so that nothing can be "
                "written: mount it for writing, or copy the warehouse (cp -rL) and name the copy in [warehouse]"
            )
        self._copied = tempfile.TemporaryDirectory(prefix="factory-catalog-")
        self._catalog = copy_file(self._catalog, Path(self._copied.name))

    def _attach(self, as_of: int | None = None) -> None:
        self._retried(lambda: attach(self._connection, self._catalog, read_only=self._read_only, as_of=as_of))
        self._retried(DataFolder(self._catalog, self._connection).check)

    def _attach_for_writing(self) -> None:
        folder = DataFolder(self._catalog, self._connection)
        if self._catalog.sqlite and not self._catalog.sqlite.exists():
            folder.refuse_for_new()
            make_file(self._catalog.sqlite)
        self._attach()
        make_folders(self._catalog)
        self._retried(folder.claim)


@contextlib.contextmanager
def _explained(catalog: Catalog) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise explain(error, catalog) from None
    except RuntimeError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what DuckDB makes of Ctrl-C while it works
            raise KeyboardInterrupt from None
        raise
