"""Log-probabilities under the reference model: computed once, kept beside the data, used again by later runs.

The cache's name says what they depend on and nothing else: the reference's fingerprint, all tokens and masks (so
template, tokenizer and limits), and the precision. Changing a learning rate changes none of them.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from factory.training.batches import cut_micro_batches
from factory.training.dataset import Dataset
from factory.training.examples import examples_digest
from factory.training.policy import Policy
from factory.training.world import World
from schemas.ids import content_id
from schemas.training import TrainSettings

FOLDER = ".reference-logps"

_VERSION = 1


def find_cache(settings: TrainSettings, dataset: Dataset, fingerprint: str, data: str) -> Path:
    """Return where the reference's log-probabilities of a data set are kept."""
    name = content_id("reference", [_VERSION, fingerprint, examples_digest(dataset.examples), settings.dtype])
    return _find_folder(settings, data) / f"{name}.npy"


def read_reference(path: Path, dataset: Dataset) -> NDArray[np.float32] | None:
    """Return what was kept, mapped from the disk, or None where nothing (whole) is."""
    try:
        kept: NDArray[np.float32] = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return kept if kept.shape == (dataset.starts()[-1],) else None


@torch.no_grad()  # type: ignore[untyped-decorator]
def compute_reference(policy: Policy, dataset: Dataset, limit: int, world: World) -> NDArray[np.float32]:
    """Return the log-probability of every trained token, in the order of the examples."""
    policy.eval()
    starts = dataset.starts()
    logps = torch.zeros(starts[-1], device=world.device)
    batches = cut_micro_batches(range(len(dataset.examples)), dataset.lengths, limit, world.size)
    for batch in batches[world.rank :: world.size]:
        rows = batch or [0]  # every process takes part in every pass of a sharded model
        found = policy(policy.pack(dataset.take(rows), world.device))
        if batch:
            parts = found.split([starts[row + 1] - starts[row] for row in rows])
            for row, part in zip(rows, parts, strict=True):
                logps[starts[row] : starts[row + 1]] = part
    found_by_all: NDArray[np.float32] = world.sum(logps).cpu().numpy()
    return found_by_all


def keep_reference(path: Path, logps: NDArray[np.float32]) -> None:
    """Write the cache whole or not at all; one that cannot be written only costs time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".unfinished", delete=False) as file:
            np.save(file, logps)
        Path(file.name).replace(path)
    except OSError:
        return


def _find_folder(settings: TrainSettings, data: str) -> Path:
    if settings.run.cache is not None:
        return Path(settings.run.cache)
    folder = Path(data) if Path(data).is_dir() else Path(data).parent
    if folder.is_dir() and os.access(folder, os.W_OK) and (Path(data).exists() or any(folder.glob(Path(data).name))):
        return folder / FOLDER
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expanse-factory" / "reference-logps"
