"""Whose a data folder is: a mark in it names its one catalog, so that no second catalog ever cleans up there.

A copied catalog knows the same files as its original and would delete what the other still needs. So the mark says
where its catalog lies, seen from the folder, and which file or database that is: a warehouse that is moved or copied as
a whole takes its mark along, and a catalog that was copied alone is told apart. Where that stays unsure, the folder is
kept whole: clean-ups delete nothing in it.
"""

import json
import os
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import Literal

import duckdb
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from warehouse.catalog.catalog import METADATA, Catalog, find_lake_id, is_remote, read_lake_id
from warehouse.catalog.small_files import has_file, read_file, write_file
from warehouse.statements import literal

MARK = "owner.json"

KEEP = "keep-all-files"
"""While a file of this name lies in a data folder, clean-ups delete nothing there."""

_WHY_KEEP = """\
The catalog of this folder was restored or replaced, or is older than such marks, so that another copy of it may need
files which it no longer needs itself: clean-ups delete nothing here. Delete this file once there is no other copy.
"""

Place = Literal["same", "another", "gone"]
"""What lies where a mark says its catalog is: ours, another one, or none that can be seen from here."""

Verdict = Literal["ours", "keep", "another", "gone"]
"""Whose a folder is. ``keep``: ours, but another copy of the catalog may need its files."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The catalog of a data folder.

    ``lake`` is an id that copies of a catalog share; ``catalog`` is its path from the folder, or its address;
    ``catalog_file`` tells the file or database from its copies, and ``data`` the folder from its; ``snapshot`` is the
    latest that is known to have written here, 0 before the first tables.
    """

    lake: str
    catalog: str
    catalog_file: str
    data: str
    snapshot: int

    def is_like(self, other: "Owner") -> bool:
        """Whether both name the same catalog and folder, at whatever snapshot."""
        return asdict(self) | {"snapshot": 0} == asdict(other) | {"snapshot": 0}


def judge(mark: Owner, ours: Owner, place: Place) -> Verdict:
    """Return whose a folder is that has a mark, when ``place`` is what lies where the mark says its catalog is."""
    if mark.lake != ours.lake:  # "same": a catalog that was deleted or replaced; a new one knows none of its files
        return ("keep" if ours.snapshot else "ours") if place == "same" else place
    is_that_catalog, is_that_folder = mark.catalog_file == ours.catalog_file, mark.data == ours.data
    if place == "another" or (place == "gone" and is_that_folder and not is_that_catalog):
        return place
    is_older = ours.snapshot < mark.snapshot
    is_unsure = not is_that_catalog and (is_that_folder or place == "gone")
    return "keep" if is_older or is_unsure else "ours"


