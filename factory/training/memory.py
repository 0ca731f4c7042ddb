"""Giving memory back that loading took."""

import ctypes
import gc


def release_memory() -> None:
    """Collect garbage and hand free memory back to the system where the C library can (glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
