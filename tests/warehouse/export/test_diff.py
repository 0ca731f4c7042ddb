from pathlib import Path

import polars as pl
import pytest

from schemas.errors import WarehouseError
from tests.warehouse.small_build import CONFIG_ID, answer_id, fill_lake, make_recipe
from warehouse.export.diff import ExportDiff, diff_exports
from warehouse.export.export import export_build
from warehouse.lake.lake import Lake


def changes(diff: ExportDiff, config: str) -> dict[tuple[str, str], tuple[int, int, int]]:
    """The rows of a config in which something changed, as (added, removed, changed) by split and language."""
    rows = diff.rows.filter(pl.col("config") == config, pl.sum_horizontal("added", "removed", "changed") > 0)
    return {row[1:3]: row[3:6] for row in rows.iter_rows()}


def test_added_removed_and_changed_rows_by_language_in_either_format(tmp_path: Path) -> None:
    recipe, as_lines = make_recipe(tmp_path), make_recipe(tmp_path, export={"formats": ["jsonl"]})
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=6)
        before = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports").path
        lake.delete("selections", "prompt_id = '0001-ar'")
        lake.delete("pairs", "prompt_id = '0002-ja'")
        changed = [answer_id("0003-hi", "bold")]
        completion = lake.query("SELECT * FROM completions WHERE completion_id = ?", changed)
        lake.delete("completions", "completion_id = ?", changed)
        lake.append("completions", completion.with_columns(text=pl.lit("नया उत्तर")))
        after = export_build(lake, CONFIG_ID, as_lines, tmp_path / "exports").path
    diff = diff_exports(before, after)
    assert changes(diff, "sft") == {("train", "ar"): (0, 1, 0), ("train", "hi"): (0, 0, 1)}
    assert changes(diff, "preference") == {("train", "ja"): (0, 2, 0), ("train", "hi"): (0, 0, 2)}
    assert changes(diff_exports(after, before), "sft") == {("train", "ar"): (1, 0, 0), ("train", "hi"): (0, 0, 1)}
    assert diff.rows["unchanged"].sum() == 66 - 6
    assert diff.before.version.startswith("v0001")
    assert not diff.is_empty


def test_equal_rows_of_two_builds_differ_in_nothing(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=3)
        fill_lake(lake, recipe, num_roots=3, config_id="d" * 32)
        before = export_build(lake, CONFIG_ID, recipe, tmp_path / "exports")
        after = export_build(lake, "d" * 32, recipe, tmp_path / "exports")
    assert before.path != after.path
    diff = diff_exports(before.path, after.path)
    assert diff.is_empty
    assert diff.rows["unchanged"].sum() == before.manifest.num_rows("sft") + before.manifest.num_rows("preference")


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="is not a finished export"):
        diff_exports(tmp_path, tmp_path)
