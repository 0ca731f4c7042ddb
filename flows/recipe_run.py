"""A recipe from its prompts to its training shards, and on to the last step of its policy, if it has one.

The build reports its progress to a watcher, and goes on whether or not the watcher can be reached.
"""

import time
from dataclasses import dataclass, fields
from functools import partial

import polars as pl

from flows.build.run import BuildSummary, check_run, execute_build
from flows.lanes.together import Watcher, run_side_by_side
from flows.policy.policy import PolicySummary, train_policy
from schemas.names import STAGES
from schemas.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class RecipeSummary(BuildSummary):
    """What a run of a recipe did: its build, and the policy that was trained on it.

    ``seconds`` are the build's, ``total_seconds`` those of the whole run.
    """

    policy: PolicySummary | None = None
    total_seconds: float = 0.0


def build(
    recipe: Recipe, watcher: Watcher, *, until: str | None = None, limit: int | None = None, quiet: bool = False
) -> RecipeSummary:
    """Run a recipe up to a stage, or to its end: the export, or the last step of its policy.

    Stages that have nothing left to do send nothing.
    """
    started = time.monotonic()
    until = check_run(recipe, until)
    ends, together = until in STAGES, partial(run_side_by_side, watcher)
    summary = execute_build(recipe, until=until if ends else STAGES[-1], limit=limit, quiet=quiet, together=together)
    watcher.table(f"{_slug(recipe.name)}-counts", _as_markdown(summary.counts))
    if ends:
        return _summarize(summary, started)
    policy = train_policy(recipe, summary, until=until, quiet=quiet, together=together)
    watcher.table(f"{_slug(recipe.name)}-policy", _as_markdown(policy.table()))
    return _summarize(summary, started, policy)


def _summarize(build: BuildSummary, started: float, policy: PolicySummary | None = None) -> RecipeSummary:
    built = {field.name: getattr(build, field.name) for field in fields(build)}
    return RecipeSummary(**built, policy=policy, total_seconds=time.monotonic() - started)


def _slug(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _as_markdown(counts: pl.DataFrame) -> str:
    lines = ["| " + " | ".join(counts.columns) + " |", "|" + " --- |" * counts.width]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in counts.iter_rows()]
    return "\n".join(lines)
