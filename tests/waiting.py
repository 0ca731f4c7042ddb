"""Waiting in tests for what another thread or process brings about."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

GUARD_SECONDS = 600.0
"""A guard against hanging, and no more: what a test waits for comes by an event, however slow the machine is."""


def wait_until(
    condition: Callable[[], object],
    process: "subprocess.Popen[Any] | None" = None,
    *,
    otherwise: str = "it has not happened",
    pause: float = 0.005,
) -> None:
    """Ask until it is so, with pauses in seconds.

    Raises:
        AssertionError: the process that should bring it about has ended, or ``otherwise``: it takes too long.
    """
    deadline = time.monotonic() + GUARD_SECONDS
    while not condition():
        assert process is None or process.poll() is None, f"the process ended with {process.returncode}"
        assert time.monotonic() < deadline, otherwise
        time.sleep(pause)
