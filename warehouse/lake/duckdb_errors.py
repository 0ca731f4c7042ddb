"""What DuckDB's errors mean for a warehouse: one sentence each, with the file or folder and what to do."""

import re
import shutil

import duckdb

from schemas.errors import WarehouseError
from warehouse.catalog.catalog import Catalog

_PASSING = re.compile(r"database is locked|[Cc]onflict|could not serialize|deadlock detected")

_NO_SPACE = "there is no space left for {data} or the catalog: free some and run again, what is stored is kept"

_SENTENCES: tuple[tuple[str, str], ...] = (
    (r"No space left on device|database or disk is full|Disk quota exceeded", _NO_SPACE),
    (
        r"(?=.*(?:Invalid footer|No magic bytes|too small to be a Parquet|Failed to read Parquet|[Cc]orrupt|[Dd]ecompress))"
        r".*?['\"](?P<file>(?:/|\w+://).*?\.parquet)['\"]",
        "its data file {file} is damaged: restore that one file from a copy, all others are whole",
    ),
    (
        r"(?:Cannot open file|Unable to connect to URL) \"?(?P<file>\S.*?\.parquet)\"?:.*?(?:No such file|Not Found)",
        "its data file {file} is missing, or its bucket is: restore it from a copy",
    ),
    (
        r"Cannot open file \"(?P<file>.*?)\": (?:Permission denied|Read-only file system)",
        "there is no permission to write or read {file}",
    ),
    (
        r"readonly database|Failed to create directory.*?Permission denied|Read-only file system",
        "there is no permission to write in the catalog's folder or in {data}; SQLite writes there even for readers",
    ),
    (r"file is not a database", "the file is not a SQLite database; name another file, or restore it from a copy"),
    (r"database disk image is malformed", "the catalog's file is damaged: restore it from a copy"),
    (
        r"catalog version is (?P<given>\S+), but the extension requires version (?P<known>[\d.]*\d)",
        "its catalog has the DuckLake format {given}, and this factory reads {known}: use the version that made it",
    ),
    (r"Failed .*disk I/O error", "the disk with its catalog fails or is not one that SQLite can use"),
    (r"[Uu]nable to open database", "the catalog's file is missing or there is no permission to open it"),
    (r"creating a new DuckLake is explicitly disabled", "there is no warehouse yet; a build makes one"),
    (r"No snapshot found at version (?P<version>\d+)", "it has no snapshot {version}"),
    (r"(?P<what>database is locked)", "another program has kept its catalog locked for too long"),
)


def is_passing(error: duckdb.Error) -> bool:
    """Whether an error comes of two programs meeting, so that trying again helps."""
    return _PASSING.search(str(error)) is not None


def explain(error: duckdb.Error, catalog: Catalog) -> WarehouseError:
    """Turn an error of DuckDB into one sentence that names the warehouse and never a secret."""
    text = catalog.redact(str(error))
    if "disk I/O error" in text and _is_full(catalog):
        text = "No space left on device"
    for pattern, sentence in _SENTENCES:
        if match := re.search(pattern, text):
            found = {"data": catalog.data, **match.groupdict()}
            return WarehouseError(f"warehouse {catalog.shown}: {sentence.format_map(found)}")
    return WarehouseError(f"warehouse {catalog.shown}: {text}")


def _is_full(catalog: Catalog) -> bool:
    return catalog.sqlite is not None and shutil.disk_usage(catalog.sqlite.parent).free < 1_000_000
