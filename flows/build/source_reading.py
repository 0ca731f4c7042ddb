"""Reading a build's sources: new prompts join it, every other row is a rejection."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from factory.inputs.finding import Stamp, stamp_files
from factory.stages.outputs import gather
from factory.stages.prompts import SeenPrompts, build_prompts
from factory.stages.sources import identify_sources, read_source
from factory.texts.langid import shared_detector
from flows.build.build_run import BuildRun
from flows.build.source_rows import count_beyond, derive_source_rows, list_while_read
from flows.identity import Build, check_limit
from schemas.recipe.prompts import PromptSource
from schemas.recipe.recipe import Recipe
from schemas.toml.section import identify
from warehouse.lake.lake import Lake
from warehouse.lake.staging import Derived, Frames, replace_rows
from warehouse.statements import to_literal

_COUNTED = "rows from 1, blank lines aside"
"""How rows are numbered: what was read by another rule is read again."""


def read_prompts(run: BuildRun) -> int:
    """Read the sources: new prompts join the build, every other row is a rejection. Return the number of new prompts.

    Files that the build has read to their end are not read again, unless they were written to meanwhile.
    """
    recipe, config_id = run.build.recipe, run.build.config_id
    check_limit(run.build, run.lake, run.limit)
    stamps = _stamp_sources(recipe.prompts)
    sources_id = _identify_reading(recipe, run.limit)
    if _has_read(run.lake, config_id, sources_id):
        run.context.say("  read · prompts: the files are unchanged")
        return 0
    num_new = _read_sources(run)
    if _stamp_sources(recipe.prompts) != stamps:
        run.context.say("  read · prompts: a file changed while it was read; the next run reads it again")
    elif sources_id is not None:
        run.lake.append("reads", pl.DataFrame({"config_id": config_id, "sources_id": sources_id}))
    return num_new


def has_read_all(lake: Lake, build: Build, limit: int | None) -> bool:
    """Whether a build has read its sources as they are now, up to a limit."""
    return _has_read(lake, build.config_id, _identify_reading(build.recipe, limit))


def _identify_reading(recipe: Recipe, limit: int | None) -> str | None:
    return identify_sources(recipe.prompts, [identify(recipe.prompt_gates), limit, _COUNTED])


def _has_read(lake: Lake, config_id: str, sources_id: str | None) -> bool:
    return bool(lake.rows("SELECT 1 FROM reads WHERE config_id = ? AND sources_id = ?", [config_id, sources_id]))


def _stamp_sources(sources: Sequence[PromptSource]) -> list[Stamp]:
    return [stamp for source in sources if source.path is not None for stamp in stamp_files(source.path)]


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where the rows of a build's sources go: its prompts, the list of all of them, and what was dropped."""

    members: Frames
    listed: Frames
    rejections: Frames


def _read_sources(run: BuildRun) -> int:
    num_new = 0
    seen = SeenPrompts(run.build.recipe.prompt_gates)
    # In any order: no two of them are near-duplicates of each other.
    known = "SELECT prompt_id, language, messages FROM build_prompt_scope WHERE parent_id IS NULL"
    slices = run.scope.count_slices()
    for frame in run.scope.stream(known, batch_rows=1000, joined_as_written=True, slices=slices):
        seen.remember(frame)
    with Frames("build_prompts") as members, Frames("source_rows") as listed, Frames("rejections") as rejections:
        for source in run.build.recipe.prompts:
            source = source.limited_to(run.limit)
            num_new += _read_source(run, source, seen, Sinks(members, listed, rejections))
        _replace_derived(run, listed, rejections)
        if run.limit is None:
            _report_gone(run, members)
    return num_new


def _replace_derived(run: BuildRun, listed: Frames, rejections: Frames) -> None:
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


def _read_source(run: BuildRun, source: PromptSource, seen: SeenPrompts, sinks: Sinks) -> int:
    config_id = run.build.config_id
    num_read = num_new = num_rejected = 0
    frames = read_source(source, beyond=count_beyond(has_recorded=bool(run.recorded)))
    landed = (
        build_prompts(
            raw,
            source=source,
            gates=run.build.recipe.prompt_gates,
            config_id=config_id,
            seen=seen,
            detect=shared_detector().detect,
        )
        for raw in list_while_read(frames, source, config_id, sinks.listed)
    )
    for part in gather(landed):
        run.context.check_stop()
        run.lake.append("prompts", part.rows)
        own = part.rows.select(pl.lit(config_id).alias("config_id"), "prompt_id")
        num_new += run.lake.append("build_prompts", own)
        sinks.members.add(own)
        sinks.rejections.add(part.rejections)
        num_read += part.rows.height + part.rejections.height
        num_rejected += part.rejections.height
    run.context.say(f"  read · {source.name}: {num_read:,} rows, {num_new:,} new prompts, {num_rejected:,} rejected")
    return num_new


def _report_gone(run: BuildRun, members: Frames) -> None:
    """Say how many prompts the build has that its sources have no more."""
    own = f"SELECT prompt_id FROM build_prompts WHERE config_id = {to_literal(run.build.config_id)}"
    num_gone = run.lake.value(f"SELECT count(*) FROM ({own}) ANTI JOIN ({members.select}) USING (prompt_id)")
    if num_gone:
        run.context.say(
            f"  read · prompts: {num_gone:,} of the build are no longer in its sources and stay in it; "
            "a build of another name is made of what they hold now, and asks nothing again"
        )
