"""Warehouses that are moved, copied and restored: each opens where it lies, and none deletes what another needs."""

import json
import os
import shutil
import sqlite3
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from tests.warehouse.lake_rows import make_selections, warehouse_at
from warehouse.catalog.data_folder import KEEP, MARK
from warehouse.lake.lake import Lake

STRANGE = 'l\'été "of" 湖 بحيرة'
"""A folder's name with quotes, spaces, accents and more than one script."""


def append(settings: WarehouseSettings, *names: str) -> None:
    """Write each row in a file of its own."""
    with Lake.open(settings) as lake:
        for name in names:
            lake.append("selections", make_selections([name]))


def clean_up(settings: WarehouseSettings) -> None:
    """Merge the files and delete what nobody needs any more, as if a day had passed."""
    with Lake.open(settings) as lake:
        lake.compact(keep=timedelta(days=-1))


def rows(settings: WarehouseSettings) -> list[str]:
    with Lake.open(settings, read_only=True) as lake:
        return lake.query("SELECT prompt_id FROM selections ORDER BY ALL")["prompt_id"].to_list()


def refused(settings: WarehouseSettings) -> str:
    """Return with which sentence a warehouse is refused to writers."""
    with pytest.raises(WarehouseError) as caught:
        append(settings, "refused")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def age(folder: Path) -> None:
    """Make a warehouse look as it was made before data folders were marked: with the path of its first place only."""
    (folder / "data" / MARK).unlink()
    with sqlite3.connect(folder / "catalog.sqlite") as catalog:
        catalog.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'data_path'", [f"{folder}/data/"])
    catalog.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a warehouse of the rows ``a`` and ``b``."""
    folder = tmp_path / STRANGE / "a"
    append(warehouse_at(folder), "a", "b")
    return folder


@pytest.mark.parametrize("old", [False, True])
def test_a_moved_warehouse_is_the_same(home: Path, old: bool) -> None:
    if old:
        age(home)
    moved = home.rename(home.with_name("moved to here"))
    assert rows(warehouse_at(moved)) == ["a", "b"]
    append(warehouse_at(moved), "c")
    clean_up(warehouse_at(moved))
    assert rows(warehouse_at(moved)) == ["a", "b", "c"]
    assert len(list((moved / "data/main/selections").iterdir())) == 1
    assert not (moved / "data" / KEEP).exists()
    assert not home.exists()


@pytest.mark.parametrize("old", [False, True])
def test_a_copy_and_its_original_go_their_own_ways(home: Path, old: bool) -> None:
    if old:
        age(home)
    copy = Path(shutil.copytree(home, home.with_name("b")))
    assert rows(warehouse_at(copy)) == ["a", "b"]
    for settings, name in ((warehouse_at(copy), "of the copy"), (warehouse_at(home), "of the original")):
        append(settings, name)
        clean_up(settings)
    assert rows(warehouse_at(copy)) == ["a", "b", "of the copy"]
    assert rows(warehouse_at(home)) == ["a", "b", "of the original"]
    for folder in (copy, home):
        assert len(list((folder / "data/main/selections").iterdir())) == 1
    shutil.rmtree(home)
    assert rows(warehouse_at(copy)) == ["a", "b", "of the copy"]


@pytest.mark.parametrize("old", [False, True])
def test_a_copied_catalog_cannot_write_to_the_data_of_its_original(home: Path, old: bool) -> None:
    if old:
        age(home)
    other = home.with_name("o'ther one")
    other.mkdir()
    shutil.copy(home / "catalog.sqlite", other)
    copied = WarehouseSettings(catalog=str(other / "catalog.sqlite"), data=str(home / "data"))
    before = {path: path.stat().st_mtime_ns for path in (home / "data").rglob("*.parquet")}
    said = refused(copied)
    assert f"its data folder {home}/data belongs to the catalog {home}/catalog.sqlite, of which this one is" in said
    assert {path: path.stat().st_mtime_ns for path in (home / "data").rglob("*.parquet")} == before
    assert rows(copied) == ["a", "b"]
    command = said[said.index("(cp -r ") + 1 : said.index(") and name")]
    assert os.system(command) == 0
    own = copied.model_copy(update={"data": str(other / "catalog-data")})
    append(own, "c")
    clean_up(own)
    append(warehouse_at(home), "d")
    clean_up(warehouse_at(home))
    assert rows(own) == ["a", "b", "c"]
    assert rows(warehouse_at(home)) == ["a", "b", "d"]


@pytest.mark.parametrize("old", [False, True])
def test_a_second_catalog_beside_the_first_is_refused(home: Path, old: bool) -> None:
    if old:
        age(home)
    shutil.copy(home / "catalog.sqlite", home / "another.sqlite")
    second = warehouse_at(home).model_copy(update={"catalog": str(home / "another.sqlite")})
    assert f"belongs to the catalog {home}/catalog.sqlite" in refused(second)
    assert not (home / "data" / KEEP).exists()
    append(warehouse_at(home), "c")
    clean_up(warehouse_at(home))
    assert rows(warehouse_at(home)) == ["a", "b", "c"]
    assert (home / "data" / KEEP).exists() == old, "an older one may have been written to by both"


def test_an_older_warehouse_is_of_the_catalog_nearest_to_its_data(home: Path) -> None:
    age(home)
    above = home.parent / "catalog.sqlite"
    shutil.copy(home / "catalog.sqlite", above)
    copied = warehouse_at(home).model_copy(update={"catalog": str(above)})
    assert f"belongs to the catalog {home}/catalog.sqlite" in refused(copied)
    append(warehouse_at(home), "c")
    clean_up(warehouse_at(home))
    assert rows(warehouse_at(home)) == ["a", "b", "c"]
    assert f"belongs to the catalog {home}/catalog.sqlite" in refused(copied)


def test_of_older_catalogs_with_strange_names_the_nearest_has_the_data(home: Path) -> None:
    age(home)
    mine = (home / "catalog.sqlite").rename(home / "mine.sqlite")
    shutil.copy(mine, home.parent / "copy.sqlite")
    near, far = (
        warehouse_at(home).model_copy(update={"catalog": str(path)}) for path in (mine, home.parent / "copy.sqlite")
    )
    assert f"belongs to the catalog {mine}" in refused(far)
    append(near, "c")
    assert rows(near) == ["a", "b", "c"]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("how", ["hard links", "links", "linked catalog"])
def test_one_catalog_has_one_data_folder(home: Path, how: str, old: bool) -> None:
    """Of a copy whose catalog is a link to the original's, nothing can be written."""
    if old:
        age(home)
    other = home.with_name("b")
    options = {"hard links": "-al", "links": "-rs", "linked catalog": "-r"}[how]
    subprocess.run(["cp", options, home, other], check=True)
    if how == "linked catalog":
        (other / "catalog.sqlite").unlink()
        (other / "catalog.sqlite").symlink_to(home / "catalog.sqlite")
    assert rows(warehouse_at(other)) == ["a", "b"]
    said = refused(warehouse_at(other))
    assert f"its data lies in {home}/data, and the settings name {other}/data" in said
    assert "cp -rL" in said
    append(warehouse_at(home), "c")
    clean_up(warehouse_at(home))
    assert rows(warehouse_at(home)) == ["a", "b", "c"]
    if how != "hard links":  # its data, in which the new row is not
        with pytest.raises(WarehouseError, match="its data lies in"):
            rows(warehouse_at(other))
    own = home.with_name("a copy")
    subprocess.run(["cp", "-rL", home, own], check=True)
    append(warehouse_at(own), "of the copy")
    clean_up(warehouse_at(own))
    append(warehouse_at(home), "d")
    assert rows(warehouse_at(own)) == ["a", "b", "c", "of the copy"]
    assert rows(warehouse_at(home)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("old", [False, True])
def test_data_that_was_copied_has_moved_once_the_first_is_gone(home: Path, old: bool) -> None:
    if old:
        age(home)
    new = Path(shutil.copytree(home / "data", home.with_name("disk 2")))
    named = warehouse_at(home).model_copy(update={"data": str(new)})
    assert f"its data lies in {home}/data, and the settings name {new}" in refused(named)
    shutil.rmtree(home / "data")
    append(named, "c")
    clean_up(named)
    shutil.copytree(new, home / "data")  # as a backup would
    append(named, "d")
    said = refused(warehouse_at(home))
    assert f"its data lies in {new}, and the settings name {home}/data" in said
    with pytest.raises(WarehouseError, match="its data lies in"):
        rows(warehouse_at(home))
    shutil.rmtree(home / "data")
    assert f"its data lies in {new}, and the settings name {home}/data" in refused(warehouse_at(home))
    assert rows(named) == ["a", "b", "c", "d"]


def test_links_made_after_a_move_do_not_take_the_data(home: Path) -> None:
    """The place that a warehouse left has its data no longer, whatever is put there."""
    moved = home.rename(home.with_name("moved"))
    append(warehouse_at(moved), "c")
    subprocess.run(["cp", "-al", moved, home], check=True)
    append(warehouse_at(moved), "d")
    clean_up(warehouse_at(moved))
    assert f"its data lies in {moved}/data, and the settings name {home}/data" in refused(warehouse_at(home))
    assert rows(warehouse_at(moved)) == ["a", "b", "c", "d"]


def test_a_link_to_the_data_of_the_original_is_no_copy(home: Path) -> None:
    other = home.with_name("b")
    other.mkdir()
    shutil.copy(home / "catalog.sqlite", other)
    (other / "data").symlink_to(home / "data")
    assert f"belongs to the catalog {home}/catalog.sqlite" in refused(warehouse_at(other))


def test_one_warehouse_by_two_paths_is_one(home: Path) -> None:
    link = home.with_name("link")
    link.symlink_to(home)
    append(warehouse_at(link), "c")
    slashed = WarehouseSettings(catalog=f"{link}//catalog.sqlite", data=f"{link}/./data//")
    append(slashed, "d")
    clean_up(slashed)
    assert rows(warehouse_at(home)) == ["a", "b", "c", "d"]
    assert not (home / "data" / KEEP).exists()
    assert len(list((home / "data/main/selections").iterdir())) == 1


def test_data_on_another_disk_is_found_again_when_either_moves(home: Path) -> None:
    """The catalog's folder links to the data; first the one is moved, then the other."""
    big = home.with_name("big disk")
    (home / "data").rename(big)
    (home / "data").symlink_to(big)
    append(warehouse_at(home), "c")
    moved = home.rename(home.with_name("moved"))
    append(warehouse_at(moved), "d")
    bigger = big.rename(home.with_name("bigger disk"))
    named = WarehouseSettings(catalog=str(moved / "catalog.sqlite"), data=str(bigger))
    append(named, "e")
    clean_up(named)
    assert rows(named) == ["a", "b", "c", "d", "e"]
    assert not (bigger / KEEP).exists()


@pytest.mark.parametrize("in_place", [True, False])
def test_a_restored_catalog_deletes_nothing_that_a_newer_one_needs(home: Path, in_place: bool) -> None:
    settings, catalog = warehouse_at(home), home / "catalog.sqlite"
    backup = Path(shutil.copy(catalog, home.with_name("backup")))
    append(settings, "c")
    newer = Path(shutil.copy(catalog, home.with_name("newer")))

    def restore(path: Path) -> None:
        if not in_place:
            catalog.unlink()
        shutil.copy(path, catalog)

    restore(backup)
    append(settings, "d", "e")
    clean_up(settings)
    assert rows(settings) == ["a", "b", "d", "e"]
    restore(newer)
    assert rows(settings) == ["a", "b", "c"]
    clean_up(settings)
    restore(backup)
    assert rows(settings) == ["a", "b"]
    (home / "data" / KEEP).unlink()  # the user says that there is no other copy any more
    append(settings, "f")
    clean_up(settings)
    assert rows(settings) == ["a", "b", "f"]


def test_a_restored_backup_of_the_whole_cleans_up(home: Path) -> None:
    backup = shutil.copytree(home, home.with_name("backup"))
    append(warehouse_at(home), "c")
    home.rename(home.with_name("lost"))  # not deleted: a new folder with the inode of the old one would be kept whole
    shutil.copytree(backup, home)
    append(warehouse_at(home), "d")
    clean_up(warehouse_at(home))
    assert rows(warehouse_at(home)) == ["a", "b", "d"]
    assert len(list((home / "data/main/selections").iterdir())) == 1


def test_a_new_catalog_at_the_place_of_a_deleted_one_begins_anew(home: Path) -> None:
    for path in home.glob("catalog.sqlite*"):
        if path.is_file():
            path.unlink()
    append(warehouse_at(home), "z")
    clean_up(warehouse_at(home))
    assert rows(warehouse_at(home)) == ["z"]
    assert len(list((home / "data/main/selections").iterdir())) == 3, "the files of the deleted one are left alone"


def test_the_folder_of_another_warehouse_is_refused(home: Path, tmp_path: Path) -> None:
    new = WarehouseSettings(catalog=str(tmp_path / "new.sqlite"), data=str(home / "data"))
    assert f"belongs to the catalog {home}/catalog.sqlite, of another warehouse" in refused(new)
    assert not (tmp_path / "new.sqlite").exists()
    append(warehouse_at(tmp_path / "other"), "x")
    wrong = warehouse_at(home).model_copy(update={"data": str(tmp_path / "other/data")})
    for read_only in (True, False):
        with pytest.raises(WarehouseError, match=f"its data is not in {tmp_path}/other/data|lies in"):
            Lake.open(wrong, read_only=read_only)
    (tmp_path / "empty").mkdir()
    wrong = warehouse_at(home).model_copy(update={"data": str(tmp_path / "empty")})
    assert f"its data lies in {home}/data, and the settings name {tmp_path}/empty: set [warehouse] data" in refused(
        wrong
    )


def test_a_damaged_mark_is_named(home: Path) -> None:
    mark = home / "data" / MARK
    text = mark.read_text()
    assert json.loads(text)["catalog"] == "../catalog.sqlite"
    mark.write_text("{")
    assert f"{mark} is damaged; restore it from a copy, or delete it" in refused(warehouse_at(home))
    mark.write_text(text)
    assert rows(warehouse_at(home)) == ["a", "b"]


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_a_lost_file_is_named_with_all_of_its_strange_path(home: Path, damage: str) -> None:
    file = next((home / "data/main/selections").iterdir())
    content = file.read_bytes()
    file.unlink()
    if damage == "damaged":
        file.write_bytes(content[:-50])
    with pytest.raises(WarehouseError) as caught:
        rows(warehouse_at(home))
    assert f"its data file {file} is {damage}" in str(caught.value)
