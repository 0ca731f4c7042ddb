"""The processes of a run: a single one, or those that torchrun has started."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from schemas.errors import TrainingError
from schemas.recipe.training import TrainRun

Value = TypeVar("Value")

PATIENCE = timedelta(hours=1)
"""How long processes wait for each other; all wait for the first one while it merges and writes a large model.

That may take longer than torch's default of 10 minutes (NCCL). Waiting for a dead process is no problem, because
torchrun stops all processes when one dies.
"""


@dataclass(frozen=True, slots=True)
class World:
    """This process among the ``size`` processes of a run; ``mesh`` contains all of them, None if there is one."""

    rank: int
    size: int
    device: torch.device
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, on all; the tensor is overwritten."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def highest(self, value: Tensor) -> int:
        """Return the maximum of all processes' scalars, on all; the tensor is overwritten."""
        if self.size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return int(value)

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes by rank, on all."""
        if self.size == 1:
            return [value]
        values: list[Value | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join_world(run: TrainRun) -> Iterator[World]:
    """Join the process group that torchrun has set up, or yield a world of one process.

    Raises:
        TrainingError: the device is ``cuda``, but there is no GPU.
    """
    torch.set_num_threads(run.threads)
    has_gpu = torch.cuda.is_available() if run.device == "auto" else run.device == "cuda"
    if has_gpu and not torch.cuda.is_available():
        raise TrainingError("device = 'cuda' was given, but torch sees no GPU")
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    if size == 1:
        yield World(rank, size, device)
        return
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=PATIENCE)
    try:
        yield World(rank, size, device, init_device_mesh(device.type, (size,)))
    finally:
        dist.destroy_process_group()
