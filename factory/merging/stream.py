"""Processing blocks in threads, with passes over several parameters at once, so that no thread is ever idle."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from factory.merging.passes import Block, Combine, Parameter, Steps
from factory.merging.selection import Pass

BLOCK_ELEMENTS = 1 << 18
"""Small enough that a block's buffers stay in a core's cache, and large enough that threads rarely wait for the GIL; a
multiple of 64, which the masks need."""

GPU_BLOCK_ELEMENTS = 1 << 24

GPU_THREADS = 4

BLOCKS_PER_TASK = 8

KEPT_BYTES = 30 << 20


@dataclass(frozen=True, slots=True)
class Work:
    """The work for one parameter: its passes, its blocks, and a function that writes a finished block."""

    parameter: Parameter
    steps: Steps
    make_block: Callable[[int, int], Block]
    write: Callable[[int, torch.Tensor], None]
    prefetch: Callable[[], None]


@dataclass(slots=True)
class _Active:
    """A parameter during a pass; the final pass, which writes the result, returns nothing."""

    work: Work
    asked: Pass | None = None
    tasks: list[Future[Any]] = field(default_factory=list)


def stream(
    works: Iterable[Work], *, num_threads: int, block_elements: int, finished: Callable[[Parameter], None]
) -> None:
    """Process all works. Memory holds ``num_threads`` blocks of each input, and the results of passes.

    The order of additions, and so the rounding, depends only on ``block_elements``.
    """
    queue = iter(works)
    active: deque[_Active] = deque()
    with _one_torch_thread(), ThreadPoolExecutor(num_threads, "merge") as pool:
        try:
            while True:
                while sum(len(each.tasks) for each in active) < 3 * num_threads and (work := next(queue, None)):
                    work.prefetch()
                    active.append(_advance(_Active(work), None, pool, block_elements))
                if not active:
                    return
                current = active.popleft()
                found = [task.result() for task in current.tasks]
                if current.asked is None:
                    finished(current.work.parameter)
                else:
                    answer = current.asked.join(found)
                    active.append(_advance(current, answer, pool, block_elements))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _advance(active: _Active, answer: Any, pool: ThreadPoolExecutor, block_elements: int) -> _Active:
    """Start the next pass over a parameter, or the final one, which writes the result."""
    work = active.work
    try:
        active.asked = work.steps.send(answer)
        run = partial(_measure, active.asked)
    except StopIteration as last:
        active.asked = None
        run = partial(_write, work, last.value)
    size, step = work.parameter.num_elements, block_elements * BLOCKS_PER_TASK
    active.tasks = [
        pool.submit(run, _blocks(work, start, min(start + step, size), block_elements))
        for start in range(0, max(size, 1), step)
    ]
    return active


def _blocks(work: Work, start: int, stop: int, block_elements: int) -> Iterator[Block]:
    for first in range(start, max(stop, start + 1), block_elements):
        yield work.make_block(first, min(first + block_elements, stop))


def _measure(asked: Pass, blocks: Iterator[Block]) -> Any:
    with torch.inference_mode():
        return asked.join([asked.measure(block) for block in blocks])


def _write(work: Work, combine: Combine, blocks: Iterator[Block]) -> None:
    with torch.inference_mode():
        for block in blocks:
            work.write(block.start, combine(block))


def default_num_threads(device: str) -> int:
    """Return the number of cores that this process may use, limited on a GPU, which a few threads keep busy."""
    num_cores = len(os.sched_getaffinity(0))
    return num_cores if device == "cpu" else min(num_cores, GPU_THREADS)


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread per operation, because the blocks are already distributed over threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    _keep_freed_memory()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_freed_memory() -> None:
    """Make glibc keep freed blocks for reuse; returning them to the system and faulting them in costs a third more.

    Freeing a large mapping does that: glibc raises its mmap threshold to the largest mapping freed so far, up to 32 MB.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)
