"""Replies become rows in the warehouse while the engine runs: in small transactions, by rows or by seconds."""

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

import polars as pl

from warehouse.lake import Lake

Item = TypeVar("Item")
Tables = dict[str, pl.DataFrame]
"""Frames to append, by table."""

MAX_WAITING_COMMITS = 4
"""How many commits' worth of items may wait before the producer is held back."""


class Committer(Generic[Item]):
    """Buffers items and commits them from a thread of its own, so that the engine never waits for the disk.

    ``land`` turns a batch of items into frames by table; each frame is one append, rejections last. Leaving the context
    commits what is left, also when an exception is on its way, and raises what the thread ran into.
    """

    def __init__(self, lake: Lake, land: Callable[[list[Item]], Tables], *, rows: int, seconds: float) -> None:
        self._lake = lake
        self._land = land
        self._rows = rows
        self._seconds = seconds
        self._items: list[Item] = []
        self._changed = threading.Condition()
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def add(self, item: Item) -> None:
        """Hand over one item; waits while too many are uncommitted, raises what an earlier commit ran into."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or len(self._items) < MAX_WAITING_COMMITS * self._rows)
            if self._error:
                raise self._error
            self._items.append(item)
            if len(self._items) >= self._rows:
                self._changed.notify_all()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._error and kind is None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closing or len(self._items) >= self._rows, timeout=self._seconds
                )
                items, self._items = self._items, []
                is_last = self._is_closing
                self._changed.notify_all()
            try:
                if items:
                    self._commit(items)
            except BaseException as error:  # handed to the producer, which raises it
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            if is_last:
                return

    def _commit(self, items: list[Item]) -> None:
        tables = self._land(items)
        for table in sorted(tables, key=lambda name: name == "rejections"):
            if tables[table].height:
                self._lake.append(table, tables[table])
