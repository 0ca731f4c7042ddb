"""The k-th largest magnitude of a tensor that is read block by block.

A random sample gives a bracket around it. One pass counts the magnitudes above the bracket and gathers those inside,
from which the result is selected. It is exact, with about a percent of the tensor in memory (after Floyd and Rivest,
1975). If the bracket misses, it is widened and the pass repeated.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

SAMPLE_SIZE = 1 << 18
"""The number of elements in a sample; tensors up to four times this size are gathered whole."""

STRIDES = (5, 11, 23, 61, 127, 257, 521, 1031, 2053, 4099, 8209, 16411, 32771)
"""Primes as strides, so that a sample does not hit the same columns in each row of a matrix."""

MARGIN = 6.0
"""Half the width of the bracket, in standard deviations of the sample quantile."""


@dataclass(frozen=True, slots=True)
class Pass:
    """A computation over all blocks of a parameter: a function of one block, and one that joins their results."""

    measure: Callable[[Any], Any]
    join: Callable[[Sequence[Any]], Any]


Passes: TypeAlias = Generator[Pass, Any, list[float]]
"""A generator that yields passes and is sent the result of each over all blocks."""


@dataclass(frozen=True, slots=True)
class Bracket:
    """Two bounds between which the wanted magnitude is expected."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Census:
    """The relation of some blocks to a bracket: counts of magnitudes, and the magnitudes strictly inside."""

    above: int
    at_high: int
    inside: np.ndarray
    at_low: int


def select_largest(magnitudes: Callable[[Any], list[Tensor]], num_elements: int, ranks: Sequence[int]) -> Passes:
    """Find the ``ranks[i]``-th largest magnitude of the i-th tensor, for several tensors of equal size at once.

    Args:
        magnitudes: returns the flat magnitudes of each tensor in a block; they may be overwritten for the next block.
        num_elements: the number of elements of each tensor in all blocks.
        ranks: one per tensor, from 1 to ``num_elements``.

    Returns:
        The magnitudes, in the tensors' order.
    """
    if num_elements <= 4 * SAMPLE_SIZE:
        gathered = yield Pass(lambda block: [_to_array(values.clone()) for values in magnitudes(block)], _join_arrays)
        return [_kth_largest(values, rank) for values, rank in zip(gathered, ranks, strict=True)]
    stride = next((stride for stride in STRIDES if stride >= num_elements / SAMPLE_SIZE), STRIDES[-1])
    samples = yield Pass(
        lambda block: [_to_array(values[::stride].clone()) for values in magnitudes(block)], _join_arrays
    )
    samples = [np.sort(sample) for sample in samples]
    margin = MARGIN
    found: dict[int, float] = {}
    while len(found) < len(ranks):
        brackets = [_bracket(sample, rank / num_elements, margin) for sample, rank in zip(samples, ranks, strict=True)]
        censuses = yield Pass(partial(_take_censuses, magnitudes, brackets), _join_censuses)
        for at, (bracket, census) in enumerate(zip(brackets, censuses, strict=True)):
            value = _look_up(bracket, census, ranks[at])
            if value is not None:
                found[at] = value
        margin *= 8
    return [found[at] for at in range(len(ranks))]


def _to_array(values: Tensor) -> np.ndarray:
    return np.asarray(values.numpy(force=True))


def _join_arrays(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _kth_largest(values: np.ndarray, rank: int) -> float:
    return float(np.partition(values, len(values) - rank)[len(values) - rank])


def _bracket(sample: np.ndarray, share: float, margin: float) -> Bracket:
    """Return bounds around the magnitude that a share of the tensor exceeds, estimated from a sorted sample."""
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
    array = _to_array(values)
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


def _join_censuses(parts: Sequence[Sequence[Census]]) -> list[Census]:
    """Join the censuses of several blocks, soon: many small long-lived arrays would fragment the memory of blocks."""
    return [
        Census(
            sum(census.above for census in censuses),
            sum(census.at_high for census in censuses),
            np.concatenate([census.inside for census in censuses]),
            sum(census.at_low for census in censuses),
        )
        for censuses in zip(*parts, strict=True)
    ]


def _look_up(bracket: Bracket, census: Census, rank: int) -> float | None:
    """Return the rank-th largest magnitude, or None if it is outside the bracket."""
    if census.above < rank <= census.above + census.at_high:
        return bracket.high
    rank -= census.above + census.at_high
    if 0 < rank <= len(census.inside):
        return _kth_largest(census.inside, rank)
    return bracket.low if 0 < rank - len(census.inside) <= census.at_low else None
