"""The stages of a build: each joins a pure function of the factory with a query of the warehouse, and commits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import polars as pl

from factory.inputs.files import Stamp, stamp_files
from factory.stages.outputs import gather
from factory.stages.prompt_index import PromptIndex
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.recorded import REJOIN_STAGE, STAGE, Tally
from factory.stages.recorded import read_recorded as read_recorded_rows
from factory.stages.sampling import Sampler
from factory.stages.scoring import Scorer
from factory.stages.sources import identify_sources, read_source
from factory.stages.translation import Translator
from factory.texts.langid import LanguageDetector
from flows.build.source_rows import count_beyond, derive_source_rows, is_recorded, list_while_read
from flows.identity import Lane, check_limit, teacher_lane
from flows.lanes.lane import LaneJob, Run
from flows.lanes.progress import Board
from schemas.errors import InputError
from schemas.recipe.models import Recorded, Teacher, Translation
from schemas.recipe.prompts import PromptSource
from schemas.toml.section import identify
from warehouse.build import curate, pending, source_rows
from warehouse.build.audits import run_audits
from warehouse.build.user_sql import try_sql
from warehouse.build.views import count_each_stage, count_slices, use_build
from warehouse.export.export import export_build
from warehouse.lake.lake import Lake
from warehouse.lake.staging import Derived, Frames, replace_rows, stage
from warehouse.statements import to_literal

_COUNTED = "rows from 1, blank lines aside"
"""How rows are numbered: what was read by another rule is read again."""


@cache
def detector() -> LanguageDetector:
    """Return the language detector of this process."""
    return LanguageDetector()


def open_build(run: Run) -> None:
    """Write down the build's models, make the views speak of it, and try the user's SQL on them."""
    run.lake.append("build_models", run.build.models())
    use_build(run.lake, run.build.config_id)
    try_sql(run.lake, run.build.recipe)


def read_prompts(run: Run) -> int:
    """Read the sources: new prompts join the build, every other row is a rejection. Return the number of new prompts.

    Files that the build has read to their end are not read again, unless they were written to meanwhile.
    """
    recipe, config_id = run.build.recipe, run.build.config_id
    check_limit(run.build, run.lake, run.limit)
    stamps = _stamp_sources(recipe.prompts)
    sources_id = identify_sources(recipe.prompts, [identify(recipe.prompt_gates), run.limit, _COUNTED])
    if run.lake.query("SELECT 1 FROM reads WHERE config_id = ? AND sources_id = ?", [config_id, sources_id]).height:
        run.board.say("  read · prompts: the files are unchanged")
        return 0
    num_new = _read_sources(run)
    if _stamp_sources(recipe.prompts) != stamps:
        run.board.say("  read · prompts: a file changed while it was read; the next run reads it again")
    elif sources_id is not None:
        run.lake.append("reads", pl.DataFrame({"config_id": config_id, "sources_id": sources_id}))
    return num_new


def _stamp_sources(sources: Sequence[PromptSource]) -> list[Stamp]:
    return [stamp for source in sources if source.path is not None for stamp in stamp_files(source.path)]


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where the rows of a build's sources go: its prompts, the list of all of them, and what was dropped."""

    members: Frames
    listed: Frames
    rejections: Frames


def _read_sources(run: Run) -> int:
    num_new = 0
    seen = SeenPrompts(run.build.recipe.prompt_gates)
    # In any order: no two of them are near-duplicates of each other.
    known = "SELECT prompt_id, language, messages FROM build_prompt_scope WHERE parent_id IS NULL"
    for frame in run.lake.stream(known, batch_rows=1000, joined_as_written=True, slices=count_slices(run.lake)):
        seen.remember(frame)
    with Frames("build_prompts") as members, Frames("source_rows") as listed, Frames("rejections") as rejections:
        for source in run.build.recipe.prompts:
            source = source.limited_to(run.limit)
            num_new += _read_source(run, source, seen, Sinks(members, listed, rejections))
        _replace_derived(run, listed, rejections)
        if run.limit is None:
            _report_gone(run, members)
    return num_new


