"""A policy's steps over stand-ins for the engines; what trains and merges is real."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import polars as pl
import pytest

from factory.engines.base import Engine, Reply, Request
from factory.engines.open import Task
from flows import recipe_run as build_module
from flows.build.build_run import BuildSummary
from flows.build.run import execute_build
from flows.lanes.side_by_side import Unwatched
from flows.policy.policy import PolicySummary, train_policy
from flows.policy.step_records import StepOutcome
from flows.recipe_run import RecipeSummary
from flows.status import print_summary
from schemas.recipe.models import Model
from schemas.recipe.recipe import Recipe, load_recipe
from tests.flows.direct import DirectEngines
from tests.flows.policy_recipe import make_policy
from warehouse.build.scope import Scope, latest_build
from warehouse.lake.lake import Lake

STEPS = ("sft", "offline", "online_1")


class LongerAnswers(DirectEngines):
    """Stand-ins whose judge likes every answer of the round's policy better than any other's."""

    def __call__(self, model: Model, task: Task, **options: Any) -> Engine:
        engine = super().__call__(model, task, **options)
        return Liking() if task == "score" else engine


class Liking:
    """Scores every answer by ``like``."""

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        return (Reply(request.request_id, score=like(request.messages[-1]["content"])) for request in requests)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


def like(answer: str) -> float:
    return 2 * ("online_1 says" in answer) + len(answer) % 10 / 10


def run(path: Path, engines: DirectEngines, *, limit: int | None = None) -> tuple[Recipe, PolicySummary]:
    recipe = load_recipe(path)
    build = execute_build(recipe, quiet=True, open_engine=engines, limit=limit)
    return recipe, train_policy(recipe, build, quiet=True, open_engine=engines)


def list_models(folder: Path) -> dict[str, int]:
    """Return the folders of a policy's models with the time of their last change."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "models" / "small").iterdir()}


def test_a_policy_goes_on_step_by_step(write_recipe, tmp_path, monkeypatch):
    """Once whole, then again, then with another beta in the online round: one run serves what would cost three."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "asked.log"
    engines = DirectEngines(log=log)
    recipe, first = run(write_recipe(extra=make_policy()), engines)
    models, asked = list_models(tmp_path), log.read_text().splitlines()
    assert [outcome.step for outcome in first.steps] == ["base", *STEPS]
    assert first.kept in first.steps
    assert {name.rpartition("-")[0] for name in models} == {*STEPS, "sft-west", "sft-east"}
    check_tables(recipe, first)

    _, again = run(write_recipe(extra=make_policy()), engines)
    assert again == first
    assert list_models(tmp_path) == models
    assert log.read_text().splitlines() == asked

    _, changed = run(write_recipe(extra=make_policy(beta=0.3)), engines)
    after = list_models(tmp_path)
    assert {name: after[name] for name in models} == models
    assert {name.rpartition("-")[0] for name in after.keys() - models.keys()} == {"online_1"}
    assert [outcome.checkpoint_id for outcome in changed.steps[:3]] == [
        outcome.checkpoint_id for outcome in first.steps[:3]
    ]
    assert changed.steps[3].checkpoint_id != first.steps[3].checkpoint_id
    # asked were the new policy's held-out answers and their scores, nothing else
    new = [line.split() for line in log.read_text().splitlines()[len(asked) :]]
    assert {(line[0], line[3]) for line in new} == {("generate", "online_1"), ("score", "judge")}
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        configs = lake.query("SELECT config FROM steps WHERE step = 'online_1' ORDER BY recorded_at")["config"]
    assert [json.loads(config)["train"]["beta"] for config in configs] == [0.1, 0.3]


def test_what_a_summary_counts_are_the_builds_own_requests(capsys):
    """A policy's steps send requests too, which are not among them."""
    base = StepOutcome("base", "models/base", "c", {})
    policy = PolicySummary("p", (base,), base)
    counts = pl.DataFrame({"stage": ["read"], "num_pending": [0]})
    print_summary(RecipeSummary("small", "id", 7, 0, counts, None, 1.0, policy=policy, total_seconds=418.0))
    assert "build: nothing was left to send; 1.0 s; snapshot 7" in capsys.readouterr().out
    pending = pl.DataFrame({"stage": ["read", "score"], "num_pending": [0, 101]})
    print_summary(RecipeSummary("small", "id", 7, 0, pending, None, 1.0))
    assert "build: nothing was sent; 1.0 s; snapshot 7" in capsys.readouterr().out


