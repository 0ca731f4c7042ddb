"""The regression against gradient descent in another notation, and against closed forms."""

import numpy as np
import pytest

from factory.evaluation.length_control import RIDGE, fit_length_control, standardize_lengths


def make_data(seed: int, num_games: int, num_languages: int):
    generator = np.random.default_rng(seed)
    language = generator.integers(num_languages, size=num_games)
    length = np.tanh(generator.normal(size=num_games))
    truth = np.linspace(-1, 1, num_languages)
    probability = 1 / (1 + np.exp(-(truth[language] + 1.5 * length)))
    outcome = (generator.random(num_games) < probability).astype(float)
    outcome[generator.random(num_games) < 0.1] = 0.5
    return outcome, length, language, generator.integers(1, 4, size=num_games).astype(float), truth


def descend(outcome, length, language, weight, num_languages, ridge):
    """Minimise the same loss by plain gradient descent over a dense design matrix."""
    design = np.column_stack([np.eye(num_languages)[language], length])
    theta = np.zeros(num_languages + 1)
    rate = 4 / (weight @ (design**2).sum(axis=1))
    for _ in range(60_000):
        probability = np.exp(-np.logaddexp(0, -(design @ theta)))
        theta -= rate * (design.T @ (weight * (probability - outcome)) + ridge * theta)
    return theta


def test_the_fit_is_that_of_gradient_descent():
    outcome, length, language, weight, _ = make_data(3, 300, 3)
    fit = fit_length_control(outcome, length, language, weight, 3)
    theta = descend(outcome, length, language, weight, 3, RIDGE)
    assert [*fit.intercepts, fit.slope] == pytest.approx(theta, abs=1e-5)
    begun = fit_length_control(outcome, length, language, weight, 3, start=fit)
    assert begun.intercepts == pytest.approx(fit.intercepts, abs=1e-6)


def test_the_fit_finds_the_truth_again():
    outcome, length, language, weight, truth = make_data(4, 60_000, 5)
    fit = fit_length_control(outcome, length, language, weight, 5)
    # A tenth of the outcomes are halves, which pulls towards zero; the order and the size stay.
    assert fit.intercepts == pytest.approx(truth * 0.85, abs=0.12)
    assert fit.win_rates[2] == pytest.approx(0.5, abs=0.02)


def test_without_length_differences_it_is_the_win_rate():
    outcome = np.array([1, 1, 1, 0, 0.5, 0.5])
    fit = fit_length_control(outcome, np.zeros(6), np.zeros(6, dtype=np.int64), np.ones(6), 1)
    assert fit.win_rates == pytest.approx([4 / 6], abs=1e-3)
    assert fit.slope == 0


@pytest.mark.parametrize("won", [0.0, 1.0])
def test_a_side_that_always_wins_has_a_finite_fit(won):
    generator = np.random.default_rng(0)
    length = np.tanh(generator.normal(size=50))
    fit = fit_length_control(np.full(50, won), length, np.zeros(50, dtype=np.int64), np.full(50, 3.0), 1)
    assert fit.win_rates == pytest.approx([won], abs=0.01)
    assert np.isfinite(fit.slope)


def test_a_perfect_separation_by_length_has_a_finite_fit():
    length = np.linspace(-0.9, 0.9, 40)
    fit = fit_length_control((length > 0).astype(float), length, np.zeros(40, dtype=np.int64), np.ones(40), 1)
    assert fit.win_rates == pytest.approx([0.5], abs=1e-6)
    assert 10 < fit.slope < 1000


def test_lengths_are_standardised_within_their_language():
    language = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    difference = np.array([-10.0, 0.0, 10.0, -1000.0, 0.0, 1000.0, 7.0, 7.0])
    standard = standardize_lengths(difference, language, 3)
    assert standard[:3] == pytest.approx(standard[3:6])
    assert standard[2] == pytest.approx(np.tanh(10 / np.std([-10, 0, 10])))
    assert standard[6:] == pytest.approx([0, 0])
