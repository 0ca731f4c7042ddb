"""Slots, progress, the committer and the replica pool, each by itself."""

import subprocess
import sys
import threading
import time
from typing import Any

import polars as pl
import pytest

from factory.engines.base import Reply, Request
from factory.engines.replicas import EnginePool
from factory.stages.outputs import StageOutput
from flows.lanes.committer import Committer
from flows.lanes.progress import Board, Meter
from flows.lanes.slots import SlotPool, find_slots
from schemas.errors import EngineError
from tests.waiting import GUARD_SECONDS


def test_a_slot_is_held_by_one_lane_at_a_time():
    pool = SlotPool(((0,), (1,)))
    with pool.take(1) as first, pool.take(1) as second:
        assert {first, second} == {(0,), (1,)}
        waiting = threading.Thread(target=lambda: pool.take(1).__enter__())
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
    waiting.join(GUARD_SECONDS)
    assert not waiting.is_alive()


def test_a_large_lane_gets_several_small_slots_and_is_not_starved():
    pool = SlotPool(((0,), (1,)))
    order = []

    def take(name: str, num_gpus: int) -> None:
        with pool.take(num_gpus) as slot:
            order.append((name, slot))

    with pool.take(1):
        large = threading.Thread(target=take, args=("large", 2))
        large.start()
        while not pool._queue:
            time.sleep(0.001)
        small = threading.Thread(target=take, args=("small", 1))
        small.start()
        small.join(0.05)
    large.join(GUARD_SECONDS)
    small.join(GUARD_SECONDS)
    assert order == [("large", (0, 1)), ("small", (0,))]


def test_slots_that_cannot_be():
    with pytest.raises(EngineError, match="asks for 4 GPUs at once; the slots hold 2"), SlotPool(((0, 1),)).take(4):
        pass
    with SlotPool(()).take(8) as slot:  # a machine without GPUs
        assert slot == ()


def test_slots_are_numbered_among_the_gpus_that_are_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert find_slots(()) == ((0,), (1,))
    assert find_slots(((0, 1),)) == ((0, 1),)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_slots(()) == ()


class Echo:
    """Answers in process; dies after ``patience`` replies."""

    def __init__(self, patience: int = 10**9) -> None:
        self.patience = patience
        self.answered = 0

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def stream(self, requests):
        for request in requests:
            if self.answered == self.patience:
                raise EngineError("the replica is gone")
            self.answered += 1
            yield Reply(request.request_id, text="yes")
            time.sleep(0)


def ask(count: int):
    return (Request(str(number), ({"role": "user", "content": "?"},)) for number in range(count))


def test_replicas_share_the_work_and_answer_everything_once():
    replicas = [Echo(), Echo(), Echo()]
    with EnginePool(replicas) as pool:
        replies = [reply.request_id for reply in pool.stream(ask(3000))]
    assert sorted(replies, key=int) == [str(number) for number in range(3000)]
    assert sum(replica.answered for replica in replicas) == 3000


def test_a_replica_that_fails_for_good_ends_the_stream():
    with EnginePool([Echo(patience=5), Echo()]) as pool, pytest.raises(EngineError, match="the replica is gone"):
        list(pool.stream(ask(100_000)))


def test_closing_a_pool_early_leaves_no_thread_behind():
    before = threading.active_count()
    with EnginePool([Echo(), Echo()]) as pool:
        replies = pool.stream(ask(100_000))
        next(replies)
        replies.close()
    assert threading.active_count() == before


class Finished:
    """A stage that hands out one row per reply."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def requests(self, pending):
        return iter(())

    def add(self, reply):
        self.waiting.append(reply.request_id)
        return 1

    def take(self):
        taken, self.waiting = self.waiting, []
        return StageOutput(pl.DataFrame({"id": taken}), pl.DataFrame())


class Store:
    def __init__(self, error=None) -> None:
        self.commits: list[Any] = []
        self.error = error

    def append(self, table, frame):
        if self.error:
            raise self.error
        self.commits.append(frame["id"].to_list())
        return frame.height


def commit(store, **settings):
    return Committer(store, "completions", Finished(), on_commit=lambda landed: None, **settings)


def test_rows_are_committed_by_number():
    store = Store()
    with commit(store, rows=10, seconds=1000.0) as committer:
        for number in range(95):
            committer.add(Reply(str(number)))
    assert [row for rows in store.commits for row in rows] == [str(number) for number in range(95)]
    assert len(store.commits) > 1


def test_rows_are_committed_by_time_though_no_more_come():
    store = Store()
    with commit(store, rows=1000, seconds=0.02) as committer:
        committer.add(Reply("alone"))
        end = time.monotonic() + GUARD_SECONDS
        while not store.commits and time.monotonic() < end:
            time.sleep(0.001)
        assert store.commits == [["alone"]]


def test_what_is_finished_is_committed_though_the_engine_fails():
    store = Store()
    with pytest.raises(EngineError), commit(store, rows=1000, seconds=1000.0) as committer:
        committer.add(Reply("first"))
        raise EngineError("dead")
    assert store.commits == [["first"]]


def test_a_failed_commit_reaches_the_producer():
    store = Store(error=OSError("no space left on device"))
    with pytest.raises(OSError, match="no space"), commit(store, rows=1, seconds=1000.0) as committer:
        for number in range(1000):
            committer.add(Reply(str(number)))


def test_a_meter_counts_rates_from_the_first_reply(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter("sample", "north", 40, started=100.0)
    now[0] = 130.0
    meter.answered = 130.0
    meter.num_rows, meter.num_rejected, meter.num_completion_tokens = 15, 5, 400
    now[0] = 140.0
    assert meter.line() == "20/40 rows, 2.0 rows/s, 40 tokens/s, 10 s left, 5 rejected"
    assert meter.seconds == 40.0


def test_a_quiet_board_says_nothing(capsys):
    board = Board(quiet=True)
    with board.lane("sample", "north", 1) as report:
        report.count_rows(finished=1)
        board.say("hello")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_lane_does_not_load_prefect():
    code = (
        "import sys, flows.lanes.progress as progress\n"
        "progress.LOG_SECONDS = 0.0\n"
        "with progress.Board(quiet=True).lane('sample', 'north', 1) as report:\n"
        "    report.count_rows(finished=1)\n"
        "print('prefect' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
