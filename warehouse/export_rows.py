"""The rows of an export, in their final order and in bounded memory.

Which rows there are is settled by ids alone. What they say is then fetched in one pass over the lake, spooled to disk by
the part of the export that it belongs to, and joined to its rows part by part. (Sorting the whole rows in DuckDB ran out
of memory at 1 GB of text under a limit of 1.5 GB.)
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from warehouse.build_views import use_build
from warehouse.lake import Lake
from warehouse.statements import read_sql

PART_ROWS = 5_000
"""Rows of a part, which are in memory at once; more where there would be over ``_MAX_PARTS`` files."""

_MAX_PARTS = 200

_ORDER = {"sft": "completion_id", "preference": "pair_id"}
"""The ids are hashes: their order mixes the languages and is the same in every run."""

_ANSWERS = {"sft": ("completion_id",), "preference": ("chosen_id", "rejected_id")}
"""The columns of a row that name completions."""


class BuildRows:
    """The rows of one build in a lake that is opened as of a snapshot."""

    def __init__(self, past: Lake, config_id: str, configs: tuple[str, ...]) -> None:
        self._past, self._config_id = past, config_id
        use_build(past, config_id)
        past.query(f"CREATE TABLE memory.main.exported AS {read_sql('export/exported', config_id=config_id)}")
        self.num_rows = {config: self._settle(config) for config in configs}

    def find_leaks(self) -> pl.DataFrame:
        """Return the roots whose prompts would be in both splits: ``root_id`` and the list ``prompt_ids``."""
        return self._past.query(read_sql("export/leaks", config_id=self._config_id))

    def find_orphans(self) -> pl.DataFrame:
        """Return the selected or paired completions that are no candidates: ``completion_id`` and ``used_by``."""
        return self._past.query(read_sql("export/orphans", config_id=self._config_id))

    def digest(self, config: str) -> str:
        """Return a hash of a config's rows that does not depend on their order; of the ids of what they say."""
        return self._digest(f"SELECT * EXCLUDE part FROM {config}_rows")

    def digest_content(self) -> str:
        """Return a hash of all prompts and completions that are exported, texts included."""
        parts = ("FROM exported", read_sql("export/answers"), read_sql("export/prompts"))
        return " ".join(map(self._digest, parts))

    def stream(self, config: str, folder: Path) -> Iterator[pl.DataFrame]:
        """Yield the rows of a config in their final order; ``folder`` must exist and takes what they say meanwhile."""
        named = " UNION ".join(
            f"SELECT part, {column} AS completion_id FROM {config}_rows" for column in _ANSWERS[config]
        )
        with (
            contextlib.closing(_Spool(folder / "answers")) as answers,
            contextlib.closing(_Spool(folder / "prompts")) as prompts,
        ):
            answers.fill(
                self._past.stream(
                    f"SELECT part, text, exported.* EXCLUDE prompt_id FROM lake.completions "
                    f"JOIN ({named}) AS named USING (completion_id) JOIN exported USING (completion_id)",
                    joined_as_written=True,
                )
            )
            prompts.fill(
                self._past.stream(
                    f"FROM ({read_sql('export/prompts')}) "
                    f"JOIN (SELECT DISTINCT part, prompt_id FROM {config}_rows) AS named USING (prompt_id)",
                    joined_as_written=True,
                )
            )
            for part in range(_num_parts(self.num_rows[config])):
                rows = self._past.query(
                    f"SELECT * EXCLUDE part FROM {config}_rows WHERE part = ? ORDER BY {_ORDER[config]}", [part]
                )
                yield _ASSEMBLE[config](
                    rows.join(prompts.take(part), on="prompt_id", how="left", maintain_order="left"), answers.take(part)
                )

    def _settle(self, config: str) -> int:
        """Make the table of a config's rows, each with the number of its part; return how many there are."""
        rows = read_sql(f"export/{config}", config_id=self._config_id)
        num_rows = int(self._past.query(f"SELECT count(*) FROM ({rows})").item())
        part = f"(row_number() OVER (ORDER BY {_ORDER[config]}) - 1) * {_num_parts(num_rows)} // {max(num_rows, 1)}"
        self._past.query(f"CREATE TABLE memory.main.{config}_rows AS SELECT *, {part} AS part FROM ({rows})")
        return num_rows

    def _digest(self, select: str) -> str:
        digest = self._past.query(
            f"SELECT bit_xor(md5_number(to_json(made)::VARCHAR))::VARCHAR FROM ({select}) AS made"
        )
        return str(digest.item() or "")


def _num_parts(num_rows: int) -> int:
    return min(-(-num_rows // PART_ROWS), _MAX_PARTS)


class _Spool:
    """Rows on disk by the number in their column ``part``."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}

    def fill(self, frames: Iterator[pl.DataFrame]) -> None:
        for frame in frames:
            for (part,), rows in frame.partition_by("part", as_dict=True, include_key=False).items():
                table = rows.to_arrow()
                if part not in self._writers:
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    self._writers[part] = pa.ipc.new_stream(self._path(part), table.schema, options=options)
                self._writers[part].write_table(table)
        self.close()

    def take(self, part: int) -> pl.DataFrame:
        """Return the rows of a part and delete them from the disk."""
        with pa.ipc.open_stream(self._path(part)) as reader:
            frame = pl.from_arrow(reader.read_all())
        Path(self._path(part)).unlink()
        assert isinstance(frame, pl.DataFrame)
        return frame

    def close(self) -> None:
        while self._writers:
            self._writers.popitem()[1].close()

    def _path(self, part: int) -> str:
        return f"{self._stem}-{part}.arrow"


def _assemble_sft(rows: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    joined = rows.join(answers, on="completion_id", how="left", maintain_order="left")
    return joined.with_columns(pl.concat_list("messages", _turn("text")).alias("messages"))


def _assemble_preference(rows: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    for side in ("chosen", "rejected"):
        named = {name: f"{side}_{name.removeprefix('completion_')}" for name in answers.columns}
        rows = rows.join(answers.rename(named | {"text": side}), on=f"{side}_id", how="left", maintain_order="left")
    return rows.with_columns(_turn("chosen"), _turn("rejected")).rename({"messages": "prompt"})


def _turn(column: str) -> pl.Expr:
    """The assistant's turn as a conversation of one message."""
    return pl.concat_list(pl.struct(role=pl.lit("assistant"), content=column)).alias(column)


_ASSEMBLE = {"sft": _assemble_sft, "preference": _assemble_preference}
