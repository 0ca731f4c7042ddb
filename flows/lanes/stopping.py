"""How a run is stopped, and how it waits for what another process holds."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from factory.interrupts import interrupt
from schemas.errors import BuildStoppedError, HeldError
from warehouse.lake.lake import Lake

_WAIT_SECONDS = 0.5
"""How often it is tried again to hold what another process holds."""


def check_stop(stop: threading.Event) -> None:
    """Raise if the user asked for a stop."""
    if stop.is_set():
        raise BuildStoppedError("the build was stopped; the same command goes on from there")


@contextlib.contextmanager
def hold_when_free(lake: Lake, name: str, stop: threading.Event) -> Iterator[None]:
    """Hold a name of the warehouse; while another process does, wait for its end.

    Raises:
        BuildStoppedError: the user asked for a stop meanwhile.
    """
    with contextlib.ExitStack() as held:
        while True:
            check_stop(stop)
            with contextlib.suppress(HeldError):
                held.enter_context(lake.lease(name))
                break
            stop.wait(_WAIT_SECONDS)
        yield


@contextlib.contextmanager
def stop_on_signal(stop: threading.Event, say: Callable[[str], None]) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: send nothing more, commit what is in flight. Second Ctrl-C: stop at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            interrupt(number, frame)
        asked.append(number)
        stop.set()
        say("stopping: waiting for what is in flight, which will be committed (again: stop at once)")

    asked: list[int] = []
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BuildStoppedError as error:
        error.number = asked[0] if asked else error.number
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
