"""The progress of a run: steps or rows, tokens per second and time left."""

from rich.progress import MofNCompleteColumn, TextColumn, TimeRemainingColumn

from factory.progress import ProgressBar


class Watch(ProgressBar):
    """Shows the progress of steps or rows."""

    def __init__(self, label: str, total: int, *, done: int, quiet: bool, unit: str = "step") -> None:
        columns = MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn()
        super().__init__(label, total, *columns, quiet=quiet, done=done)
        self._label, self._unit, self._total = label, unit, total

    def advance(self, step: int, metrics: dict[str, object], tokens_per_second: float, seconds_left: float) -> None:
        """Show that ``step`` steps are done, with the loss and other facts of the latest one."""
        facts = f"loss {metrics['loss']:.4f}"
        if "accuracy" in metrics:
            facts += f"  accuracy {metrics['accuracy']:.2f}  margin {metrics['margin']:.3f}"
        self.count(step, f"{facts}  {tokens_per_second:,.0f} tokens/s", seconds_left)

    def count(self, done: int, facts: str, seconds_left: float) -> None:
        """Show that ``done`` steps or rows are done."""
        line = f"{self._label}: {self._unit} {done}/{self._total}  {facts}  {seconds_left:,.0f} s left"
        self.show(done, self._total, line, facts=facts, is_last=done == self._total)
