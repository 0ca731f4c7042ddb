"""Tables of steps that several policies share: each is counted once, as a step of the latest policy of the build."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from flows.policy.step_records import Origin, Scores, StepOutcome, record_outcome
from schemas.recipe.settings import WarehouseSettings
from tests.flows.report_rows import STEPS, append, fill_report_lake, score
from tests.warehouse.small_build import CONFIG_ID
from warehouse.build.scope import Scope, latest_build
from warehouse.lake.lake import Lake


def test_steps_found_again_under_another_policy_id_count_once(tmp_path: Path) -> None:
    """A lake of before knows the steps by another id of their policy; the same models are written down under the new."""
    warehouse = fill_report_lake(tmp_path).warehouse
    with Lake.open(warehouse) as lake:
        export = {"export_id": "e", "config_id": CONFIG_ID, "snapshot": 1, "path": "", "manifest": "{}"}
        append(lake, "exports", [export | {"created_at": datetime.now(UTC)}])
        settings = '{"settings.languages": [], "settings.strategies": []}'
        update = f"UPDATE checkpoints SET export_id = 'e', config = '{settings}' WHERE kind <> 'merge'"
        lake.transact(lambda cursor: cursor.execute(update))
    counted = count_as_the_handbook_does(warehouse)
    assert {row[0] for row in counted} == set(STEPS[1:])
    with Lake.open(warehouse) as lake:
        for place in range(3):
            record_again(lake, place)
        assert lake.query("SELECT count(*) FROM steps").item() == len(STEPS) + 3
    assert count_as_the_handbook_does(warehouse) == [row for row in counted if row[0] in STEPS[:3]]
    with Lake.open(warehouse, read_only=True) as lake:
        scope = Scope.open(lake, CONFIG_ID)
        steps = scope.query("SELECT policy_id, step FROM policy_steps ORDER BY place").rows()
    assert steps == [("new", step) for step in STEPS[:3]]


def record_again(lake: Lake, place: int) -> None:
    """Write a step down as a step of another policy that has reached the same model."""
    step = STEPS[place]
    rows = pl.DataFrame([score(step, place, 4, "all")]).drop("policy_id", "step")
    outcome = StepOutcome(step, f"models/{step}", f"{step}-id", {})
    record_outcome(lake, "new", outcome, Scores(f"s-{step}", rows), Origin(place, CONFIG_ID))


def count_as_the_handbook_does(warehouse: WarehouseSettings) -> list[tuple[Any, ...]]:
    """Run the handbook's query that walks back from a policy to what it learnt from, on the latest build.

    Return step, teacher, role and how many answers.
    """
    page = (Path(__file__).parents[3] / "docs/tutorials/policy.md").read_text(encoding="utf-8")
    (query,) = re.findall(r'factory sql "(SELECT step, [^"]*)"', page)
    with Lake.open(warehouse, read_only=True) as lake:
        scope = Scope.open(lake, latest_build(lake))
        return scope.query(query).rows()
