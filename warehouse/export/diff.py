"""What changed in the data: the difference between two versions of an export."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from schemas.errors import WarehouseError
from warehouse.export.manifest import Manifest, read_manifest
from warehouse.export.shards import LAYOUTS
from warehouse.statements import literal

_KEYS = {"sft": ("prompt_id",), "preference": ("strategy", "chosen_id", "rejected_id")}
"""What makes a row the same row in another version. (A pair's id depends on its build.)"""

_IDS_OF_THE_BUILD = frozenset({"pair_id"})


@dataclass(frozen=True, slots=True)
class ExportDiff:
    """The difference from version ``before`` to version ``after``.

    ``rows`` has one row for each config, split and language: ``added``, ``removed``, ``changed`` and ``unchanged``. A
    row that moved to the other split counts as removed from one and added to the other.
    """

    before: Manifest
    after: Manifest
    rows: pl.DataFrame

    @property
    def is_empty(self) -> bool:
        return not self.rows.select(pl.sum("added", "removed", "changed")).sum_horizontal().item()


def diff_exports(before: Path, after: Path) -> ExportDiff:
    """Compare two versions' folders row by row; only keys and hashes are held in memory.

    An SFT row is the same row when its prompt is, a preference row when its strategy and both answers are; it is
    changed when any other column differs.

    Raises:
        WarehouseError: one of the folders is not a finished export, or its files cannot be read.
    """
    manifests = read_manifest(before), read_manifest(after)
    folders = before, after
    try:
        with duckdb.connect() as connection:
            for config in LAYOUTS:
                for name, folder, manifest in zip(("old", "new"), folders, manifests, strict=True):
                    connection.execute(f"CREATE TABLE {name}_{config} AS {_select_hashes(folder, manifest, config)}")
            rows = connection.execute(" UNION ALL ".join(map(_compare, LAYOUTS)) + " ORDER BY ALL").pl()
    except duckdb.Error as error:
        raise WarehouseError(f"{before} and {after} cannot be compared: {error}") from error
    return ExportDiff(*manifests, rows)


def _select_hashes(folder: Path, manifest: Manifest, config: str) -> str:
    """Return a SELECT of the split, language, key and hash of every row of a config."""
    keys = ", ".join(_KEYS[config])
    parts = [
        f"SELECT {literal(split)} AS split, language, {keys}, md5_number({_as_text(config)}) AS digest FROM {rows}"
        for split in manifest.counts.get(config, {})
        if (rows := _scan(folder, manifest, config, split))
    ]
    blank = ", ".join(f"''::VARCHAR AS {key}" for key in _KEYS[config])
    nothing = f"SELECT '' AS split, '' AS language, {blank}, 0::UHUGEINT AS digest WHERE false"
    return " UNION ALL ".join([nothing, *parts])


def _as_text(config: str) -> str:
    names = [name for name in LAYOUTS[config].names if name not in _IDS_OF_THE_BUILD]
    return f"to_json([{', '.join(f'to_json({name})' for name in names)}])::VARCHAR"


def _scan(folder: Path, manifest: Manifest, config: str, split: str) -> str | None:
    """Return a table function over the files of a split, of one format; nothing where it has no rows."""
    paths = [
        folder / file.path for file in manifest.files if (file.config, file.split) == (config, split) and file.num_rows
    ]
    form = ".parquet" if any(path.suffix == ".parquet" for path in paths) else ".jsonl"
    names = ", ".join(literal(str(path)) for path in paths if path.suffix == form)
    if not names:
        return None
    if form == ".parquet":
        return f"read_parquet([{names}])"
    types = {"string": "VARCHAR", "double": "DOUBLE", "int32": "INTEGER"}
    conversation = "STRUCT(role VARCHAR, content VARCHAR)[]"
    columns = ", ".join(f"{field.name}: '{types.get(str(field.type), conversation)}'" for field in LAYOUTS[config])
    return f"read_ndjson([{names}], columns = {{{columns}}})"


def _compare(config: str) -> str:
    same = " AND ".join(f"old.{key} = new.{key}" for key in _KEYS[config])
    return f"""
        SELECT
            {literal(config)} AS config,
            coalesce(new.split, old.split) AS split,
            coalesce(new.language, old.language) AS language,
            count(*) FILTER (old.digest IS NULL) AS added,
            count(*) FILTER (new.digest IS NULL) AS removed,
            count(*) FILTER (old.digest <> new.digest) AS changed,
            count(*) FILTER (old.digest = new.digest) AS unchanged
        FROM old_{config} AS old
        FULL JOIN new_{config} AS new ON old.split = new.split AND {same}
        GROUP BY ALL
    """
