"""The row that records a model that was trained or merged."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from factory.engines.fingerprint import fingerprint_model
from factory.stages.outputs import make_frame
from schemas.ids import Json
from schemas.recipe.models import Model
from schemas.recipe.settings import WarehouseSettings
from warehouse.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class Making:
    """How a model was made: of which parents, named by the id of their content, with what settings, how well."""

    kind: Literal["sft", "preference", "merge"]
    parents: Sequence[str]
    config: Mapping[str, Json]
    metrics: Mapping[str, Json]
    export_id: str | None = None


def record_checkpoint(model: Path, warehouse: WarehouseSettings, making: Making) -> str:
    """Append a model's folder to the ``checkpoints`` table; return its id, like its parents' that of its content."""
    path = str(model.resolve())
    checkpoint_id = fingerprint_model(Model(model=path))
    row = {
        "checkpoint_id": checkpoint_id,
        "kind": making.kind,
        "parents": list(making.parents),
        "export_id": making.export_id,
        "path": path,
        "config": json.dumps(making.config, ensure_ascii=False),
        "metrics": json.dumps(making.metrics, ensure_ascii=False),
        "recorded_at": datetime.now(UTC),
    }
    with Lake.open(warehouse) as lake:
        lake.append("checkpoints", make_frame("checkpoints", [row]))
    return checkpoint_id
