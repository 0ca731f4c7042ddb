"""The merge methods, applied to a parameter in blocks.

A method is a generator: it yields the passes over all blocks that it needs (norms, thresholds), receives their results,
and returns a function that computes one block of the result.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never

import numpy as np
import torch
from torch import Tensor

from factory.merging import methods
from factory.merging.masks import draw_mask
from factory.merging.selection import Pass, select_largest
from schemas.recipe.merging import MergeSettings


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the result, with the weight of each model in it."""

    name: str
    shape: tuple[int, ...]
    num_elements: int
    weights: tuple[float, ...]


class Scratch(threading.local):
    """Buffers of each thread, by name and dtype, reused for every block because recently used memory is cached."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, num_elements: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        """Return an uninitialized flat tensor; it shares memory with earlier ones of this thread and name."""
        buffer = self._buffers.get((name, dtype))
        if buffer is None or buffer.numel() < num_elements:
            buffer = self._buffers[name, dtype] = torch.empty(num_elements, dtype=dtype, device=device)
        return buffer if buffer.numel() == num_elements else buffer[:num_elements]


@dataclass(frozen=True, slots=True)
class Block:
    """Elements ``start`` to ``stop`` of a flattened parameter, and how to read them from model ``i`` or the base.

    ``read(i, slot)`` overwrites what was last read into the same slot (default: 0); the base has a slot of its own.
    """

    start: int
    stop: int
    read: Callable[..., Tensor]
    read_base: Callable[[], Tensor]
    scratch: Scratch

    def read_all(self, numbers: Sequence[int]) -> list[Tensor]:
        """Return the values of several models, each in a slot of its own."""
        return [self.read(number, slot) for slot, number in enumerate(numbers)]


Combine: TypeAlias = Callable[[Block], Tensor]
Steps: TypeAlias = Generator[Pass, Any, Combine]


def plan_steps(settings: MergeSettings, parameter: Parameter) -> Steps:
    """Return the passes of the method over one parameter. Models with weight zero are not read."""
    at = [number for number, weight in enumerate(parameter.weights) if weight != 0]
    if not at:
        return _keep_base()
    match settings.method:
        case "linear":
            return _linear(settings, parameter, at)
        case "slerp":
            return _slerp(parameter, at)
        case "ties":
            return _ties(settings, parameter, at)
        case "dare_linear" | "dare_ties":
            return _dare(settings, parameter, at)
        case _:
            assert_never(settings.method)


def copy_steps() -> Steps:
    """Return the steps for a parameter that cannot be averaged, such as integers: the first model's is copied."""
    yield from ()
    return lambda block: block.read(0)


def _keep_base() -> Steps:
    yield from ()
    return lambda block: block.read_base()


def _linear(settings: MergeSettings, parameter: Parameter, at: Sequence[int]) -> Steps:
    weights: Sequence[float] = [parameter.weights[number] for number in at]
    yield from ()
    if settings.is_normalized:
        weights = methods.normalize_weights(weights)
    return _sum_of(at, weights)


def _slerp(parameter: Parameter, at: Sequence[int]) -> Steps:
    coefficients = [1.0]
    if len(at) > 1:
        gram = yield Pass(lambda block: methods.gram_matrix(block.read_all(at)), sum)
        coefficients = methods.slerp_coefficients(gram, [parameter.weights[number] for number in at])
    return _sum_of(at, coefficients)


def _sum_of(at: Sequence[int], weights: Sequence[float]) -> Combine:
    """Return a function that computes a block of ``sum(w_i theta_i)`` in two buffers: the sum, and one other model."""
    slots = [0] + [1] * (len(at) - 1)
    return lambda block: methods.weighted_sum(map(block.read, at, slots), weights, in_place=True)


def _ties(settings: MergeSettings, parameter: Parameter, at: Sequence[int]) -> Steps:
    weights = [parameter.weights[number] for number in at]
    ranks = [methods.num_kept(settings.density_of(settings.models[number]), parameter.num_elements) for number in at]
    sought = [place for place, rank in enumerate(ranks) if 0 < rank < parameter.num_elements]
    thresholds = [0.0 if rank else float("inf") for rank in ranks]

    def magnitudes(block: Block) -> list[Tensor]:
        base = block.read_base()
        return [values.sub_(base).abs_() for values in block.read_all([at[place] for place in sought])]

    if sought:
        found = yield from select_largest(magnitudes, parameter.num_elements, [ranks[place] for place in sought])
        for place, threshold in zip(sought, found, strict=True):
            thresholds[place] = threshold

    def combine(block: Block) -> Tensor:
        base = block.read_base()
        deltas = [
            methods.trim(values.sub_(base), threshold).mul_(weight)
            for values, threshold, weight in zip(block.read_all(at), thresholds, weights, strict=True)
        ]
        return base.add_(methods.elect(deltas, weights, normalize=settings.is_normalized), alpha=settings.lambda_)

    return combine


def _dare(settings: MergeSettings, parameter: Parameter, at: Sequence[int]) -> Steps:
    weights = [parameter.weights[number] for number in at]
    models = [settings.models[number] for number in at]
    keys = [model.name or str(number) for number, model in zip(at, models, strict=True)]
    densities = [settings.density_of(model) for model in models]

    def mask(block: Block, place: int, like: Tensor) -> Tensor:
        """Return the mask of a task vector, 1 (keep) or 0 (drop), with the dtype and device of ``like``."""
        drawn = draw_mask(settings.seed, keys[place], parameter.name, densities[place], block.start, block.stop)
        return block.scratch.take("mask", like.numel(), like.dtype, like.device).copy_(drawn.to(like.device))

    def norms(block: Block) -> np.ndarray:
        """Return the L1 norms of each task vector in the block, before and after masking."""
        base = block.read_base()
        sums = []
        for place, number in enumerate(at):
            magnitudes = block.read(number).sub_(base).abs_()
            kept = torch.dot(magnitudes, mask(block, place, magnitudes))
            sums.append((magnitudes.sum().item(), kept.item()))
        return np.array(sums)

    factors = [1.0] * len(at)
    if settings.rescale == "density":
        factors = [1 / density if density else 1.0 for density in densities]
    elif settings.rescale == "l1":
        sums = yield Pass(norms, sum)
        factors = [methods.l1_factor(whole, kept) for whole, kept in sums]

    def masked_deltas(block: Block, base: Tensor) -> Iterator[Tensor]:
        for place, number in enumerate(at):
            delta = block.read(number).sub_(base)
            yield delta if densities[place] == 1 else delta.mul_(mask(block, place, delta))

    scaled = [weight * factor for weight, factor in zip(weights, factors, strict=True)]

    def join(deltas: Iterator[Tensor]) -> Tensor:
        if settings.method == "dare_linear":
            return methods.weighted_sum(deltas, methods.share_out(scaled, weights, normalize=settings.is_normalized))
        if not settings.is_normalized:
            return methods.sum_agreeing(deltas, scaled)
        return methods.elect(methods.weigh(deltas, scaled), weights, normalize=True)

    def combine(block: Block) -> Tensor:
        base = block.read_base()
        return base.add_(join(masked_deltas(block, base)), alpha=settings.lambda_)

    return combine
