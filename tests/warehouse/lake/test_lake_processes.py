"""The lake among several processes: readers, writers, leases, and kills at any instant."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from tests.waiting import GUARD_SECONDS
from tests.warehouse.lake_rows import finish, kill, make_completions, make_selections, read_line, start, warehouse_at
from warehouse.lake.lake import Lake


@pytest.fixture
def settings(tmp_path: Path) -> WarehouseSettings:
    return warehouse_at(tmp_path)


def count(lake: Lake, table: str = "completions") -> int:
    return int(lake.query(f"SELECT count(*) FROM {table}").item())


def test_processes_that_append_the_same_ids_at_once_write_each_once(settings: WarehouseSettings) -> None:
    body = """
written = 0
with Lake.open(settings) as lake:
    for part in range(5):
        written += lake.append("completions", make_completions([f"{part}-{i}" for i in range(50)]))
        lake.insert_select("selections", "SELECT 'c' AS config_id, completion_id AS prompt_id, completion_id, 'r' AS router FROM completions")
print(written)
"""
    writers = [start(settings, body) for _ in range(3)]
    written = [int(finish(writer)) for writer in writers]
    with Lake.open(settings) as lake:
        assert sum(written) == 250
        assert lake.query("SELECT count(*), count(DISTINCT completion_id) FROM completions").row(0) == (250, 250)
        assert lake.query("SELECT count(*), count(DISTINCT prompt_id) FROM selections").row(0) == (250, 250)


def test_readers_see_whole_commits_while_another_process_writes(settings: WarehouseSettings) -> None:
    Lake.open(settings).close()
    writer = start(
        settings,
        """
with Lake.open(settings) as lake:
    print("ready", flush=True)
    for part in range(16):
        lake.append("completions", make_completions([f"{part}-{i}" for i in range(25)]))
        lake.append("selections", make_selections([f"{part}"]))
        if part % 8 == 7:
            lake.compact()
""",
    )
    assert read_line(writer) == "ready"
    seen = [0]
    with Lake.open(settings, read_only=True) as reader:
        while writer.poll() is None:
            rows, parts = reader.query(
                "SELECT (SELECT count(*) FROM completions), (SELECT count(*) FROM selections)"
            ).row(0)
            assert rows % 25 == 0
            assert rows // 25 - parts in {0, 1}
            seen.append(rows)
        finish(writer)
        assert count(reader) == 400
        assert seen == sorted(seen)
        with pytest.raises(WarehouseError, match="reading only"):
            reader.delete("completions", "true")


def test_reader_with_an_open_stream_does_not_stop_a_writer(settings: WarehouseSettings) -> None:
    with Lake.open(settings) as lake:
        lake.append("completions", make_completions([str(i) for i in range(20_000)]))
    reader = start(
        settings,
        """
import sys
with Lake.open(settings, read_only=True) as lake:
    stream = lake.stream("SELECT completion_id FROM completions", batch_rows=500)
    seen = next(stream).height
    print("reading", flush=True)
    sys.stdin.readline()
    print(seen + sum(frame.height for frame in stream))
""",
    )
    assert read_line(reader) == "reading"
    with Lake.open(settings) as lake:
        assert lake.append("completions", make_completions(["late"])) == 1
        lake.compact()  # had either waited for the reader, it would wait for ever: the reader reads on when told below
    assert reader.poll() is None
    out, err = reader.communicate("\n", timeout=GUARD_SECONDS)
    assert reader.returncode == 0, err
    assert int(out) == 20_000


def test_killed_writers_leave_whole_transactions(settings: WarehouseSettings) -> None:
    body = """
import itertools
with Lake.open(settings) as lake:
    print("ready", flush=True)
    start = lake.query("SELECT count(*) // 20 FROM completions").item()
    for part in itertools.count(start):
        assert lake.append("completions", make_completions([f"{part}-{i}" for i in range(20)])) == 20
        print(part, flush=True)
        if part % 3 == 2:
            lake.delete("selections", "true")
            lake.append("selections", make_selections([str(part)]))
            lake.compact()
"""
    dice = random.Random(7)
    told = -1
    Lake.open(settings).close()
    with Lake.open(settings, read_only=True) as reader:
        for _ in range(12):
            writer = start(settings, body)  # opens what the one before it left
            assert read_line(writer) == "ready"
            started = time.monotonic()
            told = max([told, *(int(read_line(writer)) for _ in range(dice.randrange(1, 4)))])
            time.sleep(dice.uniform(0.0, time.monotonic() - started))  # as slow as the writer is on this machine
            writer.send_signal(signal.SIGKILL)
            out, _ = writer.communicate()
            told = max([told, *map(int, out.split())])
            rows, distinct = reader.query("SELECT count(*), count(DISTINCT completion_id) FROM completions").row(0)
            assert rows == distinct
            assert rows % 20 == 0
            assert told <= rows // 20 - 1 <= told + 1, "an answer that was told as stored is gone"
            told = rows // 20 - 1
            assert count(reader, "selections") <= 1
    with Lake.open(settings) as lake:
        lake.compact()
        assert lake.query("SELECT count(*), max(length(text)) FROM completions").row(0)[0] == 20 * (told + 1)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3])
def test_killed_while_the_warehouse_is_made(settings: WarehouseSettings, delay: float) -> None:
    maker = start(settings, "print('go', flush=True)\nLake.open(settings)\n")
    assert read_line(maker) == "go"
    time.sleep(delay)
    kill(maker)
    with Lake.open(settings) as lake:
        assert lake.append("selections", make_selections(["p"])) == 1


def test_lease_has_one_holder_and_ends_with_its_process(settings: WarehouseSettings) -> None:
    body = """
import sys
with Lake.open(settings) as lake, lake.lease("sample/تجربة"):
    print("held", flush=True)
    sys.stdin.readline()
"""
    holder = start(settings, body)
    assert read_line(holder) == "held"
    with Lake.open(settings) as lake:
        with (
            pytest.raises(
                WarehouseError, match=rf"'sample/تجربة' is held by process {holder.pid} on {os.uname().nodename}"
            ),
            lake.lease("sample/تجربة"),
        ):
            pass
        with lake.lease("another"):
            assert lake.append("selections", make_selections(["p"])) == 1
        kill(holder)
        with lake.lease("sample/تجربة"), pytest.raises(WarehouseError, match="is held by"), lake.lease("sample/تجربة"):
            pass
        imports = "import threading\nfrom flows.lanes.lane import hold_when_free\nprint('up', flush=True)\n"
        waits = body.replace("lake.lease(", "hold_when_free(lake, ").replace('")', '", threading.Event())', 1)
        waiter = start(settings, waits.replace("with Lake", f"{imports}with Lake"))
        with lake.lease("sample/تجربة"):
            assert read_line(waiter) == "up"
            assert waiter.poll() is None
        assert read_line(waiter) == "held"
        kill(waiter)
