import random
from typing import NamedTuple

import pytest

from factory.engines.supervision.recovery import Recovery
from factory.engines.supervision.supervisor import MAX_DEATHS_WITHOUT_ANSWER


class Played(NamedTuple):
    guilty: set[int]
    num_deaths: int
    num_in_vain: int
    """The most deaths in a row without an answer or a verdict."""


def run(num_requests: int, poison: set[int], *, size: int = 64, batch_size: int = 16, kill_rate: float = 0.0) -> Played:
    """Play child: batches in order, poison kills, and so do random strangers."""
    rng = random.Random(num_requests)
    recovery, fresh, in_flight = Recovery(), iter(range(num_requests)), list[int]()
    guilty, answered = set[int](), set[int]()
    num_deaths = in_vain = most_in_vain = 0
    while len(guilty) + len(answered) < num_requests:
        while len(in_flight) < size:
            serial = recovery.take(len(in_flight))
            if serial is None and not recovery:
                serial = next(fresh, None)
            if serial is None:
                break
            in_flight.append(serial)
        assert in_flight, "nothing is in flight, and something is unanswered"
        is_deadly = batch_size == size and poison.intersection(in_flight)
        for serial in in_flight[:batch_size]:
            if is_deadly or serial in poison or rng.random() < kill_rate:
                num_deaths, in_vain = num_deaths + 1, in_vain + 1
                most_in_vain = max(most_in_vain, in_vain)
                found = recovery.note_death(in_flight)
                in_flight = []
                if found is not None:
                    guilty.add(found)
                    in_vain = 0
                break
            in_flight.remove(serial)
            recovery.note_answer(serial)
            assert serial not in answered
            answered.add(serial)
            in_vain = 0
    assert not guilty & answered
    return Played(guilty, num_deaths, most_in_vain)


@pytest.mark.parametrize("poison", [set(), {0}, {499}, {17, 18}, {5, 100, 101, 102, 300}, set(range(40, 60))])
def test_the_guilty_are_found_and_nobody_else(poison: set[int]) -> None:
    played = run(500, poison)
    assert played.guilty == poison
    assert played.num_deaths <= 6 * len(poison)


def test_one_guilty_among_many_costs_few_restarts() -> None:
    assert run(512, {200}, size=512)[:2] == ({200}, 6)


@pytest.mark.parametrize("size", [64, 512, 2048])
@pytest.mark.parametrize("first", [0, 30, 300, 2040, 2148])
def test_guilty_ones_side_by_side_do_not_end_the_run(first: int, size: int) -> None:
    """Of what is in flight with one of them, nothing is answered: the worst that a child can do."""
    poison = set(range(first, first + 8))
    played = run(2156, poison, size=size, batch_size=size)
    assert played.guilty == poison
    assert played.num_in_vain < MAX_DEATHS_WITHOUT_ANSWER


def test_far_apart_the_guilty_do_not_end_the_run_either() -> None:
    poison = set(range(0, 4096, 256))
    played = run(4096, poison, size=2048, batch_size=2048)
    assert played.guilty == poison
    assert played.num_in_vain < MAX_DEATHS_WITHOUT_ANSWER


def test_deaths_that_are_nobodys_fault_blame_nobody() -> None:
    played = run(5000, set(), kill_rate=0.01)
    assert played.guilty == set()
    assert played.num_deaths > 30


def test_a_probe_has_the_child_to_itself() -> None:
    recovery = Recovery()
    recovery.note_death([1, 2, 3])
    assert [recovery.take(number) for number in range(3)] == [1, 2, 3]
    recovery.note_death([1, 2, 3])
    assert recovery.take(0) == 1
    assert recovery.take(1) is None
    assert recovery
