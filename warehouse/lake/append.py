"""Rows on their way into a table: made to fit, told what does not, and inserted where their keys are new."""

import dataframely as dy
import duckdb
import polars as pl

from schemas.errors import WarehouseError
from schemas.tables import KEYS, TABLES
from warehouse.lake.results import count_changed
from warehouse.statements import literal

_PRUNING = {table: (*keys, *(("settings_id",) if table == "completions" else ())) for table, keys in KEYS.items()}
"""Columns whose few values tell which files can hold a key. Equal completion ids have equal settings, being made of them."""


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


def insert_new(cursor: duckdb.DuckDBPyConnection, table: str, incoming: str) -> int:
    """Insert the rows of the table ``incoming`` whose keys a table does not have, one for each key; return how many."""
    columns = ", ".join(f'"{name}"' for name in TABLES[table].column_names())
    keys = ", ".join(f'"{name}"' for name in KEYS[table])
    return count_changed(
        cursor.execute(
            f'INSERT INTO "{table}" ({columns}) SELECT DISTINCT ON ({keys}) {columns} FROM {incoming} '
            f'ANTI JOIN (SELECT {keys} FROM "{table}" WHERE {_pruning(cursor, table, incoming)}) USING ({keys})'
        )
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


def _refusal(table: str, failed: dy.FailureInfo) -> WarehouseError:
    rule, count = max(failed.counts().items(), key=lambda item: item[1])
    column, _, check = rule.rpartition("|")
    key = failed.invalid().select(KEYS[table]).row(0)
    broken = f"column {column!r} breaks the rule {check!r}" if column else f"the rule {rule!r} is broken"
    return WarehouseError(f"{count} rows do not fit the table {table!r}: {broken}; the first one's key is {key}")


def _pruning(cursor: duckdb.DuckDBPyConnection, table: str, incoming: str) -> str:
    """Return a condition that holds for every row with an incoming key; its few constants let files be skipped."""
    few = (f'(SELECT list(v) FROM (SELECT DISTINCT "{name}" AS v FROM {incoming} LIMIT 9))' for name in _PRUNING[table])
    row = cursor.execute(f"SELECT {', '.join(few)}").fetchone()
    conditions = ["true"]
    for name, found in zip(_PRUNING[table], row or (), strict=True):
        values = found or ()
        if len(values) <= 8 and all(isinstance(value, str) and "\0" not in value for value in values):
            conditions.append(f'"{name}" IN ({", ".join(map(literal, values)) or "NULL"})')
    return " AND ".join(conditions)