def _replace_derived(run: Run, listed: Frames, rejections: Frames) -> None:
    """Bring what is said of the sources' rows up to what was read of them."""
    config_id = run.build.config_id
    rows = derive_source_rows(config_id, listed)
    if run.limit is not None:
        run.lake.insert_select("rejections", rejections.select)
        replace_rows(run.lake, {"source_rows": rows})
        return
    # All has been read: what was said of rows that have changed since is said no more.
    own = (
        f"config_id = {to_literal(config_id)} AND settings_id = '' AND "
        "(stage = 'read' OR stage = 'prompt_gate' AND row_id NOT IN (SELECT prompt_id FROM prompts))"
    )
    replace_rows(run.lake, {"rejections": Derived(own, rejections.select), "source_rows": rows})


def _read_source(run: Run, source: PromptSource, seen: SeenPrompts, sinks: Sinks) -> int:
    config_id = run.build.config_id
    num_read = num_new = num_rejected = 0
    frames = read_source(source, beyond=count_beyond(has_recorded=bool(recorded_lanes(run))))
    landed = (
        build_prompts(
            raw,
            source=source,
            gates=run.build.recipe.prompt_gates,
            config_id=config_id,
            seen=seen,
            detect=detector().detect,
        )
        for raw in list_while_read(frames, source, config_id, sinks.listed)
    )
    for part in gather(landed):
        run.check_stop()
        run.lake.append("prompts", part.rows)
        own = part.rows.select(pl.lit(config_id).alias("config_id"), "prompt_id")
        num_new += run.lake.append("build_prompts", own)
        sinks.members.add(own)
        sinks.rejections.add(part.rejections)
        num_read += part.rows.height + part.rejections.height
        num_rejected += part.rejections.height
    run.board.say(f"  read · {source.name}: {num_read:,} rows, {num_new:,} new prompts, {num_rejected:,} rejected")
    return num_new


def _report_gone(run: Run, members: Frames) -> None:
    """Say how many prompts the build has that its sources have no more."""
    own = f"SELECT prompt_id FROM build_prompts WHERE config_id = {to_literal(run.build.config_id)}"
    num_gone = run.lake.query(f"SELECT count(*) FROM ({own}) ANTI JOIN ({members.select}) USING (prompt_id)").item()
    if num_gone:
        run.board.say(
            f"  read · prompts: {num_gone:,} of the build are no longer in its sources and stay in it; "
            "a build of another name is made of what they hold now, and asks nothing again"
        )


def prompt_translation_jobs(run: Run) -> list[LaneJob]:
    """Return the lane that translates the build's prompts, if the recipe has one."""
    lane, translation = run.build.translator, run.build.recipe.translation
    if lane is None or translation is None or not translation.prompts:
        return []
    wanted = pending.pending_prompt_translations(lane.settings_id, lane.languages)
    return [_translation_job(lane, translation, "prompts", wanted)]


def completion_translation_jobs(run: Run) -> list[LaneJob]:
    """Return the lane that translates English completions, if the recipe asks for them."""
    lane, translation = run.build.translator, run.build.recipe.translation
    if lane is None or translation is None or not translation.completions_of:
        return []
    wanted = pending.pending_completion_translations(lane.settings_id, lane.languages, translation.completions_of)
    return [_translation_job(lane, translation, "completions", wanted)]


def _translation_job(
    lane: Lane, translation: Translation, table: Literal["prompts", "completions"], wanted: str
) -> LaneJob:
    return LaneJob(
        stage=f"translate_{table}",
        task="translate" if translation.engine == "transformers" else "generate",
        lane=lane,
        pending=wanted,
        table=table,
        work=Translator(lane.provenance, translation, table, detect=detector().detect),
    )


def sampling_jobs(run: Run) -> list[LaneJob]:
    """Return one lane per teacher that is to be asked."""
    number = run.build.recipe.round
    return [sampling_job(lane, number) for lane in run.build.teachers if lane not in recorded_lanes(run)]


