"""The rows of an export, in their final order and in bounded memory.

Which rows there are is settled by ids alone, and their order by one of these. The rows, their prompts and their answers are
then fetched in one pass over the lake each, spooled to disk by parts of that order, and joined part by part. (Sorting the
whole rows in DuckDB ran out of memory at 1 GB of text under a limit of 1.5 GB.)
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa

from warehouse.build.scope import Scope
from warehouse.statements import read_sql

PART_ROWS = 5_000
"""Rows of a part, about, which are in memory at once; more where there would be over ``_MAX_PARTS`` files."""

_MAX_PARTS = 200

_ORDER = {"sft": "completion_id", "preference": "pair_id"}
"""The ids are hashes: their order mixes the languages and is the same in every run."""

_ANSWERS = {"sft": ("completion_id",), "preference": ("chosen_id", "rejected_id")}
"""The columns of a row that name completions."""


class BuildRows:
    """The rows of one build in a lake that is opened as of a snapshot."""

    def __init__(self, past: Scope, configs: tuple[str, ...]) -> None:
        self._past, config_id = past, past.config_id
        past.hold("memory.main.exported", read_sql("export/exported", config_id=config_id))
        self._rows = {config: read_sql(f"export/{config}", config_id=config_id) for config in configs}
        self.num_rows = {config: self._count(rows) for config, rows in self._rows.items()}

    def find_leaks(self) -> list[tuple[str, list[str]]]:
        """Return the roots whose prompts would be in both splits: ``root_id`` and the list ``prompt_ids``."""
        return self._past.rows(read_sql("export/leaks", config_id=self._past.config_id))

    def find_orphans(self) -> list[tuple[str, str]]:
        """Return the selected or paired completions that are not candidates: ``completion_id`` and ``used_by``."""
        return self._past.rows(read_sql("export/orphans", config_id=self._past.config_id))

    def digest(self, config: str) -> str:
        """Return a hash of a config's rows that does not depend on their order; of the ids of what they say."""
        return self._digest(self._rows[config])

    def digest_content(self) -> str:
        """Return a hash of all prompts and completions that are exported, texts included."""
        parts = ("FROM exported", read_sql("export/answers"), read_sql("export/prompts"))
        return " ".join(map(self._digest, parts))

    def stream(self, config: str, folder: Path) -> Iterator[pl.DataFrame]:
        """Yield the rows of a config in their final order; ``folder`` must exist and takes what they say meanwhile."""
        num_parts = min(-(-self.num_rows[config] // PART_ROWS), _MAX_PARTS)
        rows_sql = f"SELECT *, {_make_part(_ORDER[config], num_parts)} AS part FROM ({self._rows[config]})"
        named = " UNION ".join(f"SELECT part, {side} AS completion_id FROM ({rows_sql})" for side in _ANSWERS[config])
        answers_sql = f"""
            SELECT part, text, exported.* EXCLUDE prompt_id
            FROM lake.completions JOIN ({named}) AS named USING (completion_id) JOIN exported USING (completion_id)"""
        prompts_sql = f"""
            FROM ({read_sql("export/prompts")})
            JOIN (SELECT DISTINCT part, prompt_id FROM ({rows_sql})) AS named USING (prompt_id)"""
        with contextlib.ExitStack() as stack:
            spools = [
                stack.enter_context(contextlib.closing(_Spool(folder / name)))
                for name in ("rows", "answers", "prompts")
            ]
            for spool, select in zip(spools, (rows_sql, answers_sql, prompts_sql), strict=True):
                spool.fill(self._past.stream(select, joined_as_written=True))
            for part in spools[0].parts():
                rows, answers, prompts = (spool.take(part) for spool in spools)
                ordered = rows.sort(_ORDER[config]).join(prompts, on="prompt_id", how="left", maintain_order="left")
                yield _ASSEMBLE[config](ordered, answers)

    def _count(self, rows: str) -> int:
        return int(self._past.value(f"SELECT count(*) FROM ({rows})"))

    def _digest(self, select: str) -> str:
        digest = self._past.value(
            f"SELECT bit_xor(md5_number(to_json(made)::VARCHAR))::VARCHAR FROM ({select}) AS made"
        )
        return str(digest or "")


def _make_part(column: str, num_parts: int) -> str:
    """Return the SQL of the part that an id belongs to: parts are equal ranges of ids, which are evenly spread hashes."""
    return f"('0x' || substr({column}, 1, 4))::INTEGER * {num_parts} // 65536" if num_parts > 1 else "0"


class _Spool:
    """Rows on disk by the number in their column ``part``."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._writers: dict[int, pa.RecordBatchStreamWriter] = {}
        self._parts: set[int] = set()

    def fill(self, frames: Iterator[pl.DataFrame]) -> None:
        for frame in frames:
            for (part,), rows in frame.partition_by("part", as_dict=True, include_key=False).items():
                table = rows.to_arrow()
                if part not in self._writers:
                    self._parts.add(part)
                    options = pa.ipc.IpcWriteOptions(compression="lz4")
                    self._writers[part] = pa.ipc.new_stream(self._path(part), table.schema, options=options)
                self._writers[part].write_table(table)
        self.close()

    def parts(self) -> list[int]:
        """Return the numbers of the parts that have rows."""
        return sorted(self._parts)

    def take(self, part: int) -> pl.DataFrame:
        """Return the rows of a part and delete them from the disk."""
        with pa.OSFile(self._path(part), "r") as file, pa.ipc.open_stream(file) as reader:
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
