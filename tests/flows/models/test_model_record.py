"""One row of the checkpoints table, whoever made the model."""

import json
from typing import Any

from factory.engines.fingerprint import fingerprint_model
from factory.microworld.questions import MODELS
from flows.models.model_record import Making, record_checkpoint
from schemas.recipe.models import Model
from schemas.recipe.settings import WarehouseSettings
from warehouse.lake.lake import Lake


def test_a_model_is_one_row_by_its_content_with_what_made_it(tmp_path):
    warehouse = WarehouseSettings(catalog=str(tmp_path / "catalog.sqlite"), data=str(tmp_path / "data"))
    (tmp_path / "link").symlink_to(MODELS / "base")
    made: dict[str, Any] = {"parents": ["b", "a"], "config": {"إعداد": 1}, "metrics": {"loss": 0.5}}
    first = record_checkpoint(tmp_path / "link", warehouse, Making(kind="merge", **made))
    again = record_checkpoint(MODELS / "base", warehouse, Making(kind="merge", **made))
    trained = record_checkpoint(MODELS / "teacher-asian", warehouse, Making(kind="sft", export_id="e", **made))
    assert first == again == fingerprint_model(Model(model=str(MODELS / "base"))) != trained
    with Lake.open(warehouse, read_only=True) as lake:
        rows = lake.query("SELECT * FROM checkpoints ORDER BY recorded_at").to_dicts()
    assert [(row["checkpoint_id"], row["kind"], row["export_id"]) for row in rows] == [
        (first, "merge", None),
        (trained, "sft", "e"),
    ]
    assert rows[0]["path"] == str(MODELS / "base")
    assert rows[0]["parents"] == ["b", "a"]
    assert json.loads(rows[0]["config"]) == {"إعداد": 1}
    assert json.loads(rows[0]["metrics"]) == {"loss": 0.5}
