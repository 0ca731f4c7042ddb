"""Spooled rows: read at leisure from a file, while the lake goes on without them."""

import tempfile
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from schemas.errors import WarehouseError
from tests.warehouse.lake_rows import make_completions, warehouse_at
from warehouse.lake.lake import Lake

ROWS = "SELECT completion_id, text, ['a', NULL] AS parts, 1::INTEGER AS n FROM completions ORDER BY completion_id"


@pytest.fixture
def lake(tmp_path: Path):
    with Lake.open(warehouse_at(tmp_path)) as lake:
        lake.append("completions", make_completions([f"{number:04d}" for number in range(2500)]))
        yield lake


def test_rows_come_back_as_the_query_gives_them(lake: Lake) -> None:
    with lake.spool(ROWS) as spool:
        assert spool.num_rows == 2500
        frames = list(spool.frames())
        assert [frame.height for frame in frames] == [1000, 1000, 500]
        assert_frame_equal(pl.concat(frames), lake.query(ROWS))
    with lake.spool("SELECT completion_id FROM completions WHERE false") as spool:
        assert (spool.num_rows, list(spool.frames())) == (0, [])


def test_the_lake_is_written_and_compacted_meanwhile(lake: Lake) -> None:
    lake.append("completions", make_completions(["later"]))
    with lake.spool(ROWS) as spool:
        first = next(frames := spool.frames())
        lake.append("completions", make_completions(["much later"]))
        lake.compact()
        assert lake.query("FROM ducklake_list_files('lake', 'completions')").height == 1
        assert first.height + sum(frame.height for frame in frames) == 2501


def test_its_file_is_gone_with_it(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "spools"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with lake.spool(ROWS) as spool:
        assert list(folder.iterdir()) == []
        assert spool.num_rows == 2500
    folder.rmdir()
    with pytest.raises(WarehouseError, match=r"cannot be held in .*spools: No such file or directory; name another"):
        lake.spool(ROWS)
