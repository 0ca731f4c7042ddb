"""What comes back of a statement."""

from collections.abc import Iterator

import duckdb
import polars as pl
import pyarrow as pa


def read_frame(result: duckdb.DuckDBPyConnection) -> pl.DataFrame:
    """Return the rows of a result, its times in UTC."""
    return _in_utc(result.pl())


def read_frames(batches: pa.RecordBatchReader) -> Iterator[pl.DataFrame]:
    """Yield the rows of a result, batch by batch, its times in UTC."""
    for batch in batches:
        yield _in_utc(pl.DataFrame(batch))


def _in_utc(frame: pl.DataFrame) -> pl.DataFrame:
    """DuckDB gives times in the machine's time zone."""
    zoned = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime) and dtype.time_zone]
    return frame.with_columns(pl.col(zoned).dt.convert_time_zone("UTC")) if zoned else frame
