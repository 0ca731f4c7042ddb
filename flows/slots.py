"""Who runs where: GPUs are handed to lanes, first come first served, and taken back when the lane ends."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from os import environ

from schemas.errors import EngineError

Slot = tuple[int, ...]


class SlotPool:
    """Slots of one machine. Without GPUs there is one slot, the CPU, and models take turns on it."""

    def __init__(self, slots: tuple[Slot, ...]) -> None:
        self._slots = slots or ((),)
        self._free = list(self._slots)
        self._queue: list[object] = []
        self._changed = threading.Condition()

    @contextmanager
    def take(self, num_gpus: int) -> Iterator[Slot]:
        """Wait for ``num_gpus`` GPUs (on a machine with GPUs) and hold them.

        Raises:
            EngineError: the machine has fewer GPUs than that.
        """
        available = sum(map(len, self._slots))
        if available and num_gpus > available:
            raise EngineError(f"a model asks for {num_gpus} GPUs at once; the slots hold {available}")
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            self._changed.wait_for(lambda: self._queue[0] is ticket and self._choose(num_gpus) is not None)
            chosen = self._choose(num_gpus) or []
            for slot in chosen:
                self._free.remove(slot)
            self._queue.pop(0)
            self._changed.notify_all()
        try:
            yield tuple(gpu for slot in chosen for gpu in slot)
        finally:
            with self._changed:
                self._free.extend(chosen)
                self._free.sort()
                self._changed.notify_all()

    def _choose(self, num_gpus: int) -> list[Slot] | None:
        """Pick the smallest free slot that fits, or several where no slot of the machine is large enough."""
        if any(len(slot) >= num_gpus for slot in self._slots) or self._slots == ((),):
            fitting = [slot for slot in self._free if len(slot) >= num_gpus or not slot]
            return [min(fitting, key=len)] if fitting else None
        chosen: list[Slot] = []
        for slot in self._free:
            chosen.append(slot)
            if sum(map(len, chosen)) >= num_gpus:
                return chosen
        return None


def find_slots(configured: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Return the recipe's slots, or one slot for each GPU that this process may use, numbered among those it sees."""
    if configured:
        return configured
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple((number,) for number, _ in enumerate(filter(None, visible.split(","))))
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return tuple((number,) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU "))
