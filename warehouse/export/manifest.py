"""The manifest of an export: what was pinned, counted and written; and the check that the files still agree with it."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import WarehouseError
from schemas.ids import file_digest

MANIFEST_NAME = "manifest.json"

SPLITS = ("train", "eval")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataFile(_Record):
    """One shard: its path below the version's folder, what it holds and its SHA-256."""

    path: str
    config: str
    split: str
    num_rows: int
    num_bytes: int
    sha256: str


class Counts(_Record):
    """The rows of one split of one config, and how many of them fall to each value. A pair's teacher is the chosen's."""

    num_rows: int = 0
    languages: dict[str, int] = Field(default_factory=dict)
    teachers: dict[str, int] = Field(default_factory=dict)
    strategies: dict[str, int] = Field(default_factory=dict)


class Manifest(_Record):
    """What a version holds. ``counts`` goes by config, then by split; ``recipe`` is the recipe's identity."""

    export_id: str
    name: str
    version: str
    config_id: str
    snapshot: int
    created_at: datetime
    counts: dict[str, dict[str, Counts]]
    files: tuple[DataFile, ...]
    recipe: dict[str, Any]

    def total(self, config: str, field: str) -> Counter[str]:
        """Return the rows of a config by value of a field of ``Counts``, over both splits, in alphabetical order."""
        total: Counter[str] = Counter()
        for counts in self.counts.get(config, {}).values():
            total.update(getattr(counts, field))
        return Counter(dict(sorted(total.items())))

    def num_rows(self, config: str, split: str | None = None) -> int:
        """Return the rows of a config, or of one of its splits; 0 where it was not exported."""
        splits = self.counts.get(config, {})
        return sum(counts.num_rows for name, counts in splits.items() if split in (None, name))


class Tally:
    """Counts the rows of a split while they pass."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._by_value: dict[str, Counter[str]] = {"language": Counter(), "teacher": Counter(), "strategy": Counter()}

    def add(self, frame: pl.DataFrame) -> None:
        """Count the rows of a frame."""
        self.num_rows += frame.height
        for field, counter in self._by_value.items():
            column = "chosen_teacher" if field == "teacher" and "chosen_teacher" in frame.columns else field
            if column in frame.columns:
                counter.update(dict(frame.get_column(column).value_counts().rows()))

    def counts(self) -> Counts:
        """Return what was counted, in alphabetical order."""
        languages, teachers, strategies = (dict(sorted(counter.items())) for counter in self._by_value.values())
        return Counts(num_rows=self.num_rows, languages=languages, teachers=teachers, strategies=strategies)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a version's folder.

    Raises:
        WarehouseError: the folder is not a finished export.
    """
    try:
        return Manifest.model_validate_json((path / MANIFEST_NAME).read_bytes())
    except OSError as error:
        raise WarehouseError(f"{path} is not a finished export: {MANIFEST_NAME} cannot be read ({error})") from error
    except ValidationError as error:
        raise WarehouseError(
            f"{path / MANIFEST_NAME} is not a manifest of this version of the factory: {error}"
        ) from error


def verify_export(path: Path) -> Manifest:
    """Recompute the size, rows and digest of every file of a version, and return its manifest when all agree.

    Raises:
        WarehouseError: a file is missing, was changed, or does not belong there; the message names each one.
    """
    manifest = read_manifest(path)
    wrong = [fault for file in manifest.files if (fault := _find_fault(path, file))]
    known = {file.path for file in manifest.files}
    for config in manifest.counts:
        strangers = (file.relative_to(path).as_posix() for file in sorted((path / config).glob("*")))
        wrong += [f"{name} is not in the manifest" for name in strangers if name not in known]
    if wrong:
        raise WarehouseError(f"the export {path} does not agree with its manifest: {'; '.join(wrong)}")
    return manifest


def _find_fault(folder: Path, file: DataFile) -> str | None:
    path = folder / file.path
    if not path.is_file():
        return f"{file.path} is missing"
    if (size := path.stat().st_size) != file.num_bytes:
        return f"{file.path} has {size} bytes instead of {file.num_bytes}"
    if (digest := file_digest(path)) != file.sha256:
        return f"{file.path} has the SHA-256 {digest} instead of {file.sha256}"
    if (rows := _count_rows(path)) != file.num_rows:
        return f"{file.path} has {rows} rows instead of {file.num_rows}"
    return None


def _count_rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with path.open("rb") as lines:
        return sum(1 for _ in lines)