class DataFolder:
    """The data folder of a catalog and its mark. Changes are made under the warehouse's write lock."""

    def __init__(self, catalog: Catalog, connection: duckdb.DuckDBPyConnection) -> None:
        self._catalog = catalog
        self._connection = connection
        self._data = catalog.data.rstrip("/") or "/"

    def refuse_for_new(self) -> None:
        """Refuse a folder with the data of another warehouse before a new catalog is made for it."""
        mark = self._read_mark()
        if mark and (place := self._find_place(mark)) != "same":
            raise self._refusal(mark, place, is_same_lake=False)

    def check(self) -> None:
        """Make sure that the data is here, and not that of another warehouse.

        Raises:
            WarehouseError: it is elsewhere, or missing.
        """
        mark, lake = self._read_mark(), read_lake_id(self._connection)
        is_its = mark is not None and mark.lake == lake
        file = self._find_known_file()
        is_here = not file or has_file(self._connection, self._data, file)
        if not is_here and (not is_its or self._is_elsewhere()):
            raise self._missing()
        if is_its:
            return
        if mark and (place := self._find_place(mark)) != "same":
            raise self._refusal(mark, place, is_same_lake=False)

    def claim(self) -> None:
        """Mark the folder as this catalog's.

        Raises:
            WarehouseError: it is another catalog's, or this catalog's data is still elsewhere; nothing was changed.
        """
        if self._is_elsewhere(surely=True):
            raise self._two_folders()
        mark, ours = self._read_mark(), self._describe()
        verdict = self._judge(mark, ours)
        if verdict == "keep" and not self._is_kept():
            write_file(self._connection, self._data, KEEP, _WHY_KEEP)
        if mark is None or not mark.is_like(ours):
            known = mark.snapshot if mark and mark.lake == ours.lake else 0
            self._write_mark(ours, max(ours.snapshot, known))
        if self._stored_path().rstrip("/") != self._data.rstrip("/"):
            self._connection.execute(
                f"UPDATE {METADATA}.ducklake_metadata SET value = {literal(self._data + '/')} WHERE key = 'data_path'"
            )

    def may_clean_up(self) -> bool:
        """Whether files that the catalog no longer needs may be deleted. The mark then names the snapshot of now.

        Raises:
            WarehouseError: another catalog has taken the folder meanwhile.
        """
        mark, ours = self._read_mark(), self._describe()
        if self._judge(mark, ours) != "ours" or self._is_kept():
            return False
        self._write_mark(ours, ours.snapshot)
        return True

    def note_snapshot(self) -> None:
        """Write down which snapshot wrote here last, so that an older catalog is recognised when it is restored."""
        mark, ours = self._read_mark(), self._describe()
        if mark and mark.is_like(ours) and mark.snapshot < ours.snapshot:
            self._write_mark(ours, ours.snapshot)

    def _is_kept(self) -> bool:
        return has_file(self._connection, self._data, KEEP)

    def _judge(self, mark: Owner | None, ours: Owner) -> Verdict:
        if mark is None:
            return self._judge_unmarked(ours)
        place = self._find_place(mark)
        verdict = judge(mark, ours, place)
        if verdict in ("another", "gone"):
            raise self._refusal(mark, place, is_same_lake=mark.lake == ours.lake)
        return verdict

    def _judge_unmarked(self, ours: Owner) -> Verdict:
        """Judge a folder that is new, or older than marks: it is the catalog's in whose folder it lies."""
        catalog, folder = self._catalog.sqlite, self._catalog.data_folder
        if not ours.snapshot:
            return "ours"
        if catalog is None or folder is None:
            return "keep"
        original, copies = self._find_nearest(), self._find_others(ours.lake)
        is_beside = catalog.parent == folder.parent
        other = original if original and not original.samefile(catalog) else None
        if not original and copies and not is_beside:
            other = copies[0]
        if other:
            owner = replace(ours, catalog=os.path.relpath(other, folder))
            raise self._refusal(owner, "another", is_same_lake=True)
        return "ours" if catalog.parent in folder.parents and not copies else "keep"

    def _find_nearest(self) -> Path | None:
        """Return the catalog of this lake that has the default name and is nearest to the folder, in one around it."""
        folder, lake = self._catalog.data_folder, read_lake_id(self._connection)
        paths = (place / _DEFAULT_NAME for place in folder.parents) if folder else ()
        return next((path for path in paths if self._is_catalog_of(path, lake)), None)

    def _find_others(self, lake: str) -> list[Path]:
        """Return the other catalogs of this lake: those beside the folder, and those around it of the default name."""
        catalog, folder = self._catalog.sqlite, self._catalog.data_folder
        if catalog is None or folder is None:
            return []
        paths = [*sorted(folder.parent.iterdir()), *(place / _DEFAULT_NAME for place in folder.parent.parents)]
        return [path for path in paths if self._is_catalog_of(path, lake) and not path.samefile(catalog)]

    def _is_catalog_of(self, path: Path, lake: str) -> bool:
        own = self._catalog.sqlite
        if own and path.exists() and path.samefile(own):
            return True
        return find_lake_id(self._connection, path) == lake

    def _find_place(self, mark: Owner) -> Place:
        if mark.catalog == self._catalog_name:
            return "same"
        path = self._path_of(mark)
        if path is None or self._catalog.sqlite is None or not path.exists():
            return "gone"
        if self._catalog.sqlite.exists() and path.samefile(self._catalog.sqlite):
            return "same"
        is_of_original = _name_file(path) == mark.catalog_file and mark.data != self._data_name
        is_its = find_lake_id(self._connection, path) in (mark.lake, None)
        return "another" if is_its and not is_of_original else "gone"

    def _path_of(self, mark: Owner) -> Path | None:
        """Return where a mark says that its catalog is; none where no file system says so."""
        if is_remote(mark.catalog):
            return None
        folder = self._catalog.data_folder
        return Path(os.path.normpath(folder / mark.catalog)) if folder else Path(mark.catalog)

    @cached_property
    def _catalog_name(self) -> str:
        path, folder = self._catalog.sqlite, self._catalog.data_folder
        return self._catalog.shown if path is None else os.path.relpath(path, folder) if folder else str(path)

    @property
    def _data_name(self) -> str:
        folder = self._catalog.data_folder
        return _name_file(folder) if folder and folder.exists() else self._data

    def _describe(self) -> Owner:
        snapshot = self._connection.execute("SELECT id FROM ducklake_current_snapshot('lake')").fetchall()[0][0]
        lake = read_lake_id(self._connection)
        return Owner(lake, self._catalog_name, self._name_catalog_file(), self._data_name, int(snapshot))

    def _name_catalog_file(self) -> str:
        if self._catalog.sqlite is not None:
            return _name_file(self._catalog.sqlite)
        return str(self._connection.execute(_DATABASE).fetchall()[0][0])

    def _read_mark(self) -> Owner | None:
        text = read_file(self._connection, self._data, MARK)
        try:
            return None if text is None else TypeAdapter(Owner).validate_json(text)
        except ValidationError:
            raise WarehouseError(
                f"the warehouse {self._catalog.shown}: {self._data}/{MARK} is damaged; restore it from a copy, or delete it"
            ) from None

    def _write_mark(self, ours: Owner, snapshot: int) -> None:
        write_file(self._connection, self._data, MARK, json.dumps(asdict(replace(ours, snapshot=snapshot))) + "\n")

    def _find_known_file(self) -> str | None:
        row = self._connection.execute(_KNOWN_FILE).fetchone()
        return None if row is None else str(row[0])

    def _missing(self) -> WarehouseError:
        folder = self._catalog.data_folder
        if self._is_elsewhere():
            return WarehouseError(f"{self._says_elsewhere()}: set [warehouse] data to the first")
        says = f"warehouse {self._catalog.shown}: its data "
        if folder is None or folder.exists():
            return WarehouseError(f"{says}is not in {self._data}: set [warehouse] data to the folder that holds it")
        row = self._connection.execute("SELECT sum(file_count) FROM ducklake_table_info('lake')").fetchone()
        return WarehouseError(f"{says}folder {folder} with {row[0] if row else 0} files is missing")

    def _two_folders(self) -> WarehouseError:
        return WarehouseError(
            f"{self._says_elsewhere()}, a copy: set [warehouse] data to the first, or delete the first if the copy is to "
            "take its place; a second warehouse needs a catalog of its own, and not a link to this one, as cp -rL makes it"
        )

    def _says_elsewhere(self) -> str:
        kept = self._stored_path().rstrip("/")
        return f"warehouse {self._catalog.shown}: its data lies in {kept}, and the settings name {self._data}"

    def _is_elsewhere(self, *, surely: bool = False) -> bool:
        """Whether the folder that the catalog names is another than this one, holds its data and is no other catalog's.

        Without a mark there, a catalog with no other one near that folder may be its owner or a copy of that; with
        ``surely`` it is then no owner.
        """
        kept = self._stored_path().rstrip("/")
        if kept == self._data or is_remote(kept) != is_remote(self._data):
            return False
        if not is_remote(kept) and (not Path(kept).is_dir() or _is_same_file(Path(kept), Path(self._data))):
            return False
        there = DataFolder(replace(self._catalog, data=kept), self._connection)
        if mark := there._read_mark():
            place = there._find_place(mark)
            is_moved = place == "gone" and mark.catalog_file == self._name_catalog_file()
            return mark.lake == read_lake_id(self._connection) and (place == "same" or is_moved)
        if not (file := self._find_known_file()) or not has_file(self._connection, kept, file):
            return False
        nearest = there._find_nearest()
        if nearest is None or self._catalog.sqlite is None:
            return not surely
        return nearest.samefile(self._catalog.sqlite)

    def _stored_path(self) -> str:
        sql = f"SELECT value FROM {METADATA}.ducklake_metadata WHERE key = 'data_path'"
        return str(self._connection.execute(sql).fetchall()[0][0])

    def _refusal(self, mark: Owner, place: Place, *, is_same_lake: bool) -> WarehouseError:
        owner = self._path_of(mark) or mark.catalog
        says = f"warehouse {self._catalog.shown}: its data folder {self._data} belongs to the catalog {owner}"
        if not is_same_lake:
            return WarehouseError(f"{says}, of another warehouse: name another folder in [warehouse] data")
        whole = f"{says}, of which this one is a copy, and two must not write there: use that one, or "
        if self._catalog.sqlite and self._catalog.data_folder:
            own = self._catalog.sqlite.with_name(f"{self._catalog.sqlite.stem}-data")
            whole += (
                f"copy its data (cp -r {quote(self._data)} {quote(str(own))}) and name the copy in [warehouse] data"
            )
        else:
            whole += "copy its data and name the copy in [warehouse] data"
        lost = f"; if that one is gone for good, delete {quote(f'{self._data}/{MARK}')}" if place == "gone" else ""
        return WarehouseError(whole + lost)


