"""SQL of the warehouse's tables, made from the schemas."""

from typing import TYPE_CHECKING

import polars as pl

from schemas.tables import TABLES

if TYPE_CHECKING:
    import dataframely as dy

_SIMPLE: dict[type[pl.DataType], str] = {
    pl.String: "VARCHAR",
    pl.Boolean: "BOOLEAN",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.Date: "DATE",
}


def sql_type(dtype: pl.DataType) -> str:
    """Return the DuckDB type that holds a Polars type.

    Raises:
        TypeError: the warehouse has no column of this type.
    """
    match dtype:
        case pl.List():
            return f"{sql_type(_instance(dtype.inner))}[]"
        case pl.Struct():
            fields = ", ".join(f'"{field.name}" {sql_type(_instance(field.dtype))}' for field in dtype.fields)
            return f"STRUCT({fields})"
        case pl.Datetime():
            return "TIMESTAMPTZ" if dtype.time_zone else "TIMESTAMP"
    try:
        return _SIMPLE[type(dtype)]
    except KeyError:
        raise TypeError(f"the warehouse has no column type for {dtype}") from None


def create_statement(name: str, schema: "type[dy.Schema]") -> str:
    """Return the ``CREATE TABLE`` statement of a table; keys are kept by the lake, for DuckLake has none."""
    columns = ", ".join(
        f'"{column_name}" {sql_type(column.dtype)}{"" if column.nullable else " NOT NULL"}'
        for column_name, column in schema.columns().items()
    )
    return f'CREATE TABLE IF NOT EXISTS "{name}" ({columns})'


def create_statements() -> list[str]:
    """Return the statements that make every table of the warehouse."""
    return [create_statement(name, schema) for name, schema in TABLES.items()]


def _instance(dtype: object) -> pl.DataType:
    if isinstance(dtype, pl.DataType):
        return dtype
    assert isinstance(dtype, type)
    made = dtype()
    assert isinstance(made, pl.DataType)
    return made
