"""A round is stopped when its reward rises by means that nobody wants, or when it wins less."""

import pytest

from flows.policy.reward_hacking import find_hacking, won
from schemas.recipe.policy import Watch

START = {
    "reward": 1.0,
    "num_tokens": 20.0,
    "num_chars": 60.0,
    "repetition": 0.1,
    "num_wins": 50,
    "num_losses": 30,
    "num_ties": 20,
}
WATCH = Watch(max_length_ratio=1.5, max_repetition_rise=0.1, max_kl=2.0, max_win_rate_drop=0.02)


@pytest.mark.parametrize(
    ("change", "kl", "reason"),
    [
        ({}, 0.5, None),
        ({"reward": 2.0}, 0.5, None),
        ({"reward": 2.0, "num_tokens": 31.0}, 0.5, "answers grew from 20 to 31 tokens"),
        ({"reward": 0.9, "num_tokens": 31.0}, 0.5, None),
        ({"reward": 2.0, "num_tokens": None, "num_chars": 91.0}, 0.5, "answers grew from 60 to 91 chars"),
        ({"reward": 2.0, "repetition": 0.3}, 0.5, "repetition rose from 0.10 to 0.30"),
        ({"reward": 2.0}, 3.0, "the policy moved by 3.0 nats"),
        ({"num_wins": 47, "num_losses": 33}, 0.5, "the held-out win rate fell from 60.0% to 57.0%"),
        ({"num_wins": 49, "num_losses": 31}, 0.5, None),
        ({"num_wins": 40, "num_losses": 30, "num_ties": 30}, 0.5, "fell from 60.0% to 55.0%"),
    ],
)
def test_what_stops_a_round(change, kl, reason):
    found = find_hacking(WATCH, START, START, START | change, kl)
    assert found is None if reason is None else reason in str(found)


def test_a_round_is_held_against_the_best_one_so_far():
    worse = START | {"num_wins": 20, "num_losses": 60}
    assert find_hacking(WATCH, worse, worse, worse | {"reward": 1.1}, 0.0) is None
    assert "fell from 60.0% to 30.0%" in str(find_hacking(WATCH, worse, START, worse, 0.0))


def test_the_base_ties_with_itself():
    assert won({"num_wins": None}) == 0.5
    assert won({"num_wins": 0, "num_losses": 0, "num_ties": 0}) == 0.5
    assert won(START) == pytest.approx(0.6)
