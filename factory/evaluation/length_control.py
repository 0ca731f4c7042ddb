"""Win rates as they would be between answers of equal length (the idea of length-controlled AlpacaEval).

A logistic regression explains each game by its language, and by tanh of the length difference over its standard
deviation within the language; the prediction at zero is the length-controlled win rate. A tie is half a win here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RIDGE = 1e-3
"""Pull on all coefficients towards zero: it bounds them where one side has won every game, and else changes nothing."""

MAX_STEPS = 50
TOLERANCE = 1e-9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LengthFit:
    """The coefficients: one ``intercepts`` per language, and the one ``slope`` of length that they share."""

    intercepts: Floats
    slope: float

    @property
    def win_rates(self) -> Floats:
        """The length-controlled win rate of each language."""
        return _logistic(self.intercepts)


def standardize_lengths(difference: Floats, language: Ints, num_languages: int) -> Floats:
    """Return tanh of length differences over their standard deviation within the language; 0 where all are equal."""
    counts = np.maximum(np.bincount(language, minlength=num_languages), 1)
    means = np.bincount(language, difference, num_languages) / counts
    squares = np.bincount(language, (difference - means[language]) ** 2, num_languages) / counts
    # Where a language has one length difference throughout, its size says nothing.
    deviations = np.where(squares > 0, np.sqrt(squares), np.inf)
    standardized: Floats = np.tanh(difference / deviations[language])
    return standardized


def fit_length_control(
    outcome: Floats,
    length: Floats,
    language: Ints,
    weight: Floats,
    num_languages: int,
    *,
    start: LengthFit | None = None,
) -> LengthFit:
    """Fit the regression by Newton's method; each step is halved until it does not make the fit worse.

    Args:
        outcome: 1 for a win, 0 for a loss, 0.5 for a tie; one per game.
        length: what ``standardize_lengths`` returns; one per game.
        language: the number of the game's language, from 0; one per game.
        weight: how many games each game counts for.
        num_languages: how many languages there are.
        start: coefficients to begin from, such as those of like data.
    """
    theta = np.zeros(num_languages + 1) if start is None else np.append(start.intercepts, start.slope)

    def predict(theta: Floats) -> Floats:
        logit: Floats = theta[language] + theta[-1] * length
        return logit

    def loss(theta: Floats, logit: Floats) -> float:
        fit = np.sum(weight * (np.logaddexp(0, logit) - outcome * logit))
        return float(fit + RIDGE / 2 * theta @ theta)

    logit = predict(theta)
    current = loss(theta, logit)
    for _ in range(MAX_STEPS):
        probability = _logistic(logit)
        residual, curve = weight * (probability - outcome), weight * probability * (1 - probability)
        gradient = np.append(np.bincount(language, residual, num_languages), residual @ length) + RIDGE * theta
        hessian = np.diag(np.append(np.bincount(language, curve, num_languages), curve @ length**2) + RIDGE)
        hessian[-1, :-1] = hessian[:-1, -1] = np.bincount(language, curve * length, num_languages)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while (found := loss(theta - size * step, predict(theta - size * step))) > current and size > TOLERANCE:
            size /= 2
        gained, current = current - found, min(found, current)
        if gained <= 0:
            break
        theta = theta - size * step
        logit = predict(theta)
        if gained < TOLERANCE * max(1.0, current):
            break
    return LengthFit(theta[:-1], float(theta[-1]))


def _logistic(logit: Floats) -> Floats:
    probability: Floats = 1 / (1 + np.exp(-np.clip(logit, -500, 500)))
    return probability
