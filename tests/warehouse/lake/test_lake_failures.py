"""What can go wrong with a warehouse: one clear sentence each, and nothing else lost."""

import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from tests.waiting import GUARD_SECONDS
from tests.warehouse.lake_rows import find_strays, finish, make_completions, make_selections, start, warehouse_at
from warehouse.lake.lake import Lake

SmallDisk = Callable[[Path, int], Path]


@pytest.fixture
def settings(tmp_path: Path) -> WarehouseSettings:
    return warehouse_at(tmp_path)


def data_files(settings: WarehouseSettings, table: str) -> list[Path]:
    return sorted((Path(settings.data) / "main" / table).glob("*.parquet"))


def refused(settings: WarehouseSettings, message: str, *, read_only: bool = False) -> None:
    with pytest.raises(WarehouseError, match=message) as caught:
        Lake.open(settings, read_only=read_only)
    assert "\n" not in str(caught.value)


def test_full_disk_stops_with_a_sentence_and_loses_nothing(make_small_disk: SmallDisk, tmp_path: Path) -> None:
    small_disk = make_small_disk(tmp_path / "small", 2)
    settings = warehouse_at(small_disk)
    written = 0
    with Lake.open(settings) as lake:
        error = None
        while error is None and written < 100:
            try:
                written += lake.append("completions", make_completions([f"{written}"], text=os.urandom(60_000).hex()))
            except WarehouseError as stopped:
                error = str(stopped)
        assert error is not None
        assert re.fullmatch(r"warehouse .*: there is no space left for .*small/data or the catalog: .*", error)
        assert lake.query("SELECT count(*), min(length(text)) FROM completions").row(0) == (written, 120_000)
    assert written > 3
    with Lake.open(settings, read_only=True) as lake:
        assert lake.query("SELECT count(DISTINCT text) FROM completions").item() == written
    strays = []
    with Lake.open(settings) as lake:
        strays = find_strays(lake)
        for stray in strays:
            Path(stray).unlink()
        assert lake.append("selections", make_selections(["p"])) == 1


def test_full_disk_of_the_catalog(make_small_disk: SmallDisk, tmp_path: Path) -> None:
    small_disk = make_small_disk(tmp_path / "small", 2)
    settings = WarehouseSettings(catalog=str(small_disk / "catalog.sqlite"), data=str(tmp_path / "data"))
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
        room = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(b"x" * (room.f_bavail * room.f_bsize))
        written, error = 1, None
        while error is None and written < 300:
            try:
                written += lake.append("selections", make_selections([f"{written}"]))
            except WarehouseError as stopped:
                error = str(stopped)
        assert error is not None
        assert "there is no space left for" in error, error
        (small_disk / "filler").unlink()
        assert lake.query("SELECT count(*), count(DISTINCT prompt_id) FROM selections").row(0) == (written, written)
        assert lake.append("selections", make_selections(["more"])) == 1
    with Lake.open(settings) as lake:
        assert lake.query("SELECT count(*), count(DISTINCT prompt_id) FROM selections").row(0) == (written + 1,) * 2


def test_folder_without_permission(settings: WarehouseSettings, tmp_path: Path, unprivileged: list[str]) -> None:
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
    body = """
from schemas.errors import WarehouseError
try:
    with Lake.open(settings) as lake:
        print(lake.append("selections", make_selections(["q"])))
except WarehouseError as error:
    print(error)
"""
    locks = Path(settings.catalog).with_name("catalog.sqlite.locks")
    subprocess.run(["chmod", "-R", "a-w", locks], check=True)
    said = finish(start(settings, body, run_as=unprivileged))
    subprocess.run(["chmod", "-R", "u+w", locks], check=True)
    assert re.match(r"the warehouse cannot be written: Permission denied \(.*catalog\.sqlite\.locks", said), said
    subprocess.run(["chmod", "-R", "a-w", settings.data], check=True)
    said = finish(start(settings, body, run_as=unprivileged))
    subprocess.run(["chmod", "-R", "u+w", settings.data], check=True)
    assert re.search(r"there is no permission to write or read .*data/main/selections/", said), said
    assert finish(start(settings, body, run_as=unprivileged)).strip() == "1"


@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "missing"])
def test_damaged_data_file_is_named_and_the_rest_is_readable(settings: WarehouseSettings, damage: str) -> None:
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions(["a"]))
        lake.append("selections", make_selections(["p"]))
    (file,) = data_files(settings, "completions")
    whole = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(whole[:-100])
        case _:
            file.write_bytes(b"" if damage == "empty" else b"x" * len(whole))
    with Lake.open(settings) as lake:
        for read in (lambda: lake.query("SELECT text FROM completions"), lambda: list(lake.stream("FROM completions"))):
            with pytest.raises(
                WarehouseError, match=rf"data file {re.escape(str(file))} is (damaged|missing)"
            ) as caught:
                read()
            assert "\n" not in str(caught.value)
        assert lake.query("SELECT prompt_id FROM selections").item() == "p"
        assert lake.append("selections", make_selections(["q"])) == 1
    file.write_bytes(whole)
    with Lake.open(settings) as lake:
        assert lake.query("SELECT completion_id FROM completions").item() == "a"


