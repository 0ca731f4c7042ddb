"""Verdicts from scores: those of a reward model, or the microworld's true qualities."""

from functools import partial

import polars as pl

from factory.engines.base import Failure
from factory.evaluation.judging import STAGE
from factory.evaluation.verdicts import compare_scores
from factory.microworld.truth import quality
from factory.stages.outputs import StageOutput, make_frame, make_rejection
from schemas.reasons import Reason


def score_by_truth(games: pl.DataFrame) -> pl.DataFrame:
    """Return games with the columns score_a and score_b, the true qualities of their answers.

    They are null if the last message is not a question of the microworld.
    """
    return games.with_columns(
        pl.struct(pl.col("messages").list.last().struct.field("content"), "language", f"text_{side}")
        .map_elements(partial(_grade, side=side), return_dtype=pl.Float64)
        .alias(f"score_{side}")
        for side in ("a", "b")
    )


def decide_games(games: pl.DataFrame, *, judge_fingerprint: str, tie_margin: float) -> StageOutput:
    """Return the verdicts on games by the columns score_a and score_b; games without scores are rejected."""
    verdicts, rejections = [], []
    unknown = Failure(Reason.NO_SUCH_PROMPT, "the prompt is not a question of the microworld")
    for game in games.iter_rows(named=True):
        if game["score_a"] is None or game["score_b"] is None:
            language = game["language"]
            rejections.append(
                make_rejection(game["game_id"], STAGE, unknown, language=language) | {"settings_id": judge_fingerprint}
            )
        else:
            verdict = compare_scores(game["score_a"], game["score_b"], tie_margin)
            verdicts.append(game | {"judge_fingerprint": judge_fingerprint, "verdict": verdict, "text": None})
    return StageOutput(make_frame("verdicts", verdicts), make_frame("rejections", rejections))


def _grade(row: dict[str, str], side: str) -> float | None:
    return quality(row["content"], row["language"], row[f"text_{side}"])
