"""Win rates at equal answer length, after the idea of length-controlled AlpacaEval.

A logistic regression predicts each game from its language and from tanh(length difference / its standard deviation
within the language); the prediction at zero difference is the length-controlled win rate. A tie counts as half a win.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RIDGE = 1e-3
"""Ridge penalty on all coefficients, which keeps them finite if one side has won every game; otherwise negligible."""

MAX_STEPS = 50
TOLERANCE = 1e-9

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LengthFit:
    """The coefficients: ``intercepts`` [languages], and a common ``slope`` of the length difference."""

    intercepts: Floats
    slope: float

    @property
    def win_rates(self) -> Floats:
        """The length-controlled win rate of each language, [languages]."""
        return _logistic(self.intercepts)


def standardize_lengths(difference: Floats, language: Ints, num_languages: int) -> Floats:
    """Return tanh(length difference / standard deviation within the language) per game; 0 if all are equal."""
    counts = np.maximum(np.bincount(language, minlength=num_languages), 1)
    means = np.bincount(language, difference, num_languages) / counts
    squares = np.bincount(language, (difference - means[language]) ** 2, num_languages) / counts
    # If all length differences of a language are equal, they explain nothing, and the deviation is 0.
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
    """Fit the regression by Newton's method; each step is halved until it does not increase the loss.

    Args:
        outcome: 1 for a win, 0 for a loss, 0.5 for a tie, [games].
        length: standardized length differences from ``standardize_lengths``, [games].
        language: the number of each game's language, from 0, [games].
        weight: the weight of each game, [games].
        num_languages: the number of languages.
        start: initial coefficients, such as those of similar data.
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
