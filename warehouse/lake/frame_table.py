"""A frame as a table that SQL can read."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from schemas.errors import WarehouseError
from warehouse.statements import TableName, literal


@contextlib.contextmanager
def as_table(frame: pl.DataFrame) -> Iterator[TableName]:
    """Have a frame's rows in a temporary Parquet file for the length of a ``with`` block; yield the table that reads it.

    DuckDB could scan the frame where it is, but loads pandas for that, which takes longer than most commands.

    Raises:
        WarehouseError: there is no space for them.
    """
    with tempfile.TemporaryDirectory(prefix="factory-rows-") as folder:
        path = Path(folder) / "rows.parquet"
        try:
            frame.write_parquet(path, compression="lz4")
        except OSError as error:
            raise WarehouseError(
                f"rows for the warehouse cannot be held in {tempfile.gettempdir()}: {error.strerror or error}; "
                "name another folder in TMPDIR"
            ) from error
        yield TableName(f"read_parquet({literal(str(path))})")
