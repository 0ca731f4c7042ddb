"""What comes back of a statement."""

import duckdb
import polars as pl


def count_changed(result: duckdb.DuckDBPyConnection) -> int:
    """Return how many rows an INSERT, UPDATE or DELETE has changed."""
    row = result.fetchone()
    return int(row[0]) if row else 0


def in_utc(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with its times in UTC; DuckDB gives them in the machine's time zone."""
    zoned = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime) and dtype.time_zone]
    return frame.with_columns(pl.col(zoned).dt.convert_time_zone("UTC")) if zoned else frame
