"""Making rows fit a table before they are written, and telling what does not fit."""

import dataframely as dy
import polars as pl

from schemas.errors import WarehouseError
from schemas.tables import KEYS, TABLES


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
