"""The Prefect flow of the recipe: from prompts to training shards, each lane a task."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.execution import STAGES, BuildSummary, check_stage, execute_build, stages_of
from flows.lanes import BuildStoppedError
from flows.policy import train_policy
from schemas.errors import FactoryError
from schemas.recipe import Recipe

MAX_LANES = 64
"""How many lanes may wait for their slot at once."""


@flow(name="build", task_runner=ThreadPoolTaskRunner(max_workers=MAX_LANES), persist_result=False)  # type: ignore[arg-type]
def build(recipe: Recipe, until: str | None = None, limit: int | None = None, quiet: bool = False) -> BuildSummary:
    """Run a recipe up to a stage, or to its end: the export, or the last step of its policy, if it has one.

    Stages that have nothing left to do send nothing.
    """
    allowed = stages_of(recipe)
    until = until or allowed[-1]
    check_stage(until, allowed)
    ends = until in STAGES
    summary = execute_build(
        recipe, until=until if ends else STAGES[-1], limit=limit, quiet=quiet, together=run_as_tasks
    )
    create_markdown_artifact(_as_markdown(summary.counts), key=f"{_slug(recipe.name)}-counts")
    if ends:
        return summary
    policy = train_policy(recipe, summary, until=until, quiet=quiet, together=run_as_tasks)
    create_markdown_artifact(_as_markdown(policy.table()), key=f"{_slug(recipe.name)}-policy")
    return replace(summary, policy=policy)


def run_as_tasks(pieces: dict[str, Callable[[], int]]) -> list[int]:
    """Run pieces of work as parallel Prefect tasks; all of them end before the first error is raised."""
    futures = [do.with_options(task_run_name=name).submit(piece) for name, piece in pieces.items()]
    results: list[Any] = [future.result(raise_on_failure=False) for future in futures]
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, BuildStoppedError))
    return results


def _is_worth_retrying(_task: Any, _task_run: Any, state: Any) -> bool:
    """A mistake that the user must mend stays one; anything else may be a passing fault of the machine."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, FactoryError)


@task(
    name="lane",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=2,
    retry_condition_fn=_is_worth_retrying,
)
def do(piece: Callable[[], int]) -> int:
    """Do one lane's or source's share of a stage."""
    return piece()


def _slug(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _as_markdown(counts: pl.DataFrame) -> str:
    lines = ["| " + " | ".join(counts.columns) + " |", "|" + " --- |" * counts.width]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in counts.iter_rows()]
    return "\n".join(lines)
