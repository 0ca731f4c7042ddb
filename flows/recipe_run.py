"""A recipe from its prompts to its training shards, and on to the last step of its policy, if it has one.

The build reports its progress to a watcher, and goes on whether or not the watcher can be reached.
"""

import time
from dataclasses import dataclass, fields
from functools import partial

import polars as pl

from flows.build.build_run import BuildSummary
from flows.build.run import run_build
from flows.lanes.context import open_context
from flows.lanes.side_by_side import Watcher, run_side_by_side
from flows.policy.policy import PolicySummary, run_policy
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
    recipe: Recipe, watcher: Watcher, *, until: str, limit: int | None = None, quiet: bool = False
) -> RecipeSummary:
    """Run a recipe up to a stage or a step of its policy, as ``check_run`` returns them.

    Stages that have nothing left to do send nothing.
    """
    started = time.monotonic()
    together = partial(run_side_by_side, watcher)
    with open_context(recipe.warehouse, recipe.run, quiet=quiet, together=together, begin=watcher.begin) as context:
        ends = until in STAGES
        summary = run_build(context, recipe, until=until if ends else STAGES[-1], limit=limit)
        watcher.table(f"{_slug(recipe.name)}-counts", _as_markdown(summary.counts))
        if ends:
            return _summarize(summary, started)
        policy = run_policy(context, recipe, summary, until=until)
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
