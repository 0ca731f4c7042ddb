"""Curation of a build in SQL: gates, routing and pairing. A rerun writes what changed, and nothing when nothing did."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

from schemas.reasoning import HIDDEN_CODE, QUOTED_CODE, REASONING_MARKS
from schemas.recipe.curation import PairStrategy, Routing
from schemas.recipe.recipe import Recipe
from warehouse.build.scope import Scope
from warehouse.build.user_sql import check_pattern, stage_proposals, stage_selections
from warehouse.lake.slices import choose_num_slices
from warehouse.lake.staging import Derived, replace_rows, stage
from warehouse.statements import TableName, read_sql, to_literal

PROMPT_BYTES, COMPLETION_BYTES = 500, 300
"""What routing and pairing hold in memory of each prompt and each completion, as measured."""

RESERVED_BYTES = 64 * 2**20
"""What DuckDB needs besides."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a step of curation did to the build's rows: how many it has now, and how many were written and removed."""

    num_rows: int
    num_rejected: int
    num_added: int
    num_removed: int


def gate_prompts(scope: Scope, recipe: Recipe) -> int:
    """Reject the build's prompts that fail ``[prompt_gates]``; return how many were newly rejected.

    So are prompts in other languages than the recipe's, unless they are translated into these.
    """
    gates = recipe.prompt_gates
    select = read_sql(
        "gates/prompts",
        config_id=scope.config_id,
        languages=recipe.languages,
        translates=recipe.translation is not None and recipe.translation.prompts,
        language=gates.language,
        min_language_score=gates.min_language_score,
        min_script_share=gates.min_script_share,
        max_chars=gates.max_chars,
    )
    return scope.insert_select("rejections", select)


def gate(scope: Scope, recipe: Recipe) -> int:
    """Reject the build's completions that fail ``[gates]``; return how many were newly rejected.

    Raises:
        RecipeError: a refusal pattern is not a regular expression of RE2.
    """
    gates = recipe.gates
    for pattern in gates.refusal_patterns:
        check_pattern(pattern)
    thinking = {teacher.name: teacher.reasoning for teacher in recipe.teachers if teacher.reasoning is not None}
    select = read_sql(
        "gates/completions",
        config_id=scope.config_id,
        language=gates.language,
        min_language_score=gates.min_language_score,
        min_script_share=gates.min_script_share,
        truncated=gates.truncated,
        stray_reasoning=gates.stray_reasoning,
        reasoning_marks=REASONING_MARKS,
        opening_tags={name: tags[0] for name, tags in thinking.items()},
        closing_tags={name: tags[1] for name, tags in thinking.items()},
        quoted_code=QUOTED_CODE,
        hidden_code=HIDDEN_CODE,
        min_chars=gates.min_chars,
        max_chars=gates.max_chars,
        max_repetition=gates.max_repetition,
        refusals="|".join(f"(?:{pattern})" for pattern in gates.refusal_patterns) or None,
    )
    return scope.insert_select("rejections", select)


def route(scope: Scope, recipe: Recipe) -> Change:
    """Select one completion per prompt by the recipe's router, in place of what the build had selected.

    Raises:
        RecipeError: the user's SQL file is not one SELECT of prompt_id and completion_id, or names no candidates, or
            selects a translated completion.
    """
    with _stage_routed(scope, recipe.routing) as routed:
        build, router = to_literal(scope.config_id), to_literal(recipe.routing.method)
        selections = f"SELECT {build} AS config_id, prompt_id, completion_id, {router} AS router FROM {routed}"
        added, removed = replace_rows(scope.lake, {"selections": Derived(f"config_id = {build}", selections)})
        return Change(_count(scope, routed), 0, added, removed)


def make_pairs(scope: Scope, recipe: Recipe) -> dict[str, Change]:
    """Make the preference pairs of every strategy of the recipe, in place of those the build had; by strategy label.

    Every proposed pair that a guard drops becomes a rejection of stage ``pair:<label>``.

    Raises:
        RecipeError: a user's SQL file is not one SELECT of prompt_id, chosen_id and rejected_id, names no candidates,
            or chooses a translated completion.
    """
    return {strategy.label: _make_pairs(scope, strategy) for strategy in recipe.pairs}


def _make_pairs(scope: Scope, strategy: PairStrategy) -> Change:
    build, label, stage_name = map(to_literal, (scope.config_id, strategy.label, f"pair:{strategy.label}"))
    with _stage_proposals(scope, strategy) as proposals:
        judged = f"({_guards(scope.config_id, strategy, proposals)})"
        pairs = f"""
            SELECT {build} AS config_id, {label} AS strategy,
                pair_id, prompt_id, language, chosen_id, rejected_id, margin, round
            FROM {judged} WHERE reason IS NULL"""
        drops = f"""
            SELECT {build} AS config_id, pair_id AS row_id, {stage_name} AS stage, '' AS settings_id,
                reason, detail, language, NULL AS model
            FROM {judged} WHERE reason IS NOT NULL"""
        dropped = f"config_id = {build} AND stage = {stage_name}"
        added, removed = replace_rows(
            scope.lake,
            {
                "pairs": Derived(f"config_id = {build} AND strategy = {label}", pairs),
                "rejections": Derived(dropped, drops),
            },
        )
        num_dropped = _count(scope, "rejections", dropped)
        return Change(_count(scope, proposals) - num_dropped, num_dropped, added, removed)


def _stage_routed(scope: Scope, routing: Routing) -> AbstractContextManager[TableName]:
    if routing.sql is not None:
        return stage_selections(scope, routing.sql)
    select = read_sql(f"routes/{routing.method}", teachers=routing.teachers, seed=routing.seed)
    return stage(scope, select, slices=_count_slices(scope))


def _stage_proposals(scope: Scope, strategy: PairStrategy) -> AbstractContextManager[TableName]:
    if strategy.sql is not None:
        return stage_proposals(scope, strategy.sql)
    select = read_sql(
        f"pairs/{strategy.strategy}",
        pairs_per_prompt=strategy.pairs_per_prompt,
        strong=strategy.strong,
        weak=strategy.weak,
    )
    return stage(scope, select, slices=_count_slices(scope))


def _count_slices(scope: Scope) -> int:
    """Return into how many slices shipped routers and strategies cut the build: as few as its memory allows.

    Each answers prompt by prompt. What they hold of a prompt and of its answers DuckDB does not spill.
    """
    ((num_prompts, num_completions),) = scope.rows(
        "SELECT (SELECT count(*) FROM prompts), (SELECT count(*) FROM completions)"
    )
    wanted = num_prompts * PROMPT_BYTES + num_completions * COMPLETION_BYTES
    return choose_num_slices(wanted, scope.lake.memory_limit() - RESERVED_BYTES)


def _guards(config_id: str, strategy: PairStrategy, proposals: TableName) -> str:
    return read_sql(
        "pairs/guards",
        proposals=proposals,
        config_id=config_id,
        label=strategy.label,
        ties=strategy.ties,
        against_reward=strategy.against_reward,
        min_margin=strategy.min_margin,
        max_length_ratio=strategy.max_length_ratio,
        pairs_per_prompt=strategy.pairs_per_prompt,
    )


def _count(scope: Scope, table: str, where: str = "true") -> int:
    return int(scope.value(f"SELECT count(*) FROM {table} WHERE {where}"))
