"""Returning memory to the operating system after loading."""

import ctypes


def release_memory() -> None:
    """Return free heap memory to the operating system, if the C library can (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
