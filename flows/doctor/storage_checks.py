"""Checks of where a warehouse and its exports lie."""

import os
import shutil
import tempfile
from pathlib import Path

from flows.doctor.finding import GIB, Findings, note, ok, problem, size
from schemas.errors import FactoryError
from schemas.recipe.settings import WarehouseSettings
from warehouse.catalog.catalog import Catalog, find_catalog
from warehouse.catalog.data_folder import KEEP
from warehouse.lake.lake import Lake

LITTLE_SPACE = 10 * GIB
NO_SPACE = GIB // 2

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def check_warehouse(settings: WarehouseSettings, exports: str) -> Findings:
    """Check that catalog, data and exports can be written, and that the warehouse, if there is one, can be read."""
    catalog = find_catalog(settings)
    if catalog.sqlite:
        yield from _check_folder_space("catalog", catalog.sqlite.parent)
    else:
        yield from _check_postgres(catalog)
    if catalog.data_folder:
        yield from _check_folder_space("data", catalog.data_folder)
    elif missing := [name for name in S3_KEYS if not os.environ.get(name)]:
        yield problem("object storage", f"{' and '.join(missing)} not set", "set the AWS_* environment variables")
    else:
        yield ok("object storage", f"credentials for {settings.data} are set")
    yield from _check_folder_space("exports", Path(exports).expanduser().resolve())
    if catalog.sqlite and catalog.sqlite.exists():
        yield from _check_tables(settings, catalog)


def _check_tables(settings: WarehouseSettings, catalog: Catalog) -> Findings:
    try:
        with Lake.open(settings, read_only=True) as lake:
            num_builds = lake.value("SELECT count(DISTINCT config_id) FROM builds")
    except FactoryError as error:
        yield problem("warehouse", str(error), "name another one in [warehouse], or mend this one")
    else:
        yield ok("warehouse", f"{catalog.shown} holds {num_builds:,} builds")
    if (folder := catalog.data_folder) and (folder / KEEP).exists():
        found = f"no file is deleted in {folder}, since its catalog was restored or replaced"
        yield note("data", found, f"delete {folder / KEEP} once there is no other copy of the catalog")


def _check_postgres(catalog: Catalog) -> Findings:
    import psycopg  # only this kind of catalog needs it

    try:
        with psycopg.connect(catalog.address, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.Error as error:
        to_do = "start the server, correct [warehouse] catalog, or set PGPASSWORD"
        yield problem("catalog", f"{catalog.shown} does not answer: {catalog.redact(str(error))}", to_do)
    else:
        yield ok("catalog", f"{catalog.shown} answers")


def _check_folder_space(name: str, folder: Path) -> Findings:
    """Try to write in a folder, or in the nearest one above that is there; nothing is left behind."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield problem(name, f"{folder} cannot be written: {error.strerror}", "name another folder, or get the right")
        return
    free = shutil.disk_usage(existing).free
    found = f"{folder}, {size(free)} free"
    if free < NO_SPACE:
        yield problem(name, found, "free some space, or name another folder")
    elif free < LITTLE_SPACE:
        yield note(name, found, "a large build may need more")
    else:
        yield ok(name, found)