def test_the_time_at_the_end_is_the_whole_runs(monkeypatch, capsys):
    """With stand-ins for the build and the training, by a clock that only they advance."""
    clock = [100.0]
    base = StepOutcome("base", "models/base", "c", {})

    def do(seconds, result):
        clock[0] += seconds
        return result

    built = BuildSummary("small", "c", 1, 2, pl.DataFrame({"stage": ["read"]}), "exports", 113.6)
    monkeypatch.setattr(build_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(build_module, "open_context", lambda *_, **__: nullcontext())
    monkeypatch.setattr(build_module, "run_build", lambda *_, **__: do(113.6, built))
    monkeypatch.setattr(build_module, "run_policy", lambda *_, **__: do(304.4, PolicySummary("p", (base,), base)))
    recipe: Any = SimpleNamespace(name="small", warehouse=None, run=None)
    print_summary(build_module.build(recipe, Unwatched(quiet=True), until="sft"))
    out = capsys.readouterr().out
    assert "build: 2 rows sent; 113.6 s;" in out
    assert out.splitlines()[-1] == "build and policy: 418.0 s"


def check_tables(recipe: Recipe, summary: PolicySummary) -> None:
    last = summary.steps[-1].checkpoint_id
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        scope = Scope.open(lake, latest_build(lake))
        build = scope.query("SELECT name FROM build_recipe").item()
        steps = scope.query("SELECT * FROM steps ORDER BY place")
        scores = scope.query("SELECT * FROM step_scores")
        answers = scope.query(
            "SELECT DISTINCT round, origin, model, model_fingerprint FROM completions WHERE round > 0"
        ).rows()
        paired = scope.query("SELECT DISTINCT config_id, round FROM pairs WHERE round > 0").rows()
        kinds = scope.query(
            "SELECT DISTINCT kind FROM ancestry JOIN checkpoints ON checkpoints.checkpoint_id = ancestor_id "
            "WHERE ancestry.checkpoint_id = ?",
            [last],
        )["kind"]
        learnt = scope.query("SELECT DISTINCT role, model, language FROM learnt_from WHERE checkpoint_id = ?", [last])
    assert build == "small", "a build of a round is not a latest build"
    assert steps["step"].to_list() == ["base", *STEPS]
    assert steps["parent_id"].to_list()[1:] == steps["checkpoint_id"].to_list()[:-1]
    assert steps["export_id"].to_list()[1] == steps["export_id"].to_list()[2] != steps["export_id"].to_list()[3]
    assert scores.group_by("step").len()["len"].to_list() == [5] * 4  # four languages and all of them
    assert scores.filter(step="base")["num_wins"].null_count() == 5
    games = scores.filter(pl.col("language") == "all", pl.col("step") != "base")
    assert (games["num_wins"] + games["num_losses"] + games["num_ties"] == games["num_answers"]).all()
    # a round's answers are those of the policy before it, and its pairs are of that round
    before = dict(steps.select("step", "checkpoint_id").rows())
    assert answers == [(1, "on_policy", "offline", before["offline"])]
    assert paired == [(steps["config_id"].to_list()[3], 1)]
    # one query walks from the last policy to the teachers' answers that it learnt from
    assert set(kinds) == {"sft", "preference", "merge"}
    teachers = learnt.filter(pl.col("model").is_in(["north", "south"]))
    assert set(teachers["role"]) == {"selected", "chosen", "rejected"}
    assert set(teachers["language"]) == {"en", "fr", "ar", "ja"}
    assert set(learnt["model"]) == {"north", "south", "offline"}


@pytest.mark.slow
def test_a_collapsed_policy_ends_the_rounds(write_recipe, tmp_path, monkeypatch):
    """Equal answers make no pairs; what was reached before is kept."""
    monkeypatch.chdir(tmp_path)
    policy = make_policy().split("[[policy.steps]]")
    online = policy[0] + "[[policy.steps]]" + policy[-1]
    engines = DirectEngines(same=lambda name: name == "base")
    _, summary = run(write_recipe(extra=online), engines)
    assert [outcome.step for outcome in summary.steps] == ["base"]
    assert summary.kept.step == "base"


def test_a_round_that_is_stopped_is_the_last_and_is_set_aside(write_recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    policy = make_policy(rounds=3, watch="max_kl = 1e-9, max_win_rate_drop = 1.0")
    table, *steps = policy.split("[[policy.steps]]")
    recipe, summary = run(write_recipe(extra=f"{table}[[policy.steps]]{steps[-1]}"), LongerAnswers(), limit=30)
    assert [(outcome.step, outcome.is_kept) for outcome in summary.steps] == [("base", True), ("online_1", False)]
    assert summary.kept.step == "base"
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        (row,) = lake.query("SELECT is_kept, detail FROM steps WHERE step = 'online_1'").rows()
        read = lake.query("SELECT config_id, count(*) AS num FROM build_prompts GROUP BY 1")["num"]
    assert read.max() == 30, "the limit holds in the rounds too"
    assert row[0] is False
    assert re.match(r"the reward rose from 0\.\d+ to 2\.\d+ while the policy moved by \d\.\d nats", row[1])
