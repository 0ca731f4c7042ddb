import random

import pytest

from factory.engines.recovery import Recovery


def run(num_requests: int, poison: set[int], *, size: int = 64, kill_rate: float = 0.0) -> tuple[set[int], int]:
    """Play child: batches of 16 in order, poison kills, and so do random strangers. Return the guilty and the deaths."""
    rng = random.Random(num_requests)
    recovery, fresh, in_flight = Recovery(), iter(range(num_requests)), list[int]()
    guilty, answered, num_deaths = set[int](), set[int](), 0
    while len(guilty) + len(answered) < num_requests:
        while len(in_flight) < size:
            serial = recovery.take(len(in_flight))
            if serial is None and not recovery:
                serial = next(fresh, None)
            if serial is None:
                break
            in_flight.append(serial)
        assert in_flight, "nothing is in flight, and something is unanswered"
        for serial in in_flight[:16]:
            if serial in poison or rng.random() < kill_rate:
                num_deaths += 1
                found = recovery.note_death(in_flight)
                in_flight = []
                guilty |= set() if found is None else {found}
                break
            in_flight.remove(serial)
            recovery.note_answer(serial)
            assert serial not in answered
            answered.add(serial)
    assert not guilty & answered
    return guilty, num_deaths


@pytest.mark.parametrize("poison", [set(), {0}, {499}, {17, 18}, {5, 100, 101, 102, 300}, set(range(40, 60))])
def test_the_guilty_are_found_and_nobody_else(poison: set[int]) -> None:
    guilty, num_deaths = run(500, poison)
    assert guilty == poison
    assert num_deaths <= 6 * len(poison)


def test_one_guilty_among_many_costs_few_restarts() -> None:
    assert run(512, {200}, size=512) == ({200}, 6)


def test_deaths_that_are_nobodys_fault_blame_nobody() -> None:
    guilty, num_deaths = run(5000, set(), kill_rate=0.01)
    assert guilty == set()
    assert num_deaths > 30


def test_a_probe_has_the_child_to_itself() -> None:
    recovery = Recovery()
    recovery.note_death([1, 2, 3])
    assert [recovery.take(number) for number in range(3)] == [1, 2, 3]
    recovery.note_death([1, 2, 3])
    assert recovery.take(0) == 1
    assert recovery.take(1) is None
    assert recovery
