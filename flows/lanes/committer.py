"""Replies become rows in the warehouse while the engine runs: in small transactions, by rows or by seconds."""

import threading
from collections.abc import Callable
from typing import Self

from factory.engines.base import Reply
from factory.stages.outputs import Stage, StageOutput
from warehouse.lake.lake import Lake

MAX_WAITING_COMMITS = 2
"""How many commits' worth of finished rows may wait before the engine is held back."""


class Committer:
    """Hands replies to a stage and commits the rows that they finish, from a thread of its own.

    So the engine never waits for the disk. Leaving the context commits what is finished, also when an exception is on
    its way, and raises what the thread ran into.
    """

    def __init__(
        self,
        lake: Lake,
        table: str,
        stage: Stage,
        *,
        rows: int,
        seconds: float,
        on_commit: Callable[[StageOutput], None],
    ) -> None:
        self._lake = lake
        self._table = table
        self._stage = stage
        self._rows = rows
        self._seconds = seconds
        self._on_commit = on_commit
        self._num_waiting = 0
        self._changed = threading.Condition()
        self._is_closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def add(self, reply: Reply) -> None:
        """Take one reply; wait while too much is uncommitted, raise what an earlier commit ran into."""
        num_finished = self._stage.add(reply)
        with self._changed:
            self._changed.wait_for(lambda: self._error or self._num_waiting < MAX_WAITING_COMMITS * self._rows)
            if self._error:
                raise self._error
            self._num_waiting += num_finished
            if self._num_waiting >= self._rows:
                self._changed.notify_all()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        if self._error and kind is None:
            raise self._error

    def _run(self) -> None:
        is_last = False
        try:
            while not is_last:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._is_closing or self._num_waiting >= self._rows, timeout=self._seconds
                    )
                    is_last = self._is_closing
                    self._num_waiting = 0
                    self._changed.notify_all()
                self._commit()
        except BaseException as error:  # handed to the producer, which raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _commit(self) -> None:
        landed = self._stage.take()
        if landed.rows.height:
            self._lake.append(self._table, landed.rows)
        if landed.rejections.height:
            self._lake.append("rejections", landed.rejections)
        if landed.rows.height or landed.rejections.height:
            self._on_commit(landed)
