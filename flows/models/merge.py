"""The merge commands: merging, searching for weights, leaving one out."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import polars as pl
from rich.console import Console

from factory.child_process import Work, run_child
from factory.merging.identity import fingerprint_parents, identify_merge
from factory.merging.progress import merge_visibly
from factory.merging.result import RESULT, MergeResult
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
from schemas.errors import InputError
from schemas.ids import content_id
from schemas.recipe.merging import MergeSettings
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.section import identify
from schemas.toml.toml_file import load_table

PACKAGE = "factory.merging"
"""What merges, in a process of its own."""


class Merge(Protocol):
    """Merges into a folder, and shows the progress unless ``quiet``."""

    def __call__(self, settings: MergeSettings, output: Path, *, quiet: bool) -> MergeResult: ...


def run_merge(path: Path, output: Path, *, warehouse: WarehouseSettings | None, quiet: bool = False) -> MergeResult:
    """Merge as the ``[merge]`` table of a file says, and record the result where there is a warehouse."""
    settings = load_table(path, "merge", MergeSettings)
    return merge_and_record(settings, output, warehouse=warehouse, quiet=quiet)


def run_search(
    path: Path,
    output: Path,
    command: str,
    *,
    folder: Path,
    num_evaluations: int,
    warehouse: WarehouseSettings | None,
) -> Evaluation:
    """Search for the weights whose merge a command scores highest, and write and record that merge.

    A search merges so often that it does so in this process, which loads torch once.
    """
    settings = load_table(path, "merge", MergeSettings)

    def tell(evaluation: Evaluation) -> None:
        say_line(f"{evaluation.label:<16} {evaluation.fitness:>12.6g}  {_show(evaluation.weights)}")

    best = search_weights(_open_evaluator(settings, command, folder), num_evaluations=num_evaluations, progress=tell)
    chosen = with_weights(settings, best.weights)
    merge_and_record(chosen, output, warehouse=warehouse, metrics={"fitness": best.fitness}, merge=merge_visibly)
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
        merge_and_record(settings, output, warehouse=warehouse, quiet=quiet)
    # A merge appears whole; a run that was killed then has not recorded it. What is recorded stays as it is.
    return str(output), _record(settings, output, {}, (), warehouse)


def _open_evaluator(settings: MergeSettings, command: str, folder: Path) -> Evaluator:
    """Return what merges, each time holding the device only until the command is run, which may need it itself."""

    def merge_on_device(settings: MergeSettings, output: Path) -> MergeResult:
        with _hold_device(settings):
            return merge_visibly(settings, output, quiet=True)

    return Evaluator(settings, command_fitness(command), folder, fitness_name=command, merge=merge_on_device)


def _merge_in_child(settings: MergeSettings, output: Path, *, quiet: bool) -> MergeResult:
    """Merge in a process of its own, so that this one loads no torch and keeps no memory of the GPU's."""
    clearing = "what it had written is cleared away by the next merge to the same place"
    reported = run_child(Work(PACKAGE, "merging", InputError, clearing), settings, output, quiet=quiet)
    assert reported is not None
    return RESULT.validate_json(reported)


def merge_and_record(
    settings: MergeSettings,
    output: Path,
    *,
    warehouse: WarehouseSettings | None,
    metrics: Mapping[str, float] = MappingProxyType({}),
    quiet: bool = False,
    merge: Merge = _merge_in_child,
) -> MergeResult:
    """Merge, and record the result, with what was found of it before, where there is a warehouse."""
    with _hold_device(settings, quiet=quiet):
        result = merge(settings, output, quiet=quiet)
    if not quiet:
        for note in result.notes:
            print(f"note: {note}", file=sys.stderr)
        rate = result.num_bytes / 1e9 / max(result.seconds, 1e-9)
        print(f"{output}: {result.num_parameters:,} parameters in {result.seconds:,.1f} s, {rate:.2f} GB/s")
    if warehouse is not None:
        size = {"num_parameters": result.num_parameters, "seconds": round(result.seconds, 3)}
        checkpoint_id = _record(settings, output, {**metrics, **size}, result.notes, warehouse)
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
