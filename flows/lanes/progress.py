"""Progress of the lanes: bars in a terminal, lines in a log, and whoever else watches."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from factory.engines.base import Reply
from factory.progress import LOG_SECONDS, Bars, Interval

REDRAW_SECONDS = 0.2

TellProgress = Callable[[float, str], None]
"""Receives the progress of a piece of work: the percentage done, and a line for a person."""

PROGRESS: ContextVar[TellProgress | None] = ContextVar("progress", default=None)
"""Receives the progress of the piece of work that runs in this thread."""


@dataclass(slots=True)
class Meter:
    """Counts of one lane of one stage. ``seconds`` counts from its start; rates count from the first reply on.

    A row may take several requests, as a text that is translated sentence by sentence, or none.
    """

    stage: str
    name: str
    total: int
    num_requests: int = 0
    num_rows: int = 0
    num_rejected: int = 0
    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    answered: float | None = None

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)

    @property
    def rows_per_second(self) -> float:
        return self._rate(self.done)

    @property
    def tokens_per_second(self) -> float:
        """Completion tokens where there are any, else prompt tokens."""
        return self._rate(self.num_completion_tokens or self.num_prompt_tokens)

    def _rate(self, count: int) -> float:
        return 0.0 if self.answered is None else count / max(time.monotonic() - self.answered, 0.1)

    @property
    def done(self) -> int:
        return self.num_rows + self.num_rejected

    def line(self) -> str:
        """Return the lane's state for a person: rows, rates, time left, rejected."""
        rows = self.rows_per_second
        left = f", {(self.total - self.done) / rows:,.0f} s left" if rows and self.done < self.total else ""
        rejected = f", {self.num_rejected:,} rejected" if self.num_rejected else ""
        return f"{self.done:,}/{self.total:,} rows, {rows:,.1f} rows/s, {self.tokens_per_second:,.0f} tokens/s{left}{rejected}"


class Board(Bars):
    """Where the lanes of a run report. One board serves all threads of a run."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description:<44}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rates]}", style="dim"),
            TimeRemainingColumn(),
            quiet=quiet,
        )
        self._lock = threading.Lock()
        self._num_lanes = 0

    @contextmanager
    def lane(self, stage: str, name: str, total: int) -> Iterator["LaneReport"]:
        """Show one lane while it runs, and its sum when it ends."""
        meter = Meter(stage, name, total)
        self._show_bars(1)
        bar = self.rich.add_task(f"{stage} · {name}", total=total, rates="")
        report = LaneReport(self, meter, bar)
        try:
            yield report
        finally:
            self.rich.remove_task(bar)
            self._show_bars(-1)
            self.say(f"  {stage} · {name}: {meter.line()} in {meter.seconds:,.1f} s")

    def _show_bars(self, change: int) -> None:
        """Draw bars while there is a lane, and only then: others, such as the trainer, draw theirs in between."""
        with self._lock:
            was, self._num_lanes = self._num_lanes, self._num_lanes + change
            if not was:
                self.rich.start()
            elif not self._num_lanes:
                self.rich.stop()


class LaneReport:
    """The handle by which one lane counts."""

    def __init__(self, board: Board, meter: Meter, bar: TaskID) -> None:
        self.meter = meter
        self._board = board
        self._bar = bar
        self._tell = PROGRESS.get()
        self._redraw, self._log, self._report = Interval(REDRAW_SECONDS), Interval(LOG_SECONDS), Interval(LOG_SECONDS)

    def count_reply(self, reply: Reply) -> None:
        """Add the answer to one request."""
        self.meter.num_requests += 1
        self.meter.num_prompt_tokens += reply.num_prompt_tokens
        self.meter.num_completion_tokens += reply.num_completion_tokens
        self._show()

    def count_rows(self, *, finished: int = 0, rejected: int = 0) -> None:
        """Add rows to which all answers are there and committed."""
        self.meter.num_rows += finished
        self.meter.num_rejected += rejected
        self._show()

    def _show(self) -> None:
        """Redraw, or say a line where nothing is redrawn, if the last time is long enough ago."""
        meter = self.meter
        meter.answered = meter.answered or time.monotonic()
        if self._board.is_live:
            if self._redraw.is_due() or meter.done >= meter.total:
                rate = f"{meter.rows_per_second:,.1f} rows/s"
                tokens = f"{meter.tokens_per_second:,.0f} tok/s"
                lost = f" {meter.num_rejected:,} rejected" if meter.num_rejected else ""
                self._board.rich.update(self._bar, completed=meter.done, rates=f"{rate} {tokens}{lost}")
        elif self._log.is_due():
            self._board.say(f"  {meter.stage} · {meter.name}: {meter.line()}")
        if self._tell is not None and meter.total and self._report.is_due():
            self._tell(min(100.0, 100.0 * meter.done / meter.total), meter.line())
