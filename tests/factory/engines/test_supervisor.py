import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory.engines.base import Message, Reply, Request
from factory.engines.supervision.supervisor import ChildEngine, ChildModel
from schemas.errors import EngineError
from schemas.reasons import Reason
from tests.waiting import GUARD_SECONDS, wait_until

CORE = "tests.factory.engines.standin:open_core"
ROOT = Path(__file__).parents[3]


def ask(number: int, text: str) -> Request:
    return Request(f"request-{number}", (Message(role="user", content=text),))


def ask_all(texts: list[str]) -> list[Request]:
    return [ask(number, text) for number, text in enumerate(texts)]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def failures(replies: list[Reply]) -> dict[str, Reason]:
    return {reply.request_id: reply.failure.reason for reply in replies if reply.failure}


def assert_one_reply_each(requests: list[Request], replies: list[Reply]) -> None:
    assert sorted(reply.request_id for reply in replies) == sorted(request.request_id for request in requests)


def test_every_request_gets_its_own_reply_whatever_its_text() -> None:
    texts = [
        "plain",
        "",
        "a\nb\r\n\u2028",
        "nul \0 nul",
        "lone \ud800 surrogate",
        "שלום",
        "नमस्ते",
        "漢字",
        "e\u0301",
        "😀" * 9000,
    ]
    requests = ask_all(texts * 30)
    with ChildEngine(ChildModel(CORE, {"batch": 7}), max_in_flight=32) as engine:
        replies = list(engine.stream(requests))
    assert_one_reply_each(requests, replies)
    wanted = {request.request_id: f"echo {request.messages[0]['content']}" for request in requests}
    assert {reply.request_id: reply.text for reply in replies} == wanted


def test_no_requests_start_no_child() -> None:
    with ChildEngine(ChildModel(CORE, {})) as engine:
        assert list(engine.stream([])) == []
        assert engine.child is None


def test_a_failure_concerns_one_request() -> None:
    with ChildEngine(ChildModel(CORE, {})) as engine:
        replies = list(engine.stream(ask_all(["a", "refuse", "b"])))
    assert failures(replies) == {"request-1": Reason.PROMPT_TOO_LONG}
    assert len(replies) == 3


def test_requests_are_taken_lazily_and_the_child_works_on_while_nobody_consumes() -> None:
    num_taken = 0

    def plan() -> Iterator[Request]:
        nonlocal num_taken
        for num_taken in itertools.count():
            yield ask(num_taken, "x")

    with ChildEngine(ChildModel(CORE, {"batch": 4}), max_in_flight=8) as engine:
        stream = engine.stream(plan())
        next(stream)
        wait_until(lambda: num_taken > 4 * 8)
        stream.close()
        assert num_taken < 4 * 8 + 2 * 8 + 64 + 64


def test_a_slow_plan_does_not_hold_replies_back() -> None:
    answered = threading.Event()

    def plan() -> Iterator[Request]:
        yield ask(0, "first")
        assert answered.wait(GUARD_SECONDS)
        yield ask(1, "second")

    with ChildEngine(ChildModel(CORE, {})) as engine:
        texts = []
        for reply in engine.stream(plan()):
            texts.append(reply.text)
            answered.set()
    assert texts == ["echo first", "echo second"]


def test_an_error_while_planning_reaches_the_consumer() -> None:
    def plan() -> Iterator[Request]:
        yield ask(0, "x")
        raise LookupError("no more prompts")

    with ChildEngine(ChildModel(CORE, {})) as engine, pytest.raises(LookupError, match="no more prompts"):
        list(engine.stream(plan()))


def test_a_stream_closed_early_leaves_nothing_behind_for_the_next() -> None:
    with ChildEngine(ChildModel(CORE, {"batch": 1, "seconds": 0.005}), max_in_flight=64) as engine:
        stream = engine.stream(ask_all(["old"] * 200))
        next(stream)
        stream.close()
        replies = list(engine.stream(ask_all(["new"] * 20)))
    assert [reply.text for reply in replies] == ["echo new"] * 20


def test_stop_sends_nothing_new_and_answers_what_is_in_flight() -> None:
    stop = threading.Event()
    with ChildEngine(ChildModel(CORE, {"batch": 4, "seconds": 0.01}), max_in_flight=16, stop=stop) as engine:
        replies = []
        for reply in engine.stream(ask(number, "x") for number in itertools.count()):
            replies.append(reply)
            if len(replies) == 40:
                stop.set()
    numbers = sorted(int(reply.request_id.removeprefix("request-")) for reply in replies)
    assert 40 <= len(numbers) <= 40 + 16 + 4 * 16
    assert numbers == list(range(len(numbers)))


def test_a_killed_child_loses_no_request_and_blames_none() -> None:
    requests = ask_all([f"text {number}" for number in range(3000)])
    rng = random.Random(0)
    with ChildEngine(ChildModel(CORE, {"batch": 16, "seconds": 0.003}), max_in_flight=128) as engine:
        replies, pids = [], set()
        for reply in engine.stream(requests):
            replies.append(reply)
            if engine.child is not None and rng.random() < 0.005:
                with contextlib.suppress(ProcessLookupError):  # killed before, and not yet replaced
                    os.kill(engine.child.pid, signal.SIGKILL)
                    pids.add(engine.child.pid)
    assert len(pids) >= 5
    assert_one_reply_each(requests, replies)
    assert failures(replies) == {}


