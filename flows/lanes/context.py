"""What every run has, be it of a build, an evaluation or a policy: its warehouse, its reports, its GPUs, its end."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self, TypeVar
from uuid import uuid4

from factory.engines.base import Engine
from factory.engines.open import Task, open_engine
from flows.lanes.progress import Board
from flows.lanes.side_by_side import Together, run_in_order
from flows.lanes.slots import SlotPool, find_slots
from flows.lanes.stopping import check_stop, hold_when_free, stop_on_signal
from schemas.recipe.models import Model
from schemas.recipe.settings import RunSettings, WarehouseSettings
from warehouse.lake.lake import Lake

_Result = TypeVar("_Result")


class OpenEngine(Protocol):
    """Opens the engine of a model, as ``factory.engines.open.open_engine`` does."""

    def __call__(
        self, model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
    ) -> Engine: ...


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run of anything. ``together`` runs pieces of its work; ``run_id`` names it in the tables of its warehouse."""

    lake: Lake
    board: Board
    slots: SlotPool
    settings: RunSettings
    stop: threading.Event
    together: Together
    open_engine: OpenEngine
    run_id: str

    def say(self, line: str) -> None:
        """Tell the user."""
        self.board.say(line)

    def check_stop(self) -> None:
        """Raise if the user asked for a stop."""
        check_stop(self.stop)

    def do(self, pieces: Mapping[str, Callable[[], _Result]]) -> list[_Result]:
        """Run pieces of work by name; return their results in order."""
        self.check_stop()
        return self.together(pieces, stop=self.stop)

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Self]:
        """Be the only run of a name, for the length of a ``with`` block that a signal ends in good order.

        While another process is, wait or refuse, as ``[run] overlap`` says. Yields the context of this very run.
        """
        waits = self.settings.overlap == "wait"
        with (
            stop_on_signal(self.stop, self.say),
            hold_when_free(self.lake, name, self.stop) if waits else self.lake.lease(name),
        ):
            yield replace(self, run_id=uuid4().hex)


@contextlib.contextmanager
def open_context(
    warehouse: WarehouseSettings,
    settings: RunSettings,
    *,
    quiet: bool = False,
    together: Together = run_in_order,
    open_engine: OpenEngine = open_engine,
    begin: Callable[[], None] = lambda: None,
) -> Iterator[RunContext]:
    """Open what runs on a warehouse share; ``begin`` is called whenever a model has work."""
    board, stop = Board(quiet=quiet), threading.Event()
    slots = SlotPool(find_slots(settings.slots), say=board.say, check_stop=partial(check_stop, stop), begin=begin)
    with Lake.open(warehouse) as lake:
        yield RunContext(lake, board, slots, settings, stop, together, open_engine, uuid4().hex)
