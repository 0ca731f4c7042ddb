"""Atomic checkpoints in torch's distributed format, which a different number of processes can resume from."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from factory.training.model.model import Policy
from factory.training.processes import World
from schemas.disk import finish_folder, name_unfinished, remove_unfinished, share
from schemas.errors import TrainingError

_PROGRESS = "progress.json"

_OPTIONS = StateDictOptions(ignore_frozen_params=True)


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a run after a step. Data order and random state are not in it: they follow from seed and step."""

    step: int = 0
    num_tokens: int = 0
    first_loss: float | None = None
    smoothed_loss: float | None = None
    best_step: int | None = None
    best_loss: float | None = None
    seconds: float = 0.0


def find_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / _PROGRESS).is_file())


def save_checkpoint(
    folder: Path, progress: Progress, policy: Policy, optimizer: torch.optim.Optimizer, world: World, keep_last: int
) -> None:
    """Write a checkpoint atomically, then delete old ones except the latest ``keep_last`` and the best.

    Raises:
        TrainingError: it cannot be written; earlier checkpoints are kept.
    """
    final = folder / f"step-{progress.step:07d}"
    unfinished = name_unfinished(final)

    def begin() -> None:
        remove_unfinished(folder)
        unfinished.mkdir(parents=True)

    def write() -> None:
        with _calm():
            dcp.save(_state(policy, optimizer), checkpoint_id=unfinished, no_dist=world.size == 1)

    def finish() -> None:
        (unfinished / _PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
        share(unfinished)
        finish_folder(unfinished, final, replaces=True)
        _prune(folder, progress, keep_last)

    for act, is_shared in ((begin, False), (write, True), (finish, False)):
        fault = _try(act) if is_shared or world.is_main else None
        if faults := [fault for fault in world.gather(fault) if fault]:
            remove_unfinished(folder)
            kept = find_checkpoints(folder)
            there = f"the last good one is {kept[-1].name}" if kept else "there is no earlier one"
            raise TrainingError(f"checkpoint {final} could not be written: {faults[0]}; {there}")


def load_checkpoint(path: Path, policy: Policy, optimizer: torch.optim.Optimizer | None, world: World) -> Progress:
    """Restore a policy, and its optimizer if one is given, from a checkpoint and return the run's progress.

    Raises:
        TrainingError: the checkpoint does not match the model or is damaged.
    """
    state = _state(policy, optimizer)
    try:
        with _calm():
            dcp.load(state, checkpoint_id=path, no_dist=world.size == 1)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        raise TrainingError(
            f"checkpoint {path} does not match this model or is damaged: {_first_line(error)}"
        ) from error
    set_model_state_dict(policy, state["policy"], options=StateDictOptions(strict=False))
    if optimizer is not None:
        set_optimizer_state_dict(policy, optimizer, state["optimizer"], options=_OPTIONS)
    return Progress(**json.loads((path / _PROGRESS).read_bytes()))


def _state(policy: Policy, optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    state: dict[str, Any] = {"policy": get_model_state_dict(policy, options=_OPTIONS)}
    if optimizer is not None:
        state["optimizer"] = get_optimizer_state_dict(policy, optimizer, options=_OPTIONS)
    return state


def _try(act: Callable[[], None]) -> str | None:
    """Call a function and return the first line of its error, or None."""
    try:
        act()
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        return _first_line(error)
    return None


def _prune(folder: Path, progress: Progress, keep_last: int) -> None:
    kept = find_checkpoints(folder)
    best = f"step-{progress.best_step or 0:07d}"
    for path in kept[:-keep_last]:
        if path.name != best:
            shutil.rmtree(path)


@contextmanager
def _calm() -> Iterator[None]:
    """Suppress the warning that torch.distributed is disabled, which is intended with a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _first_line(error: BaseException) -> str:
    cause: BaseException = error
    if isinstance(error, dcp.api.CheckpointException) and error.failures:
        cause = next(iter(error.failures.values()))[0]
    return str(cause).strip().partition("\n")[0]
