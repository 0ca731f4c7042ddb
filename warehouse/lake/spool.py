"""Rows of a query that wait in a temporary file: read once, at any pace, without holding the warehouse or memory."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from typing import Self

import polars as pl
import pyarrow as pa


class Spool:
    """The rows of a query at one snapshot, on disk, in their order. The file has no name: it goes with this process."""

    def __init__(self, parts: Iterable[pa.RecordBatchReader]) -> None:
        """Take in the rows of all parts, of which there is at least one; they come back in the same batches."""
        self.num_rows = 0
        self._file = tempfile.TemporaryFile(prefix="factory-spool-")  # noqa: SIM115 (closed with the spool)
        try:
            self._write(iter(parts))
        except BaseException:
            self._file.close()
            raise

    def _write(self, parts: Iterator[pa.RecordBatchReader]) -> None:
        first = next(parts)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.ipc.new_stream(self._file, first.schema, options=options) as writer:
            for part in itertools.chain([first], parts):
                for batch in part:
                    writer.write_batch(batch)
                    self.num_rows += batch.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def frames(self) -> Iterator[pl.DataFrame]:
        """Yield the rows, batch by batch."""
        self._file.seek(0)
        for batch in pa.ipc.open_stream(self._file):
            yield pl.DataFrame(batch)
