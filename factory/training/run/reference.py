"""Log-probabilities under the reference model: computed once, cached beside the data and reused by later runs.

The cache's key covers exactly what they depend on: the reference's fingerprint, all tokens and masks (and thereby
template, tokenizer and limits), and the precision. So runs with different learning rates share it.
"""

import contextlib
import os
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from factory.training.data.batches import cut_micro_batches
from factory.training.data.dataset import Dataset
from factory.training.data.examples import examples_digest
from factory.training.model.model import Policy
from factory.training.processes import World
from factory.training.run.progress_line import Watch
from factory.training.stopping import StopSignals
from schemas.disk import whole_file
from schemas.errors import TrainingError
from schemas.ids import content_id
from schemas.recipe.training import TrainSettings

FOLDER = ".reference-logps"

KEEP_SECONDS = 300.0
"""How often the results of an unfinished pass are saved."""

_VERSION = 1


def find_cache(settings: TrainSettings, dataset: Dataset, fingerprint: str, data: str) -> Path:
    """Return the cache file of the reference's log-probabilities of a data set."""
    name = content_id("reference", [_VERSION, fingerprint, examples_digest(dataset.examples), settings.dtype])
    return _find_folder(settings, data) / f"{name}.npy"


def read_reference(path: Path, dataset: Dataset) -> NDArray[np.float32] | None:
    """Return cached log-probabilities [trained tokens], memory-mapped, or None if the file is missing or damaged."""
    try:
        kept: NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return kept if kept.shape == (dataset.starts()[-1],) else None


class ReferencePass:
    """The reference's pass over a data set: the log-probability of every trained token, in the order of the examples.

    Results so far are saved every few minutes, and when a signal stops the pass; the next pass resumes from there.
    """

    def __init__(self, policy: Policy, dataset: Dataset, limit: int, world: World, cache: Path) -> None:
        self._policy, self._dataset, self._world = policy, dataset, world
        self._cache, self._begun = cache, cache.with_suffix(".begun")
        self._starts = dataset.starts()
        self._logps = self._read_begun()
        missing = _find_missing(self._logps, self._starts)
        self._batches = cut_micro_batches(missing, dataset.lengths, limit, world.size) if missing else []
        self._found = torch.zeros(self._starts[-1], device=world.device)
        self._new: list[int] = []
        self._num_done = len(dataset.examples) - len(missing)

    @torch.no_grad()
    def run(self, *, quiet: bool) -> NDArray[np.float32]:
        """Compute the missing log-probabilities, write all to the cache, and return them, [trained tokens].

        Raises:
            TrainingError: a signal stopped the pass.
        """
        self._policy.eval()
        world, num_rows, num_tokens = self._world, len(self._dataset.examples), 0
        started = kept_at = time.monotonic()
        watch = Watch("reference", num_rows, done=self._num_done, quiet=quiet, unit="row")
        with StopSignals() as signals, watch:
            for first in range(0, len(self._batches), world.size):
                num_tokens += self._compute(self._batches[first : first + world.size])
                seconds = time.monotonic() - started
                seconds_left = seconds * (len(self._batches) / (first + world.size) - 1)
                watch.count(self._num_done, f"{num_tokens / seconds:,.0f} tokens/s", seconds_left)
                if asked := signals.asked(world):
                    self._stop(asked)
                is_due = torch.tensor(int(time.monotonic() - kept_at > KEEP_SECONDS), device=world.device)
                if world.highest(is_due):
                    self._keep(self._begun)
                    kept_at = time.monotonic()
        if self._keep(self._cache):
            self._begun.unlink(missing_ok=True)
        return self._logps

    def _compute(self, batches: list[list[int]]) -> int:
        """Compute one micro-batch on each process; return the number of tokens of all of them."""
        batch, starts = batches[self._world.rank], self._starts
        rows = batch or [0]  # a sharded model needs all processes in every pass
        logps = self._policy(self._policy.pack(self._dataset.take(rows), self._world.device))
        if batch:
            parts = logps.split([starts[row + 1] - starts[row] for row in rows])
            for row, part in zip(rows, parts, strict=True):
                self._found[starts[row] : starts[row + 1]] = part
        done = [row for batch in batches for row in batch]
        self._new += done
        self._num_done += len(done)
        return sum(self._dataset.lengths[row] for row in done)

    def _keep(self, path: Path) -> bool:
        """Collect the results of all processes and write them in the first; return whether this process wrote them."""
        found = self._world.sum(self._found.clone()).cpu().numpy()
        for row in self._new:
            self._logps[self._starts[row] : self._starts[row + 1]] = found[self._starts[row] : self._starts[row + 1]]
        self._new = []
        return self._world.is_main and _write(path, self._logps)

    def _stop(self, asked: str) -> None:
        is_kept = any(self._world.gather(self._keep(self._begun)))
        goes_on = "resumes from there" if is_kept else "starts again, as the results could not be saved"
        raise TrainingError(
            f"{asked} stopped the reference's pass after {self._num_done} of {len(self._dataset.examples)} rows; "
            f"the same command {goes_on}"
        )

    def _read_begun(self) -> NDArray[np.float32]:
        """Return the saved results of an earlier pass on all processes; missing values are NaN.

        Only the first process reads the file: the others may not see its disk. Adding zeros broadcasts what it has
        read.
        """
        mine = np.zeros(self._starts[-1], np.float32)
        if self._world.is_main:
            mine.fill(np.nan)
            with contextlib.suppress(OSError, ValueError):
                kept = np.load(self._begun)
                mine = kept if kept.shape == mine.shape and kept.dtype == mine.dtype else mine
        begun: NDArray[np.float32] = self._world.sum(torch.from_numpy(mine).to(self._world.device)).cpu().numpy()
        return begun


def _find_missing(logps: NDArray[np.float32], starts: list[int]) -> list[int]:
    """Return the numbers of examples with missing log-probabilities."""
    tokens = np.flatnonzero(np.isnan(logps))
    rows: list[int] = np.unique(np.searchsorted(starts, tokens, side="right") - 1).tolist()
    return rows


def _write(path: Path, logps: NDArray[np.float32]) -> bool:
    """Write a file atomically and return whether that succeeded. A failure is no error: the cache only saves time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.save(file, logps)
    except OSError:
        return False
    return True


def _find_folder(settings: TrainSettings, data: str) -> Path:
    if settings.run.cache is not None:
        return Path(settings.run.cache)
    folder = Path(data) if Path(data).is_dir() else Path(data).parent
    if folder.is_dir() and os.access(folder, os.W_OK) and (Path(data).exists() or any(folder.glob(Path(data).name))):
        return folder / FOLDER
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expanse-factory" / "reference-logps"
