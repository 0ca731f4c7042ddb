"""The report command: facts in, one self-contained HTML page out."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from factory.training.curves import SHOWN
from flows.report.charts import SERIES, Chart, Curve, draw_curves, draw_ridges, draw_steps
from flows.report.figures import Facts, TrainingRun, read_facts
from schemas.disk import write_text
from schemas.errors import FactoryError
from schemas.languages import LANGUAGES
from schemas.recipe.settings import WarehouseSettings
from warehouse.build.scope import latest_build
from warehouse.lake.lake import Lake

MAX_SHOWN_CHARS = 1200
"""Longer texts of example pairs are cut."""

MEASURES = {"reward": "Reward", "chars": "Length in characters"}

STEP_CHARTS = (
    ("win_rate", "Win rate against the base, with its 95% interval", ".1%"),
    ("reward", "Mean reward", ",.2f"),
    ("num_tokens", "Tokens per answer", ",.1f"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: what is shown, and what the column is sorted by."""

    text: str
    value: str | float
    is_number: bool


def write_report(
    settings: WarehouseSettings, build: str | None, output: Path, *, evaluations: Sequence[Path] = ()
) -> Path:
    """Write the report about a build (a name or config id; none: the latest) and its policy.

    ``evaluations`` are files that ``factory evaluate winrate`` wrote; with them the warehouse need not have a build.

    Raises:
        FactoryError: the warehouse has no such build, a file holds something else, or the page cannot be written.
    """
    with Lake.open(settings, read_only=True) as lake:
        config_id = latest_build(lake, build)
        if config_id is None and not evaluations:
            raise FactoryError("no build has run on this warehouse yet, so there is nothing to report")
        facts = read_facts(lake, config_id, evaluations)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, render(facts))
    except OSError as error:
        raise FactoryError(f"{output} cannot be written: {error}") from error
    return output