@pytest.mark.parametrize("bad", ["poison", "segfault"])
def test_a_request_that_kills_the_child_is_set_aside_and_no_other(bad: str) -> None:
    culprits = {100, 101, 350}
    requests = ask_all([bad if number in culprits else "good" for number in range(500)])
    with ChildEngine(ChildModel(CORE, {"batch": 16}), max_in_flight=64) as engine:
        replies = list(engine.stream(requests))
    assert_one_reply_each(requests, replies)
    assert failures(replies) == {f"request-{number}": Reason.POISON for number in culprits}


def test_a_hung_child_is_replaced() -> None:
    requests = ask_all(["good", "hang", *["good"] * 20])
    with ChildEngine(ChildModel(CORE, {"batch": 4}), max_in_flight=8, stall_seconds=1.5) as engine:
        replies = list(engine.stream(requests))
    assert_one_reply_each(requests, replies)
    assert failures(replies) == {"request-1": Reason.TIMEOUT}


def test_a_child_that_works_long_without_an_answer_is_not_hung() -> None:
    with ChildEngine(ChildModel(CORE, {"idle_steps": 60, "seconds": 0.1}), stall_seconds=5.0) as engine:
        assert [reply.text for reply in engine.stream(ask_all(["x"]))] == ["echo x"]


def test_a_child_that_always_dies_ends_the_run() -> None:
    with (
        ChildEngine(ChildModel(CORE, {})) as engine,
        pytest.raises(EngineError, match="crashed 16 times without answering anything"),
    ):
        list(engine.stream(ask_all(["poison"] * 1000)))


def test_a_core_that_refuses_says_why() -> None:
    with (
        ChildEngine(ChildModel(CORE, {"refuse": "there are no weights"})) as engine,
        pytest.raises(EngineError) as error,
    ):
        list(engine.stream(ask_all(["x"])))
    assert str(error.value) == "there are no weights"


def test_a_core_that_crashes_while_loading_shows_its_last_words() -> None:
    with (
        ChildEngine(ChildModel(CORE, {"crash": True}, name="model 'm'")) as engine,
        pytest.raises(EngineError) as error,
    ):
        list(engine.stream(ask_all(["x"])))
    assert "model 'm' cannot be loaded: its process exited with status 3" in str(error.value)
    assert "cannot allocate memory for the stand-in" in str(error.value)


def test_leaving_the_engine_ends_the_child_and_its_children() -> None:
    with ChildEngine(ChildModel(CORE, {"grandchild": True})) as engine:
        (reply,) = engine.stream(ask_all(["pid"]))
        pids = [int(pid) for pid in (reply.text or "").split()]
        assert all(map(is_alive, pids))
    assert not any(map(is_alive, pids))


def test_the_devices_of_a_slot_are_numbered_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    with ChildEngine(ChildModel(CORE, {}, devices=(1, 2))) as engine:
        (reply,) = engine.stream(ask_all(["devices"]))
    assert reply.text == "5,7"


PARENT = """
import itertools, signal, sys, threading
from factory.engines.base import Request
from factory.engines.supervision.supervisor import ChildEngine, ChildModel

stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())

def plan():
    yield Request("pid", ({"role": "user", "content": "pid"},))
    for number in itertools.count():
        yield Request(str(number), ({"role": "user", "content": TEXT},))

with ChildEngine(ChildModel("tests.factory.engines.standin:open_core", SETTINGS), max_in_flight=16, stop=stop) as engine:
    replies = []
    for reply in engine.stream(plan()):
        replies.append(reply)
        if reply.request_id == "pid":
            print(reply.text, flush=True)
print(all(reply.text == "echo x" for reply in replies[1:]))
print(sorted(int(reply.request_id) for reply in replies[1:]) == list(range(len(replies) - 1)))
"""


def start_parent(text: str, settings: dict[str, object]) -> tuple[subprocess.Popen[str], list[int]]:
    script = textwrap.dedent(PARENT).replace("TEXT", repr(text)).replace("SETTINGS", repr(settings))
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    return parent, [int(pid) for pid in parent.stdout.readline().split()]


@pytest.mark.parametrize("text", ["x", "hang"])
def test_no_process_outlives_a_parent_that_is_killed(text: str) -> None:
    parent, pids = start_parent(text, {"batch": 1, "seconds": 0.01, "grandchild": True})
    assert len(pids) == 2
    assert all(map(is_alive, pids))
    with parent:
        parent.kill()
    wait_until(lambda: not any(map(is_alive, pids)))


def test_an_interrupt_reaches_the_parent_alone_which_can_finish() -> None:
    parent, _ = start_parent("x", {"batch": 4, "seconds": 0.01})
    with parent:
        assert parent.stdout is not None
        os.killpg(parent.pid, signal.SIGINT)
        assert parent.stdout.read().split() == ["True", "True"]
    assert parent.returncode == 0