def sampling_job(lane: Lane, round_number: int = 0) -> LaneJob:
    """Return what a teacher or policy has to answer of the build in use."""
    assert isinstance(lane.model, Teacher)
    wanted = pending.pending_completions(lane.settings_id, lane.languages, lane.num_samples)
    return LaneJob(
        stage="sample",
        task="generate",
        lane=lane,
        pending=wanted,
        table="completions",
        work=Sampler(
            lane.provenance,
            detect=detector().detect,
            origin="on_policy" if lane.role == "policy" else "in_language",
            round=round_number,
            system_prompt=lane.model.system_prompt,
            seed=lane.model.sampling.seed,
        ),
    )


def scoring_jobs(run: Run) -> list[LaneJob]:
    """Return one lane per reward model."""
    return [scoring_job(lane) for lane in run.build.rewards]


def scoring_job(lane: Lane) -> LaneJob:
    """Return what a reward model has to score of the build in use."""
    return LaneJob(
        stage="score",
        task="score",
        lane=lane,
        pending=pending.pending_rewards(lane.settings_id),
        table="rewards",
        work=Scorer(lane.provenance, system_prompt=lane.model.system_prompt),
    )


def recorded_lanes(run: Run) -> list[Lane]:
    """Return the teachers whose completions a team already has."""
    return [lane for lane in run.build.teachers if is_recorded(lane)]


def read_recorded(run: Run, lane: Lane) -> int:
    """Let recorded completions join the pool; rows that join to no prompt are rejections."""
    return land_recorded(run.lake, run.board, lane, run.build.config_id)


def land_recorded(lake: Lake, board: Board, lane: Lane, config_id: str, *, rows_of: str | None = None) -> int:
    """Let a lane's recorded completions answer the kept prompts of the build in use; return how many are new.

    They are joined by the rows that the sources of ``rows_of`` have; none given, of ``config_id`` itself. Answers of
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
        for landed in read_recorded_rows(
            _index_prompts(lake, lane.model.recorded, rows_of or config_id),
            lane.provenance,
            detect=detector().detect,
            config_id=config_id,
            languages=lane.languages,
            reasoning=lane.model.reasoning,
        ):
            _refuse_change(path, stamp_files(path) != stamps)
            completions.add(landed.rows)
            rejections.add(landed.rejections)
            unjoined.add(landed.unjoined)
            tally.count(landed)
        _refuse_change(path, stamp_files(path) != stamps)
        _refuse_rejoined(lake, lane, completions)
        num_new = sum(lake.append("completions", frame) for frame in lake.stream(completions.select, batch_rows=2000))
        lost = source_rows.unjoined(config_id, lane.settings_id, completions.select, unjoined.select)
        num_lost = _replace_rejections(lake, config_id, lane, rejections.select, lost)
    _report_joined(board, lane, num_new, num_lost, tally)
    return num_new


def _replace_rejections(lake: Lake, config_id: str, lane: Lane, of_rows: str, of_answers: str) -> int:
    """Bring what is said of a lane's rows and stored answers up to what was read; return how many of these are set aside."""
    build, settings = to_literal(config_id), to_literal(lane.settings_id)
    own = f"config_id = {build} AND stage IN ('{STAGE}', '{REJOIN_STAGE}') AND settings_id = {settings}"
    with stage(lake, of_answers) as lost:
        replace_rows(lake, {"rejections": Derived(own, f"({of_rows}) UNION ALL BY NAME FROM {lost}")})
        return int(lake.query(f"SELECT count(*) FROM {lost}").item())


def _report_joined(board: Board, lane: Lane, num_new: int, num_lost: int, tally: Tally) -> None:
    """Say how many recorded answers have come in, and warn where hardly any could be joined."""
    board.say(f"  read · {lane.name}: {num_new:,} new completions, {tally.num_rejected:,} rejected")
    if num_lost:
        board.say(f"  read · {lane.name}: {num_lost:,} answers of before are set aside: no row joins them any more")
    if tally.is_poor:
        board.say(f"  warning: {lane.name}: {tally.describe()}")


