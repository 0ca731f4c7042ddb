"""What ``doctor`` says of where a warehouse lies."""

from pathlib import Path

from flows.doctor.storage_checks import check_warehouse
from tests.warehouse.lake_rows import warehouse_at
from warehouse.catalog.data_folder import KEEP
from warehouse.lake.lake import Lake


def test_a_folder_that_is_kept_whole_is_named(tmp_path: Path) -> None:
    settings = warehouse_at(tmp_path / "l'été")
    Lake.open(settings).close()
    assert not [finding for finding in check_warehouse(settings, str(tmp_path)) if KEEP in finding.to_do]
    file = Path(settings.data) / KEEP
    file.touch()
    (found,) = [finding for finding in check_warehouse(settings, str(tmp_path)) if KEEP in finding.to_do]
    assert f"no file is deleted in {settings.data}" in found.found
    assert f"delete {file}" in found.to_do
