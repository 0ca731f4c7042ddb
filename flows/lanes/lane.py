"""One lane: a model on a slot answers what a stage still wants, and every reply is committed as it lands."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from factory.engines.base import Engine
from factory.engines.open import Task
from factory.engines.replicas import EnginePool
from factory.stages.outputs import Stage, StageOutput, make_frame
from flows.identity import Lane
from flows.lanes.committer import Committer
from flows.lanes.context import RunContext
from flows.lanes.progress import LaneReport
from flows.lanes.slots import Slot
from flows.lanes.stopping import hold_when_free
from schemas.errors import EngineError
from schemas.reasons import TRANSIENT_REASONS
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.lake.spool import Spool


@dataclass(frozen=True, slots=True)
class LaneJob:
    """What one lane has to do for one stage. ``pending`` is a SELECT, ``table`` where its answers go."""

    stage: str
    task: Task
    lane: Lane
    pending: str
    table: str
    work: Stage


def run_lane(context: RunContext, scope: Scope, job: LaneJob, *, scorers: Sequence[Lane] = ()) -> int:
    """Send what is pending, commit what comes back, and return the number of rows answered or rejected.

    Nothing is sent, and no engine started, when nothing is pending. Only one process at a time works on a lane.
    ``scorers`` are the reward models that will score what is answered.

    Raises:
        EngineError: the engine cannot be used, or it left requests unanswered.
        BuildStoppedError: the user asked for a stop; what was in flight has been answered and committed.
    """
    with hold_when_free(context.lake, f"{job.stage}-{job.lane.settings_id}", context.stop):
        _forget_transient(context.lake, job)
        with scope.spool(job.pending) as pending:
            if pending.num_rows:
                context.check_stop()
                if job.task != "score":
                    _check_scorers(context, scorers)
                _answer(context, job, pending)
            return pending.num_rows


def _answer(context: RunContext, job: LaneJob, pending: Spool) -> None:
    model, total = job.lane.model, pending.num_rows
    with context.slots.take(model.num_gpus) as slot, context.board.lane(job.stage, job.lane.name, total) as report:
        try:
            with _open(context, job, slot) as engine:
                _work(context, job, engine, pending, report)
        finally:
            _record_usage(context, job, slot, report)
    context.lake.compact()
    context.check_stop()
    if report.meter.done != total:
        raise EngineError(
            f"{job.stage} of {job.lane.name} finished {report.meter.done:,} of {total:,} rows; "
            f"run the recipe again for the rest"
        )


def _work(context: RunContext, job: LaneJob, engine: Engine, pending: Spool, report: LaneReport) -> None:
    settings = context.settings

    def count(output: StageOutput) -> None:
        report.count_rows(finished=output.rows.height, rejected=output.rejections.height)

    with Committer(
        context.lake, job.table, job.work, rows=settings.commit_rows, seconds=settings.commit_seconds, on_commit=count
    ) as committer:
        for reply in engine.stream(job.work.requests(pending.frames())):
            report.count_reply(reply)
            committer.add(reply)


def _check_scorers(context: RunContext, scorers: Sequence[Lane]) -> None:
    """Refuse reward models that cannot score before anything is spent on completions; opening them starts nothing."""
    for lane in scorers:
        context.open_engine(lane.model, "score")


def _open(context: RunContext, job: LaneJob, slot: Slot) -> Engine:
    model = job.lane.model
    replicas = model.run.replicas
    if replicas == 1:
        return context.open_engine(model, job.task, devices=slot, stop=context.stop)
    share = len(slot) // replicas
    devices = [slot[number * share : (number + 1) * share] for number in range(replicas)]
    return EnginePool([context.open_engine(model, job.task, devices=part, stop=context.stop) for part in devices])


def _forget_transient(lake: Lake, job: LaneJob) -> None:
    marks = ", ".join("?" for _ in TRANSIENT_REASONS)
    where = f"stage = ? AND settings_id = ? AND config_id = '' AND reason IN ({marks})"
    parameters = [job.stage, job.lane.settings_id, *sorted(TRANSIENT_REASONS)]
    if lake.rows(f"SELECT 1 FROM rejections WHERE {where} LIMIT 1", parameters):
        lake.delete("rejections", where, parameters)


def _record_usage(context: RunContext, job: LaneJob, slot: Slot, report: LaneReport) -> None:
    meter = report.meter
    row = {
        "run_id": context.run_id,
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
    context.lake.append("usage", make_frame("usage", [row]))
