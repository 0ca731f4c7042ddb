"""Kill -9 in the middle of training and of merging: the same command goes on, and comes to the very same models."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.build.run import execute_build
from flows.policy.policy import train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows import slow_merging
from tests.flows.children import find_children
from tests.flows.direct import DirectEngines
from tests.flows.policy_recipe import make_policy
from tests.waiting import wait_until
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[3]


def start(recipe: Path, marker: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.flows.drive_policy", str(recipe), str(marker)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (recipe.parent / "log.txt").open("wb") as log:
        return subprocess.Popen(command, cwd=recipe.parent, env=environment, stderr=log)


def count_lines(models: Path, run: str) -> int:
    """Return how many steps the run of one cluster has reported."""
    return sum(len(path.read_text().splitlines()) for path in models.glob(f"{run}-*/metrics.jsonl"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_in_training_and_merging(write_recipe, tmp_path, monkeypatch):
    rng = random.Random(os.environ.get("FACTORY_TEST_SEED", "5"))
    policy = make_policy(max_steps=6, later="")
    path = write_recipe(extra=policy)
    models, marker = tmp_path / "models" / "small", tmp_path / "merging"
    for run in ("sft-west", "offline-east"):
        process = start(path, marker)
        num_steps = rng.randint(1, 4)
        wait_until(lambda run=run, num_steps=num_steps: count_lines(models, run) >= num_steps, process)
        process.kill()
        process.wait()
        wait_until(
            lambda: not find_children("factory.training", tmp_path),
            otherwise="a trainer outlives the build that started it",
        )
        assert not list(models.glob(f"{run}-*/result.json"))
        process = start(path, marker)
        wait_until(marker.exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(
            lambda: not find_children(slow_merging.PACKAGE, tmp_path),
            otherwise="a merge outlives the build that started it",
        )
        assert not list(models.glob(".*")), "a merge that ends with its build leaves nothing half-written"
        step = run.partition("-")[0]
        assert len(list(models.glob(f"{step}-*/result.json"))) == 2, "both clusters were trained"
        assert not [folder for folder in models.glob(f"{step}-*") if (folder / "config.json").is_file()]
        marker.unlink()
    process = start(path, marker)
    assert process.wait() == 0, (tmp_path / "log.txt").read_text()

    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    recipe = load_recipe(path)
    recipe = recipe.model_copy(
        update={
            "warehouse": recipe.warehouse.model_copy(update={"catalog": "lake.sqlite", "data": "data"}),
            "run": recipe.run.model_copy(update={"exports": str(other / "exports")}),
        }
    )
    engines = DirectEngines()
    build = execute_build(recipe, quiet=True, open_engine=engines)
    whole = train_policy(recipe, build, quiet=True, open_engine=engines)
    with Lake.open(load_recipe(path).warehouse, read_only=True) as lake:
        steps = lake.query("SELECT step, checkpoint_id, parent_id, policy_id FROM steps ORDER BY place")
        num_checkpoints = lake.query("SELECT count(*) FROM checkpoints").item()
    assert steps["step"].to_list() == [outcome.step for outcome in whole.steps]
    assert steps["checkpoint_id"].to_list() == [outcome.checkpoint_id for outcome in whole.steps]
    assert set(steps["policy_id"]) == {whole.policy_id}
    assert num_checkpoints == 9  # two clusters and their merge in each of three steps
    assert not list(models.glob(".*")), "nothing half-written is left"
