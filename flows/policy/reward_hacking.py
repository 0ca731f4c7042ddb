"""The watch on reward hacking: whether a round has gained reward by means that nobody wants."""

from collections.abc import Mapping
from typing import Any

from schemas.recipe.policy import Watch

Scores = Mapping[str, Any]
"""How a policy does over all languages: the columns of ``step_scores``."""


def find_hacking(watch: Watch, start: Scores, best: Scores, now: Scores, kl: float) -> str | None:
    """Return why a round is to be stopped, None where nothing speaks against it.

    ``start`` is the policy that the round began with, ``best`` the one that has won most so far, ``kl`` the round's
    divergence from its start, in nats per token of its pairs.
    """
    if won(best) - won(now) > watch.max_win_rate_drop:
        return f"the held-out win rate fell from {won(best):.1%} to {won(now):.1%}"
    if now["reward"] is None or start["reward"] is None or now["reward"] <= start["reward"]:
        return None
    rose = f"the reward rose from {start['reward']:.3f} to {now['reward']:.3f} while"
    length = "num_chars" if now["num_tokens"] is None or start["num_tokens"] is None else "num_tokens"
    if now[length] > watch.max_length_ratio * start[length]:
        return f"{rose} answers grew from {start[length]:.0f} to {now[length]:.0f} {length.removeprefix('num_')}"
    if now["repetition"] - start["repetition"] > watch.max_repetition_rise:
        return f"{rose} repetition rose from {start['repetition']:.2f} to {now['repetition']:.2f}"
    if kl > watch.max_kl:
        return f"{rose} the policy moved by {kl:.1f} nats per token, more than {watch.max_kl:g}"
    return None


def won(scores: Scores) -> float:
    """Return the share of games won against the base, ties being half a win; the base ties with itself."""
    if scores.get("num_wins") is None:
        return 0.5
    games = scores["num_wins"] + scores["num_losses"] + scores["num_ties"]
    return (scores["num_wins"] + scores["num_ties"] / 2) / games if games else 0.5
