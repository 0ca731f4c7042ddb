"""Rows on their way into a table: made to fit, told what does not, and inserted where their keys are new."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import duckdb
import polars as pl

from schemas.errors import WarehouseError
from schemas.tables import KEYS, TABLES
from warehouse.lake.cursors import count_changed
from warehouse.statements import literal

if TYPE_CHECKING:
    import dataframely as dy

_PRUNING = {table: (*keys, *(("settings_id",) if table == "completions" else ())) for table, keys in KEYS.items()}
"""Columns whose few values tell which files can hold a key. Equal completion ids have equal settings, being made of them."""

_MANY = 9
"""So many values of a column are too many to be named."""


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with a table's columns and types, its keys once each (the first wins).

    Types are changed only where no value changes. Text may hold anything that Unicode has, NUL included.

    Raises:
        WarehouseError: a column is missing or unknown, a value does not fit the column's type, or a row breaks a rule.
    """
    schema = TABLES[table]
    wanted = schema.create_empty().schema
    missing = [name for name in wanted if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in wanted]
    if missing or unknown:
        parts = [f"lack {', '.join(missing)}"] if missing else []
        parts += [f"have the unknown {', '.join(unknown)}"] if unknown else []
        raise WarehouseError(f"rows for the table {table!r} {' and '.join(parts)}; its columns are {', '.join(wanted)}")
    columns = [_cast(table, frame.get_column(name), dtype) for name, dtype in wanted.items()]
    rows = pl.DataFrame(columns).unique(KEYS[table], keep="first", maintain_order=True)
    good, failed = schema.filter(rows)
    if len(failed):
        raise _refusal(table, failed)
    return pl.DataFrame(good)


def insert_new(
    cursor: duckdb.DuckDBPyConnection, table: str, incoming: str, few: Mapping[str, Sequence[object]] | None = None
) -> int:
    """Insert the rows of the table ``incoming`` whose keys a table does not have, one for each key; return how many.

    ``few`` are what ``find_few`` returns of them, if it is known.
    """
    few = _query_few(cursor, table, incoming) if few is None else few
    columns = ", ".join(f'"{name}"' for name in TABLES[table].column_names())
    keys = ", ".join(f'"{name}"' for name in KEYS[table])
    return count_changed(
        cursor,
        f'INSERT INTO "{table}" ({columns}) SELECT DISTINCT ON ({keys}) {columns} FROM {incoming} '
        f'ANTI JOIN (SELECT {keys} FROM "{table}" WHERE {_pruning(few)}) USING ({keys})',
    )


def _cast(table: str, column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if column.dtype == dtype:
        return column
    try:
        changed = column.cast(dtype, strict=True)
        if changed.cast(column.dtype, strict=True).eq_missing(column).all():
            return changed
    except pl.exceptions.PolarsError:
        pass
    raise WarehouseError(
        f"column {column.name!r} of the table {table!r} holds {dtype}, and the rows have {column.dtype} values that do "
        "not fit without loss"
    )


def _refusal(table: str, failed: "dy.FailureInfo") -> WarehouseError:
    rule, count = max(failed.counts().items(), key=lambda item: item[1])
    column, _, check = rule.rpartition("|")
    key = failed.invalid().select(KEYS[table]).row(0)
    broken = f"column {column!r} breaks the rule {check!r}" if column else f"the rule {rule!r} is broken"
    return WarehouseError(f"{count} rows do not fit the table {table!r}: {broken}; the first one's key is {key}")


def find_few(table: str, rows: pl.DataFrame) -> dict[str, Sequence[object]]:
    """Return the distinct values of the columns of new rows by which files can be skipped; of some, where there are many."""
    return {name: rows[name].unique().head(_MANY).to_list() for name in _PRUNING[table]}


def _query_few(cursor: duckdb.DuckDBPyConnection, table: str, incoming: str) -> dict[str, Sequence[object]]:
    few = (
        f'(SELECT list(v) FROM (SELECT DISTINCT "{name}" AS v FROM {incoming} LIMIT {_MANY}))'
        for name in _PRUNING[table]
    )
    row = cursor.execute(f"SELECT {', '.join(few)}").fetchone() or ()
    return {name: found or () for name, found in zip(_PRUNING[table], row, strict=True)}


def _pruning(few: Mapping[str, Sequence[object]]) -> str:
    """Return a condition that holds for every row with an incoming key; its few constants let files be skipped."""
    conditions = ["true"]
    for name, values in few.items():
        if len(values) < _MANY and all(isinstance(value, str) and "\0" not in value for value in values):
            conditions.append(f'"{name}" IN ({", ".join(literal(str(value)) for value in values) or "NULL"})')
    return " AND ".join(conditions)