def _index_prompts(lake: Lake, recorded: Recorded, config_id: str) -> PromptIndex:
    """Index what recorded answers may name: the rows of the sources of ``config_id``, the prompts of the build in use."""
    named = lake.stream(source_rows.named_rows(config_id), joined_as_written=True)
    scope = lake.stream(source_rows.prompts_in_scope(), joined_as_written=True, slices=count_slices(lake))
    return PromptIndex(recorded, named, scope)


def _refuse_rejoined(lake: Lake, lane: Lane, completions: Frames) -> None:
    """Refuse answers in whose place the build has others already, since stored answers are never changed."""
    found = lake.query(source_rows.rejoined(lane.settings_id, completions.select))
    if found.height:
        raise InputError(
            f"recorded answers of {lane.name!r} ({found.height:,} of them, the first to prompt {found['prompt_id'][0]}) now "
            "stand where others stood: the sources, or the rules by which answers are joined to them, have changed since; "
            "give the teacher another name to have all of them joined anew"
        )


def _refuse_change(path: str, is_changed: bool) -> None:
    if is_changed:
        raise InputError(f"{path} changed while the run was under way; run again to use what it holds now")


def gate_prompts(run: Run) -> None:
    """Reject prompts that fail the recipe's gates, and say which of the others no teacher answers."""
    num_rejected = curate.gate_prompts(run.lake, run.build.config_id, run.build.recipe)
    if num_rejected:
        run.board.say(f"  gate · prompts: {num_rejected:,} rejected")
    answered = {code for lane in run.build.teachers for code in lane.languages}
    if unanswered := [code for code in run.build.recipe.languages if code not in answered]:
        sql = "SELECT language, count(*) FROM kept_prompts WHERE list_contains(?, language) GROUP BY ALL ORDER BY ALL"
        if found := run.lake.query(sql, [unanswered]).rows():
            named = ", ".join(f"{code} ({num:,})" for code, num in found)
            run.board.say(f"  warning: no teacher answers the prompts in {named}")


def gate_completions(run: Run, *, known: int = 0) -> int:
    """Reject completions that fail the recipe's gates, before anything is spent on scoring them.

    Return how many the build has; where it is ``known`` that so many have passed through the gates, none is new.
    """
    num_completions = int(run.lake.query("SELECT count(*) FROM build_completions").item())
    if num_completions == known:
        return known
    num_rejected = curate.gate(run.lake, run.build.config_id, run.build.recipe)
    if num_rejected:
        run.board.say(f"  gate · completions: {num_rejected:,} rejected")
    return num_completions


def route(run: Run) -> None:
    """Select the SFT rows."""
    change = curate.route(run.lake, run.build.config_id, run.build.recipe)
    run.board.say(
        f"  route · {run.build.recipe.routing.method}: {change.num_rows:,} selections ({change.num_added:,} new)"
    )


def pair(run: Run) -> None:
    """Make the preference pairs of every strategy."""
    for label, change in curate.make_pairs(run.lake, run.build.config_id, run.build.recipe).items():
        run.board.say(
            f"  pair · {label}: {change.num_rows:,} pairs, {change.num_rejected:,} rejected ({change.num_added:,} rows written)"
        )


def audit(run: Run) -> None:
    """Run the audits.

    Raises:
        AuditError: an audit found offending rows.
    """
    run_audits(run.lake, run.build.config_id)


def export(run: Run) -> str:
    """Write the training shards of the current snapshot; return their folder."""
    recipe = run.build.recipe
    result = export_build(run.lake, run.build.config_id, recipe, Path(recipe.run.exports))
    run.board.say(f"  export · {result.path}{'' if result.is_new else ' (unchanged)'}")
    return str(result.path)


def count_stages(run: Run) -> pl.DataFrame:
    """Return one row per stage: how many rows came in, went out, and were rejected."""
    return count_each_stage(run.lake)
