"""The merge commands: merging, searching for weights, leaving one out."""

import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from factory.merging.identity import fingerprint_parents, identify_merge
from factory.merging.merge import MergeResult, merge
from factory.merging.search import (
    Contribution,
    Evaluation,
    Evaluator,
    command_fitness,
    leave_one_out,
    search_weights,
    with_weights,
)
from flows.lanes.slots import Slot, SlotPool
from flows.models.model_record import Making, record_checkpoint
from flows.terminal import choose_say, make_table, say_line
from schemas.ids import content_id
from schemas.recipe.merging import MergeSettings
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.section import identify
from schemas.toml.toml_file import load_table

LOG_SECONDS = 10.0
"""How often progress is reported where no terminal redraws a bar."""


def run_merge(path: Path, output: Path, *, warehouse: WarehouseSettings | None, quiet: bool = False) -> MergeResult:
    """Merge as the ``[merge]`` table of a file says, and record the result where there is a warehouse."""
    settings = load_table(path, "merge", MergeSettings)
    return _merge_and_record(settings, output, {}, warehouse, quiet=quiet)


def run_search(
    path: Path,
    output: Path,
    command: str,
    *,
    folder: Path,
    num_evaluations: int,
    warehouse: WarehouseSettings | None,
) -> Evaluation:
    """Search for the weights whose merge a command scores highest, and write and record that merge."""
    settings = load_table(path, "merge", MergeSettings)

    def tell(evaluation: Evaluation) -> None:
        say_line(f"{evaluation.label:<16} {evaluation.fitness:>12.6g}  {_show(evaluation.weights)}")

    best = search_weights(_open_evaluator(settings, command, folder), num_evaluations=num_evaluations, progress=tell)
    chosen = with_weights(settings, best.weights)
    _merge_and_record(chosen, output, {"fitness": best.fitness}, warehouse, quiet=False)
    return best


def run_leave_one_out(path: Path, command: str, *, folder: Path) -> list[Contribution]:
    """Score the merge and the merges that lack one parent each, and print the table."""
    settings = load_table(path, "merge", MergeSettings)
    contributions = leave_one_out(_open_evaluator(settings, command, folder))
    frame = pl.DataFrame([asdict(each) for each in contributions])
    Console().print(make_table(frame, "leave one out"))
    return contributions


def merge_once(
    settings: MergeSettings, folder: Path, name: str, warehouse: WarehouseSettings, *, quiet: bool = False
) -> tuple[str, str]:
    """Merge into a folder that is named by what the merge is, where there is none yet; return it and its checkpoint id."""
    output = folder / f"{name}-{content_id('merge', identify_merge(settings))[:8]}"
    if not output.exists():
        _merge_and_record(settings, output, {}, warehouse, quiet=quiet)
    # A merge appears whole; a run that was killed then has not recorded it. What is recorded stays as it is.
    return str(output), _record(settings, output, {}, (), warehouse)


def _open_evaluator(settings: MergeSettings, command: str, folder: Path) -> Evaluator:
    """Return what merges, each time holding the device only until the command is run, which may need it itself."""

    def merge_on_device(settings: MergeSettings, output: Path) -> MergeResult:
        with _hold_device(settings):
            return merge(settings, output)

    return Evaluator(settings, command_fitness(command), folder, fitness_name=command, merge=merge_on_device)


def _merge_and_record(
    settings: MergeSettings,
    output: Path,
    metrics: dict[str, float],
    warehouse: WarehouseSettings | None,
    *,
    quiet: bool,
) -> MergeResult:
    with _hold_device(settings, quiet=quiet), _Meter(quiet=quiet) as meter:
        result = merge(settings, output, progress=meter.update)
    if not quiet:
        for note in result.notes:
            print(f"note: {note}", file=sys.stderr)
        rate = result.num_bytes / 1e9 / max(result.seconds, 1e-9)
        print(f"{output}: {result.num_parameters:,} parameters in {result.seconds:,.1f} s, {rate:.2f} GB/s")
    if warehouse is not None:
        size = {"num_parameters": result.num_parameters, "seconds": round(result.seconds, 3)}
        checkpoint_id = _record(settings, output, metrics | size, result.notes, warehouse)
        if not quiet:
            print(f"recorded as checkpoint {checkpoint_id}")
    return result


def _hold_device(settings: MergeSettings, *, quiet: bool = False) -> AbstractContextManager[Slot]:
    """Hold the GPU that a merge works on, if it works on one."""
    name, _, number = settings.run.device.partition(":")
    slots = () if name == "cpu" else ((int(number or 0),),)
    return SlotPool(slots, say=choose_say(quiet=quiet)).take(1)


def _record(
    settings: MergeSettings,
    model: Path,
    metrics: dict[str, float],
    notes: Sequence[str],
    warehouse: WarehouseSettings,
) -> str:
    """Record the merged model."""
    making = Making(
        kind="merge",
        parents=fingerprint_parents(settings),
        config={"merge": identify(settings, content=lambda _, name: name), "notes": list(notes)},
        metrics=metrics,
    )
    return record_checkpoint(model, warehouse, making)


def _show(weights: tuple[float, ...]) -> str:
    return " ".join(f"{weight:.3f}" for weight in weights)


class _Meter:
    """Progress in bytes with time left: a bar in a terminal, lines in a log."""

    def __init__(self, *, quiet: bool) -> None:
        console = Console(stderr=True)
        self._quiet = quiet
        self._bars = Progress(
            TextColumn("merging"),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._bar = self._bars.add_task("merging", total=None)
        self._started = self._reported = time.monotonic()

    def __enter__(self) -> "_Meter":
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` bytes are written."""
        self._bars.update(self._bar, completed=done, total=total)
        now = time.monotonic()
        if self._bars.disable and not self._quiet and now - self._reported > LOG_SECONDS and done:
            left = (now - self._started) * (total - done) / done
            print(f"  merged {done / 1e9:,.2f} of {total / 1e9:,.2f} GB, {left:,.0f} s left", file=sys.stderr)
            self._reported = now
