"""One run of a build from start to end: the order of its stages, its record, and how it is stopped."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

import polars as pl

from flows.build import stages
from flows.identity import resolve_build
from flows.lanes.lane import BuildStoppedError, LaneJob, OpenEngine, Run, Together, check_stop, hold_run, run_lane
from flows.lanes.progress import Board
from flows.lanes.slots import SlotPool, find_slots
from flows.recipe_names import refuse_missing
from schemas.errors import FactoryError
from schemas.names import STAGES
from schemas.recipe.recipe import Recipe
from schemas.tables import Builds
from warehouse.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a run of a build did. ``num_sent`` counts the rows that models were asked about in this run."""

    name: str
    config_id: str
    snapshot: int
    num_sent: int
    counts: pl.DataFrame
    export_path: str | None
    seconds: float
    limit: int | None = None


def execute_build(
    recipe: Recipe,
    *,
    until: str = "export",
    limit: int | None = None,
    quiet: bool = False,
    together: Together | None = None,
    open_engine: OpenEngine | None = None,
) -> BuildSummary:
    """Run a build up to a stage; stages that have nothing left to do send nothing.

    ``together`` runs the lanes of a stage, by default one after another.

    Raises:
        FactoryError: whatever the user can mend; BuildStoppedError after Ctrl-C or SIGTERM.
    """
    check_stage(until, STAGES)
    refuse_missing(recipe, with_policy=False)
    started = time.monotonic()
    stop = threading.Event()
    with Board(quiet=quiet) as board, Lake.open(recipe.warehouse) as lake, stop_on_signal(stop, board):
        build = resolve_build(recipe)
        slots = SlotPool(find_slots(recipe.run.slots), say=board.say, check_stop=partial(check_stop, stop))
        run = Run(uuid4().hex, build, lake, board, slots, limit, stop)
        if together is not None:
            run = replace(run, together=together)
        if open_engine is not None:
            run = replace(run, open_engine=open_engine)
        board.say(f"build {recipe.name} ({build.config_id[:8]}) · {len(recipe.languages)} languages")
        name = f"build {recipe.name} ({build.config_id})"
        with hold_run(lake, name, recipe.run, stop), _recorded(run):
            num_sent, export_path = _run_stages(run, until)
            counts = stages.count_stages(run)
            snapshot = lake.snapshot()
    seconds = time.monotonic() - started
    return BuildSummary(recipe.name, build.config_id, snapshot, num_sent, counts, export_path, seconds, limit)


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """Return what `until` may name, in order: the stages of the build, then the steps of the policy."""
    return STAGES + (tuple(step.name for step in recipe.policy.steps) if recipe.policy else ())


def check_run(recipe: Recipe, until: str | None) -> str:
    """Return what a run ends with; refuse a stage that there is not, and what the recipe names and is not there."""
    allowed = stages_of(recipe)
    until = until or allowed[-1]
    check_stage(until, allowed)
    refuse_missing(recipe, with_policy=until not in STAGES)
    return until


def check_stage(until: str, allowed: tuple[str, ...]) -> None:
    """Refuse a stage that there is not."""
    if until not in allowed:
        raise FactoryError(f"there is no stage {until!r}; allowed are {', '.join(allowed)}")


def _run_stages(run: Run, until: str) -> tuple[int, str | None]:
    """Run the stages in order; return the number of rows sent and the path of the export, if one was made."""
    wanted = STAGES[: STAGES.index(until) + 1]
    num_sent = num_gated = 0
    export_path = None
    stages.open_build(run)
    if "read" in wanted:
        _do(run, {"read prompts": partial(stages.read_prompts, run)})
    if "translate" in wanted:
        num_sent += _answer(run, stages.prompt_translation_jobs(run))
        stages.gate_prompts(run)
    if "sample" in wanted:
        _do(run, {f"read {lane.name}": partial(stages.read_recorded, run, lane) for lane in stages.recorded_lanes(run)})
        num_sent += _answer(run, stages.sampling_jobs(run))
        num_gated = stages.gate_completions(run)
        num_sent += _answer(run, stages.completion_translation_jobs(run))
        num_gated = stages.gate_completions(run, known=num_gated)
    if "score" in wanted:
        num_sent += _answer(run, stages.scoring_jobs(run))
    if "route" in wanted:
        stages.gate_completions(run, known=num_gated)  # a build beside this one may have answered meanwhile
        stages.route(run)
    if "pair" in wanted:
        stages.pair(run)
        stages.audit(run)
    if "export" in wanted:
        export_path = stages.export(run)
    return num_sent, export_path


def _answer(run: Run, jobs: list[LaneJob]) -> int:
    return sum(_do(run, {f"{job.stage} {job.lane.name}": partial(run_lane, run, job) for job in jobs}))


def _do(run: Run, pieces: dict[str, Callable[[], int]]) -> list[int]:
    run.check_stop()
    return run.together(pieces, stop=run.stop)


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
def stop_on_signal(stop: threading.Event, board: Board) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: send nothing more, commit what is in flight. Second Ctrl-C: stop at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()
        board.say("stopping: waiting for what is in flight, which will be committed (again: stop at once)")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
