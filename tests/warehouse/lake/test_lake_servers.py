"""The lake on Postgres and on object storage."""

import os
import shutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from flows.lanes.stopping import hold_when_free
from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from tests.services import POSTGRES_PASSWORD
from tests.warehouse.lake_rows import (
    find_strays,
    finish,
    kill,
    make_completions,
    make_selections,
    read_line,
    start,
    warehouse_at,
)
from warehouse.catalog.data_folder import KEEP
from warehouse.lake.lake import Lake


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> WarehouseSettings:
    return WarehouseSettings(catalog=postgres_url, data=str(tmp_path / "data"))


def count(lake: Lake, table: str = "completions") -> int:
    return int(lake.query(f"SELECT count(*) FROM {table}").item())


def test_postgres_holds_what_sqlite_holds(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        assert lake.append("completions", make_completions(["a", "b"], text="e\u0301\x00 שלום")) == 2
        before = lake.snapshot()
        assert lake.append("completions", make_completions(["b", "c"])) == 1
        assert (
            lake.insert_select(
                "selections",
                "SELECT 'c' AS config_id, completion_id AS prompt_id, completion_id, 'r' AS router FROM completions",
            )
            == 3
        )
        assert lake.delete("selections", "prompt_id = ?", ["a"]) == 1
        stream = lake.stream("FROM completions", batch_rows=1)
        first = next(stream)
        lake.compact(keep=timedelta(days=-1))
        assert lake.append("completions", make_completions(["d"])) == 1
        assert first.height + sum(frame.height for frame in stream) == 3
        assert lake.query("SELECT text FROM completions WHERE completion_id = 'a'").item() == "e\u0301\x00 שלום"
        assert count(lake, f"completions AT (VERSION => {before})") == 2
    with Lake.open(settings, as_of=before) as past:
        assert count(past) == 2
    with Lake.open(settings, read_only=True) as reader, pytest.raises(WarehouseError, match="reading only"):
        reader.append("completions", make_completions(["e"]))


def test_processes_on_postgres_write_each_id_once(settings: WarehouseSettings) -> None:
    body = """
written = 0
with Lake.open(settings) as lake:
    for part in range(4):
        written += lake.append("completions", make_completions([f"{part}-{i}" for i in range(50)]))
print(written)
"""
    writers = [start(settings, body) for _ in range(3)]
    assert sum(int(finish(writer)) for writer in writers) == 200
    with Lake.open(settings) as lake:
        assert lake.query("SELECT count(*), count(DISTINCT completion_id) FROM completions").row(0) == (200, 200)


def test_killed_writers_on_postgres_leave_whole_transactions(settings: WarehouseSettings) -> None:
    body = """
import itertools
with Lake.open(settings) as lake:
    for part in itertools.count(lake.query("SELECT count(*) // 20 FROM completions").item()):
        assert lake.append("completions", make_completions([f"{part}-{i}" for i in range(20)])) == 20
        print(part, flush=True)
"""
    told = -1
    for _ in range(2):
        writer = start(settings, body)
        told = max(told, int(read_line(writer)))
        kill(writer)
        with Lake.open(settings) as lake:
            rows, distinct = lake.query("SELECT count(*), count(DISTINCT completion_id) FROM completions").row(0)
            assert rows == distinct
            assert rows % 20 == 0
            assert rows // 20 - 1 >= told


def test_lease_on_postgres_has_one_holder_and_ends_with_its_process(settings: WarehouseSettings) -> None:
    body = """
import sys

with Lake.open(settings) as lake, lake.lease("sample/تجربة"):
    print("held", flush=True)
    sys.stdin.readline()
"""
    imports = "import threading\nfrom flows.lanes.lane import hold_when_free"
    holder = start(settings, body)
    assert read_line(holder) == "held"
    with Lake.open(settings) as lake:
        says = rf"'sample/تجربة' is held by process {holder.pid} on {os.uname().nodename}"
        with pytest.raises(WarehouseError, match=says), lake.lease("sample/تجربة"):
            pass
        with lake.lease("another"):
            assert lake.append("selections", make_selections(["p"])) == 1
        kill(holder)
        with hold_when_free(lake, "sample/تجربة", threading.Event()):
            waits = body.replace("lake.lease(", "hold_when_free(lake, ").replace('")', '", threading.Event())', 1)
            waiter = start(settings, waits.replace("with", f"{imports}\nprint('up', flush=True)\nwith", 1))
            assert read_line(waiter) == "up"
        assert read_line(waiter) == "held"
        kill(waiter)


def test_lost_lease_stops_the_writer_and_a_restart_is_survived(
    settings: WarehouseSettings, postgres_server: tuple[str, Callable[[], None]]
) -> None:
    _, restart = postgres_server
    with Lake.open(settings) as lake:
        with lake.lease("lane"):
            assert lake.append("selections", make_selections(["p"])) == 1
            restart()
            with pytest.raises(WarehouseError, match=r"the lock 'lane' .* was lost, because the connection"):
                lake.append("selections", make_selections(["q"]))
        with lake.lease("lane"):
            assert lake.append("selections", make_selections(["q"])) == 1
        assert count(lake, "selections") == 2


def test_password_is_never_shown(settings: WarehouseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lake.open(settings) as lake:
        shown = str(lake.query("FROM duckdb_databases()").rows()) + str(lake.query("FROM duckdb_secrets()").rows())
        assert POSTGRES_PASSWORD not in shown
    monkeypatch.setenv("PGPASSWORD", "wrong-and-secret")
    with pytest.raises(
        WarehouseError, match=r"postgres://127\.0\.0\.1:\d+/db_\w+: .*password authentication"
    ) as caught:
        Lake.open(settings)
    assert "wrong-and-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    nowhere = settings.model_copy(update={"catalog": "postgres://factory@127.0.0.1:1/db"})
    for read_only in (False, True):
        with pytest.raises(WarehouseError, match=r"postgres://127\.0\.0\.1:1/db: .*[Cc]onnection refused"):
            Lake.open(nowhere, read_only=read_only)


def test_reading_an_empty_database(settings: WarehouseSettings) -> None:
    with pytest.raises(WarehouseError, match="there is no warehouse yet; a build makes one"):
        Lake.open(settings, read_only=True)
    Lake.open(settings).close()
    other = settings.model_copy(update={"data": settings.data + "-other"})
    with pytest.raises(WarehouseError, match=r"its data lies in .*/data, and the settings name .*/data-other"):
        Lake.open(other)


@pytest.mark.parametrize("catalog", ["sqlite", "postgres"])
def test_data_on_object_storage(catalog: str, s3_bucket: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = str(tmp_path / "catalog.sqlite") if catalog == "sqlite" else request.getfixturevalue("postgres_url")
    settings = WarehouseSettings(catalog=address, data=f"{s3_bucket}/lake")
    with Lake.open(settings) as lake:
        for part in range(4):
            assert lake.append("completions", make_completions([f"{part}-{i}" for i in range(10)])) == 10
        assert lake.append("completions", make_completions(["0-1", "new"])) == 1
        before = lake.snapshot()
        lake.delete("completions", "completion_id = 'new'")
        lake.compact(keep=timedelta(days=-1))
        assert find_strays(lake) == []
        assert sum(frame.height for frame in lake.stream("FROM completions")) == 40
        assert "a-secret-of-s3" not in str(lake.query("FROM duckdb_secrets()").rows())
    other = start(
        settings, "print(Lake.open(settings, read_only=True).query('SELECT count(*) FROM completions').item())"
    )
    assert int(finish(other)) == 40
    with Lake.open(settings, as_of=before) as past:
        assert count(past) == 41


def test_missing_bucket_is_one_sentence(s3_bucket: str, tmp_path: Path) -> None:
    settings = warehouse_at(tmp_path).model_copy(update={"data": f"{s3_bucket}-missing/lake"})
    with pytest.raises(WarehouseError, match=rf"{s3_bucket}-missing/lake") as caught:
        Lake.open(settings)
    assert "\n" not in str(caught.value)
    assert "a-secret-of-s3" not in str(caught.value)


@pytest.mark.parametrize("data", ["folder", "s3"])
def test_a_copied_database_cannot_write_to_the_data_of_its_original(
    data: str, postgres_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place = str(tmp_path / "l'été") if data == "folder" else f"{request.getfixturevalue('s3_bucket')}/lake"
    settings = WarehouseSettings(catalog=postgres_url, data=place)
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["a"]))
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url, autocommit=True, dbname="postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
    try:
        copied = settings.model_copy(update={"catalog": f"{postgres_url}_copy"})
        with pytest.raises(
            WarehouseError, match=f"belongs to the catalog postgres://.*/{name}, of which this one is a"
        ):
            Lake.open(copied)
        with Lake.open(copied, read_only=True) as lake:
            assert count(lake, "selections") == 1
        if data == "folder":
            own = copied.model_copy(update={"data": str(shutil.copytree(place, tmp_path / "own"))})
            with Lake.open(own) as lake:
                lake.append("selections", make_selections(["b"]))
                lake.compact(keep=timedelta(days=-1))
                assert count(lake, "selections") == 2
    finally:
        with psycopg.connect(postgres_url, autocommit=True, dbname="postgres") as connection:
            connection.execute(f"DROP DATABASE {name}_copy WITH (FORCE)")
    with Lake.open(settings) as lake:
        lake.compact(keep=timedelta(days=-1))
        assert lake.query("SELECT prompt_id FROM selections").item() == "a"


def test_the_data_of_a_database_may_move(settings: WarehouseSettings, tmp_path: Path) -> None:
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["a"]))
    moved = settings.model_copy(update={"data": str(Path(settings.data).rename(tmp_path / "moved"))})
    with Lake.open(moved) as lake:
        lake.append("selections", make_selections(["b"]))
        lake.compact(keep=timedelta(days=-1))
        assert count(lake, "selections") == 2
    assert not (tmp_path / "moved" / KEEP).exists()


def test_a_catalog_that_was_copied_alone_only_reads_from_object_storage(s3_bucket: str, tmp_path: Path) -> None:
    """A restored one writes, and deletes nothing."""
    settings = warehouse_at(tmp_path / "a").model_copy(update={"data": f"{s3_bucket}/lake"})
    catalog = tmp_path / "a" / "catalog.sqlite"
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["a"]))
    backup = shutil.copy(catalog, tmp_path / "backup")
    copied = settings.model_copy(update={"catalog": str(tmp_path / "backup")})
    with pytest.raises(WarehouseError, match=f"belongs to the catalog {catalog}, of which"):
        Lake.open(copied)
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["b"]))
    newer = shutil.copy(catalog, tmp_path / "newer")
    shutil.copy(backup, catalog)
    with Lake.open(settings) as lake:
        lake.append("selections", make_selections(["c"]))
        lake.compact(keep=timedelta(days=-1))
        assert set(lake.query("SELECT prompt_id FROM selections")["prompt_id"]) == {"a", "c"}
    shutil.copy(newer, catalog)
    with Lake.open(settings) as lake:
        assert set(lake.query("SELECT prompt_id FROM selections")["prompt_id"]) == {"a", "b"}
