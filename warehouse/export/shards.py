"""Training shards: a stream of frames in, size-bounded Parquet or JSON-lines files out, equal bytes for equal rows."""

import contextlib
import io
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

Format = Literal["parquet", "jsonl"]

GROUP_ROWS = 1000
"""Rows of a full row group; fewer where the rows are long."""

_FOOTER_BYTES_PER_COLUMN = 256
"""What a Parquet footer takes for each column of each row group, generously."""

_CONVERSATION = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

LAYOUTS: dict[str, pa.Schema] = {
    "sft": pa.schema(
        [
            ("messages", _CONVERSATION),
            ("language", pa.string()),
            ("prompt_id", pa.string()),
            ("root_id", pa.string()),
            ("completion_id", pa.string()),
            ("teacher", pa.string()),
            ("origin", pa.string()),
            ("prompt_translator", pa.string()),
            ("translator", pa.string()),
            ("reward", pa.float64()),
            ("router", pa.string()),
            ("round", pa.int32()),
            ("source", pa.string()),
            ("source_row", pa.string()),
        ]
    ),
    "preference": pa.schema(
        [
            ("prompt", _CONVERSATION),
            ("chosen", _CONVERSATION),
            ("rejected", _CONVERSATION),
            ("language", pa.string()),
            ("strategy", pa.string()),
            ("margin", pa.float64()),
            ("round", pa.int32()),
            ("pair_id", pa.string()),
            ("prompt_id", pa.string()),
            ("root_id", pa.string()),
            ("prompt_translator", pa.string()),
            ("chosen_id", pa.string()),
            ("chosen_teacher", pa.string()),
            ("chosen_origin", pa.string()),
            ("chosen_reward", pa.float64()),
            ("rejected_id", pa.string()),
            ("rejected_teacher", pa.string()),
            ("rejected_origin", pa.string()),
            ("rejected_translator", pa.string()),
            ("rejected_reward", pa.float64()),
            ("source", pa.string()),
            ("source_row", pa.string()),
        ]
    ),
}
"""The columns of a row of each config of an export, in their order."""


class _Parquet:
    """One open Parquet shard."""

    def __init__(self, file: IO[bytes], layout: pa.Schema) -> None:
        self._file, self._num_groups = file, 0
        self._group_footer = len(layout) * _FOOTER_BYTES_PER_COLUMN
        self._writer = pq.ParquetWriter(file, layout, compression="zstd")

    def write(self, table: pa.Table, limit: float) -> bool:
        """Add one row group, unless the file could then weigh more than ``limit`` bytes; return whether it was added."""
        footer = (self._num_groups + 2) * self._group_footer
        if self._file.tell() + table.nbytes + footer > limit:
            return False
        self._num_groups += 1
        self._writer.write_table(table, row_group_size=len(table))
        return True

    def close(self) -> None:
        self._writer.close()


class _JsonLines:
    """One open JSON-lines shard; nothing is escaped that JSON does not require."""

    def __init__(self, file: IO[bytes], layout: pa.Schema) -> None:
        self._file, self._layout = file, layout

    def write(self, table: pa.Table, limit: float) -> bool:
        """Add lines, unless the file would then weigh more than ``limit`` bytes; return whether they were added."""
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        lines = io.BytesIO()
        frame.write_ndjson(lines)
        if self._file.tell() + len(lines.getbuffer()) > limit:
            return False
        self._file.write(lines.getbuffer())
        return True

    def close(self) -> None:
        """The file is whole after each write."""


_ENCODERS: dict[Format, type[_Parquet] | type[_JsonLines]] = {"parquet": _Parquet, "jsonl": _JsonLines}


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One finished file: its path, the number of its rows, its size in bytes."""

    path: Path
    num_rows: int
    num_bytes: int


class ShardWriter:
    """Writes one split of one config in one format: ``<folder>/<split>-00000-of-00003.<format>``.

    A file never weighs more than ``max_bytes`` unless a single row does. A split without rows still has one file, of
    no rows, so that a glob over the split always finds something. Files are on disk when ``close`` returns.
    """

    def __init__(self, folder: Path, split: str, layout: pa.Schema, form: Format, max_bytes: int) -> None:
        self._folder, self._split, self._layout, self._form, self._max_bytes = folder, split, layout, form, max_bytes
        self._done: list[ShardFile] = []
        self._waiting = pa.Table.from_batches([], layout)  # `empty_table` would load pandas
        self._open()

    def write(self, table: pa.Table) -> None:
        """Add rows, in order. Row groups are cut by count alone, so equal rows make equal files."""
        self._waiting = pa.concat_tables([self._waiting, table])
        while len(self._waiting) >= GROUP_ROWS:
            self._put(self._waiting.slice(0, GROUP_ROWS).combine_chunks())
            self._waiting = self._waiting.slice(GROUP_ROWS)

    def close(self) -> list[ShardFile]:
        """Finish the last file, give all their final names, and return them."""
        if len(self._waiting):
            self._put(self._waiting.combine_chunks())
        self._finish()
        return [self._rename(number, shard) for number, shard in enumerate(self._done)]

    def discard(self) -> None:
        """Close the open file, whatever state it is in; for a writer whose shards nobody wants any more."""
        with contextlib.suppress(OSError, ValueError):
            self._encoder.close()
        with contextlib.suppress(OSError):
            self._file.close()

    def _put(self, group: pa.Table) -> None:
        if self._encoder.write(group, self._max_bytes):
            self._num_rows += len(group)
        elif self._num_rows:
            self._finish()
            self._open()
            self._put(group)
        elif len(group) > 1:
            half = len(group) // 2
            self._put(group.slice(0, half))
            self._put(group.slice(half))
        else:
            self._encoder.write(group, math.inf)
            self._num_rows += 1

    def _open(self) -> None:
        self._num_rows = 0
        self._path = self._folder / f"{self._split}-{len(self._done):05d}.{self._form}.part"
        self._file = self._path.open("wb")
        self._encoder = _ENCODERS[self._form](self._file, self._layout)

    def _finish(self) -> None:
        self._encoder.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._done.append(ShardFile(self._path, self._num_rows, self._file.tell()))
        self._file.close()

    def _rename(self, number: int, shard: ShardFile) -> ShardFile:
        name = f"{self._split}-{number:05d}-of-{len(self._done):05d}.{self._form}"
        return replace(shard, path=shard.path.rename(self._folder / name))


def to_table(frame: pl.DataFrame, config: str) -> pa.Table:
    """Return a frame's rows as an Arrow table with the layout of a config; extra columns are left out."""
    layout = LAYOUTS[config]
    return frame.select(layout.names).to_arrow().cast(layout)
