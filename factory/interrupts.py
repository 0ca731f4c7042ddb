"""Ctrl-C while modules are being imported, when a KeyboardInterrupt is easily lost.

Extension modules make an ImportError of it (those of pybind11, such as DuckDB's: "initialization failed"), which is shown
in its place, or taken for the absence of a package that is optional: then the command runs on.
"""

import os
import signal
import threading
from types import FrameType

_IMPORTING = "<frozen importlib._bootstrap>"


def heed_interrupts() -> None:
    """Let Ctrl-C end the process at once during an import, and else raise KeyboardInterrupt as ever.

    Where it is ignored, as by the background jobs of a script, it stays so.
    """
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if threading.current_thread() is threading.main_thread() and not is_ignored:
        signal.signal(signal.SIGINT, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal that interrupts: whatever is under way, a kill leaves it fit to be gone on with.

    Raises:
        KeyboardInterrupt: nothing is being imported.
    """
    if _is_importing(frame):
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False
