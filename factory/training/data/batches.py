"""Which rows form a step, and which of them share a forward pass: pure functions of lengths, seed and limits."""

from collections.abc import Iterator, Sequence
from heapq import heapreplace

import numpy as np

from schemas.recipe.training import TrainSettings


def plan_steps(lengths: Sequence[int], settings: TrainSettings) -> list[list[int]]:
    """Return the row numbers of each step of a run, in order; ``lengths`` are the rows' tokens.

    Rows are reshuffled for each epoch, seeded with (seed, epoch). A step may span two epochs, and the last step may be
    smaller. ``max_steps`` takes precedence over ``epochs``.
    """
    steps: list[list[int]] = []
    step: list[int] = []
    num_tokens = 0
    for row in _order(len(lengths), settings):
        if step and _is_full(len(step), num_tokens + lengths[row], settings):
            steps.append(step)
            step, num_tokens = [], 0
            if len(steps) == settings.max_steps:
                return steps
        step.append(row)
        num_tokens += lengths[row]
    return [*steps, step] if step else steps


def _is_full(num_rows: int, num_tokens: int, settings: TrainSettings) -> bool:
    if settings.step_rows is not None:
        return num_rows >= settings.step_rows
    assert settings.batch_tokens is not None
    return num_tokens > settings.batch_tokens


def _order(num_rows: int, settings: TrainSettings) -> Iterator[int]:
    num_left = None if settings.max_steps is not None else max(1, round(settings.epochs * num_rows))
    epoch = 0
    while num_left is None or num_left > 0:
        order = np.random.default_rng([settings.seed, epoch]).permutation(num_rows)
        yield from order[:num_left].tolist()
        num_left = None if num_left is None else num_left - num_rows
        epoch += 1


def cut_micro_batches(rows: Sequence[int], lengths: Sequence[int], limit: int, world: int = 1) -> list[list[int]]:
    """Return rows in balanced micro-batches of at most ``limit`` tokens; a longer row is a batch of its own.

    The number of batches is a multiple of ``world``, the number of processes; if there are too few rows, some are
    empty.
    """
    by_length = sorted(rows, key=lambda row: (-lengths[row], row))
    needed = -(-sum(lengths[row] for row in rows) // limit)
    count = -(-max(needed, 1) // world) * world
    while True:
        batches: list[list[int]] = [[] for _ in range(count)]
        loads = [(0, number) for number in range(count)]  # a heap: the lightest batch is the first
        for row in by_length:
            load, lightest = loads[0]
            if load and load + lengths[row] > limit:
                break
            batches[lightest].append(row)
            heapreplace(loads, (load + lengths[row], lightest))
        else:
            return batches
        count += world
