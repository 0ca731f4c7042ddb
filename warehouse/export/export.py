"""Exports: a pinned snapshot of a build becomes a version of training shards, with a card and a manifest.

A version is named by what it holds: the same rows under the same settings are the same version, whoever exports them
and when. It is written beside its place under another name and renamed when its manifest is on disk, so that a folder
of that name is always whole.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from schemas.disk import remove_unfinished, whole_folder, write_text
from schemas.errors import AuditError, NothingToExportError, WarehouseError
from schemas.file_lock import lock
from schemas.ids import Json, content_id, file_digest
from schemas.recipe.curation import Export
from schemas.recipe.recipe import Recipe
from schemas.toml.section import identify
from warehouse.build.scope import Scope
from warehouse.export.card import write_card
from warehouse.export.manifest import MANIFEST_NAME, SPLITS, Counts, DataFile, Manifest, Tally, read_manifest
from warehouse.export.ordered_rows import BuildRows
from warehouse.export.shards import LAYOUTS, ShardWriter, to_table
from warehouse.lake.lake import Lake

Progress = Callable[[int, int], None]
"""Called with the number of rows written so far and the number of all."""

_LAYOUT_VERSION = 1
"""Part of every export id; it rises when the same rows would make other files."""

_VERSION = re.compile(r"v(\d+)-[0-9a-f]{8}")


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
        NothingToExportError: the build has no rows of what the recipe exports.
        WarehouseError: the files cannot be written.
        AuditError: a prompt would be in both splits, or a selection or pair names a completion that was dropped.
    """
    asked = {"sft": recipe.export.sft, "preference": recipe.export.preference}
    configs = tuple(config for config in LAYOUTS if asked[config])
    pinned = lake.snapshot() if snapshot is None else snapshot
    home = folder / recipe.name
    with Lake.open(recipe.warehouse, as_of=pinned) as past, Scope.open(past, config_id) as scope:
        rows = BuildRows(scope, configs)
        _audit(rows, config_id)
        if not any(rows.num_rows.values()):
            raise NothingToExportError(
                f"build {config_id} of recipe {recipe.name!r} has nothing to export at snapshot {pinned}: "
                f"no rows for {' or '.join(configs) or 'any config, as the recipe asks for none'}"
            )
        job = _Job(rows, recipe, config_id, pinned, _make_export_id(rows, recipe, config_id))
        try:
            home.mkdir(parents=True, exist_ok=True)
            with _alone(home):
                result = _find(home, job.export_id) or _write(lake, home, job, on_progress)
        except OSError as error:
            raise WarehouseError(f"the export to {home} failed: {error}") from error
    _record(lake, result)
    return result


@dataclass(frozen=True, slots=True)
class _Job:
    rows: BuildRows
    recipe: Recipe
    config_id: str
    snapshot: int
    export_id: str


def _make_export_id(rows: BuildRows, recipe: Recipe, config_id: str) -> str:
    digests: Json = {config: [num_rows, rows.digest(config)] for config, num_rows in rows.num_rows.items()}
    content = rows.digest_content()
    return content_id("export", [_LAYOUT_VERSION, recipe.name, config_id, identify(recipe.export), digests, content])


def _audit(rows: BuildRows, config_id: str) -> None:
    leaks = rows.find_leaks()
    if leaks:
        root, prompts = leaks[0]
        raise AuditError(
            f"{len(leaks)} prompts would be in both splits, themselves or in translation; the first is {root} with "
            f"{', '.join(prompts[:5])}"
        )
    orphans = rows.find_orphans()
    if orphans:
        raise AuditError(
            f"{len(orphans)} selected or paired completions of build {config_id} are not candidates any more; the "
            f"first is {orphans[0][0]}; route and pair the build again"
        )


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Wait until no other export writes to this folder, and clear away what a killed one left."""
    with (home / ".lock").open("a") as file:
        lock(file)
        remove_unfinished(home)
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
    recorded = lake.rows("SELECT export_id, path FROM exports")
    names = {known: Path(path).name for known, path in recorded if Path(path).parent.name == home.name}
    if export_id in names:
        return names[export_id]
    taken = [*names.values(), *(path.name for path in home.iterdir())]
    numbers = [int(match[1]) for name in taken if (match := _VERSION.fullmatch(name))]
    return f"v{max(numbers, default=0) + 1:04d}-{export_id[:8]}"


def _write(lake: Lake, home: Path, job: _Job, on_progress: Progress | None) -> ExportResult:
    version = _name_version(lake, home, job.export_id)
    with whole_folder(home / version) as folder:
        manifest = _write_version(folder, version, job, on_progress)
    return ExportResult(home / version, manifest, is_new=True)


def _write_version(folder: Path, version: str, job: _Job, on_progress: Progress | None) -> Manifest:
    counts: dict[str, dict[str, Counts]] = {}
    shards: list[DataFile] = []
    num_done, num_all = 0, sum(job.rows.num_rows.values())

    def count(num_rows: int) -> None:
        nonlocal num_done
        num_done += num_rows
        if on_progress:
            on_progress(num_done, num_all)

    for config in job.rows.num_rows:
        counts[config], written = _write_config(folder, job, config, count)
        shards += written
    manifest = Manifest(
        export_id=job.export_id,
        name=job.recipe.name,
        version=version,
        config_id=job.config_id,
        snapshot=job.snapshot,
        created_at=datetime.now(UTC),
        counts=counts,
        files=tuple(shards),
        recipe=job.recipe.identity(),
    )
    write_text(folder / "README.md", write_card(job.recipe, manifest))
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _write_config(
    folder: Path, job: _Job, config: str, count: Callable[[int], None]
) -> tuple[dict[str, Counts], list[DataFile]]:
    """Write the shards of one config; ``count`` is called with the number of rows of each part."""
    tallies = {split: Tally() for split in SPLITS}
    spool = folder / ".spool"
    spool.mkdir()
    with _open_writers(folder / config, job.recipe.export, config) as writers:
        for frame in job.rows.stream(config, spool):
            for split, tally in tallies.items():
                rows = frame.filter(pl.col("split") == split)
                tally.add(rows)
                for writer in writers[split]:
                    writer.write(to_table(rows, config))
            count(frame.height)
        shards = [
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
    spool.rmdir()
    return {split: tally.counts() for split, tally in tallies.items()}, shards


@contextlib.contextmanager
def _open_writers(folder: Path, settings: Export, config: str) -> Iterator[dict[str, list[ShardWriter]]]:
    folder.mkdir()
    max_bytes = int(settings.max_shard_mb * 1e6)
    writers = {
        split: [ShardWriter(folder, split, LAYOUTS[config], form, max_bytes) for form in settings.formats]
        for split in SPLITS
    }
    try:
        yield writers
    finally:
        for writer in (*writers["train"], *writers["eval"]):
            writer.discard()


def _record(lake: Lake, result: ExportResult) -> None:
    manifest = result.manifest
    known = lake.rows("SELECT 1 FROM exports WHERE export_id = ?", [manifest.export_id])
    if known and not result.is_new:
        return
    if known:
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
