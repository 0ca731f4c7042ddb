"""The k-th largest magnitude of a tensor that is seen block by block.

A sample brackets it, one pass counts what lies above the bracket and gathers what lies inside, and among those it is
selected: exact, and a percent of the tensor in memory (after Floyd and Rivest, 1975). A bracket that missed is widened.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

SAMPLE_SIZE = 1 << 18
"""Tensors up to four times this size are gathered whole."""

STRIDES = (5, 11, 23, 61, 127, 257, 521, 1031, 2053, 4099, 8209, 16411, 32771)
"""Primes, so that a sample does not fall on the same columns of each row."""

MARGIN = 6.0
"""Half of the bracket, in standard deviations of the sample's quantile."""

Passes: TypeAlias = Generator[Callable[[Any], Any], list[Any], Any]
"""Asks for passes over the blocks of a parameter: yields a function of a block, is sent its results in their order."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """Two bounds between which the sought magnitude should lie."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Census:
    """What one block has of one bracket: counts, and the magnitudes strictly inside."""

    above: int
    at_high: int
    inside: np.ndarray
    at_low: int


def select_largest(magnitudes: Callable[[Any], list[Tensor]], num_elements: int, ranks: Sequence[int]) -> Passes:
    """Find the ``ranks[i]``-th largest of the i-th tensor's magnitudes, for several tensors of ``num_elements`` at once.

    Args:
        magnitudes: gives the flat magnitudes of each tensor in a block.
        num_elements: how many each tensor has in all its blocks.
        ranks: from 1 to ``num_elements``.

    Returns:
        The magnitudes, in the tensors' order.
    """
    if num_elements <= 4 * SAMPLE_SIZE:
        blocks = yield lambda block: [values.numpy(force=True) for values in magnitudes(block)]
        return [
            _kth_largest(np.concatenate(parts), rank)
            for parts, rank in zip(zip(*blocks, strict=True), ranks, strict=True)
        ]
    stride = next((stride for stride in STRIDES if stride >= num_elements / SAMPLE_SIZE), STRIDES[-1])
    blocks = yield lambda block: [values[::stride].clone().numpy(force=True) for values in magnitudes(block)]
    samples = [np.sort(np.concatenate(parts)) for parts in zip(*blocks, strict=True)]
    margin = MARGIN
    found: dict[int, float] = {}
    while len(found) < len(ranks):
        brackets = [_bracket(sample, rank / num_elements, margin) for sample, rank in zip(samples, ranks, strict=True)]
        censuses = yield partial(_take_censuses, magnitudes, brackets)
        for at, parts in enumerate(zip(*censuses, strict=True)):
            value = _look_up(brackets[at], parts, ranks[at])
            if value is not None:
                found[at] = value
        margin *= 8
    return [found[at] for at in range(len(ranks))]


def _kth_largest(values: np.ndarray, rank: int) -> float:
    return float(np.partition(values, len(values) - rank)[len(values) - rank])


def _bracket(sample: np.ndarray, share: float, margin: float) -> Bracket:
    """Return bounds around the magnitude that a share of a tensor exceeds, from a sorted sample."""
    size = len(sample)
    half = margin * math.sqrt(max(share * (1 - share), 1 / size) * size) + 1
    low, high = math.floor(size * (1 - share) - half), math.ceil(size * (1 - share) + half)
    return Bracket(float(sample[low]) if low > 0 else -1.0, float(sample[high]) if high < size else math.inf)


def _take_censuses(
    magnitudes: Callable[[Any], list[Tensor]], brackets: Sequence[Bracket], block: object
) -> list[Census]:
    return [take_census(values, bracket) for values, bracket in zip(magnitudes(block), brackets, strict=True)]


def take_census(values: Tensor, bracket: Bracket) -> Census:
    """Count a block's magnitudes above, at and below the bounds, and gather those inside."""
    array = values.numpy(force=True)
    kind = array.dtype.type
    low, high = kind(bracket.low), kind(bracket.high)
    above_low = array > low
    inside = above_low & (array < high)
    gathered = _gather(array, inside)
    at_high = int(np.count_nonzero(array == high))
    above = int(np.count_nonzero(above_low)) - len(gathered) - (at_high if low < high else 0)
    return Census(above, at_high, gathered, int(np.count_nonzero(array == low)))


def _gather(array: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return array[np.flatnonzero(mask)]


def _look_up(bracket: Bracket, parts: Sequence[Census], rank: int) -> float | None:
    """Return the rank-th largest magnitude, or None where it lies outside the bracket."""
    above = sum(part.above for part in parts)
    at_high = sum(part.at_high for part in parts)
    inside = np.concatenate([part.inside for part in parts])
    at_low = sum(part.at_low for part in parts)
    if above < rank <= above + at_high:
        return bracket.high
    rank -= above + at_high
    if 0 < rank <= len(inside):
        return _kth_largest(inside, rank)
    return bracket.low if 0 < rank - len(inside) <= at_low else None
