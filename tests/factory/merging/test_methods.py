"""Every method against its formula, written out in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.merging import methods
from factory.merging.masks import draw_mask
from tests.factory.merging.whole import NAME, merge_whole

SHAPE = (37, 11)


def draw(seed: int, count: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) * scale for _ in range(count)]


def close(result: torch.Tensor, wanted: np.ndarray, scale: float = 1.0) -> None:
    np.testing.assert_allclose(result.double().numpy(), wanted, rtol=1e-5, atol=2e-6 * scale)


def slerp_formula(t: float, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norm_a, norm_b = np.linalg.norm(a), np.linalg.norm(b)
    cosine = np.clip(np.sum(a / (norm_a if norm_a > 1e-8 else 1) * b / (norm_b if norm_b > 1e-8 else 1)), -1, 1)
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    theta = math.acos(cosine)
    return (math.sin((1 - t) * theta) * a + math.sin(t * theta) * b) / math.sin(theta)


def ties_formula(base, tensors, weights, densities, scale, normalize) -> np.ndarray:
    deltas = []
    for tensor, density in zip(tensors, densities, strict=True):
        delta = tensor - base
        count = max(1, math.floor(density * delta.size)) if density else 0
        threshold = np.sort(np.abs(delta).ravel())[::-1][count - 1] if count else math.inf
        deltas.append(np.where(np.abs(delta) >= threshold, delta, 0))
    return base + scale * elect_formula(deltas, weights, normalize)


def elect_formula(deltas, weights, normalize) -> np.ndarray:
    weighted = np.stack([weight * delta for weight, delta in zip(weights, deltas, strict=True)])
    sign = np.where(weighted.sum(0) >= 0, 1, -1)
    agrees = np.sign(weighted) == sign
    divisor = (agrees * np.reshape(weights, (-1, 1, 1))).sum(0)
    total = (weighted * agrees).sum(0)
    return total / np.where(divisor == 0, 1, divisor) if normalize else total


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.2, 0.3), (2.0, -0.5, 0.0)])
@pytest.mark.parametrize("normalize", [True, False])
def test_linear(weights, normalize):
    tensors = draw(0, 3)
    wanted = sum(weight * tensor.double().numpy() for weight, tensor in zip(weights, tensors, strict=True))
    close(merge_whole("linear", tensors, weights, normalize=normalize), wanted / (sum(weights) if normalize else 1))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0, 1.5])
def test_slerp_of_two(t):
    a, b = draw(1, 2)
    wanted = slerp_formula(t, a.double().numpy(), b.double().numpy())
    close(merge_whole("slerp", [a, b], [1 - t, t]), wanted)
    close(
        merge_whole("slerp", [a * 3, b], [(1 - t) * 7, t * 7]),
        slerp_formula(t, 3 * a.double().numpy(), b.double().numpy()),
    )


@pytest.mark.parametrize(
    "other", [lambda a: a, lambda a: 2.5 * a, lambda a: -a, lambda a: 0 * a, lambda a: a + 1e-3 * torch.ones_like(a)]
)
def test_slerp_of_parallel_opposite_and_zero_vectors(other):
    (a,) = draw(2, 1)
    b = other(a)
    close(merge_whole("slerp", [a, b], [0.3, 0.7]), slerp_formula(0.7, a.double().numpy(), b.double().numpy()))
    close(merge_whole("slerp", [b, a], [0.3, 0.7]), slerp_formula(0.7, b.double().numpy(), a.double().numpy()))


def test_the_spherical_mean_of_three_is_where_the_pulls_cancel():
    """At the mean of unit vectors the weighted tangent vectors towards them sum to zero; for two it is SLERP."""
    units = [tensor.double() / tensor.double().norm() for tensor in draw(3, 3)]
    weights = [0.5, 0.2, 0.3]
    mean = merge_whole("slerp", units, weights)
    assert mean.norm().item() == pytest.approx(1)
    pull = torch.zeros(SHAPE, dtype=torch.float64)
    for unit, weight in zip(units, weights, strict=True):
        cosine = (unit * mean).sum().clamp(-1, 1)
        pull += weight * torch.acos(cosine) / torch.sin(torch.acos(cosine)) * (unit - cosine * mean)
    assert pull.norm().item() < 1e-9
    doubled = merge_whole("slerp", [units[0], units[1], units[1]], [0.4, 0.3, 0.3])
    close(doubled, slerp_formula(0.6, units[0].numpy(), units[1].numpy()))


def test_a_spherical_mean_that_is_nowhere_falls_back_to_the_line():
    (a,) = draw(4, 1)
    close(merge_whole("slerp", [a, -a, 0 * a], [1.0, 1.0, 1.0]), np.zeros(SHAPE))


@pytest.mark.parametrize("densities", [(0.5, 0.3, 0.9), (0.0, 1.0, 0.2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1e-9,) * 3])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.6, 0.3, -0.4)])
def test_ties(densities, normalize, weights):
    base, *tensors = draw(5, 4)
    wanted = ties_formula(
        base.double().numpy(),
        [tensor.double().numpy() for tensor in tensors],
        weights,
        densities,
        0.7,
        normalize,
    )
    result = merge_whole("ties", tensors, weights, base, densities, normalize=normalize, lambda_=0.7)
    close(result, wanted, scale=10 if min(weights) < 0 else 1)


def test_a_tie_of_signs_is_positive():
    base = torch.zeros(1, 4)
    plus, minus = torch.full((1, 4), 0.5), torch.full((1, 4), -0.5)
    assert torch.equal(merge_whole("ties", [minus, plus], [1, 1], base, [1, 1]), plus)
    assert torch.equal(merge_whole("ties", [plus, minus], [1, 1], base, [1, 1], normalize=False), plus)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_those_that_agree_needs_no_weights_to_divide_by(dtype):
    """One tensor at a time, in place: exact where values cancel, and of either sign."""
    values = np.array(
        [[1.0, -1.0, 2.0, -2.0, 0.0, 3.0], [-1.0, 1.0, -3.0, 3.0, 0.0, 1.0], [0.5, 0.0, -1.0, 4.0, 0.0, -4.0]]
    )
    weights = [2.0, -1.0, 0.5]
    deltas = [torch.tensor(row, dtype=dtype) for row in values]
    found = methods.sum_agreeing(deltas, weights)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.numpy(), elect_formula(list(values), weights, normalize=False))


def test_zeros_never_agree():
    base = torch.zeros(1, 1)
    assert merge_whole("ties", [base, base + 3.0], [1, 1], base, [1, 1]).item() == 3.0
    assert merge_whole("ties", [base, base], [1, 1], base, [1, 1]).item() == 0.0


def test_magnitudes_equal_to_the_kth_are_all_kept():
    base = torch.zeros(1, 6)
    tensor = torch.tensor([[1.0, -2.0, 2.0, -2.0, 3.0, 0.5]])
    trimmed = torch.tensor([[0.0, -2.0, 2.0, -2.0, 3.0, 0.0]])
    assert torch.equal(merge_whole("ties", [tensor], [1.0], base, [0.4]), trimmed)


@pytest.mark.parametrize("method", ["dare_ties", "dare_linear"])
@pytest.mark.parametrize("normalize", [True, False])
def test_dare(method, normalize):
    base, *tensors = draw(6, 4)
    weights, densities = [0.6, 0.3, 0.2], [0.4, 0.5, 1.0]
    masks = [
        draw_mask(7, str(number), NAME, density, 0, base.numel()).view(SHAPE).numpy()
        for number, density in enumerate(densities)
    ]
    factors = [1 / density for density in densities]
    deltas = [
        (tensor.double().numpy() - base.double().numpy()) * mask * factor
        for tensor, mask, factor in zip(tensors, masks, factors, strict=True)
    ]
    change = sum(weight * delta for weight, delta in zip(weights, deltas, strict=True)) / (
        sum(weights) if normalize else 1
    )
    if method == "dare_ties":
        change = elect_formula(deltas, weights, normalize)
    result = merge_whole(method, tensors, weights, base, densities, normalize=normalize, seed=7, lambda_=0.5)
    close(result, base.double().numpy() + 0.5 * change)


def test_the_l1_factor_restores_the_norm_and_leaves_nothing_alone():
    assert methods.l1_factor(6.0, 2.0) == 3.0
    assert methods.l1_factor(6.0, 0.0) == 1.0
    assert methods.l1_factor(1e-8, 1e-8) == 1.0


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_equal_models_are_the_merge(weights, seed):
    """In float64, in which the merger computes what is stored in float32."""
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.randn(50, generator=generator)
    base = torch.randn(50, generator=generator)
    same = [tensor.double()] * len(weights)
    assert torch.equal(merge_whole("linear", same, weights).float(), tensor)
    assert torch.equal(merge_whole("slerp", same, weights).float(), tensor)
    assert torch.equal(merge_whole("ties", same, weights, base.double(), [1.0] * len(weights)).float(), tensor)
    merged = merge_whole("dare_linear", same, weights, base.double(), [1.0] * len(weights), normalize=True)
    assert torch.equal(merged.float(), tensor)


def test_one_model():
    base, tensor = draw(8, 2)
    for merged in (merge_whole("linear", [tensor], [0.3]), merge_whole("slerp", [tensor], [0.3])):
        close(merged, tensor.double().numpy())
    close(merge_whole("ties", [tensor], [1.0], base, [1.0]), tensor.double().numpy())


def test_weights_that_sum_to_zero_are_refused():
    with pytest.raises(ValueError, match="sum to zero"):
        merge_whole("linear", draw(9, 2), [1.0, -1.0])
