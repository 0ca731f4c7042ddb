"""Verdicts from scores, the truth among them, on questions of the microworld in several scripts."""

from typing import Any

import polars as pl
import pytest

from factory.evaluation.scored import decide_games, score_by_truth
from factory.microworld.questions import lexicon, questions
from factory.stages.sources import MESSAGES
from schemas.tables import TABLES

SCHEMA: dict[str, Any] = {
    "game_id": pl.String,
    "completion_a": pl.String,
    "completion_b": pl.String,
    "order": pl.String,
    "prompt_id": pl.String,
    "language": pl.String,
    "messages": MESSAGES,
    "text_a": pl.String,
    "text_b": pl.String,
}


def make_game(language: str, prompt: str, text_a: str, text_b: str) -> dict:
    return {
        "game_id": f"game {language}",
        "completion_a": "a",
        "completion_b": "b",
        "order": "ab",
        "prompt_id": f"prompt {language}",
        "language": language,
        "messages": [{"role": "user", "content": prompt}],
        "text_a": text_a,
        "text_b": text_b,
    }


@pytest.mark.parametrize("language", ["en", "ar", "he", "hi", "ja", "zh"])
def test_the_truth_knows_the_right_answer(language):
    question = questions(language)[0]
    right = lexicon(language).state(question.fact.group, question.fact.answer, 0)
    games = pl.DataFrame([make_game(language, question.text, "?", right)], schema=SCHEMA)
    landed = decide_games(score_by_truth(games), judge_fingerprint="j", tie_margin=0.0)
    TABLES["verdicts"].validate(landed.rows)
    assert landed.rows.select("verdict", "judge_fingerprint", "text").rows() == [("B>A", "j", None)]
    tied = decide_games(score_by_truth(games), judge_fingerprint="j", tie_margin=1.0)
    assert tied.rows["verdict"].to_list() == ["A=B"]


def test_what_the_truth_does_not_know_is_a_rejection():
    games = pl.DataFrame([make_game("fr", "Quelle heure est-il ?", "Midi.", "Minuit.")], schema=SCHEMA)
    landed = decide_games(score_by_truth(games), judge_fingerprint="j", tie_margin=0.0)
    assert landed.rows.is_empty()
    TABLES["rejections"].validate(landed.rejections)
    assert landed.rejections.select("row_id", "stage", "settings_id", "reason").rows() == [
        ("game fr", "judge", "j", "no_such_prompt")
    ]
