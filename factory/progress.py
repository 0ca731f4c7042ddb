"""Progress for a person: bars in a terminal, a line now and then in a log, nothing where quiet was asked for."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn

LOG_SECONDS = 10.0
"""How often a piece of work is reported where no terminal redraws its bar."""


class Interval:
    """Comes due again and again, at most once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether the time has passed since this was last so, or since the start."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class Bars:
    """Bars on standard error, and lines above them; ``is_live`` says whether there is a terminal to draw them in."""

    def __init__(self, *columns: ProgressColumn, quiet: bool) -> None:
        self.quiet = quiet
        console = Console(stderr=True)
        self.is_live = console.is_terminal and not quiet
        self.rich = Progress(*columns, console=console, disable=not self.is_live)

    def say(self, text: str) -> None:
        """Print one line above the bars."""
        if not self.quiet:
            self.rich.console.print(text, highlight=False, markup=False, soft_wrap=True)


class ProgressBar:
    """One piece of work: a bar for the length of a ``with`` block, or lines."""

    def __init__(self, label: str, total: int | None, *columns: ProgressColumn, quiet: bool, done: int = 0) -> None:
        self._bars = Bars(TextColumn("{task.description}"), BarColumn(bar_width=24), *columns, quiet=quiet)
        self._task = self._bars.rich.add_task(label, total=total, completed=done, facts="")
        self._log = Interval(LOG_SECONDS)

    def __enter__(self) -> Self:
        self._bars.rich.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.rich.stop()

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._bars.say(text)

    def show(self, done: int, total: int, line: str, *, facts: str = "", is_last: bool = False) -> None:
        """Show how much is done, with ``facts`` beside the bar; without a terminal ``line``, the last one at any rate."""
        self._bars.rich.update(self._task, completed=done, total=total, facts=facts)
        if not self._bars.is_live and (self._log.is_due() or is_last):
            self.say(line)
