"""One lane: a model on a slot answers what a stage still wants, and every reply is committed as it lands."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

import polars as pl

from factory.engines.base import Engine
from factory.engines.open import Task, open_engine
from factory.engines.replicas import EnginePool
from factory.stages.outputs import Stage, StageOutput
from flows.identity import Build, Lane
from flows.lanes.committer import Committer
from flows.lanes.progress import Board, LaneReport
from flows.lanes.slots import Slot, SlotPool
from schemas.errors import EngineError, FactoryError, HeldError
from schemas.reasons import TRANSIENT_REASONS
from schemas.recipe.models import Model
from schemas.recipe.settings import RunSettings
from schemas.tables import Usage
from warehouse.build.views import count_slices
from warehouse.lake.lake import Lake
from warehouse.lake.spool import Spool

_WAIT_SECONDS = 0.5
"""How often it is tried again to hold what another process holds."""


class BuildStoppedError(FactoryError):
    """The user asked the build to stop; what was answered is committed."""


@dataclass(frozen=True, slots=True)
class LaneJob:
    """What one lane has to do for one stage. ``pending`` is a SELECT, ``table`` where its answers go."""

    stage: str
    task: Task
    lane: Lane
    pending: str
    table: str
    work: Stage


class OpenEngine(Protocol):
    """Opens the engine of a model, as ``factory.engines.open.open_engine`` does."""

    def __call__(
        self, model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
    ) -> Engine: ...


Pieces: TypeAlias = dict[str, Callable[[], int]]
"""Pieces of work by name."""


class Together(Protocol):
    """Runs pieces of work, side by side or not; returns their results in order, raises the first error at the end.

    Once ``stop`` is set, no piece is tried again.
    """

    def __call__(self, pieces: Pieces, *, stop: threading.Event | None = None) -> list[int]: ...


def run_in_order(pieces: Pieces, *, stop: threading.Event | None = None) -> list[int]:  # noqa: ARG001 (the protocol's)
    """Run pieces of work one after another, each once."""
    return [piece() for piece in pieces.values()]


class LaneRun(Protocol):
    """What a lane needs of the run that it is part of, be it a build's or an evaluation's."""

    @property
    def run_id(self) -> str: ...

    @property
    def lake(self) -> Lake: ...

    @property
    def board(self) -> Board: ...

    @property
    def slots(self) -> SlotPool: ...

    @property
    def stop(self) -> threading.Event: ...

    @property
    def open_engine(self) -> OpenEngine: ...

    @property
    def settings(self) -> RunSettings: ...

    @property
    def scorers(self) -> tuple[Lane, ...]:
        """The reward models that will score what is answered."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a build: what its stages share."""

    run_id: str
    build: Build
    lake: Lake
    board: Board
    slots: SlotPool
    limit: int | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    together: Together = run_in_order
    open_engine: OpenEngine = open_engine

    @property
    def settings(self) -> RunSettings:
        return self.build.recipe.run

    @property
    def scorers(self) -> tuple[Lane, ...]:
        return self.build.rewards

    def check_stop(self) -> None:
        """Raise if the user asked for a stop."""
        check_stop(self.stop)


def check_stop(stop: threading.Event) -> None:
    """Raise if the user asked for a stop."""
    if stop.is_set():
        raise BuildStoppedError("the build was stopped; the same command goes on from there")


@contextlib.contextmanager
def hold_when_free(lake: Lake, name: str, stop: threading.Event) -> Iterator[None]:
    """Hold a name of the warehouse; while another process does, wait for its end.

    Raises:
        BuildStoppedError: the user asked for a stop meanwhile.
    """
    with contextlib.ExitStack() as held:
        while True:
            check_stop(stop)
            with contextlib.suppress(HeldError):
                held.enter_context(lake.lease(name))
                break
            stop.wait(_WAIT_SECONDS)
        yield


def hold_run(lake: Lake, name: str, settings: RunSettings, stop: threading.Event) -> AbstractContextManager[None]:
    """Hold the name of a run; while another process does, wait or refuse, as ``overlap`` says."""
    return hold_when_free(lake, name, stop) if settings.overlap == "wait" else lake.lease(name)


