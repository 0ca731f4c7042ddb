"""What differs between two exports."""

from pathlib import Path

import polars as pl
from rich.console import Console

from flows.terminal import make_table
from schemas.errors import FactoryError
from schemas.recipe.settings import WarehouseSettings
from warehouse.export.diff import diff_exports
from warehouse.lake.lake import Lake


def print_diff(before: str, after: str, warehouse: WarehouseSettings, recipe: str | None = None) -> None:
    """Print what differs between two exports: rows by config, split and language, and their sums.

    Raises:
        FactoryError: one of them is not there, or its files cannot be read.
    """
    diff = diff_exports(_find_export(before, warehouse, recipe), _find_export(after, warehouse, recipe))
    old, new = (f"{manifest.name} {manifest.version}" for manifest in (diff.before, diff.after))
    console = Console()
    counts = ("added", "removed", "changed")
    if not diff.is_empty:
        changes = diff.rows.filter(pl.sum_horizontal(counts) > 0)
        console.print(make_table(changes, f"from {old} to {new}"))
    sums = diff.rows.select(pl.sum(*counts, "unchanged")).row(0, named=True)
    listed = ", ".join(f"{number:,} {name}" for name, number in sums.items())
    console.print(f"from {old} to {new}: rows {listed}", highlight=False, soft_wrap=True)


def _find_export(name: str, warehouse: WarehouseSettings, recipe: str | None) -> Path:
    """Return the folder of an export that is named by it, or by the beginning of its version or id in the warehouse."""
    if Path(name).is_dir() or "/" in name:
        return Path(name)
    with Lake.open(warehouse, read_only=True) as lake:
        recorded = lake.rows("SELECT export_id, path FROM exports ORDER BY created_at")
    own = [(key, Path(path)) for key, path in recorded if recipe in (None, Path(path).parent.name)]
    found = {path for key, path in own if key.startswith(name) or path.name.startswith(name)}
    if len(found) == 1:
        return found.pop()
    listed = ", ".join(str(path) for _, path in own if not found or path in found) or "none"
    if found:
        raise FactoryError(f"several exports are called {name!r}: {listed}; name more of its version, or its folder")
    raise FactoryError(f"there is no export {name!r}: not a folder, and not among those that are recorded ({listed})")
