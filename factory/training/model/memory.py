"""Giving memory back that loading took."""

import ctypes


def release_memory() -> None:
    """Hand free memory back to the system where the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
