"""The train command: the trainer in a process of its own or in several, and the row that records its model."""

import os
from pathlib import Path

from factory.child_process import Work, run_child
from factory.engines.devices import visible_devices
from factory.training.data.reading import read_export_id
from factory.training.identity import RunIdentity, claim_output, identify_run, pin_data
from factory.training.result import TrainResult, read_result
from flows.lanes.slots import SlotPool, find_slots
from flows.models.model_record import Making, record_checkpoint
from flows.terminal import choose_say
from schemas.errors import TrainingError
from schemas.ids import Json
from schemas.recipe.settings import WarehouseSettings
from schemas.recipe.training import TrainSettings, load_train_settings


def run_training(
    path: Path,
    output: Path,
    *,
    warehouse: WarehouseSettings | None,
    quiet: bool = False,
    model: str | None = None,
    data: str | None = None,
) -> TrainResult:
    """Train as the ``[train]`` table of a file says, and record the model where there is a warehouse."""
    settings = load_train_settings(path, model=model, data=data)
    result = train_and_record(settings, output, warehouse=warehouse, quiet=quiet)
    if not quiet:
        print(summarize(result))
    return result


def train_and_record(
    settings: TrainSettings,
    output: Path,
    *,
    warehouse: WarehouseSettings | None,
    quiet: bool = False,
    slots: SlotPool | None = None,
) -> TrainResult:
    """Train in child processes, going on with what lies in ``output``; a run that is complete is not run again.

    ``slots`` are the GPUs of which it takes one per process; none: those that this process sees.

    Raises:
        TrainingError: the run could not start or go on, in the trainer's own words; or it was killed.
    """
    settings = pin_data(settings)
    identity = identify_run(settings)
    result = read_result(output, identity)
    if result is None:
        claim_output(output, identity, writes=False)  # the process that trains does, once it is alone there
        slots = slots or SlotPool(find_slots(()), say=choose_say(quiet=quiet))
        with slots.take(0 if settings.run.device == "cpu" else settings.run.processes) as devices:
            _launch(settings, output, quiet=quiet, devices=devices)
        result = read_result(output, identity)
        assert result is not None
    if warehouse is not None:
        _record(settings, identity, result, warehouse)
    return result


def summarize(result: TrainResult) -> str:
    """Return a few lines about a finished run."""
    lines = [f"{result.model}: {result.num_steps:,} steps, {result.num_tokens:,} tokens, {result.seconds:,.0f} s"]
    if result.rejected or result.num_cut:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.rejected.items()) or "none"
        lines.append(f"rows: {result.num_rows:,} used, {result.num_cut:,} of them cut; rejected: {reasons}")
    if result.num_others:
        lines.append(f"{result.num_others:,} rows of other languages or strategies were not used")
    for name, metrics in (("train", result.metrics), ("held out", result.eval_metrics)):
        shown = [f"{key} {metrics[key]:.4f}" for key in ("loss", "accuracy", "margin", "kl") if key in metrics]
        if shown:
            lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines)


def _record(settings: TrainSettings, identity: RunIdentity, result: TrainResult, warehouse: WarehouseSettings) -> None:
    kept: dict[str, Json] = {
        "train": result.metrics,
        "eval": result.eval_metrics,
        "num_rejected": sum(result.rejected.values()),
        "num_steps": result.num_steps,
        "num_tokens": result.num_tokens,
        "seconds": round(result.seconds, 3),
    }
    making = Making(
        kind="preference" if settings.is_preference else "sft",
        parents=[identity.model, *([] if identity.reference is None else [identity.reference])],
        config=identity.parts(),
        metrics=kept,
        export_id=read_export_id(settings.data),
    )
    record_checkpoint(result.model, warehouse, making)


def _launch(settings: TrainSettings, output: Path, *, quiet: bool, devices: tuple[int, ...]) -> None:
    """Run the trainer, which ends when this process does, and wait for it."""
    run_child(
        Work("factory.training", "training", TrainingError, "the same command goes on from its last checkpoint"),
        settings,
        output,
        quiet=quiet,
        environment={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(settings.run.threads))}
        | visible_devices(devices),
    )
