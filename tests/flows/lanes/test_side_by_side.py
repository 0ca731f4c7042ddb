"""Pieces of work side by side: which faults are tried again, whose error is raised, and who is told."""

import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from flows.build.run import execute_build
from flows.lanes import side_by_side
from flows.lanes.side_by_side import NUM_TRIES, Unwatched, run_side_by_side
from schemas.errors import BuildStoppedError, EngineError
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines
from tests.waiting import GUARD_SECONDS

run = partial(run_side_by_side, Unwatched(quiet=True))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(side_by_side, "PAUSE_SECONDS", 0.0)


class Failing:
    """A piece of work that raises these errors, one at each try, and then succeeds."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.num_tries = 0

    def __call__(self) -> int:
        self.num_tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.num_tries


def test_a_fault_that_passes_is_tried_again(capsys):
    piece = Failing(ConnectionResetError("reset"), TimeoutError("late"))
    pieces: dict[str, Callable[[], int]] = {"read مصدر": piece, "other": lambda: 7}
    assert run_side_by_side(Unwatched(), pieces) == [3, 7]
    assert capsys.readouterr().err == (
        "  read مصدر: ConnectionResetError: reset; it is tried again\n"
        "  read مصدر: TimeoutError: late; it is tried again\n"
    )


def test_a_piece_that_waits_to_be_tried_again_stops_with_the_build(monkeypatch):
    monkeypatch.setattr(side_by_side, "PAUSE_SECONDS", 2 * GUARD_SECONDS)
    stop, pieces = threading.Event(), [Failing(ConnectionResetError("reset")) for _ in range(2)]

    class Watcher(Unwatched):
        def say(self, line: str) -> None:
            threading.Timer(0.05, stop.set).start()

    with pytest.raises(BuildStoppedError):
        run_side_by_side(Watcher(), {"sample": pieces[0]}, stop=stop)
    with pytest.raises(BuildStoppedError):  # the fault comes after the stop
        run_side_by_side(Watcher(), {"sample": pieces[1]}, stop=stop)
    assert [piece.num_tries for piece in pieces] == [1, 1]


def test_a_fault_that_does_not_pass_is_raised_in_the_end():
    piece = Failing(*(ConnectionResetError(str(number)) for number in range(9)))
    with pytest.raises(ConnectionResetError, match=str(NUM_TRIES - 1)):
        run({"sample": piece})
    assert piece.num_tries == NUM_TRIES


@pytest.mark.parametrize("error", [AssertionError("ours"), RuntimeError("CUDA"), EngineError("theirs"), SystemExit(1)])
def test_a_mistake_is_not_tried_again(error):
    piece = Failing(error)
    with pytest.raises(type(error)):
        run({"sample": piece})
    assert piece.num_tries == 1


def test_all_pieces_end_before_a_mistake_is_raised_and_a_stop_hides_none():
    ended = threading.Event()
    failed = threading.Event()

    def stopped() -> int:
        raise BuildStoppedError("stopped")

    def mistaken() -> int:
        failed.set()
        raise EngineError("the mistake")

    def slow() -> int:
        assert failed.wait(GUARD_SECONDS)
        ended.set()
        return 1

    with pytest.raises(EngineError, match="the mistake"):
        run({"stopped": stopped, "mistaken": mistaken, "slow": slow})
    assert ended.is_set()
    assert run({}) == []


def test_an_assertion_of_a_lane_opens_its_model_once(write_recipe):
    def fail(request: Any) -> None:
        raise AssertionError("a mistake of the engine")

    engines = DirectEngines(fault=fail)
    recipe = load_recipe(write_recipe(languages=("en",), teachers=("north",)))
    with pytest.raises(AssertionError, match="a mistake of the engine"):
        execute_build(recipe, quiet=True, open_engine=engines, together=run)
    assert engines.opened.count("north") == 1


def test_a_build_is_stopped_while_a_lane_waits_to_be_tried_again(write_recipe, monkeypatch):
    monkeypatch.setattr(side_by_side, "PAUSE_SECONDS", 2 * GUARD_SECONDS)

    class Watcher(Unwatched):
        def say(self, line: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)  # as from outside: the main thread gets it

    def fail(request: Any) -> None:
        raise ConnectionResetError("reset")

    recipe = load_recipe(write_recipe(languages=("en",), teachers=("north",)))
    watched = partial(run_side_by_side, Watcher())
    with pytest.raises(BuildStoppedError):
        execute_build(recipe, quiet=True, open_engine=DirectEngines(fault=fail), together=watched)