def render(facts: Facts) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("flows.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"cells": make_cells, "language": name_language, "cut": cut}
    script, _, _ = environment.loader.get_source(environment, "sort.js.jinja") if environment.loader else ("", "", "")
    return environment.get_template("report.html.jinja").render(
        facts=facts,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        script=Markup(script),
        script_digest=b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tiles=list(_tiles(facts)),
        step_charts=list(_step_charts(facts.steps)),
        heat=_heat(facts.arbitrage),
        ridges=list(_ridges(facts.distributions)),
        middles=_middles(facts.distributions),
        curves=list(_curves(facts.runs)),
        legend=_legend(facts.runs),
        training=_describe_runs(facts.runs),
        runs_without=[run.label for run in facts.runs if not run.lines],
        examples=_examples(facts.example_pairs),
    )


def make_cells(frame: pl.DataFrame, shares: Sequence[str] = ()) -> Iterator[list[Cell]]:
    """Yield the rows of a frame as cells; columns of shares in percent."""
    names = frame.columns
    for row in frame.iter_rows():
        yield [_make_cell(value, name in shares) for name, value in zip(names, row, strict=True)]


def _make_cell(value: object, is_share: bool) -> Cell:
    match value:
        case None:
            return Cell("–", "", False)
        case bool():
            return Cell("yes" if value else "no", str(value), False)
        case float() if is_share:
            return Cell(f"{value:.1%}", value, True)
        case float():
            digits = 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
            return Cell(f"{value:,.{digits}f}", value, True)
        case int():
            return Cell(f"{value:,}", value, True)
        case _:
            return Cell(str(value), str(value), False)


def name_language(code: str) -> str:
    """Return a language's English name; of the average, ``all``."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def cut(text: str) -> str:
    """Return a text, cut where it is very long."""
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]} … ({len(text):,} characters)"


def _tiles(facts: Facts) -> Iterator[tuple[str, str]]:
    counts = {row["stage"]: row["num_out"] for row in facts.stages.iter_rows(named=True)}
    num_tokens, seconds = facts.usage.select(
        pl.sum("num_prompt_tokens") + pl.sum("num_completion_tokens"), pl.sum("seconds")
    ).row(0)
    yield "languages", f"{facts.arbitrage['language'].n_unique():,}"
    yield "teachers", f"{facts.arbitrage['teacher'].n_unique():,}"
    for label, stage in (
        ("prompts kept", "gate prompts"),
        ("completions kept", "gate completions"),
        ("selections", "route"),
        ("pairs", "pair"),
    ):
        yield label, f"{counts[stage]:,}"
    yield "tokens", f"{num_tokens:,}"
    yield "lane time", show_seconds(seconds)


def show_seconds(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def _step_charts(steps: pl.DataFrame) -> Iterator[Chart]:
    for column, title, form in STEP_CHARTS:
        if steps[column].count():
            name = column.replace("_", "-")
            yield draw_steps(steps, column, name=name, title=title, form=form, is_wide=column == "win_rate")


def _heat(arbitrage: pl.DataFrame) -> Mapping[str, Mapping[str, dict[str, object]]]:
    """Return the rows of the view by language and teacher."""
    heat: dict[str, dict[str, dict[str, Any]]] = {}
    for row in arbitrage.iter_rows(named=True):
        heat.setdefault(row["language"], {})[row["teacher"]] = row
    return heat


def _ridges(distributions: pl.DataFrame) -> Iterator[Chart]:
    for measure, title in MEASURES.items():
        bins = distributions.filter(measure=measure)
        if bins.height:
            yield draw_ridges(bins, name=f"{measure}-distribution", title=title)


def _middles(distributions: pl.DataFrame) -> pl.DataFrame:
    """Return the mean and median of each measure by teacher."""
    middles = distributions.select("measure", "teacher", "num_answers", "mean", "median").unique(maintain_order=True)
    return middles.with_columns(pl.col("measure").replace(MEASURES))


def _legend(runs: Sequence[TrainingRun]) -> dict[str, int]:
    """Return the number of each colour of the curves: one a step, or one a run where there are no steps."""
    labels = dict.fromkeys(run.step or run.label for run in runs if run.lines)
    return {label: number % len(SERIES) for number, label in enumerate(labels)}


def _curves(runs: Sequence[TrainingRun]) -> Iterator[Chart]:
    colours = _legend(runs)
    for metric in SHOWN:
        curves = [
            Curve(colours[run.step or run.label], points, is_marked=split == "eval")
            for run in runs
            for split in ("train", "eval")
            if (points := _points(run, split, metric))
        ]
        if any(value for curve in curves for _, value in curve.points):
            name = metric.replace("_", "-")
            yield draw_curves(curves, name=f"curve-{name}", title=metric.replace("_", " "))


def _describe_runs(runs: Sequence[TrainingRun]) -> pl.DataFrame:
    """Return what each run took."""
    return pl.DataFrame(
        {
            "step": [run.step for run in runs],
            "run": [run.folder.name for run in runs],
            "num_steps": [run.num_steps for run in runs],
            "num_tokens": [run.num_tokens for run in runs],
            "seconds": [run.seconds for run in runs],
        },
        schema={"step": str, "run": str, "num_steps": int, "num_tokens": int, "seconds": float},
    )


def _points(run: TrainingRun, split: str, metric: str) -> list[tuple[float, float]]:
    return [(line["step"], line[metric]) for line in run.lines if line["split"] == split and metric in line]


def _examples(pairs: pl.DataFrame) -> list[dict[str, object]]:
    """Return up to three pairs: in a right-to-left script, in another one that is not Latin, in Latin."""
    kinds: dict[str, dict[str, Any]] = {}
    for row in pairs.iter_rows(named=True):
        language = LANGUAGES[row["language"]]
        kind = "rtl" if language.is_right_to_left else "latin" if language.script == "Latn" else "other"
        kinds.setdefault(kind, row)
    return [kinds[kind] for kind in ("rtl", "other", "latin") if kind in kinds]