def run_lane(run: LaneRun, job: LaneJob) -> int:
    """Send what is pending, commit what comes back, and return the number of rows answered or rejected.

    Nothing is sent, and no engine started, when nothing is pending. Only one process at a time works on a lane.

    Raises:
        EngineError: the engine cannot be used, or it left requests unanswered.
        BuildStoppedError: the user asked for a stop; what was in flight has been answered and committed.
    """
    with hold_when_free(run.lake, f"{job.stage}-{job.lane.settings_id}", run.stop):
        _forget_transient(run.lake, job)
        with run.lake.spool(job.pending, slices=count_slices(run.lake)) as pending:
            if pending.num_rows:
                _answer(run, job, pending)
            return pending.num_rows


def _answer(run: LaneRun, job: LaneJob, pending: Spool) -> None:
    check_stop(run.stop)
    if job.task != "score":
        _check_scorers(run)
    model, total = job.lane.model, pending.num_rows
    with run.slots.take(model.num_gpus) as slot, run.board.lane(job.stage, job.lane.name, total) as report:
        try:
            with _open(run, job, slot) as engine:
                _work(run, job, engine, pending, report)
        finally:
            _record_usage(run, job, slot, report)
    run.lake.compact()
    check_stop(run.stop)
    if report.meter.done != total:
        raise EngineError(
            f"{job.stage} of {job.lane.name} finished {report.meter.done:,} of {total:,} rows; "
            f"run the recipe again for the rest"
        )


def _work(run: LaneRun, job: LaneJob, engine: Engine, pending: Spool, report: LaneReport) -> None:
    settings = run.settings

    def count(landed: StageOutput) -> None:
        report.count_rows(finished=landed.rows.height, rejected=landed.rejections.height)

    with Committer(
        run.lake, job.table, job.work, rows=settings.commit_rows, seconds=settings.commit_seconds, on_commit=count
    ) as committer:
        for reply in engine.stream(job.work.requests(pending.frames())):
            report.count_reply(reply)
            committer.add(reply)


def _check_scorers(run: LaneRun) -> None:
    """Refuse reward models that cannot score before anything is spent on completions; opening them starts nothing."""
    for lane in run.scorers:
        run.open_engine(lane.model, "score")


def _open(run: LaneRun, job: LaneJob, slot: Slot) -> Engine:
    model = job.lane.model
    replicas = model.run.replicas
    if replicas == 1:
        return run.open_engine(model, job.task, devices=slot, stop=run.stop)
    share = len(slot) // replicas
    devices = [slot[number * share : (number + 1) * share] for number in range(replicas)]
    return EnginePool([run.open_engine(model, job.task, devices=part, stop=run.stop) for part in devices])


def _forget_transient(lake: Lake, job: LaneJob) -> None:
    marks = ", ".join("?" for _ in TRANSIENT_REASONS)
    where = f"stage = ? AND settings_id = ? AND config_id = '' AND reason IN ({marks})"
    parameters = [job.stage, job.lane.settings_id, *sorted(TRANSIENT_REASONS)]
    if lake.query(f"SELECT 1 FROM rejections WHERE {where} LIMIT 1", parameters).height:
        lake.delete("rejections", where, parameters)


def _record_usage(run: LaneRun, job: LaneJob, slot: Slot, report: LaneReport) -> None:
    meter = report.meter
    row = {
        "run_id": run.run_id,
        "stage": job.stage,
        "model": job.lane.name,
        "settings_id": job.lane.settings_id,
        "device": f"gpu {','.join(map(str, slot))}" if slot else "cpu",
        "num_requests": meter.num_requests,
        "num_rows": meter.done,
        "num_rejected": meter.num_rejected,
        "num_prompt_tokens": meter.num_prompt_tokens,
        "num_completion_tokens": meter.num_completion_tokens,
        "seconds": meter.seconds,
        "recorded_at": datetime.now(UTC),
    }
    run.lake.append("usage", pl.DataFrame([row], schema=Usage.create_empty().schema))
