"""Exports: a pinned snapshot of a build becomes a version of training shards, with a card and a manifest.

A version is named by what it holds: the same rows under the same settings are the same version, whoever exports them
and when. It is written beside its place under another name and renamed when its manifest is on disk, so that a folder
of that name is always whole.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from schemas.errors import AuditError, WarehouseError
from schemas.ids import content_id, file_digest
from schemas.recipe import Recipe
from warehouse.build_views import use_build
from warehouse.card import write_card
from warehouse.lake import Lake
from warehouse.manifest import MANIFEST_NAME, SPLITS, Counts, DataFile, Manifest, Tally, read_manifest
from warehouse.shards import GROUP_ROWS, LAYOUTS, ShardWriter, to_table
from warehouse.statements import read_sql

Progress = Callable[[int, int], None]
"""Called with the number of rows written so far and the number of all."""

_LAYOUT_VERSION = 1
"""Part of every export id; it rises when the same rows would make other files."""

_ORDER = {"sft": "completion_id", "preference": "pair_id"}
"""The ids are hashes: their order mixes the languages and is the same in every run."""

_VERSION = re.compile(r"v(\d+)-[0-9a-f]{8}")

_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A version: its folder and its manifest. ``is_new`` is false where an earlier export had written it."""

    path: Path
    manifest: Manifest
    is_new: bool

    @property
    def export_id(self) -> str:
        return self.manifest.export_id


def export_build(
    lake: Lake,
    config_id: str,
    recipe: Recipe,
    folder: Path,
    *,
    snapshot: int | None = None,
    on_progress: Progress | None = None,
) -> ExportResult:
    """Write a build, as it was at a snapshot (none: now), to ``folder/<recipe name>/<version>``.

    A version that exists already is returned as it is. The export is recorded in the table ``exports``.

    Raises:
        WarehouseError: there is nothing to export, or the files cannot be written.
        AuditError: a prompt would be in both splits, or a selection or pair names a completion that was dropped.
    """
    pinned = lake.snapshot() if snapshot is None else snapshot
    with Lake.open(recipe.warehouse, as_of=pinned) as past:
        use_build(past, config_id)
        past.query(f"CREATE TABLE memory.main.exported AS {read_sql('export/exported', config_id=config_id)}")
        _audit(past, config_id)
        source = _Source(past, config_id, recipe, pinned)
        home = folder / recipe.name
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                result = _find(home, source.export_id) or _write(lake, home, source, on_progress)
        except OSError as error:
            raise WarehouseError(f"the export to {home} failed: {error}") from error
    _record(lake, result)
    return result


class _Source:
    """The rows of one build at one snapshot."""

    def __init__(self, past: Lake, config_id: str, recipe: Recipe, snapshot: int) -> None:
        self.past, self.config_id, self.recipe, self.snapshot = past, config_id, recipe, snapshot
        asked = {"sft": recipe.export.sft, "preference": recipe.export.preference}
        self.configs = [config for config in LAYOUTS if asked[config]]
        prints = {config: self._fingerprint(config) for config in self.configs}
        self.num_rows = sum(rows for rows, _ in prints.values())
        if not self.num_rows:
            raise WarehouseError(
                f"build {config_id} of recipe {recipe.name!r} has nothing to export at snapshot {snapshot}: "
                f"no rows for {' or '.join(self.configs) or 'any config, as the recipe asks for none'}"
            )
        self.export_id = content_id(
            "export",
            [_LAYOUT_VERSION, recipe.name, config_id, recipe.export.model_dump(mode="json"), prints],
        )

    def rows(self, config: str) -> Iterator[pl.DataFrame]:
        """Yield the rows of a config in their final order."""
        sql = f"SELECT * FROM ({self._select(config)}) ORDER BY {_ORDER[config]}"
        return self.past.stream(sql, batch_rows=GROUP_ROWS)

    def _select(self, config: str) -> str:
        return read_sql(f"export/{config}", config_id=self.config_id)

    def _fingerprint(self, config: str) -> tuple[int, str]:
        """Return the number of rows and a hash of them that does not depend on their order."""
        sql = f"SELECT count(*), bit_xor(md5_number(to_json(made)::VARCHAR))::VARCHAR FROM ({self._select(config)}) AS made"
        num_rows, digest = self.past.query(sql).row(0)
        return num_rows, digest or ""


