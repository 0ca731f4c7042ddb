"""Who runs where: GPUs are handed to lanes, first come first served, and taken back when the lane ends.

What a lane holds is leased from the machine, so that other builds and other users leave it alone.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flows.lanes.gpus import find_gpus, lease
from flows.terminal import Say, say_line
from schemas.errors import EngineError, HeldError

Slot = tuple[int, ...]

_WAIT_SECONDS = 0.5
"""How often it is tried again to lease what another process holds."""


class SlotPool:
    """Slots of one machine. Without GPUs there is one slot, the CPU, and models take turns on it.

    ``say`` tells whom a lane waits for, in a line; ``check_stop`` raises when there is no more to wait for. ``begin`` is
    called whenever a model has work.
    """

    def __init__(
        self,
        slots: tuple[Slot, ...],
        *,
        say: Say = say_line,
        check_stop: Callable[[], None] = lambda: None,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._slots = slots or ((),)
        self._names = dict(enumerate(find_gpus())) if slots else {}
        self._free = list(self._slots)
        self._queue: list[object] = []
        self._changed = threading.Condition()
        self._say = say
        self._check_stop = check_stop
        self._begin = begin

    @contextmanager
    def take(self, num_gpus: int) -> Iterator[Slot]:
        """Wait for ``num_gpus`` GPUs (on a machine with GPUs) and hold them, here and on the machine.

        Who needs none waits for nobody there; without GPUs, for its turn on the CPU.

        Raises:
            EngineError: the machine has fewer GPUs than that.
        """
        self._begin()
        available = sum(map(len, self._slots))
        if available and num_gpus > available:
            raise EngineError(f"a model asks for {num_gpus} GPUs at once; the slots hold {available}")
        if available and not num_gpus:
            yield ()
            return
        with ExitStack() as held:
            chosen = self._wait(num_gpus, held)
            yield tuple(gpu for slot in chosen for gpu in slot)

    def _wait(self, num_gpus: int, held: ExitStack) -> list[Slot]:
        """Take slots when it is this thread's turn; ``held`` gives them back."""
        ticket, has_said = object(), False
        with self._changed:
            self._queue.append(ticket)
            try:
                while True:
                    self._check_stop()
                    chosen, holder = self._choose(num_gpus, held) if self._queue[0] is ticket else (None, None)
                    if chosen is not None:
                        return chosen
                    if holder is not None and not has_said:
                        self._say(f"waiting for {num_gpus} of the slots' GPUs: {holder}")
                        has_said = True
                    self._changed.wait(_WAIT_SECONDS)  # in turns, so that a signal is noticed
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _choose(self, num_gpus: int, held: ExitStack) -> tuple[list[Slot] | None, HeldError | None]:
        """Take the smallest free slot that fits, or several where no slot of the machine is large enough.

        Without them it returns who holds one, if that is another process of the machine.
        """
        holder, chosen = None, []
        is_one = any(len(slot) >= num_gpus for slot in self._slots) or self._slots == ((),)
        fitting = [slot for slot in self._free if len(slot) >= num_gpus or not slot]
        with ExitStack() as leases:
            for slot in sorted(fitting, key=len) if is_one else self._free:
                try:
                    leases.enter_context(lease([self._names[gpu] for gpu in slot if gpu in self._names]))
                except HeldError as error:
                    holder = error
                    continue
                chosen.append(slot)
                if is_one or sum(map(len, chosen)) >= num_gpus:
                    self._free = [slot for slot in self._free if slot not in chosen]
                    held.callback(self._give_back, chosen)
                    held.push(leases.pop_all())
                    return chosen, None
        return None, holder

    def _give_back(self, slots: list[Slot]) -> None:
        with self._changed:
            self._free = sorted([*self._free, *slots])
            self._changed.notify_all()


def find_slots(configured: tuple[Slot, ...]) -> tuple[Slot, ...]:
    """Return the recipe's slots, or one slot for each GPU that this process may use, numbered among those it sees."""
    return configured or tuple((number,) for number, _ in enumerate(find_gpus()))
