"""Answers that a team already has: joined to the prompts of a build or an evaluation, or rejected with the reason."""

from factory.inputs.finding import stamp_files
from factory.stages.prompt_index import PromptIndex
from factory.stages.recorded import REJOIN_STAGE, STAGE, Declared, Tally
from factory.stages.recorded import read_recorded as read_answers
from factory.texts.langid import shared_detector
from flows.identity import Lane, teacher_lane
from flows.lanes.context import RunContext
from schemas.errors import InputError
from schemas.recipe.models import Recorded, Teacher
from warehouse.build import source_rows
from warehouse.build.scope import Scope
from warehouse.lake.staging import Derived, Frames, replace_rows, stage
from warehouse.statements import to_literal


def read_recorded(context: RunContext, scope: Scope, lane: Lane, *, rows_of: str | None = None) -> int:
    """Let a lane's recorded completions answer the kept prompts of a build or an evaluation; return how many are new.

    They are joined by the rows that the sources of ``rows_of`` have; none given, of the scope itself. Answers of
    before that no row of the file joins any more are rejections, and come back when one does.

    Raises:
        InputError: the file is missing or cannot be read, or is no longer the one that the lane is named by; or other
            answers of it stood in the place of some of them before.
    """
    assert isinstance(lane.model, Teacher)
    assert lane.model.recorded is not None
    path = lane.model.recorded.path
    stamps = stamp_files(path)
    _refuse_change(path, teacher_lane(lane.model, lane.languages).fingerprint != lane.fingerprint)
    with Frames("completions") as completions, Frames("rejections") as rejections, Frames("rejections") as unjoined:
        tally = Tally()
        for landed in read_answers(
            _index_prompts(scope, lane.model.recorded, rows_of or scope.config_id),
            lane.provenance,
            Declared(lane.languages, lane.model.reasoning),
            detect=shared_detector().detect,
            config_id=scope.config_id,
        ):
            _refuse_change(path, stamp_files(path) != stamps)
            completions.add(landed.rows)
            rejections.add(landed.rejections)
            unjoined.add(landed.unjoined)
            tally.count(landed)
        _refuse_change(path, stamp_files(path) != stamps)
        _refuse_rejoined(scope, lane, completions)
        num_new = sum(
            context.lake.append("completions", frame)
            for frame in context.lake.stream(completions.select, batch_rows=2000)
        )
        lost = source_rows.unjoined(scope.config_id, lane.settings_id, completions.select, unjoined.select)
        num_lost = _replace_rejections(scope, lane, rejections.select, lost)
    _report_joined(context, lane, num_new, num_lost, tally)
    return num_new


def _replace_rejections(scope: Scope, lane: Lane, of_rows: str, of_answers: str) -> int:
    """Bring what is said of a lane's rows and stored answers up to what was read; return how many of these are set aside."""
    build, settings = to_literal(scope.config_id), to_literal(lane.settings_id)
    own = f"config_id = {build} AND stage IN ('{STAGE}', '{REJOIN_STAGE}') AND settings_id = {settings}"
    with stage(scope, of_answers) as lost:
        replace_rows(scope.lake, {"rejections": Derived(own, f"({of_rows}) UNION ALL BY NAME FROM {lost}")})
        return int(scope.value(f"SELECT count(*) FROM {lost}"))


def _report_joined(context: RunContext, lane: Lane, num_new: int, num_lost: int, tally: Tally) -> None:
    """Say how many recorded answers have come in, and warn where hardly any could be joined."""
    context.say(f"  read · {lane.name}: {num_new:,} new completions, {tally.num_rejected:,} rejected")
    if num_lost:
        context.say(f"  read · {lane.name}: {num_lost:,} answers of before are set aside: no row joins them any more")
    if tally.is_poor:
        context.say(f"  warning: {lane.name}: {tally.describe()}")


def _index_prompts(scope: Scope, recorded: Recorded, config_id: str) -> PromptIndex:
    """Index what recorded answers may name: the rows of the sources of ``config_id``, the prompts of the scope."""
    named = scope.stream(source_rows.named_rows(config_id), joined_as_written=True)
    prompts = scope.stream(source_rows.prompts_in_scope(), joined_as_written=True, slices=scope.count_slices())
    return PromptIndex(recorded, named, prompts)


def _refuse_rejoined(scope: Scope, lane: Lane, completions: Frames) -> None:
    """Refuse answers in whose place the build has others already, since stored answers are never changed."""
    found = scope.query(source_rows.rejoined(lane.settings_id, completions.select))
    if found.height:
        raise InputError(
            f"recorded answers of {lane.name!r} ({found.height:,} of them, the first to prompt {found['prompt_id'][0]}) now "
            "stand where others stood: the sources, or the rules by which answers are joined to them, have changed since; "
            "give the teacher another name to have all of them joined anew"
        )


def _refuse_change(path: str, is_changed: bool) -> None:
    if is_changed:
        raise InputError(f"{path} changed while the run was under way; run again to use what it holds now")
