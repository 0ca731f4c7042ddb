"""Win rates against counts by hand, intervals against a plain resampling loop."""

import numpy as np
import polars as pl
import pytest

from factory.evaluation.winrates import ALL, rate_games

SCHEMA = {
    "language": pl.String,
    "root_id": pl.String,
    "prompt_id": pl.String,
    "verdict": pl.String,
    "length_a": pl.Int64,
    "length_b": pl.Int64,
}


def make_games(verdicts: dict[str, list[list[str | None]]]) -> pl.DataFrame:
    """Games of each language: one list of verdicts per prompt; prompt n of every language has the same root."""
    rows = [
        (language, f"root-{number}", f"{language}-{number}", verdict, 10, 10)
        for language, prompts in verdicts.items()
        for number, games in enumerate(prompts)
        for verdict in games
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def random_games(seed: int, num_prompts: int) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    verdicts = ["A>>B", "A>B", "A=B", "B>A", "B>>A", "unreadable"]
    return make_games(
        {
            language: [list(generator.choice(verdicts, size=2, p=p)) for _ in range(num_prompts)]
            for language, p in {"ar": [0.2, 0.4, 0.1, 0.1, 0.1, 0.1], "ja": [0.1, 0.1, 0.1, 0.3, 0.3, 0.1]}.items()
        }
    )


def rate(games: pl.DataFrame, *, strong_weight: int = 1, rounds: int = 50, seed: int = 0) -> dict[str, dict]:
    rated = rate_games(games, strong_weight=strong_weight, rounds=rounds, seed=seed)
    return {row["language"]: row for row in rated.to_dicts()}


def test_wins_losses_and_ties_are_apart():
    games = make_games({"ar": [["A>B"], ["A>B"], ["B>A"], ["A=B"], ["unreadable"], [None]], "ja": [["A=B"], ["A=B"]]})
    rows = rate(games)
    counts = {name: value for name, value in rows["ar"].items() if name.startswith("num_")}
    assert counts == {
        "num_prompts": 6,
        "num_games": 6,
        "num_wins": 2,
        "num_losses": 1,
        "num_ties": 1,
        "num_unreadable": 1,
        "num_unjudged": 1,
    }
    assert [rows["ar"][f"{outcome}_rate"] for outcome in ("win", "loss", "tie")] == [0.5, 0.25, 0.25]
    assert [rows["ja"][f"{outcome}_rate"] for outcome in ("win", "loss", "tie")] == [0, 0, 1]
    # The average over languages, not over games; a tie is not half a win.
    assert [rows[ALL][f"{outcome}_rate"] for outcome in ("win", "loss", "tie")] == [0.25, 0.125, 0.625]
    assert (rows[ALL]["num_games"], rows[ALL]["num_wins"]) == (8, 2)


def test_a_strong_verdict_counts_three_times():
    games = make_games({"en": [["A>>B", "A>B"], ["B>A", "B>>A"], ["A=B", "B>A"]]})
    row = rate(games, strong_weight=3)["en"]
    assert [row[f"{outcome}_rate"] for outcome in ("win", "loss", "tie")] == pytest.approx([4 / 10, 5 / 10, 1 / 10])
    assert (row["num_wins"], row["num_losses"], row["num_ties"]) == (2, 3, 1)


def test_intervals_are_those_of_a_plain_loop_over_prompts():
    games = random_games(1, 40)
    rows = rate(games, strong_weight=3, rounds=500, seed=5)
    weights = {"A>>B": 3, "A>B": 1}
    totals = {"A>>B": 3, "B>>A": 3, "unreadable": 0}
    by_prompt = {
        (row["language"], int(row["root_id"].removeprefix("root-"))): (
            sum(weights.get(verdict, 0) for verdict in row["verdict"]),
            sum(totals.get(verdict, 1) for verdict in row["verdict"]),
        )
        for row in games.group_by("language", "root_id").agg("verdict").to_dicts()
    }
    found = []
    names = sorted(range(40), key=lambda number: f"root-{number}")
    for counts in np.random.default_rng(5).multinomial(40, np.full(40, 1 / 40), size=500):
        drawn = [number for number, count in zip(names, counts, strict=True) for _ in range(count)]
        rates = []
        for language in ("ar", "ja"):
            wins, all_games = np.sum([by_prompt[language, number] for number in drawn], axis=0)
            rates.append(wins / all_games)
        found.append([*rates, np.mean(rates)])
    low, high = np.percentile(found, [2.5, 97.5], axis=0)
    for at, language in enumerate(("ar", "ja", ALL)):
        assert rows[language]["win_rate_low"] == pytest.approx(low[at])
        assert rows[language]["win_rate_high"] == pytest.approx(high[at])
        assert rows[language]["win_rate_low"] < rows[language]["win_rate"] < rows[language]["win_rate_high"]


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of a hundred samples of 60 prompts, whose games go the same way, about 95 intervals hold the true rate."""
    generator = np.random.default_rng(7)
    num_held = 0
    for seed in range(100):
        wins = generator.random(60) < 0.6
        row = rate(make_games({"en": [["A>B" if won else "B>A"] * 2 for won in wins]}), rounds=300, seed=seed)["en"]
        num_held += row["win_rate_low"] <= 0.6 <= row["win_rate_high"]
    assert 89 <= num_held <= 99


def test_more_games_of_the_same_prompts_are_no_more_evidence():
    once = make_games({"en": [["A>B"], ["B>A"]] * 20})
    often = make_games({"en": [["A>B"] * 10, ["B>A"] * 10] * 20})
    one, many = rate(once, rounds=2000)["en"], rate(often, rounds=2000)["en"]
    assert (one["win_rate_low"], one["win_rate_high"]) == (many["win_rate_low"], many["win_rate_high"])
    assert one["win_rate_high"] - one["win_rate_low"] > 0.2


def test_translations_of_a_prompt_are_drawn_together():
    """Languages that agree on every prompt give an average as uncertain as one language."""
    games = make_games({language: [["A>B"], ["B>A"]] * 20 for language in ("ar", "he", "ja", "zh")})
    rows = rate(games, rounds=500)
    assert rows[ALL]["win_rate_low"] == rows["ar"]["win_rate_low"]


def test_the_seed_decides():
    games = random_games(2, 30)
    assert rate(games, seed=1) == rate(games, seed=1)
    assert rate(games, seed=1) != rate(games, seed=2)
    assert rate(games, seed=1)[ALL]["win_rate"] == rate(games, seed=2)[ALL]["win_rate"]


def test_rates_need_a_decided_game():
    rows = rate(make_games({"ar": [["A>B"], ["unreadable"]], "hi": [["unreadable"], [None]]}))
    assert rows["ar"]["win_rate"] == 1
    assert (rows["hi"]["win_rate"], rows["hi"]["length_controlled_low"], rows["hi"]["num_unjudged"]) == (None, None, 1)
    rows = rate(make_games({"hi": [[None]]}))
    assert rows[ALL]["win_rate"] is None
    assert rows[ALL]["num_unjudged"] == 1


def test_a_longer_answer_wins_less_at_equal_length():
    """Whichever answer is longer wins three times in four, and a is longer four times in five: no better otherwise."""
    rows = [
        ("en", f"r{n}", f"p{n}", "A>B" if (n % 5 > 0) == (n // 5 % 4 > 0) else "B>A", 200 if n % 5 else 100, 150)
        for n in range(200)
    ]
    row = rate(pl.DataFrame(rows, schema=SCHEMA, orient="row"))["en"]
    assert row["win_rate"] == 0.65
    assert row["length_controlled"] == pytest.approx(0.5, abs=0.001)
    assert row["length_controlled_low"] < row["length_controlled"] < row["length_controlled_high"]


def test_a_language_that_a_round_draws_no_prompt_of_has_no_rate_at_equal_length():
    """Every game is won, and most rounds miss some of the ten languages: no interval goes down to a half."""
    prompts = [(f"l{n // 2}", f"r{n}", f"p{n}", "A>B", 10, 10) for n in range(20)]
    rows = rate(pl.DataFrame(prompts, schema=SCHEMA, orient="row"), rounds=200)
    assert min(row["length_controlled_low"] for row in rows.values()) > 0.98
