"""Gates, routing, pairing, audits and the export of a build, each said in a line."""

from pathlib import Path

import polars as pl

from flows.build.build_run import BuildRun
from warehouse.build import curate
from warehouse.build.audits import run_audits
from warehouse.build.reward_index import index_rewards
from warehouse.export.export import export_build


def gate_prompts(run: BuildRun) -> None:
    """Reject prompts that fail the recipe's gates, and say which of the others no teacher answers."""
    num_rejected = curate.gate_prompts(run.scope, run.build.recipe)
    if num_rejected:
        run.context.say(f"  gate · prompts: {num_rejected:,} rejected")
    answered = {code for lane in run.build.teachers for code in lane.languages}
    if unanswered := [code for code in run.build.recipe.languages if code not in answered]:
        sql = "SELECT language, count(*) FROM kept_prompts WHERE list_contains(?, language) GROUP BY ALL ORDER BY ALL"
        if found := run.scope.rows(sql, [unanswered]):
            named = ", ".join(f"{code} ({num:,})" for code, num in found)
            run.context.say(f"  warning: no teacher answers the prompts in {named}")


def gate_completions(run: BuildRun, *, known: int = 0) -> int:
    """Reject completions that fail the recipe's gates, before anything is spent on scoring them.

    Return how many the warehouse has; where it is ``known`` that it had so many at the last time, none is new.
    """
    num_completions = int(run.scope.value("SELECT count(*) FROM completions"))
    if num_completions == known:
        return known
    num_rejected = curate.gate(run.scope, run.build.recipe)
    if num_rejected:
        run.context.say(f"  gate · completions: {num_rejected:,} rejected")
    return num_completions


def route(run: BuildRun) -> None:
    """Select the SFT rows, as soon as queries of all rewards are quick."""
    if index_rewards(run.lake):
        run.scope.refresh_views()
    change = curate.route(run.scope, run.build.recipe)
    run.context.say(
        f"  route · {run.build.recipe.routing.method}: {change.num_rows:,} selections ({change.num_added:,} new)"
    )


def pair(run: BuildRun) -> None:
    """Make the preference pairs of every strategy."""
    for label, change in curate.make_pairs(run.scope, run.build.recipe).items():
        run.context.say(
            f"  pair · {label}: {change.num_rows:,} pairs, {change.num_rejected:,} rejected ({change.num_added:,} rows written)"
        )


def audit(run: BuildRun) -> pl.DataFrame:
    """Run the audits; return the counts of each stage.

    Raises:
        AuditError: an audit found offending rows.
    """
    counts = run.scope.count_each_stage()
    run_audits(run.scope, counts)
    return counts


def export(run: BuildRun) -> str:
    """Write the training shards of the current snapshot; return their folder."""
    recipe = run.build.recipe
    result = export_build(run.lake, run.build.config_id, recipe, Path(recipe.run.exports))
    run.context.say(f"  export · {result.path}{'' if result.is_new else ' (unchanged)'}")
    return str(result.path)
