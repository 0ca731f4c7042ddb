"""The result of a finished run. This module does not import torch, so that callers of a child process can use it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from factory.training.identity import RunIdentity
from schemas.disk import write_text

RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run. ``model`` is the folder of the final model, ``metrics`` are those of the last step.

    ``eval_metrics`` belong to the final model: they are from the best evaluation if its weights were kept, otherwise
    from the last one. ``num_others`` counts the rows of languages or strategies that were not selected; older results
    lack it.
    """

    run_id: str
    model: Path
    num_steps: int
    num_tokens: int
    num_rows: int
    num_cut: int
    rejected: dict[str, int]
    seconds: float
    metrics: dict[str, Any]
    eval_metrics: dict[str, Any]
    best_step: int | None
    num_others: int = 0


def write_result(output: Path, result: TrainResult) -> None:
    """Write the result, which marks the run as complete."""
    values = asdict(result) | {"model": result.model.relative_to(output).as_posix()}
    write_text(output / RESULT_FILE, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_result(output: Path, identity: RunIdentity) -> TrainResult | None:
    """Return the result in ``output`` if it is complete and belongs to this run, else None."""
    path = output / RESULT_FILE
    if not path.is_file():
        return None
    values = json.loads(path.read_bytes())
    if values["run_id"] != identity.id:
        return None
    return TrainResult(**(values | {"model": output / values["model"]}))
