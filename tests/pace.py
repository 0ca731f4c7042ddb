"""How much work something is, whatever the machine's speed: in units of a fixed piece of work, in processor time."""

import time
from collections.abc import Callable


def count_units(work: Callable[[], object], tries: int = 3) -> float:
    """Return the processor time of ``work`` in units of ``do_unit``; of several tries the least, which waits disturb least."""
    return min(_measure(work) / _measure(do_unit) for _ in range(tries))


def do_unit() -> None:
    """Do the work that is the unit: a tenth of a second or so."""
    sum(number * number for number in range(2_500_000))


def _measure(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
