"""``factory export diff``: what differs between two versions, named by folder, version or id."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from schemas.errors import FactoryError
from tests.warehouse.small_build import CONFIG_ID, fill_lake, make_recipe
from warehouse.export.export import ExportResult, export_build
from warehouse.lake.lake import Lake


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportResult, ExportResult]:
    """A folder with two versions, of which the second has an answer and a pair less."""
    folder = tmp_path_factory.mktemp("exports")
    recipe = make_recipe(folder)
    with Lake.open(recipe.warehouse) as lake:
        fill_lake(lake, recipe, num_roots=6)
        before = export_build(lake, CONFIG_ID, recipe, folder / "exports")
        lake.delete("selections", "prompt_id = '0001-ar'")
        lake.delete("pairs", "prompt_id = '0002-ja' AND strategy = 'best_vs_worst'")
        after = export_build(lake, CONFIG_ID, recipe, folder / "exports")
    return folder, before, after


def diff(folder: Path, *names: object) -> str:
    arguments = ["export", "diff", *map(str, names), "--warehouse", str(folder / "lake")]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_rows_that_differ_are_shown_by_language(exports):
    folder, before, after = exports
    said = diff(folder, before.path, after.path)
    rows = [tuple(cell.strip() for cell in line.strip("│").split("│")) for line in said.splitlines() if "│" in line]
    assert [row[:-1] for row in rows] == [
        ("preference", "train", "ja", "0", "1", "0"),
        ("sft", "train", "ar", "0", "1", "0"),
    ]
    sums = f"from small {before.manifest.version} to small {after.manifest.version}: rows 0 added, 2 removed, 0 changed"
    assert sums in said


def test_versions_and_ids_are_found_in_the_warehouse(exports):
    folder, before, after = exports
    by_folder = diff(folder, before.path, after.path)
    assert diff(folder, "v0001", "v0002") == by_folder
    assert diff(folder, before.export_id[:8], after.export_id) == by_folder


def test_equal_versions_have_no_table(exports):
    folder, before, _ = exports
    said = diff(folder, "v0001", "v0001")
    assert "│" not in said
    num_rows = sum(before.manifest.num_rows(config) for config in before.manifest.counts)
    assert f"rows 0 added, 0 removed, 0 changed, {num_rows:,} unchanged" in said


def test_what_is_no_export_is_a_sentence(exports):
    folder, before, after = exports
    with pytest.raises(FactoryError, match=f"several exports are called 'v': {before.path}, {after.path}; name more"):
        diff(folder, "v", "v0001")
    with pytest.raises(
        FactoryError, match=f"there is no export 'v0009': .* recorded \\({before.path}, {after.path}\\)"
    ):
        diff(folder, "v0001", "v0009")
    with pytest.raises(FactoryError, match="is not a finished export"):
        diff(folder, "v0001", folder)
