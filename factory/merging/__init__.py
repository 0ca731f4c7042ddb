"""The model merger: many checkpoints in, one out, streamed block by block."""

import atexit
import gc
from importlib import import_module


def _import_torch() -> None:
    """Import torch without looking for garbage among its objects, which are many and live as long as the process.

    Rounds over them while they are made, soon after and at exit take half a second.
    """
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("torch")
    finally:
        gc.freeze()
        gc.unfreeze()  # to the oldest generation, which is seldom looked through
        if is_enabled:
            gc.enable()
    atexit.register(gc.freeze)  # at exit nothing is looked through


_import_torch()
