"""The Prefect flow of the recipe: from prompts to training shards, each lane a task."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import polars as pl
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from flows import stages
from flows.identity import resolve_build
from flows.lanes import BuildStoppedError, LaneJob, Run, run_lane
from flows.progress import Board
from flows.slots import SlotPool, find_slots
from schemas.errors import FactoryError
from schemas.recipe import Recipe
from schemas.tables import Builds
from warehouse.lake import Lake

STAGES = ("read", "translate", "sample", "score", "route", "pair", "export")
"""The stages that `until` may name, in order."""


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a run did. ``num_sent`` counts the requests that models answered in this run."""

    name: str
    config_id: str
    snapshot: int
    num_sent: int
    counts: pl.DataFrame
    export_path: str | None
    seconds: float


def run_build(recipe: Recipe, *, until: str = "export", limit: int | None = None, quiet: bool = False) -> BuildSummary:
    """Run a build in this process; Prefect starts what it needs by itself."""
    if until not in STAGES:
        raise FactoryError(f"there is no stage {until!r}; allowed are {', '.join(STAGES)}")
    summary: BuildSummary = build(recipe, until=until, limit=limit, quiet=quiet)
    return summary


@flow(name="build", task_runner=ThreadPoolTaskRunner(max_workers=64), persist_result=False)  # type: ignore[arg-type]
def build(recipe: Recipe, until: str = "export", limit: int | None = None, quiet: bool = False) -> BuildSummary:
    """Run a recipe up to a stage; stages that have nothing left to do send nothing."""
    started = datetime.now(UTC)
    stop = threading.Event()
    console = Console(stderr=True)
    with Board(console, quiet=quiet) as board, Lake.open(recipe.warehouse) as lake, _stop_on_signal(stop, board):
        resolved = resolve_build(recipe)
        slots = SlotPool(find_slots(recipe.run.slots))
        run = Run(uuid4().hex, resolved, lake, board, slots, limit, stop)
        board.say(f"build {recipe.name} ({resolved.config_id[:8]}) · {len(recipe.languages)} languages")
        with lake.lease(f"build-{resolved.config_id}", wait=recipe.run.overlap == "wait"), _recorded(run):
            num_sent, export_path = _run_stages(run, until)
            counts = stages.count_stages(run)
            snapshot = lake.snapshot()
    if FlowRunContext.get() is not None:
        create_markdown_artifact(
            _as_markdown(counts), key=f"{recipe.name.lower().replace('_', '-').replace('.', '-')}-counts"
        )
    seconds = (datetime.now(UTC) - started).total_seconds()
    return BuildSummary(recipe.name, resolved.config_id, snapshot, num_sent, counts, export_path, seconds)


def _run_stages(run: Run, until: str) -> tuple[int, str | None]:
    """Run the stages in order; return the number of requests sent and the path of the export, if one was made."""
    wanted = STAGES[: STAGES.index(until) + 1]
    num_sent = 0
    export_path = None
    stages.open_build(run)
    if "read" in wanted:
        _together(run, {"read prompts": _bind(stages.read_prompts, run)})
    if "translate" in wanted:
        num_sent += _answer(run, stages.prompt_translation_jobs(run))
        stages.gate_prompts(run)
    if "sample" in wanted:
        _together(
            run, {f"read {lane.name}": _bind(stages.read_recorded, run, lane) for lane in stages.recorded_lanes(run)}
        )
        num_sent += _answer(run, stages.sampling_jobs(run))
        stages.gate_completions(run)
        num_sent += _answer(run, stages.completion_translation_jobs(run))
        stages.gate_completions(run)
    if "score" in wanted:
        num_sent += _answer(run, stages.scoring_jobs(run))
    if "route" in wanted:
        stages.route(run)
    if "pair" in wanted:
        stages.pair(run)
        stages.audit(run)
    if "export" in wanted:
        export_path = stages.export(run)
    return num_sent, export_path


def _answer(run: Run, jobs: list[LaneJob]) -> int:
    return sum(_together(run, {f"{job.stage} {job.lane.name}": _bind(run_lane, run, job) for job in jobs}))


def _together(run: Run, work: dict[str, Callable[[], int]]) -> list[int]:
    """Run pieces of work as parallel tasks; all of them end before the first error is raised."""
    run.check_stop()
    futures = [do.with_options(task_run_name=name).submit(piece) for name, piece in work.items()]
    states = [future.result(raise_on_failure=False) for future in futures]
    errors = [state for state in states if isinstance(state, BaseException)]
    for error in sorted(errors, key=lambda error: isinstance(error, BuildStoppedError)):
        raise error
    return states


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


def _bind(function: Callable[..., int], *arguments: Any) -> Callable[[], int]:
    return lambda: function(*arguments)


@contextlib.contextmanager
def _recorded(run: Run) -> Iterator[None]:
    """Keep the run's start and end in the table of builds."""
    _record(run, "running")
    try:
        yield
    except BuildStoppedError as error:
        _record(run, "stopped", str(error))
        raise
    except BaseException as error:
        _record(run, "failed", f"{type(error).__name__}: {error}")
        raise
    _record(run, "finished")


def _record(run: Run, status: str, detail: str | None = None) -> None:
    row = {
        "run_id": run.run_id,
        "config_id": run.build.config_id,
        "name": run.build.recipe.name,
        "recipe": run.build.recipe_json(),
        "status": status,
        "detail": detail,
        "recorded_at": datetime.now(UTC),
    }
    run.lake.append("builds", pl.DataFrame([row], schema=Builds.create_empty().schema))


@contextlib.contextmanager
def _stop_on_signal(stop: threading.Event, board: Board) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: send nothing more, commit what is in flight. Second Ctrl-C: stop at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        board.say("stopping: waiting for what is in flight, which will be committed (again: stop at once)")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _as_markdown(counts: pl.DataFrame) -> str:
    lines = ["| " + " | ".join(counts.columns) + " |", "|" + " --- |" * counts.width]
    lines += ["| " + " | ".join(str(value) for value in row) + " |" for row in counts.iter_rows()]
    return "\n".join(lines)
