"""Loading what is large, such as torch."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import, in a ``with`` block, without looking for garbage among objects that are many and live as long as the process.

    Rounds over them while they are made, soon after and at exit take a third of a trainer's start.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # to the oldest generation, which is seldom looked through
        if is_enabled:
            gc.enable()
    atexit.register(gc.freeze)  # at exit nothing is looked through
