"""The base of stages in which each row takes one request, whose reply is its answer."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import polars as pl

from factory.engines.base import Failure, Reply, Request
from factory.inputs.row import Row
from factory.stages.outputs import Provenance, StageOutput, find_reply_fault, make_frame, make_rejection


class SingleReplyStage(ABC):
    """A stage (``outputs.Stage``) in which each row is answered by one reply."""

    stage: ClassVar[str]
    table: ClassVar[str]
    """The table of its rows."""

    id_column: ClassVar[str] = "completion_id"
    """The column of pending rows that is the request's id."""

    kept: ClassVar[tuple[str, ...]]
    """The columns of a pending row that are kept until its reply comes; they include the language."""

    def __init__(self, lane: Provenance) -> None:
        self._lane = lane
        self._in_flight: dict[str, Row] = {}
        self._answered: deque[tuple[Row, Reply]] = deque()

    @abstractmethod
    def make_request(self, request_id: str, row: Row) -> Request:
        """Return the request of a pending row."""

    @abstractmethod
    def make_rows(self, answered: Sequence[tuple[Row, Reply]]) -> list[Row]:
        """Return the table's rows for replies without a fault, given with the kept columns of their rows, in order."""

    def find_fault(self, reply: Reply) -> Failure | None:
        """Return why a reply is not a valid answer, or None."""
        return find_reply_fault(reply)

    def requests(self, pending: Iterable[pl.DataFrame]) -> Iterator[Request]:
        """Yield one request per pending row."""
        for frame in pending:
            for row in frame.iter_rows(named=True):
                request_id = row[self.id_column]
                self._in_flight[request_id] = {name: row[name] for name in self.kept}
                yield self.make_request(request_id, row)

    def add(self, reply: Reply) -> int:
        """Accept a reply, which finishes its row; return 1."""
        self._answered.append((self._in_flight.pop(reply.request_id), reply))
        return 1

    def take(self) -> StageOutput:
        """Return the rows and rejections of the replies since the last call."""
        answered = [self._answered.popleft() for _ in range(len(self._answered))]
        sound, rejections = [], []
        for row, reply in answered:
            fault = self.find_fault(reply)
            if fault is None:
                sound.append((row, reply))
            else:
                rejections.append(self._reject(row, reply, fault))
        return StageOutput(make_frame(self.table, self.make_rows(sound)), make_frame("rejections", rejections))

    def _reject(self, row: Row, reply: Reply, fault: Failure) -> Row:
        return make_rejection(reply.request_id, self.stage, fault, lane=self._lane, language=row["language"])
