"""The row that records a model that was trained or merged."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from factory.engines.fingerprint import fingerprint_model
from factory.stages.outputs import make_frame
from schemas.recipe.models import Model
from schemas.recipe.settings import WarehouseSettings
from warehouse.lake.lake import Lake


def record_checkpoint(
    model: Path,
    warehouse: WarehouseSettings,
    *,
    kind: Literal["sft", "preference", "merge"],
    parents: Sequence[str],
    config: Mapping[str, Any],
    metrics: Mapping[str, Any],
    export_id: str | None = None,
) -> str:
    """Append a model's folder to the ``checkpoints`` table; return its id, like its parents' that of its content."""
    path = str(model.resolve())
    checkpoint_id = fingerprint_model(Model(model=path))
    row = {
        "checkpoint_id": checkpoint_id,
        "kind": kind,
        "parents": list(parents),
        "export_id": export_id,
        "path": path,
        "config": json.dumps(config, ensure_ascii=False),
        "metrics": json.dumps(metrics, ensure_ascii=False),
        "recorded_at": datetime.now(UTC),
    }
    with Lake.open(warehouse) as lake:
        lake.append("checkpoints", make_frame("checkpoints", [row]))
    return checkpoint_id
