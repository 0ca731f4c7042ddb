"""Whatever users do with the files of a warehouse, no catalog that has its folder loses a row.

A catalog that was copied or backed up alone reads the files of its original, which cleans up without knowing of it; from
then on it is out of date. Once such a one was put in its original's place, nothing is deleted from under any of them.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from tests.warehouse.lake_rows import make_selections
from warehouse.catalog.data_folder import KEEP
from warehouse.lake.lake import Lake

DO = st.sampled_from(["append", "append", "clean_up", "clean_up", "copy", "move", "copy_catalog", "back_up", "restore"])

STEPS = st.lists(st.tuples(DO, st.integers(0, 20), st.integers(0, 20)), min_size=3, max_size=7)


@dataclass
class Known:
    """A catalog's file, where its data lies, and the rows that it must have."""

    path: Path
    data: Path
    rows: set[str]

    @property
    def settings(self) -> WarehouseSettings:
        return WarehouseSettings(catalog=str(self.path), data=str(self.data))


@dataclass
class World:
    """A folder with warehouses, and a user who does this and that with their files."""

    home: Path
    known: list[Known] = field(default_factory=list)
    num_made: int = 0

    def name(self) -> str:
        self.num_made += 1
        return f"{self.num_made} l'été"

    def append(self, one: Known) -> None:
        row = self.name()
        if self._write(one, lambda lake: lake.append("selections", make_selections([row]))):
            one.rows.add(row)

    def clean_up(self, one: Known) -> None:
        if self._write(one, lambda lake: lake.compact(keep=timedelta(days=-1))) and not (one.data / KEEP).exists():
            self.known = [each for each in self.known if each is one or each.data != one.data]
        self.check()

    def _write(self, one: Known, change: Callable[[Lake], object]) -> bool:
        """Change a warehouse; return false where it is refused because the data is another's."""
        try:
            with Lake.open(one.settings) as lake:
                change(lake)
        except WarehouseError as error:
            if "belongs to the catalog" not in str(error):
                raise
            return False
        return True

    def copy(self, one: Known) -> None:
        old, new = one.path.parent, self.home / self.name()
        shutil.copytree(old, new)
        self.known += [Known(*self._places(each, old, new), set(each.rows)) for each in self._in(old)]

    def move(self, one: Known) -> None:
        old, new = one.path.parent, self.home / self.name()
        here = self._in(old)
        old.rename(new)
        for each in self.known:
            each.path, each.data = self._places(each, old, new)
        assert all(each.path.parent == new for each in here)

    def copy_catalog(self, one: Known) -> None:
        folder = self.home / self.name()
        folder.mkdir()
        self.known.append(Known(Path(shutil.copy(one.path, folder)), one.data, set(one.rows)))

    def back_up(self, one: Known) -> None:
        file = one.path.with_name(f"{self.name()}.sqlite")
        self.known.append(Known(Path(shutil.copy(one.path, file)), one.data, set(one.rows)))

    def restore(self, one: Known, other: Known) -> None:
        """Put a catalog in the place of another of the same data: over it, or after it was deleted."""
        if one is other or one.data != other.data:
            return
        if self.num_made % 2:
            other.path.unlink()
        shutil.copy(one.path, other.path)
        other.rows = set(one.rows)

    def check(self) -> None:
        for one in self.known:
            with Lake.open(one.settings, read_only=True) as lake:
                assert set(lake.query("SELECT prompt_id FROM selections")["prompt_id"]) == one.rows, one

    def _in(self, folder: Path) -> list[Known]:
        return [each for each in self.known if each.path.parent == folder]

    def _places(self, each: Known, old: Path, new: Path) -> tuple[Path, Path]:
        return tuple(
            new / place.relative_to(old) if old in place.parents else place for place in (each.path, each.data)
        )  # type: ignore[return-value]


@settings(
    deadline=None, max_examples=4, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(steps=STEPS)
@example(steps=[("back_up", 0, 0), ("append", 0, 0), ("back_up", 0, 0), ("restore", 1, 0), ("clean_up", 0, 0)])
@example(steps=[("copy_catalog", 0, 0), ("append", 0, 0), ("append", 1, 0), ("clean_up", 1, 0), ("move", 0, 0)])
def test_no_catalog_loses_a_row(steps: list[tuple[str, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "lake"
        world = World(Path(folder), [Known(home / "catalog.sqlite", home / "data", set())])
        world.append(world.known[0])
        world.append(world.known[0])
        assert len(world.known[0].rows) == 2
        for name, first, second in steps:
            one, other = (world.known[number % len(world.known)] for number in (first, second))
            getattr(world, name)(*((one, other) if name == "restore" else (one,)))
        world.check()
