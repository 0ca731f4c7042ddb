"""Pieces of work side by side: each is retried after a transient fault and reported to whoever watches the run."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

from flows.lanes.progress import PROGRESS, TellProgress
from flows.lanes.stopping import check_stop
from flows.terminal import choose_say
from schemas.errors import BuildStoppedError
from schemas.passing import is_passing

MAX_LANES = 64
"""How many pieces may be at work, or wait for their slot, at once."""

NUM_TRIES = 3
PAUSE_SECONDS = 2.0

_Result = TypeVar("_Result")

UNWATCHED = "the build goes on without being watched"


class Together(Protocol):
    """Runs pieces of work, side by side or not; returns their results in order, raises the first error at the end.

    Once ``stop`` is set, no piece is tried again.
    """

    def __call__(
        self, pieces: Mapping[str, Callable[[], _Result]], *, stop: threading.Event | None = None
    ) -> list[_Result]: ...


def run_in_order(
    pieces: Mapping[str, Callable[[], _Result]],
    *,
    stop: threading.Event | None = None,  # noqa: ARG001 (the protocol's)
) -> list[_Result]:
    """Run pieces of work one after another, each once."""
    return [piece() for piece in pieces.values()]


class Watcher(Protocol):
    """Receives reports of a run. None of its methods raises, so a lost watcher never affects the run."""

    def say(self, line: str) -> None:
        """Tell the user."""
        ...

    def begin(self) -> None:
        """Know that from now on models have work."""
        ...

    def piece(self, name: str) -> AbstractContextManager[TellProgress | None]:
        """Show a piece of work from here to the end of the ``with`` block; yields who is told of its progress."""
        ...

    def table(self, key: str, markdown: str) -> None:
        """Show a table of the run's results."""
        ...


class Unwatched:
    """Nobody but the user is told."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._say = choose_say(quiet=quiet)

    def say(self, line: str) -> None:
        """Tell the user."""
        self._say(line)

    def begin(self) -> None:
        """Know that from now on models have work."""

    @contextmanager
    def piece(self, name: str) -> Iterator[TellProgress | None]:  # noqa: ARG002 (the protocol's)
        """Show nothing."""
        yield None

    def table(self, key: str, markdown: str) -> None:
        """Show nothing."""


def run_side_by_side(
    watcher: Watcher, pieces: Mapping[str, Callable[[], _Result]], *, stop: threading.Event | None = None
) -> list[_Result]:
    """Run pieces of work, each in a thread; all of them end before the first error is raised.

    Return their results in order.

    Raises:
        BuildStoppedError: ``stop`` was set, and a piece had a fault that passes.
    """
    stop = stop or threading.Event()
    if not pieces:
        return []
    with ThreadPoolExecutor(min(MAX_LANES, len(pieces)), thread_name_prefix="lane") as pool:
        futures = [pool.submit(_do, watcher, stop, name, piece) for name, piece in pieces.items()]
        wait(futures)
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise min(errors, key=lambda error: isinstance(error, BuildStoppedError))
    return [future.result() for future in futures]


def _do(watcher: Watcher, stop: threading.Event, name: str, piece: Callable[[], _Result]) -> _Result:
    with watcher.piece(name) as progress:
        token = PROGRESS.set(progress)
        try:
            return _try(watcher, stop, name, piece)
        finally:
            PROGRESS.reset(token)


def _try(watcher: Watcher, stop: threading.Event, name: str, piece: Callable[[], _Result]) -> _Result:
    for _ in range(NUM_TRIES - 1):
        try:
            return piece()
        except Exception as error:
            if not is_passing(error):
                raise
            check_stop(stop)
            watcher.say(f"  {name}: {type(error).__name__}: {error}; it is tried again")
        stop.wait(PAUSE_SECONDS)
        check_stop(stop)
    return piece()