_DEFAULT_NAME = Path(WarehouseSettings().catalog).name

_KNOWN_FILE = f"""
WITH file AS (
    SELECT data_file_id AS id, table_id, path FROM {METADATA}.ducklake_data_file
    WHERE end_snapshot IS NULL AND path_is_relative::BOOLEAN
    UNION ALL
    SELECT delete_file_id, table_id, path FROM {METADATA}.ducklake_delete_file
    WHERE end_snapshot IS NULL AND path_is_relative::BOOLEAN
)
SELECT concat(s.path, t.path, f.path) FROM file AS f
JOIN {METADATA}.ducklake_table AS t USING (table_id) JOIN {METADATA}.ducklake_schema AS s USING (schema_id)
ORDER BY f.id DESC LIMIT 1
"""
"""The latest file: a copy of the data that was made before it does not have it."""

_DATABASE = f"""
SELECT * FROM postgres_query('{METADATA}', $$
    SELECT concat_ws(' ', system_identifier, 'ducklake_metadata'::regclass::oid, (SELECT oid FROM pg_database WHERE datname = current_database()))
    FROM pg_control_system() $$)
"""
"""Tells a database from its copies, on whatever server they are."""


def _name_file(path: Path) -> str:
    return f"inode {path.stat().st_ino}"


def _is_same_file(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)
