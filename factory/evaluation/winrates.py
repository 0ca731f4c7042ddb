"""Win, loss and tie rates of games, by language and overall, with bootstrap intervals.

The bootstrap resamples source prompts, together with their translations and all their games, because games of the same
prompt are not independent. Overall figures are macro averages over languages.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from factory.evaluation.length_control import Floats, Ints, LengthFit, fit_length_control, standardize_lengths
from factory.evaluation.verdicts import UNREADABLE

ALL = "all"
"""The value of the column ``language`` in the row for the average over languages."""

PERCENTILES = (2.5, 97.5)
MAX_LENGTH_ROUNDS = 200
"""The limit of bootstrap rounds for length-controlled rates, since each round fits a regression."""

OUTCOMES = ("win", "loss", "tie")


@dataclass(frozen=True, slots=True)
class _Games:
    """Decided games as arrays: each game's language and prompt (numbers from 0) and weighted outcome [games, 3]."""

    languages: list[str]
    language: Ints
    prompt: Ints
    outcome: Floats
    length: Floats
    num_prompts: int


def rate_games(games: pl.DataFrame, *, strong_weight: int, rounds: int, seed: int) -> pl.DataFrame:
    """Return one row per language, in alphabetical order, and one (``ALL``) for the average over languages.

    ``games`` has one row per game, from the first model's point of view: language, root_id, prompt_id, verdict (null
    if there is none), length_a and length_b in characters.

    Columns: language, num_prompts, num_games, num_wins, num_losses, num_ties, num_unreadable, num_unjudged; then shares
    of the readable games, where a strong verdict counts ``strong_weight`` times: win_rate, loss_rate, tie_rate, each
    with its 95% interval in _low and _high; and length_controlled, the win rate at equal length (a tie counts half),
    with its interval. Rates are null if no game was decided.
    """
    counts = _count(games)
    readable = games.filter(pl.col("verdict").is_not_null() & (pl.col("verdict") != UNREADABLE))
    if readable.is_empty():
        return counts.with_columns(pl.lit(None, pl.Float64).alias(name) for name in _rate_names())
    decided = _index(readable, strong_weight)
    draws = _draw(decided.num_prompts, rounds, seed)
    figures = _rate(decided, draws) | _control_length(decided, draws)
    rates = pl.DataFrame({"language": [*decided.languages, ALL], **figures}).with_columns(
        pl.selectors.float().fill_nan(None)
    )
    return counts.join(rates, on="language", how="left", maintain_order="left")


def _count(games: pl.DataFrame) -> pl.DataFrame:
    """Return the counts of games by language, and their totals."""
    verdict = pl.col("verdict")
    numbers = {
        "num_prompts": pl.col("prompt_id").n_unique(),
        "num_games": pl.len(),
        "num_wins": verdict.is_in(["A>>B", "A>B"]).sum(),
        "num_losses": verdict.is_in(["B>>A", "B>A"]).sum(),
        "num_ties": (verdict == "A=B").sum(),
        "num_unreadable": (verdict == UNREADABLE).sum(),
        "num_unjudged": verdict.is_null().sum(),
    }
    columns = [number.cast(pl.Int64).alias(name) for name, number in numbers.items()]
    by_language = games.group_by("language").agg(columns).sort("language")
    return pl.concat([by_language, by_language.select(pl.lit(ALL).alias("language"), pl.col(*numbers).sum())])


def _index(games: pl.DataFrame, strong_weight: int) -> _Games:
    languages = sorted(games["language"].unique())
    weight = pl.when(pl.col("verdict").str.contains(">>")).then(strong_weight).otherwise(1)
    won, lost = pl.col("verdict").str.starts_with("A>"), pl.col("verdict").str.starts_with("B>")
    outcomes = zip(OUTCOMES, (won, lost, ~won & ~lost), strict=True)
    rows = games.select(
        pl.col("language").replace_strict(languages, range(len(languages)), return_dtype=pl.Int64),
        pl.col("root_id").rank("dense").cast(pl.Int64).alias("prompt") - 1,
        *((outcome * weight).cast(pl.Float64).alias(name) for name, outcome in outcomes),
        (pl.col("length_a").cast(pl.Float64) - pl.col("length_b")).alias("difference"),
    )
    language = rows["language"].to_numpy()
    return _Games(
        languages,
        language,
        rows["prompt"].to_numpy(),
        rows.select(OUTCOMES).to_numpy(),
        standardize_lengths(rows["difference"].to_numpy(), language, len(languages)),
        rows["prompt"].n_unique(),
    )


def _draw(num_prompts: int, rounds: int, seed: int) -> Floats:
    """Return how often each bootstrap round draws each prompt, [rounds, prompts]; the first row is the data itself."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=rounds)
    return np.concatenate([np.ones((1, num_prompts)), drawn])


def _rate(games: _Games, draws: Floats) -> dict[str, Floats]:
    """Return the shares of outcomes and their intervals, by language and for the average."""
    num_languages = len(games.languages)
    cells = games.language * games.num_prompts + games.prompt
    sums = np.stack([np.bincount(cells, column, num_languages * games.num_prompts) for column in games.outcome.T], -1)
    totals = np.einsum(
        "rp,lpo->rlo", draws, sums.reshape(num_languages, games.num_prompts, len(OUTCOMES)), optimize=True
    )
    with np.errstate(invalid="ignore"):  # a round may draw no prompt of some language, which gives 0 / 0
        shares = totals / totals.sum(axis=-1, keepdims=True)
    figures: dict[str, Floats] = {}
    for at, name in enumerate(OUTCOMES):
        figures |= _with_interval(f"{name}_rate", shares[:, :, at])
    return figures


def _control_length(games: _Games, draws: Floats) -> dict[str, Floats]:
    """Return the length-controlled win rate and its interval, by language and for the average."""
    win, loss, tie = games.outcome.T
    weight = win + loss + tie
    outcome = (win + tie / 2) / weight
    num_languages = len(games.languages)
    whole: LengthFit | None = None
    rounds = []
    for draw in draws[: MAX_LENGTH_ROUNDS + 1]:
        drawn = weight * draw[games.prompt]
        fit = fit_length_control(outcome, games.length, games.language, drawn, num_languages, start=whole)
        whole = whole or fit
        is_drawn = np.bincount(games.language, drawn, num_languages) > 0
        rounds.append(np.where(is_drawn, fit.win_rates, np.nan))  # the fit says nothing about a language without games
    return _with_interval("length_controlled", np.stack(rounds))


def _with_interval(name: str, rounds: Floats) -> dict[str, Floats]:
    """Return a figure and its interval from its values [rounds, languages]; the first round is the data itself."""
    values = np.column_stack([rounds, np.nanmean(rounds, axis=1)])
    low, high = np.nanpercentile(values[1:], PERCENTILES, axis=0)
    return {name: values[0], f"{name}_low": low, f"{name}_high": high}


def _rate_names() -> list[str]:
    names = [*(f"{outcome}_rate" for outcome in OUTCOMES), "length_controlled"]
    return [f"{name}{end}" for name in names for end in ("", "_low", "_high")]


def rate_first_shown(games: pl.DataFrame) -> float | None:
    """Return the share of won games in which the answer shown first won; far from 0.5, the judge has a position bias.

    ``games`` has the columns verdict and is_first (whether the first model's answer was shown first). Returns None if
    no game was won by either side.
    """
    won, lost = pl.col("verdict").str.starts_with("A>"), pl.col("verdict").str.starts_with("B>")
    share = games.filter(won | lost).select((won == pl.col("is_first")).mean()).item()
    return None if share is None else float(share)
