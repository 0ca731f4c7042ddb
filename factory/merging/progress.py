"""Merging with a progress bar: bytes written, and the time left. Torch is imported only when the merge starts."""

import time
from pathlib import Path

from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

from factory.loading import loading
from factory.merging.result import MergeResult
from factory.progress import ProgressBar
from schemas.extras import require
from schemas.recipe.merging import MergeSettings


def merge_visibly(settings: MergeSettings, output: Path, *, quiet: bool) -> MergeResult:
    """Call ``factory.merging.merge.merge``, and show its progress unless ``quiet``."""
    require(("torch",))
    with loading():
        from factory.merging.merge import merge
    with MergeProgress(quiet=quiet) as progress:
        return merge(settings, output, progress=progress.update)


class MergeProgress(ProgressBar):
    """Shows how much of a merge is written."""

    def __init__(self, *, quiet: bool) -> None:
        columns = DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        super().__init__("merging", None, *columns, quiet=quiet)
        self._started = time.monotonic()

    def update(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` bytes are written."""
        left = (time.monotonic() - self._started) * (total - done) / max(done, 1)
        self.show(done, total, f"  merged {done / 1e9:,.2f} of {total / 1e9:,.2f} GB, {left:,.0f} s left")
