"""The progress of a run on the terminal: one line with tokens per second and time left."""

import sys
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Watch:
    """Shows steps, or rows, as they finish. Without a terminal it prints a line now and then; quiet, nothing."""

    def __init__(self, label: str, total: int, *, done: int, quiet: bool, unit: str = "step") -> None:
        console = Console(file=sys.stderr)
        self._quiet, self._is_live = quiet, console.is_terminal and not quiet
        self._label, self._unit, self._total, self._printed = label, unit, total, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_live,
        )
        self._task = self._bar.add_task(label, total=total, completed=done, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, step: int, metrics: dict[str, Any], tokens_per_second: float, seconds_left: float) -> None:
        """Show that a step is done."""
        facts = f"loss {metrics['loss']:.4f}"
        if "accuracy" in metrics:
            facts += f"  accuracy {metrics['accuracy']:.2f}  margin {metrics['margin']:.3f}"
        self.show(step, f"{facts}  {tokens_per_second:,.0f} tokens/s", seconds_left)

    def show(self, done: int, facts: str, seconds_left: float) -> None:
        """Show how much is done."""
        self._bar.update(self._task, completed=done, facts=facts)
        if not self._quiet and not self._is_live and (done == self._total or time.monotonic() - self._printed > 10):
            self._printed = time.monotonic()
            self.say(f"{self._label}: {self._unit} {done}/{self._total}  {facts}  {seconds_left:,.0f} s left")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
