"""Who watches a run: a Prefect server, the configured one or one of its own, or nobody where there is none."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from flows.lanes.progress import TellProgress
from flows.lanes.side_by_side import UNWATCHED, Unwatched, Watcher
from flows.orchestration.temporary_server import temporary_server
from flows.prefect_settings import calm_prefect, has_settings
from schemas.errors import FactoryError
from schemas.recipe.recipe import Recipe


@contextlib.contextmanager
def watch(recipe: Recipe, *, quiet: bool) -> Iterator[Watcher]:
    """Have a run shown as a flow run of the configured Prefect server, or of one of its own, until the block ends.

    A server of its own takes seconds to start, so it is started for runs that have work for a model.
    """
    calm_prefect()
    unwatched = Unwatched(quiet=quiet)
    if has_settings():
        with _open(recipe, unwatched) as watcher:
            yield watcher
    else:
        with OnceAtWork(lambda: _open(recipe, unwatched), unwatched) as watcher:
            yield watcher


@contextlib.contextmanager
def _open(recipe: Recipe, unwatched: Unwatched) -> Iterator[Watcher]:
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(temporary_server())
        except FactoryError as error:
            unwatched.say(f"warning: {error}; {UNWATCHED}")
            yield unwatched
        else:
            from flows.orchestration.reporter import (  # which imports Prefect, whose settings are known to be sound now
                FlowRun,
                Reporter,
            )

            run = FlowRun(parameters={"recipe": recipe.model_dump(mode="json")})
            yield stack.enter_context(Reporter(url, run, unwatched.say))


@dataclass(slots=True)
class _Piece:
    name: str
    shown: AbstractContextManager[TellProgress | None] | None = None
    progress: TellProgress | None = None
    is_over: bool = False

    def show(self, watcher: Watcher) -> None:
        self.shown = watcher.piece(self.name)
        self.progress = self.shown.__enter__()
        if self.is_over:
            self.shown.__exit__(None, None, None)

    def tell(self, percent: float, line: str) -> None:
        if self.progress is not None:
            self.progress(percent, line)


class OnceAtWork:
    """A watcher that is opened when the run first has work for a model, and is then told what has been before.

    A run that fails before that, or has nothing to do, is shown to nobody.
    """

    def __init__(self, open_watcher: Callable[[], AbstractContextManager[Watcher]], unwatched: Unwatched) -> None:
        self._open = open_watcher
        self._unwatched = unwatched
        self._opened = contextlib.ExitStack()
        self._watcher: Watcher | None = None
        self._pieces: list[_Piece] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    def say(self, line: str) -> None:
        """Tell the user."""
        self._unwatched.say(line)

    def begin(self) -> None:
        """Open the watcher, once."""
        with self._lock:
            if self._watcher is None:
                self._watcher = self._opened.enter_context(self._open())
                for piece in self._pieces:
                    piece.show(self._watcher)

    @contextlib.contextmanager
    def piece(self, name: str) -> Iterator[TellProgress | None]:
        """Show a piece of work, as soon as there is somebody to see it."""
        piece = _Piece(name)
        with self._lock:
            self._pieces.append(piece)
            if self._watcher is not None:
                piece.show(self._watcher)
        try:
            yield piece.tell
        except BaseException as error:
            self._end(piece, error)
            raise
        self._end(piece)

    def _end(self, piece: _Piece, error: BaseException | None = None) -> None:
        with self._lock:
            piece.is_over = True
            if piece.shown is not None:
                piece.shown.__exit__(*((type(error), error, error.__traceback__) if error else (None, None, None)))

    def table(self, key: str, markdown: str) -> None:
        """Show a table of the run's results, if anybody watches."""
        if self._watcher is not None:
            self._watcher.table(key, markdown)
