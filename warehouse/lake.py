"""The lake: the one door to the warehouse's tables."""

import contextlib
import fcntl
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import dataframely as dy
import duckdb
import polars as pl

from schemas.errors import WarehouseError
from schemas.ids import CONTENT_ID_SQL
from schemas.recipe import WarehouseSettings
from schemas.tables import KEYS, TABLES
from warehouse.catalog import Catalog, attach, explain, find_catalog, load_extensions
from warehouse.ddl import create_statements

_Result = TypeVar("_Result")


class Lake:
    """An open warehouse. Thread-safe: each call uses its own cursor. The catalog is attached as ``lake``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, catalog: Catalog, *, read_only: bool) -> None:
        self._connection = connection
        self._catalog = catalog
        self._read_only = read_only
        self._setup: list[str] = ["SET search_path = 'lake.main,memory.main'", CONTENT_ID_SQL]

    @classmethod
    def open(cls, settings: WarehouseSettings, *, read_only: bool = False, as_of: int | None = None) -> Self:
        """Open a warehouse, making it when it is missing. ``as_of`` opens it as it was at a snapshot, read-only."""
        catalog = find_catalog(settings)
        if catalog.sqlite is not None and not read_only and as_of is None:
            catalog.sqlite.parent.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(config={"python_enable_replacements": False})
        lake = cls(connection, catalog, read_only=read_only or as_of is not None)
        try:
            load_extensions(connection, catalog)
            attach(connection, catalog, read_only=read_only, as_of=as_of)
            if not lake._read_only:
                with lake._lock(), lake._cursor() as cursor:
                    for statement in create_statements():
                        cursor.execute(statement)
        except duckdb.Error as error:
            raise explain(error, catalog) from None
        return lake

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the warehouse."""
        self._connection.close()

    def prepare(self, *statements: str) -> None:
        """Run statements (temporary views and macros) on every cursor from now on."""
        self._setup.extend(statements)

    def append(self, table: str, frame: pl.DataFrame) -> int:
        """Add the rows whose keys the table does not have yet; return how many were written."""
        rows = _conform(table, frame)
        if rows.is_empty():
            return 0

        def write(cursor: duckdb.DuckDBPyConnection) -> int:
            cursor.register("incoming", rows)
            return _insert(cursor, table, "temp.incoming")

        return self._write(write)

    def insert_select(self, table: str, select: str) -> int:
        """Add the rows of a query whose keys the table does not have yet; return how many were written."""

        def write(cursor: duckdb.DuckDBPyConnection) -> int:
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE incoming AS {select}")
            return _insert(cursor, table, "temp.incoming")

        return self._write(write)

    def delete(self, table: str, where: str, parameters: Sequence[object] = ()) -> int:
        """Delete the rows for which ``where`` holds; return how many there were."""

        def write(cursor: duckdb.DuckDBPyConnection) -> int:
            return _count(cursor.execute(f'DELETE FROM "{table}" WHERE {where}', list(parameters)))

        return self._write(write)

    def transact(self, change: Callable[[duckdb.DuckDBPyConnection], _Result]) -> _Result:
        """Run ``change`` as one transaction, alone among the warehouse's writers; it may run again after a conflict."""
        return self._write(change)

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pl.DataFrame:
        """Return the rows of a query."""
        with self._cursor() as cursor:
            return cursor.execute(sql, list(parameters)).pl()

    def stream(
        self, sql: str, parameters: Sequence[object] = (), *, batch_rows: int = 10_000
    ) -> Iterator[pl.DataFrame]:
        """Yield the rows of a query in frames of at most ``batch_rows``, all of one snapshot, in bounded memory."""
        with self._cursor() as cursor:
            for batch in cursor.execute(sql, list(parameters)).to_arrow_reader(batch_rows):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                yield frame

    def snapshot(self) -> int:
        """Return the id of the current snapshot."""
        return int(self.query("SELECT max(snapshot_id) AS id FROM ducklake_snapshots('lake')").item())

    def compact(self) -> None:
        """Merge small files; snapshots stay readable."""

        def write(cursor: duckdb.DuckDBPyConnection) -> int:
            cursor.execute("CALL ducklake_merge_adjacent_files('lake')")
            return 0

        self._write(write, transaction=False)

    @contextlib.contextmanager
    def lease(self, name: str, *, wait: bool = False) -> Iterator[None]:
        """Hold a name, alone among all processes."""
        with self._lock(name, wait=wait):
            yield

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = self._connection.cursor()
        try:
            for statement in self._setup:
                cursor.execute(statement)
            yield cursor
        except duckdb.Error as error:
            raise explain(error, self._catalog) from None
        finally:
            cursor.close()

    def _write(self, change: Callable[[duckdb.DuckDBPyConnection], _Result], *, transaction: bool = True) -> _Result:
        if self._read_only:
            raise WarehouseError(f"the warehouse {self._catalog.shown} is open for reading only")
        deadline = time.monotonic() + 60
        while True:
            try:
                with self._lock(), self._cursor() as cursor:
                    if not transaction:
                        return change(cursor)
                    cursor.execute("BEGIN")
                    result = change(cursor)
                    cursor.execute("COMMIT")
                    return result
            except WarehouseError as error:
                if ("locked" not in str(error) and "onflict" not in str(error)) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.01, 0.2))

    @contextlib.contextmanager
    def _lock(self, name: str = "write", *, wait: bool = True) -> Iterator[None]:
        assert self._catalog.sqlite is not None
        path = Path(f"{self._catalog.sqlite}.{name}.lock")
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                raise WarehouseError(f"{name!r} is held by another process") from None
            yield


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, source: str) -> int:
    columns = ", ".join(f'"{name}"' for name in TABLES[table].column_names())
    keys = ", ".join(f'"{name}"' for name in KEYS[table])
    return _count(
        cursor.execute(
            f'INSERT INTO "{table}" ({columns}) SELECT {columns} FROM {source} ANTI JOIN "{table}" USING ({keys})'
        )
    )


def _count(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return int(row[0]) if row else 0


def _conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    schema: type[dy.Schema] = TABLES[table]
    wanted = schema.create_empty().schema
    missing = sorted(set(wanted) - set(frame.columns))
    if missing:
        raise WarehouseError(f"table {table!r} needs the columns {', '.join(missing)}, which the rows lack")
    try:
        rows = frame.select(wanted.names()).cast(dict(wanted), strict=True)
        return schema.validate(rows.unique(KEYS[table], keep="first", maintain_order=True))
    except (pl.exceptions.PolarsError, dy.exc.ValidationError) as error:
        raise WarehouseError(f"rows do not fit the table {table!r}: {error}") from None
