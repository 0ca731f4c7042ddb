"""The winrate command: settings from a file, an evaluation, its tables on the terminal and its figures as JSON."""

import json
import re
from pathlib import Path

import polars as pl
from rich.console import Console

from flows.evaluation.evaluate import EvaluationResult, evaluate
from flows.held_out import make_evaluation
from flows.identity import resolve_made_build
from flows.terminal import make_table, show_interval
from schemas.errors import FactoryError
from schemas.recipe.evaluation import Contestant, EvaluationSettings
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.paths import complete_name
from schemas.toml.toml_file import load_table

RATES = {"win_rate": "win", "loss_rate": "loss", "tie_rate": "tie", "length_controlled": "length-controlled"}
COUNTS = ("games", "wins", "losses", "ties", "unreadable", "unjudged")


def run_winrate(
    settings: EvaluationSettings, *, warehouse: WarehouseSettings, output: Path | None = None, quiet: bool = False
) -> EvaluationResult:
    """Run an evaluation, print its tables and write its figures."""
    result = evaluate(settings, warehouse, quiet=quiet)
    path = output or Path("evaluations") / f"{settings.name}-{result.evaluation.evaluation_id[:8]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(describe(result), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if not quiet:
        print_result(result)
        print(f"figures: {path}")
    return result


def find_settings(file: Path | None, recipe: Recipe | None, a: str | None, b: str | None) -> EvaluationSettings:
    """Return what a file's ``[evaluation]`` table says, ``a`` and ``b`` in place of its models where given.

    Without a file, two models play on the held-out prompts of a recipe's build, before the recipe's judge.

    Raises:
        FactoryError: neither says what is to be evaluated, or the recipe has not been run.
    """
    if file is not None:
        settings = load_table(file, "evaluation", EvaluationSettings)
        return settings.model_copy(update={"a": _replace(settings.a, a), "b": _replace(settings.b, b)})
    if recipe is None or a is None or b is None:
        raise FactoryError("name two models and --recipe, whose held-out prompts they answer, or --settings FILE")
    build_id = resolve_made_build(recipe).config_id
    (name_a, model_a), (name_b, model_b) = ((_name(model), model) for model in map(_find_model, (a, b)))
    file_name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{name_a}-vs-{name_b}").lstrip(".")
    return make_evaluation(recipe, build_id, file_name, (name_a, model_a), (name_b, model_b))


def print_result(result: EvaluationResult) -> None:
    """Print win rates by language with their 95% intervals, and what the answers are like."""
    console = Console()
    a, b = (lane.name for lane in result.evaluation.models)
    title = f"{a} against {b}: percent of the games that were decided (95% interval)"
    console.print(make_table(_show_rates(result.rates), title))
    console.print(
        make_table(result.rates.select("language", *(pl.col(f"num_{count}").alias(count) for count in COUNTS)), "games")
    )
    figures = ("num_answers", "lpr", "wpr", "script_rate", "mean_chars", "mean_tokens", "truncated")
    console.print(make_table(result.answers.select("language", "model", *figures), "answers"))
    if result.first_shown is not None and result.evaluation.settings.judge.llm is not None:
        console.print(f"the answer shown first has won {result.first_shown:.1%} of the games that were won")
    sent = f"{result.num_sent:,} rows sent" if result.num_sent else "nothing was left to send"
    console.print(f"{result.num_prompts:,} prompts; {sent}; snapshot {result.snapshot}")


def describe(result: EvaluationResult) -> dict[str, object]:
    """Return everything that an evaluation found, and what it is of, as JSON-able data; nothing of how it was run."""
    evaluation = result.evaluation
    settings = evaluation.settings
    judge = settings.judge
    return {
        "name": settings.name,
        "evaluation_id": evaluation.evaluation_id,
        "models": [
            {
                "name": lane.name,
                "model": lane.model.model,
                "revision": lane.model.revision,
                "model_fingerprint": lane.fingerprint,
                "settings_id": lane.settings_id,
                "temperature": contestant.sampling.temperature,
            }
            for lane, contestant in zip(evaluation.models, (settings.a, settings.b), strict=True)
        ],
        "judge": {
            "kind": "llm" if judge.llm else "reward" if judge.reward else "truth",
            "model": None if evaluation.judge is None else evaluation.judge.model.model,
            "revision": None if evaluation.judge is None else evaluation.judge.model.revision,
            "fingerprint": evaluation.judge_fingerprint,
            **judge.model_dump(mode="json", include={"scale", "output", "swap", "tie_margin"}),
        },
        "seed": settings.seed,
        "bootstrap_rounds": settings.bootstrap_rounds,
        "snapshot": result.snapshot,
        "num_prompts": result.num_prompts,
        "rates": result.rates.to_dicts(),
        "answers": result.answers.to_dicts(),
        "first_shown": result.first_shown,
    }


def _replace(contestant: Contestant, model: str | None) -> Contestant:
    return contestant if model is None else contestant.model_copy(update={"model": _find_model(model)})


def _name(model: str) -> str:
    """Return what a model is called in tables: the last name of its folder or hub id."""
    path = Path(model)
    return (path.parent.name if path.name == "model" else path.name) or model


def _find_model(name: str) -> str:
    """Return a folder below the working directory in full, or a name as the engine knows it."""
    return complete_name(name, Path.cwd())


def _show_rates(rates: pl.DataFrame) -> pl.DataFrame:
    return rates.select(
        "language",
        *(
            pl.struct(column, f"{column}_low", f"{column}_high")
            .map_elements(lambda row: show_interval(*row.values()), return_dtype=pl.String)
            .alias(name)
            for column, name in RATES.items()
        ),
    )
