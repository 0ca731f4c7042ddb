"""A policy's steps over stand-ins for the engines; what trains and merges is real."""

import json

import polars as pl
import pytest

from flows.execution import execute_build
from flows.policy import train_policy
from schemas.recipe_file import load_recipe
from tests.flows.direct import DirectEngines
from tests.flows.policy_recipe import make_policy
from warehouse.build_views import latest_build, use_build
from warehouse.lake import Lake


def run_recipe(path, engines):
    recipe = load_recipe(path)
    build = execute_build(recipe, quiet=True, open_engine=engines)
    return recipe, train_policy(recipe, build, quiet=True, open_engine=engines)


def list_models(tmp_path):
    """Return the folders of a policy's models with the time of their last change."""
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "models" / "small").iterdir()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_policy_goes_through_its_steps(write_recipe, tmp_path, place):
    path = write_recipe(extra=make_policy(rounds=2))
    engines = DirectEngines()
    recipe, summary = run_recipe(path, engines)
    assert [stand.step for stand in summary.steps] == ["base", "sft", "offline", "online_1", "online_2"]
    assert summary.kept in summary.steps
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        use_build(lake, latest_build(lake))
        steps = lake.query("SELECT * FROM steps ORDER BY place")
        scores = lake.query("SELECT * FROM step_scores")
        rounds = lake.query(
            "SELECT DISTINCT round, origin, model, model_fingerprint FROM completions WHERE round > 0 ORDER BY 1"
        )
        paired = lake.query("SELECT config_id, round FROM pairs WHERE round > 0 GROUP BY ALL ORDER BY 2")
        ancestors = lake.query(
            "SELECT DISTINCT kind FROM ancestry JOIN checkpoints ON checkpoints.checkpoint_id = ancestor_id WHERE ancestry.checkpoint_id = ?",
            [summary.steps[-1].checkpoint_id],
        )
        learnt = lake.query("SELECT * FROM learnt_from WHERE checkpoint_id = ?", [summary.steps[-1].checkpoint_id])
    assert steps["step"].to_list() == ["base", "sft", "offline", "online_1", "online_2"]
    assert steps["parent_id"].to_list()[1:] == steps["checkpoint_id"].to_list()[:-1]
    assert scores.group_by("step").len()["len"].to_list() == [5] * 5  # four languages and all of them
    assert scores.filter(step="base")["num_wins"].null_count() == 5
    # each round's answers are those of the policy before it, and its pairs are of that round
    before = dict(steps.select("step", "checkpoint_id").rows())
    assert rounds.rows() == [
        (1, "on_policy", "offline", before["offline"]),
        (2, "on_policy", "online_1", before["online_1"]),
    ]
    assert paired["round"].to_list() == [1, 2]
    assert paired["config_id"].to_list() == steps["config_id"].to_list()[3:]
    # one query walks from the last policy to the teachers' answers that it learnt from
    assert {name.rpartition("-")[0] for name in list_models(tmp_path)} == {
        f"{step}{part}" for step in steps["step"].to_list()[1:] for part in ("", "-west", "-east")
    }
    assert set(ancestors["kind"]) == {"sft", "preference", "merge"}
    teachers = learnt.filter(pl.col("model").is_in(["north", "south"]))
    assert set(teachers["role"]) == {"selected", "chosen", "rejected"}
    assert set(learnt["model"]) >= {"north", "south", "offline", "online_1"}


def test_a_rerun_does_nothing_and_a_late_change_repeats_only_what_depends_on_it(write_recipe, tmp_path, place):
    log = tmp_path / "asked.log"
    path = write_recipe(extra=make_policy(clusters=""))
    engines = DirectEngines(log=log)
    _, first = run_recipe(path, engines)
    models, asked = list_models(tmp_path), log.read_text().splitlines()
    assert {name.rpartition("-")[0] for name in models} == {"sft", "offline", "online_1"}

    _, again = run_recipe(path, engines)
    assert again == first
    assert list_models(tmp_path) == models
    assert log.read_text().splitlines() == asked

    write_recipe(extra=make_policy(clusters="", beta=0.3))
    recipe, changed = run_recipe(path, engines)
    after = list_models(tmp_path)
    assert {name: after[name] for name in models} == models
    assert {name.rpartition("-")[0] for name in after.keys() - models.keys()} == {"online_1"}
    assert [stand.checkpoint_id for stand in changed.steps[:3]] == [stand.checkpoint_id for stand in first.steps[:3]]
    assert changed.steps[3].checkpoint_id != first.steps[3].checkpoint_id
    # asked were the new policy's held-out answers and their scores, nothing else
    new = [line.split() for line in log.read_text().splitlines()[len(asked) :]]
    assert {(line[0], line[3]) for line in new} == {("generate", "online_1"), ("score", "judge")}
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        configs = lake.query("SELECT config FROM steps WHERE step = 'online_1' ORDER BY recorded_at")["config"]
    assert [json.loads(config)["train"]["beta"] for config in configs] == [0.1, 0.3]
