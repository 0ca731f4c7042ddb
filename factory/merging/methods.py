"""The formulas of the merge methods, as pure functions of tensors of any float dtype.

``theta_i`` are the models' values of a parameter or a block of it, ``w_i`` their weights; ``delta_i = theta_i - base``
is a task vector. The module ``passes`` applies them to whole parameters:

linear: ``sum(w_i theta_i)``, divided by ``sum(w_i)`` if normalized (model soups: Wortsman et al., arXiv 2203.05482).

slerp: the coefficients of the spherical mean of the directions, applied to the tensors themselves. For two tensors with
``t = w_1 / (w_0 + w_1)`` and the angle ``theta`` between them this is SLERP (Shoemake 1985):
``[sin((1 - t) theta) a + sin(t theta) b] / sin(theta)``; ``(1 - t) a + t b`` if ``|cos(theta)| > 0.9995``.

ties: ``base + lambda * elected mean`` of the trimmed task vectors (TIES: Yadav et al., arXiv 2306.01708). Each keeps
its ``k = max(1, floor(density n))`` largest magnitudes, and all that equal the k-th; density 0 keeps none. The sign
election uses the weights, as in mergekit and unlike the paper.

dare_linear, dare_ties: ``base + lambda * combination`` of randomly masked task vectors (DARE: Yu et al., arXiv
2311.03099): ``delta_i`` becomes ``delta_i * mask_i * factor_i``. The combination is the sum, or the elected sum of
TIES. The factor is ``1 / density`` (the paper) or ``l1_factor`` (mergekit).
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import hardshrink

PARALLEL_COSINE = 0.9995
"""Directions with a larger absolute cosine (nearly parallel or opposite) are interpolated linearly."""

MIN_NORM = 1e-8
MIN_L1_NORM = 1e-7
MIN_WEIGHT_SUM = 1e-8


def normalize_weights(weights: Sequence[float]) -> list[float]:
    """Return the weights divided by their sum.

    Raises:
        ValueError: the weights sum to zero.
    """
    total = math.fsum(weights)
    if abs(total) < MIN_WEIGHT_SUM:
        raise ValueError("the weights sum to zero")
    return [weight / total for weight in weights]


def weighted_sum(tensors: Iterable[Tensor], weights: Sequence[float], *, in_place: bool = False) -> Tensor:
    """Return ``sum(w_i theta_i)``; with ``in_place``, the first tensor is overwritten with it."""
    pairs = zip(tensors, weights, strict=True)
    tensor, weight = next(pairs)
    total = tensor.mul_(weight) if in_place else tensor * weight
    for tensor, weight in pairs:
        total.add_(tensor, alpha=weight)
    return total


def gram_matrix(tensors: Sequence[Tensor]) -> np.ndarray:
    """Return the inner products of flat tensors, [tensors, tensors] in float64."""
    gram = np.zeros((len(tensors), len(tensors)))
    for row, left in enumerate(tensors):
        for column, right in enumerate(tensors[: row + 1]):
            gram[row, column] = gram[column, row] = torch.dot(left, right).item()
    return gram


def slerp_coefficients(gram: np.ndarray, weights: Sequence[float]) -> list[float]:
    """Return the coefficient of each tensor, given their inner products [tensors, tensors].

    For two tensors these are SLERP's coefficients. For more, they are those of the weighted spherical (Karcher) mean of
    the unit vectors, found by gradient descent on the sphere, which stays in their span. For parallel or opposite
    vectors, they are the linear weights.
    """
    shares = normalize_weights(weights)
    norms = np.sqrt(np.diag(gram))
    norms = np.where(norms > MIN_NORM, norms, 1.0)
    cosines = np.clip(gram / np.outer(norms, norms), -1.0, 1.0)
    others = ~np.eye(len(shares), dtype=bool)
    if len(shares) == 2:
        cosine = float(cosines[0, 1])
        if abs(cosine) > PARALLEL_COSINE:
            return shares
        angle = math.acos(cosine)
        return [math.sin(share * angle) / math.sin(angle) for share in shares]
    if np.all(np.abs(cosines[others]) > PARALLEL_COSINE):
        return shares
    return _karcher_coefficients(cosines, np.array(shares)) or shares


def _karcher_coefficients(cosines: np.ndarray, shares: np.ndarray, num_steps: int = 100) -> list[float] | None:
    """Return the coefficients of the mean of unit vectors, given their cosines; None if the mean is undefined."""
    mean = shares
    for _ in range(num_steps):
        norm = math.sqrt(max(float(mean @ cosines @ mean), 0.0))
        if norm < MIN_NORM:
            return None
        mean = mean / norm
        to_each = np.clip(cosines @ mean, -1.0, 1.0)
        angles = np.arccos(to_each)
        sines = np.sin(angles)
        stretch = np.where(sines > MIN_NORM, angles / np.where(sines > MIN_NORM, sines, 1.0), 1.0)
        step = shares * stretch - float(shares @ (stretch * to_each)) * mean
        length = math.sqrt(max(float(step @ cosines @ step), 0.0))
        if length < 1e-14:
            break
        mean = math.cos(length) * mean + math.sin(length) / length * step
    return [float(value) for value in mean]


def num_kept(density: float, num_elements: int) -> int:
    """Return how many of n elements a density keeps: ``max(1, floor(density n))``, or 0 for density 0."""
    return max(1, math.floor(density * num_elements)) if density > 0 and num_elements else 0


def trim(delta: Tensor, threshold: float) -> Tensor:
    """Return ``delta`` with elements of a magnitude below the threshold set to zero."""
    if threshold == 0:
        return delta
    if math.isinf(threshold):
        return torch.zeros_like(delta)
    kind = np.float64 if delta.dtype == torch.float64 else np.float32
    return hardshrink(delta, float(np.nextafter(kind(threshold), kind(0))))  # hardshrink drops equality


def weigh(deltas: Iterable[Tensor], weights: Sequence[float]) -> list[Tensor]:
    """Return ``w_i delta_i``."""
    return [delta * weight for delta, weight in zip(deltas, weights, strict=True)]


def share_out(factors: Sequence[float], weights: Sequence[float], *, normalize: bool) -> list[float]:
    """Return the factors, divided by ``sum(w_i)`` if normalized; a zero sum counts as 1."""
    total = math.fsum(weights)
    divisor = total if normalize and abs(total) >= MIN_WEIGHT_SUM else 1.0
    return [factor / divisor for factor in factors]


def elect(weighted: Iterable[Tensor], weights: Sequence[float], *, normalize: bool) -> Tensor:
    """Return the sum of the ``w_i delta_i`` that agree with the elected sign, as in TIES.

    If normalized, it is divided by the sum of their weights. The elected sign of an element is + if ``sum(w_i delta_i)
    >= 0``, else -. Zeros never agree; a zero divisor counts as 1. Arithmetic is used instead of boolean masks, which
    cost an unpredictable branch per element on a CPU.
    """
    weighted = list(weighted)
    if not normalize:
        return sum_agreeing([values.clone() for values in weighted], [1.0] * len(weighted))
    votes = weighted_sum(weighted, [1.0] * len(weighted))
    sign = torch.ge(votes, 0, out=torch.empty_like(votes)).mul_(2).sub_(1)
    total, divisor = torch.zeros_like(votes), torch.zeros_like(votes)
    for values, weight in zip(weighted, weights, strict=True):
        agreeing = torch.mul(values, sign).relu_()
        total.add_(agreeing)
        divisor.add_(agreeing.sign_(), alpha=weight)
    divisor.add_(torch.eq(divisor, 0, out=votes))
    return total.div_(divisor).mul_(sign)


def sum_agreeing(deltas: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the sum of the ``v_i = w_i delta_i`` whose sign is that of their sum; the deltas are overwritten.

    With P the sum of the magnitudes that agree and N that of the others, ``sum(|v_i|) = P + N`` and ``|sum(v_i)| = P -
    N``. So P with the elected sign is half of ``sum(v_i)`` plus half of ``sum(|v_i|)`` with that sign.
    """
    pairs = zip(deltas, (weight / 2 for weight in weights), strict=True)
    delta, half = next(pairs)
    votes = delta * half
    magnitudes = votes.abs()
    for delta, half in pairs:
        votes.add_(delta, alpha=half)
        magnitudes.add_(delta.abs_(), alpha=abs(half))
    return votes.add_(_give_sign(magnitudes, votes))


def _give_sign(magnitudes: Tensor, values: Tensor) -> Tensor:
    """Give magnitudes the signs of values, in place, by bit operations; twice as fast as ``copysign_`` on a CPU."""
    if values.dtype != torch.float32:
        return magnitudes.copysign_(values)
    signs = values.view(torch.int32).bitwise_and(torch.iinfo(torch.int32).min)
    magnitudes.view(torch.int32).bitwise_or_(signs)
    return magnitudes


def l1_factor(l1_norm: float, kept_l1_norm: float) -> float:
    """Return the factor that restores the L1 norm of a masked task vector; 1 if either norm is below 1e-7."""
    return l1_norm / kept_l1_norm if min(l1_norm, kept_l1_norm) >= MIN_L1_NORM else 1.0
