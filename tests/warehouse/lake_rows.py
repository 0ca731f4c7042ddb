"""Rows for tests of the lake, and Python that runs in another process."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from schemas.recipe.settings import WarehouseSettings
from tests.waiting import GUARD_SECONDS
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[2]


def warehouse_at(folder: Path) -> WarehouseSettings:
    """Return the settings of a warehouse with a SQLite catalog in a folder."""
    return WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))


def make_completions(ids: Sequence[str], *, text: str = "مرحبا 世界 e\u0301", settings_id: str = "s") -> pl.DataFrame:
    """Return completions with these ids."""
    return pl.DataFrame({"completion_id": ids}, schema={"completion_id": pl.String}).with_columns(
        prompt_id=pl.lit("p"),
        language=pl.lit("ar"),
        model=pl.lit("m"),
        model_fingerprint=pl.lit("f"),
        settings_id=pl.lit(settings_id),
        origin=pl.lit("in_language"),
        translator=pl.lit(None),
        parent_id=pl.lit(None),
        round=pl.lit(0),
        sample_index=pl.lit(0),
        text=pl.lit(text),
        reasoning=pl.lit(None),
        finish_reason=pl.lit("stop"),
        num_prompt_tokens=pl.lit(3),
        num_completion_tokens=pl.lit(5),
        num_chars=pl.lit(len(text)),
        repetition=pl.lit(0.0),
        detected_language=pl.lit("ar"),
        language_score=pl.lit(0.9),
        script_share=pl.lit(1.0),
    )


def make_selections(ids: Sequence[str]) -> pl.DataFrame:
    """Return selections of one build, a prompt each."""
    return pl.DataFrame({"prompt_id": ids}, schema={"prompt_id": pl.String}).with_columns(
        config_id=pl.lit("c"), completion_id=pl.lit("x"), router=pl.lit("reward")
    )


def start(settings: WarehouseSettings, body: str, *, run_as: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Start Python in another process with ``settings``, ``Lake`` and the functions above at hand."""
    code = (
        "from warehouse.lake.lake import Lake\nfrom schemas.recipe.settings import WarehouseSettings\n"
        "from tests.warehouse.lake_rows import make_completions, make_selections\n"
        f"settings = WarehouseSettings(catalog={settings.catalog!r}, data={settings.data!r})\n{body}"
    )
    return subprocess.Popen(
        [*run_as, sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]", *, timeout: float = GUARD_SECONDS) -> str:
    """Wait for a process that must succeed; return what it printed."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out


def read_line(process: "subprocess.Popen[str]") -> str:
    """Return the next line that a running process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process outright and collect it."""
    process.kill()
    process.communicate()


def find_strays(lake: Lake) -> list[str]:
    """Return the Parquet files below the data folder that the catalog does not know, as a killed writer leaves them."""
    sql = "CALL ducklake_delete_orphaned_files('lake', dry_run => true, cleanup_all => true)"
    return sorted(lake.query(sql)["path"])
