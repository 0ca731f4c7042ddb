"""Games: pairs of two models' answers, of which a judge says who won; over the evaluation that the views speak of."""

from dataclasses import dataclass

from warehouse.build.scope import Scope
from warehouse.statements import read_sql


@dataclass(frozen=True, slots=True)
class Match:
    """Which games two models play, both named by settings id.

    The first ``num_samples`` answers of both to a prompt are paired, in their order. ``swap`` is "both" (each pair in
    both orders), "random" (in one that chance, ``seed``, decides) or "none" (a first).
    """

    models: tuple[str, str]
    languages: tuple[str, ...]
    num_samples: int
    swap: str
    seed: int


def add_games(scope: Scope, match: Match, judge: str) -> None:
    """Add the view ``games`` to an evaluation's scope: those of a match, before a judge that is named by fingerprint."""
    first, second = match.models
    select = read_sql(
        "evaluation/games",
        first=first,
        second=second,
        num_samples=match.num_samples,
        judge=judge,
        languages=match.languages,
        swap=match.swap,
        seed=match.seed,
    )
    scope.add_views({"games": select})


def pending_games(judge: str) -> str:
    """Return the games that a judge has not decided.

    Columns: game_id, completion_a, completion_b, is_mirrored, prompt_id, root_id, language, messages, text_a, text_b,
    order.
    """
    return read_sql("pending/games", judge=judge)


def pending_scored_games(judge: str, reward: str) -> str:
    """Return the games that a judge has not decided, with the scores of a reward model, named by settings id.

    Columns: those of ``pending_games`` less messages and texts, and score_a and score_b.
    """
    return read_sql("pending/scored_games", judge=judge, reward=reward)


def games_with_verdicts(judge: str) -> str:
    """Return a SELECT of every game with its verdict; columns as in ``sql/reports/games.sql``."""
    return read_sql("reports/games", judge=judge)
