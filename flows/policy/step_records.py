"""What a policy's steps leave in the warehouse: a row of ``steps`` each, and their scores by language."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from factory.evaluation.winrates import ALL
from factory.stages.outputs import make_frame
from factory.training.result import TrainResult
from flows.evaluation.evaluate import EvaluationResult
from flows.policy.reward_hacking import won
from schemas.toml.paths import is_path
from warehouse.lake.lake import Lake

_COUNTS = ("num_wins", "num_losses", "num_ties")
_RATES = ("win_rate", "win_rate_low", "win_rate_high", "length_controlled")


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A policy after a step. ``scores`` are those over all languages (columns of ``step_scores``)."""

    step: str
    model: str
    checkpoint_id: str
    scores: Mapping[str, Any]
    is_kept: bool = True
    detail: str | None = None

    def __str__(self) -> str:
        reward, tokens = self.scores["reward"], self.scores["num_tokens"]
        rewarded = "" if reward is None else f", reward {reward:.3f}"
        length = "" if tokens is None else f", {tokens:.1f} tokens"
        stopped = "" if self.is_kept else f"; stopped: {self.detail}"
        return f"{won(self.scores):.1%} against the base{rewarded}{length}{stopped}"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a step was made from. ``config_id`` and ``export_id`` are those of its data; ``parent_id`` is the model's."""

    place: int
    build_id: str
    config_id: str | None = None
    export_id: str | None = None
    parent_id: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, TrainResult] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scores:
    """How one policy answers: a row per language and one for all; ``settings_id`` is that of its answers."""

    settings_id: str
    rows: pl.DataFrame

    @property
    def overall(self) -> dict[str, object]:
        """The row over all languages."""
        return self.rows.row(by_predicate=pl.col("language") == ALL, named=True)


def make_scores(result: EvaluationResult) -> tuple[Scores, Scores]:
    """Return the scores of the policy and of the base, out of an evaluation of one against the other."""
    policy, base = result.evaluation.models
    rates = result.rates.select("language", *_COUNTS, *_RATES)
    unrated = rates.with_columns(pl.lit(None, rates.schema[name]).alias(name) for name in (*_COUNTS, *_RATES))
    return (
        Scores(policy.settings_id, _describe(result, policy.name).join(rates, on="language", how="left")),
        Scores(base.settings_id, _describe(result, base.name).join(unrated, on="language", how="left")),
    )


def _describe(result: EvaluationResult, model: str) -> pl.DataFrame:
    """Return what a model's answers are like, by language, and their average over languages."""
    answers = result.answers.filter(pl.col("model") == model).select(
        "language",
        "num_answers",
        "reward",
        pl.col("mean_tokens").alias("num_tokens"),
        pl.col("mean_chars").alias("num_chars"),
        "repetition",
        "lpr",
        "wpr",
    )
    means = answers.select(
        pl.lit(ALL).alias("language"), pl.col("num_answers").sum(), pl.exclude("language", "num_answers").mean()
    )
    return pl.concat([answers, means.select(answers.columns)])


def record_outcome(lake: Lake, policy_id: str, outcome: StepOutcome, scores: Scores, origin: Origin) -> None:
    """Append a step and its scores; the scores first, so that a step which is there has them."""
    metrics = {name: {"train": result.metrics, "eval": result.eval_metrics} for name, result in origin.results.items()}
    row = {
        "policy_id": policy_id,
        "step": outcome.step,
        "place": origin.place,
        "build_id": origin.build_id,
        "config_id": origin.config_id,
        "export_id": origin.export_id,
        "parent_id": origin.parent_id,
        "checkpoint_id": outcome.checkpoint_id,
        "path": outcome.model,
        "settings_id": scores.settings_id,
        "is_kept": outcome.is_kept,
        "detail": outcome.detail,
        "config": json.dumps(origin.config, ensure_ascii=False),
        "metrics": json.dumps(metrics, ensure_ascii=False),
        "recorded_at": datetime.now(UTC),
    }
    named = scores.rows.select(pl.lit(policy_id).alias("policy_id"), pl.lit(outcome.step).alias("step"), pl.all())
    lake.append("step_scores", make_frame("step_scores", named.to_dicts()))
    lake.append("steps", make_frame("steps", [row]))


def find_outcome(lake: Lake, policy_id: str, step: str, folder: Path) -> StepOutcome | None:
    """Return a step that is done and whose model is still there; a base may be on the hub.

    ``folder`` is where the policy's models lie now; they may have been moved or copied since the step was recorded.
    """
    rows = lake.query("SELECT * FROM steps WHERE policy_id = ? AND step = ?", [policy_id, step])
    if rows.is_empty():
        return None
    row = rows.row(0, named=True)
    model = _locate(row["path"], folder)
    if is_path(model) and not Path(model).is_dir():
        return None
    scores = lake.query(
        "SELECT * EXCLUDE (policy_id, step) FROM step_scores WHERE policy_id = ? AND step = ? AND language = ?",
        [policy_id, step, ALL],
    )
    return StepOutcome(step, model, row["checkpoint_id"], scores.row(0, named=True), row["is_kept"], row["detail"])


def _locate(path: str, folder: Path) -> str:
    """Return where a recorded model is: below the folder, in ``NAME`` or ``NAME/model``, or else where it was."""
    names = Path(path).parts
    return next((str(own) for count in (1, 2) if (own := folder.joinpath(*names[-count:])).is_dir()), path)