def _audit(past: Lake, config_id: str) -> None:
    leaks = past.query(read_sql("export/leaks", config_id=config_id))
    if leaks.height:
        root, prompts = leaks.row(0)
        raise AuditError(
            f"{leaks.height} prompts would be in both splits, themselves or in translation; the first is {root} with "
            f"{', '.join(prompts[:5])}"
        )
    orphans = past.query(read_sql("export/orphans", config_id=config_id))
    if orphans.height:
        raise AuditError(
            f"{orphans.height} selected or paired completions of build {config_id} are no candidates any more; the "
            f"first is {orphans.item(0, 'completion_id')}; route and pair the build again"
        )


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait until no other export writes to this folder, and clear away what a killed one left."""
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in home.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover)
        yield


def _find(home: Path, export_id: str) -> ExportResult | None:
    """Return the version that holds these very rows, if it stands in its place."""
    for path in sorted(home.glob(f"v*-{export_id[:8]}")):
        manifest = read_manifest(path)
        if manifest.export_id != export_id:
            continue
        for file in manifest.files:
            if not (path / file.path).is_file() or (path / file.path).stat().st_size != file.num_bytes:
                raise WarehouseError(f"{path / file.path} was damaged or deleted; delete {path} and export again")
        return ExportResult(path, manifest, is_new=False)
    return None


def _name_version(lake: Lake, home: Path, export_id: str) -> str:
    """Return the name that this export had before its folder was deleted, or the next one."""
    recorded = lake.query("SELECT export_id, path FROM exports").rows()
    names = {known: Path(path).name for known, path in recorded if Path(path).parent.name == home.name}
    if export_id in names:
        return names[export_id]
    taken = [*names.values(), *(path.name for path in home.iterdir())]
    numbers = [int(match[1]) for name in taken if (match := _VERSION.fullmatch(name))]
    return f"v{max(numbers, default=0) + 1:04d}-{export_id[:8]}"


def _write(lake: Lake, home: Path, source: _Source, on_progress: Progress | None) -> ExportResult:
    version = _name_version(lake, home, source.export_id)
    unfinished = home / f"{_UNFINISHED}{version}"
    unfinished.mkdir()
    try:
        manifest = _write_version(unfinished, version, source, on_progress)
        unfinished.rename(home / version)
        _sync(home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return ExportResult(home / version, manifest, is_new=True)


def _write_version(folder: Path, version: str, source: _Source, on_progress: Progress | None) -> Manifest:
    counts: dict[str, dict[str, Counts]] = {}
    shards: list[DataFile] = []
    num_before = 0
    for config in source.configs:
        tallies = {split: Tally() for split in SPLITS}
        with _open_writers(folder / config, source, config) as writers:
            for frame in source.rows(config):
                for split, tally in tallies.items():
                    rows = frame.filter(pl.col("split") == split)
                    tally.add(rows)
                    for writer in writers[split]:
                        writer.write(to_table(rows, config))
                if on_progress:
                    on_progress(num_before + sum(tally.num_rows for tally in tallies.values()), source.num_rows)
            shards += [
                DataFile(
                    path=shard.path.relative_to(folder).as_posix(),
                    config=config,
                    split=split,
                    num_rows=shard.num_rows,
                    num_bytes=shard.num_bytes,
                    sha256=file_digest(shard.path),
                )
                for split in SPLITS
                for writer in writers[split]
                for shard in writer.close()
            ]
        _sync(folder / config)
        counts[config] = {split: tally.counts() for split, tally in tallies.items()}
        num_before += sum(tally.num_rows for tally in tallies.values())
    manifest = Manifest(
        export_id=source.export_id,
        name=source.recipe.name,
        version=version,
        config_id=source.config_id,
        snapshot=source.snapshot,
        created_at=datetime.now(UTC),
        counts=counts,
        files=tuple(shards),
        recipe=source.recipe.identity(),
    )
    _write_text(folder / "README.md", write_card(source.recipe, manifest))
    _write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
    _sync(folder)
    return manifest


@contextlib.contextmanager
def _open_writers(folder: Path, source: _Source, config: str) -> Iterator[dict[str, list[ShardWriter]]]:
    folder.mkdir()
    max_bytes = int(source.recipe.export.max_shard_mb * 1e6)
    writers = {
        split: [ShardWriter(folder, split, LAYOUTS[config], form, max_bytes) for form in source.recipe.export.formats]
        for split in SPLITS
    }
    try:
        yield writers
    finally:
        for writer in (*writers["train"], *writers["eval"]):
            writer.discard()


def _record(lake: Lake, result: ExportResult) -> None:
    manifest = result.manifest
    if result.is_new:
        lake.delete("exports", "export_id = ?", [manifest.export_id])
    row = {
        "export_id": manifest.export_id,
        "config_id": manifest.config_id,
        "snapshot": manifest.snapshot,
        "path": str(result.path),
        "manifest": manifest.model_dump_json(),
        "created_at": manifest.created_at,
    }
    lake.append("exports", pl.DataFrame([row]))


def _write_text(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
