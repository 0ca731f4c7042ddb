"""What the report tells: figures of one build and of the policy trained on it, as the warehouse's views work them out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from factory.training.curves import read_metrics
from schemas.errors import InputError
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake
from warehouse.statements import read_sql


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """A training run behind a step (or behind none) with the lines that it reported; none when its folder is gone."""

    step: str | None
    folder: Path
    num_steps: int | None
    num_tokens: int | None
    seconds: float | None
    lines: list[dict[str, Any]]

    @property
    def label(self) -> str:
        return self.folder.name if self.step is None else f"{self.step} · {self.folder.name}"


@dataclass(frozen=True, slots=True)
class Facts:
    """The frames are those of the views and reports of the same name in ``warehouse/sql``.

    ``evaluations`` are the figures that ``factory evaluate winrate`` wrote. There is no ``config_id`` where no build has
    run; all frames are empty then.
    """

    name: str
    config_id: str | None
    snapshot: int
    builds: pl.DataFrame
    steps: pl.DataFrame
    step_languages: pl.DataFrame
    arbitrage: pl.DataFrame
    distributions: pl.DataFrame
    runs: list[TrainingRun]
    stages: pl.DataFrame
    usage: pl.DataFrame
    rejections: pl.DataFrame
    example_pairs: pl.DataFrame
    evaluations: list[dict[str, Any]]


def read_facts(lake: Lake, config_id: str | None, evaluations: Sequence[Path] = ()) -> Facts:
    """Read what the report tells of a build, and of evaluations whose figures lie in files.

    Raises:
        InputError: a file does not hold the figures of an evaluation.
    """
    figures = [_read_evaluation(path) for path in evaluations]
    scope = Scope.open(lake, config_id)
    builds = scope.query(f"FROM ({read_sql('reports/builds')}) WHERE build = ?", [config_id])

    def report(name: str) -> pl.DataFrame:
        return scope.query(read_sql(f"reports/{name}", config_id=config_id or ""), joined_as_written=True)

    return Facts(
        name=", ".join(builds["name"] if config_id else dict.fromkeys(figure["name"] for figure in figures)),
        config_id=config_id,
        snapshot=lake.snapshot(),
        builds=builds,
        steps=report("steps"),
        step_languages=report("step_languages"),
        arbitrage=scope.query("FROM arbitrage ORDER BY language, teacher", joined_as_written=True),
        distributions=report("distributions"),
        runs=[_read_run(*row) for row in report("training_runs").iter_rows()],
        stages=scope.count_each_stage(),
        usage=scope.query("FROM usage_by_stage"),
        rejections=scope.query("FROM rejections_by_reason"),
        example_pairs=_read_texts(scope, report("example_pairs")),
        evaluations=figures,
    )


def _read_texts(scope: Scope, pairs: pl.DataFrame) -> pl.DataFrame:
    """Return pairs with what they say, in place of their ids."""
    ids = {f"{name}s": pairs[name].to_list() for name in ("prompt_id", "chosen_id", "rejected_id")}
    texts = read_sql("reports/example_texts", **ids, completion_ids=[*ids["chosen_ids"], *ids["rejected_ids"]])
    named = ["prompt_id", "chosen_id", "rejected_id"]
    return pairs.join(scope.query(texts), on=named, how="inner", maintain_order="left").drop(named)


def _read_evaluation(path: Path) -> dict[str, Any]:
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if not (isinstance(figures, dict) and {"name", "models", "judge", "rates", "answers"} <= figures.keys()):
        raise InputError(f"{path} holds no figures of an evaluation; `factory evaluate winrate` writes them")
    return figures


def _read_run(
    step: str | None, model: str, num_steps: int | None, num_tokens: int | None, seconds: float | None
) -> TrainingRun:
    """Return a run whose model lies in its folder, beside the metrics."""
    folder = Path(model).parent
    return TrainingRun(step, folder, num_steps, num_tokens, seconds, read_metrics(folder))
