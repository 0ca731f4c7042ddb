"""Runs a build: every prompt's path from the recipe's sources to training shards, stage by stage."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import polars as pl

from factory.engines.open import open_engine
from factory.stages.outputs import make_frame
from flows.build.build_run import BuildRun, BuildSummary
from flows.build.curation import audit, export, gate_completions, gate_prompts, pair, route
from flows.build.jobs import completion_translation_jobs, prompt_translation_jobs, sampling_jobs, scoring_jobs
from flows.build.recorded import read_recorded
from flows.build.source_reading import read_prompts
from flows.identity import Build, resolve_build
from flows.lanes.context import OpenEngine, RunContext, open_context
from flows.lanes.lane import LaneJob, run_lane
from flows.lanes.side_by_side import Together, run_in_order
from flows.recipe_names import check_stage, refuse_missing
from schemas.errors import BuildStoppedError
from schemas.names import STAGES
from schemas.recipe.recipe import Recipe
from warehouse.build.scope import Scope
from warehouse.build.user_sql import try_sql


@dataclass(frozen=True, slots=True)
class _Done:
    """What the stages of a run did. ``counts`` are those of each stage."""

    num_sent: int
    counts: pl.DataFrame
    export_path: str | None


def _run_stages(run: BuildRun, until: str) -> _Done:
    """Run the stages in order."""
    wanted = STAGES[: STAGES.index(until) + 1]
    num_sent = num_known = 0
    counts = export_path = None
    if "read" in wanted:
        run.context.do({"read prompts": partial(read_prompts, run)})
    if "translate" in wanted:
        num_sent += _answer(run, prompt_translation_jobs(run))
        gate_prompts(run)
    if "sample" in wanted:
        _read_recorded(run)
        num_sent += _answer(run, sampling_jobs(run))
        num_known = gate_completions(run, known=num_known)  # only what passes is translated
        if translations := completion_translation_jobs(run):
            num_sent += _answer(run, translations)
            num_known = gate_completions(run, known=num_known)
    if "score" in wanted:
        num_sent += _answer(run, scoring_jobs(run))
    if "route" in wanted:
        gate_completions(run, known=num_known)  # a concurrent build may have added answers
        route(run)
    if "pair" in wanted:
        pair(run)
        counts = audit(run)
    if "export" in wanted:
        export_path = export(run)
    return _Done(num_sent, run.scope.count_each_stage() if counts is None else counts, export_path)


def _read_recorded(run: BuildRun) -> None:
    run.context.do({f"read {lane.name}": partial(read_recorded, run.context, run.scope, lane) for lane in run.recorded})


def _answer(run: BuildRun, jobs: Sequence[LaneJob]) -> int:
    """Have models answer what is wanted but missing; return how many rows were sent."""
    work = partial(run_lane, run.context, run.scope, scorers=run.build.rewards)
    return sum(run.context.do({f"{job.stage} {job.lane.name}": partial(work, job) for job in jobs}))


def execute_build(
    recipe: Recipe,
    *,
    until: str = "export",
    limit: int | None = None,
    quiet: bool = False,
    together: Together = run_in_order,
    open_engine: OpenEngine = open_engine,
) -> BuildSummary:
    """Check that everything the recipe names exists, open its warehouse, and run its build there; see ``run_build``."""
    check_stage(until, STAGES)
    refuse_missing(recipe, with_policy=False)
    with open_context(recipe.warehouse, recipe.run, quiet=quiet, together=together, open_engine=open_engine) as context:
        return run_build(context, recipe, until=until, limit=limit)


def run_build(context: RunContext, recipe: Recipe, *, until: str = "export", limit: int | None = None) -> BuildSummary:
    """Run a build up to a stage; stages that have nothing left to do send nothing.

    Raises:
        FactoryError: something that the user can fix; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    build = resolve_build(recipe)
    context.say(f"build {recipe.name} ({build.config_id[:8]}) · {len(recipe.languages)} languages")
    with context.hold(f"build {recipe.name} ({build.config_id})") as context, _logged(context, build):
        context.lake.append("build_models", build.models())
        with Scope.open(context.lake, build.config_id) as scope:
            try_sql(scope, recipe)
            done = _run_stages(BuildRun(context, build, scope, limit), until)
            snapshot = context.lake.snapshot()
    seconds = time.monotonic() - started
    return BuildSummary(
        recipe.name, build.config_id, snapshot, done.num_sent, done.counts, done.export_path, seconds, limit
    )


@contextlib.contextmanager
def _logged(context: RunContext, build: Build) -> Iterator[None]:
    """Write the run's start and end to the table ``builds``."""
    record = partial(_write_status, context, build)
    record("running")
    try:
        yield
    except BuildStoppedError as error:
        record("stopped", str(error))
        raise
    except BaseException as error:
        record("failed", f"{type(error).__name__}: {error}")
        raise
    record("finished")


def _write_status(context: RunContext, build: Build, status: str, detail: str | None = None) -> None:
    row = {
        "run_id": context.run_id,
        "config_id": build.config_id,
        "name": build.recipe.name,
        "recipe": build.recipe_json(),
        "status": status,
        "detail": detail,
        "recorded_at": datetime.now(UTC),
    }
    context.lake.append("builds", make_frame("builds", [row]))
