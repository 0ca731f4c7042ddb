"""The demo: the whole spine over the microworld, then what truth says of the choices that the factory made."""

import os
import shutil
import sys
from importlib.resources import as_file, files
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.panel import Panel

from factory.microworld.truth import quality
from flows.lanes.side_by_side import Watcher
from flows.orchestration.watching import watch
from flows.policy.policy import PolicySummary
from flows.recipe_names import check_run
from flows.recipe_run import build
from flows.report.page import write_report
from flows.terminal import make_table
from schemas.errors import FactoryError
from schemas.languages import LANGUAGES
from schemas.names import STAGES
from schemas.recipe.recipe import Recipe, load_recipe
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake

QUERIES = (
    "SELECT * FROM arbitrage ORDER BY language, win_share DESC",
    "SELECT stage, reason, count(*) AS n FROM rejections GROUP BY ALL ORDER BY n DESC",
    "SELECT step, learnt.model AS teacher, role, count(*) AS n "
    "FROM policy_steps JOIN learnt_from AS learnt USING (checkpoint_id) GROUP BY ALL ORDER BY ALL",
)


def run_demo(folder: Path, *, fresh: bool = True) -> None:
    """Run the microworld's recipe in ``folder``, the data first and then the policy, and print what came of each."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are quickest on one thread
    console = Console()
    if fresh and folder.exists():
        _remove(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = place_recipe(folder)
    with watch(recipe, quiet=False) as watcher:
        _run_and_show(recipe, watcher, folder, console)
    _print_next_steps(console, folder)


def _run_and_show(recipe: Recipe, watcher: Watcher, folder: Path, console: Console) -> None:
    summary = build(recipe, watcher, until=STAGES[-1])
    with Lake.open(recipe.warehouse, read_only=True) as lake, Scope.open(lake, summary.config_id) as scope:
        console.print()
        console.print(
            make_table(judge_by_truth(scope), "true quality by language (1 is best; the factory never saw it)")
        )
        console.print(make_table(summary.counts, "counts"))
        _print_pairs(console, scope)
    console.print(f"shards: {summary.export_path}", soft_wrap=True)
    console.print("\nnow the policy: SFT on what was routed, pairs, online rounds\n")
    trained = build(recipe, watcher, until=check_run(recipe, None)).policy
    assert trained is not None
    with Lake.open(recipe.warehouse, read_only=True) as lake:
        console.print()
        console.print(
            make_table(
                judge_steps(lake, trained),
                "the policy, step by step: games against the base on held-out prompts, and true quality",
            )
        )
    page = write_report(recipe.warehouse, recipe.name, folder / "report.html")
    console.print(f"policy: {trained.kept.model}\nreport: {page}", soft_wrap=True)


def place_recipe(folder: Path) -> Recipe:
    """Return the microworld's recipe with its warehouse and exports under ``folder``."""
    with as_file(files("flows") / "recipes" / "microworld.toml") as path:
        recipe = load_recipe(path)
    warehouse = recipe.warehouse.model_copy(
        update={"catalog": str(folder / "lake/catalog.sqlite"), "data": str(folder / "lake/data")}
    )
    run = recipe.run.model_copy(update={"exports": str(folder / "exports"), "models": str(folder / "models")})
    return recipe.model_copy(update={"warehouse": warehouse, "run": run})


def judge_by_truth(scope: Scope) -> pl.DataFrame:
    """Return, per language, the mean true quality of each teacher, of a random choice, and of arbitrage.

    Every mean is over the prompts whose wording names one question of the world, and over candidates that the gates
    kept; a random choice is the mean over a prompt's candidates.
    """
    rows = scope.query(
        """
        SELECT candidates.*, prompts.messages[-1].content AS prompt, selections.completion_id IS NOT NULL AS is_selected
        FROM candidates
        JOIN prompts USING (prompt_id)
        LEFT JOIN selections
            ON selections.completion_id = candidates.completion_id AND selections.config_id = (SELECT config_id FROM build_recipe)
        WHERE origin <> 'translated'
        """
    )
    judged = rows.with_columns(_grade()).drop_nulls("quality")
    by_teacher = judged.pivot(
        "teacher", index="language", values="quality", aggregate_function="mean", sort_columns=True
    )
    by_prompt = judged.group_by("language", "prompt_id").agg(pl.col("quality").mean())
    random = by_prompt.group_by("language").agg(pl.col("quality").mean().alias("random"))
    chosen = judged.filter("is_selected").group_by("language").agg(pl.col("quality").mean().alias("arbitrage"))
    table = by_teacher.join(random, on="language").join(chosen, on="language").sort("language")
    mean = table.select(pl.lit("mean").alias("language"), pl.exclude("language").mean())
    return pl.concat([table, mean])


def judge_steps(lake: Lake, policy: PolicySummary) -> pl.DataFrame:
    """Return, per step, the mean true quality of held-out answers, and the win rate that the factory itself found."""
    rows = lake.query(
        """
        SELECT step, language, prompts.messages[-1].content AS prompt, text
        FROM steps
        JOIN completions USING (settings_id)
        JOIN prompts USING (prompt_id, language)
        WHERE policy_id = ? AND split = 'eval'
        """,
        [policy.policy_id],
    )
    judged = rows.with_columns(_grade()).group_by("step").agg(pl.col("quality").mean().alias("truth"))
    return policy.table().join(judged, on="step", how="left", maintain_order="left")


def _grade() -> pl.Expr:
    """The true quality of ``text`` as an answer to ``prompt``; null where the prompt is not a question of the world."""
    return (
        pl.struct("prompt", "language", "text")
        .map_elements(lambda row: quality(row["prompt"], row["language"], row["text"]), return_dtype=pl.Float64)
        .alias("quality")
    )


def _print_pairs(console: Console, scope: Scope) -> None:
    pairs = scope.query(
        """
        SELECT any_value(pairs) AS pair, prompts.messages[-1].content AS prompt, chosen.text AS chosen, rejected.text AS rejected
        FROM pairs
        JOIN prompts USING (prompt_id)
        JOIN completions AS chosen ON chosen.completion_id = chosen_id
        JOIN completions AS rejected ON rejected.completion_id = rejected_id
        WHERE pairs.strategy IN ('best_vs_worst', 'in_language_vs_translated')
        GROUP BY pairs.pair_id, prompt, chosen.text, rejected.text
        ORDER BY pairs.pair_id
        """
    )
    shown = [pairs.filter(pl.col("pair").struct.field("language") == code).head(1) for code in ("ar", "ja", "fr")]
    for row in pl.concat(shown).iter_rows(named=True):
        pair = row["pair"]
        title = f"{LANGUAGES[pair['language']].name} · {pair['strategy']} · margin {pair['margin']:.2f}"
        text = f"prompt    {row['prompt']}\nchosen    {row['chosen']}\nrejected  {row['rejected']}"
        console.print(Panel(text, title=title, title_align="left"), highlight=False, markup=False)


def _print_next_steps(console: Console, folder: Path) -> None:
    command = os.path.relpath(sys.argv[0])
    console.print("try:")
    for query in QUERIES:
        console.print(f'  {command} sql --warehouse {folder}/lake "{query}"', soft_wrap=True, markup=False)


def _remove(folder: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    strange = sorted(
        path.name for path in folder.iterdir() if path.name not in {"lake", "exports", "models", "report.html"}
    )
    if strange:
        raise FactoryError(f"{folder} holds more than an earlier demo ({', '.join(strange)}); name another --folder")
    shutil.rmtree(folder)
