"""How much work something is, whatever the machine's speed: in units of a fixed piece of work, in processor time."""

import time
from collections.abc import Callable
from functools import cache


def count_units(work: Callable[[], object], tries: int = 3) -> float:
    """Return the processor time of ``work`` in units of ``do_unit``; of several tries the least, which waits disturb least.

    The unit is measured before and after, and the longer one counts: other work on the machine slows both alike.
    """
    return min(_count_once(work) for _ in range(tries))


def takes_at_most(units: float, work: Callable[[], object], tries: int = 10) -> bool:
    """Whether ``work`` takes no more units than these; the machine may disturb some tries, what is too slow fails all."""
    return _measure(work) <= units * _take_unit() or any(_count_once(work) <= units for _ in range(tries))


def do_unit() -> None:
    """Do the work that is the unit: a tenth of a second or so."""
    sum(number * number for number in range(2_500_000))


def _count_once(work: Callable[[], object]) -> float:
    before, taken, after = _measure(do_unit), _measure(work), _measure(do_unit)
    return taken / max(before, after)


@cache
def _take_unit() -> float:
    """Return the least processor time of a unit that was seen in this process: the strictest bound, and no work to repeat."""
    return min(_measure(do_unit) for _ in range(3))


def _measure(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