def test_foreign_files_are_reported_never_read_nor_removed(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions(["a"]))
        own = data_files(settings, "completions")
        strange = own[0].with_name("part-0.parquet")
        strange.write_bytes(b"not Parquet")
        copied = own[0].with_name("ducklake-00000000-0000-7000-8000-000000000000.parquet")
        shutil.copy(own[0], copied)
        (Path(settings.data) / "notes.txt").write_text("a note")
        lake.append("completions", make_completions(["b"]))
        lake.compact()
        assert lake.query("SELECT count(*) FROM completions").item() == 2
        assert find_strays(lake) == sorted([str(strange), str(copied)])
        assert strange.exists()
        assert copied.exists()


def test_catalog_that_is_none(settings: WarehouseSettings, tmp_path: Path) -> None:
    catalog = Path(settings.catalog)
    refused(settings, f"there is no warehouse at {catalog}; a build makes one", read_only=True)
    assert not catalog.exists()
    catalog.write_bytes(b"garbage" * 1000)
    refused(settings, r"catalog\.sqlite: the file is not a SQLite database")
    refused(settings, r"catalog\.sqlite: the file is not a SQLite database", read_only=True)
    assert catalog.read_bytes() == b"garbage" * 1000
    catalog.unlink()
    with sqlite3.connect(catalog) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    other.close()
    refused(settings, "is a SQLite database of something else, with the tables bookmarks")
    catalog.unlink()
    catalog.mkdir()
    refused(settings, "missing or there is no permission to open it")
    refused(WarehouseSettings(catalog="mysql://root@host/db"), r"the catalog is a mysql:// URL; allowed are")


def test_catalog_of_another_ducklake(settings: WarehouseSettings) -> None:
    Lake.open(settings).close()
    with sqlite3.connect(settings.catalog) as catalog:
        catalog.execute("UPDATE ducklake_metadata SET value = '9.7' WHERE key = 'version'")
    catalog.close()
    refused(settings, r"the DuckLake format 9\.7, and this factory reads 1\.0:")
    with sqlite3.connect(settings.catalog) as catalog:
        catalog.execute("UPDATE ducklake_metadata SET value = '1.0' WHERE key = 'version'")
        catalog.execute("UPDATE ducklake_table SET table_name = 'strange' WHERE table_name = 'schema_version'")
    catalog.close()
    refused(settings, "but no schema version: it is a DuckLake of something else")


def test_truncated_catalog(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
    catalog = Path(settings.catalog)
    catalog.write_bytes(catalog.read_bytes()[:20_000])
    refused(settings, r"catalog's file is damaged: restore it from a copy")


def test_data_folder_gone_or_another(settings: WarehouseSettings, tmp_path: Path) -> None:
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
    other = settings.model_copy(update={"data": str(tmp_path / "other")})
    refused(other, rf"its data lies in {tmp_path}/data, and the settings name {tmp_path}/other: set \[warehouse\] data")
    Path(settings.data).rename(tmp_path / "away")
    refused(settings, rf"its data folder {tmp_path}/data with \d+ files is missing")
    (tmp_path / "away").rename(settings.data)
    with Lake.open(settings) as lake:
        assert lake.query("SELECT prompt_id FROM selections").item() == "p"


def test_mistakes_in_sql_are_one_sentence(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        for sql in ("SELEC 1", "SELECT nothing FROM prompts", "FROM no_such_table"):
            with pytest.raises(WarehouseError) as caught:
                lake.query(sql)
            assert "\n" not in str(caught.value)
        lake.close()
        with pytest.raises(WarehouseError, match="already closed"):
            lake.query("SELECT 1")


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("busy", [False, True])
def test_a_read_only_disk_is_read(settings: WarehouseSettings, tmp_path: Path, busy: bool, old: bool) -> None:
    """Whether or not its catalog was written ahead when the disk became one."""
    body = """
import sys
from schemas.errors import WarehouseError
from warehouse.lake import migrations
if %r:
    migrations.MIGRATIONS = (*migrations.MIGRATIONS, ("ALTER TABLE selections ADD COLUMN note VARCHAR",))
for read_only in (True, False):
    try:
        with Lake.open(settings, read_only=read_only) as lake:
            print(lake.query("SELECT prompt_id FROM selections").item())
    except WarehouseError as error:
        print(error)
"""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77; exec "$@"'
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["p"]))
        if not busy:
            lake.close()
        run = start(settings, body % old, run_as=["unshare", "--mount", "bash", "-c", mount, str(tmp_path)])
        said, err = run.communicate(timeout=GUARD_SECONDS)
    if run.returncode == 77 or "unshare failed" in err:
        pytest.skip("this user may not mount")
    read, written = said.splitlines()
    if old:
        assert "run this command once as a user who may write there" in read
    else:
        assert read == "p"
    assert written in read or not old
    assert "its file system is mounted for reading only" in written
