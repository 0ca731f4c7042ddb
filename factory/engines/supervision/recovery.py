"""Finding the request that crashes the child, without blaming an innocent one, by deciding what is sent again.

A crash reveals little when hundreds of requests are in flight, and often no request is to blame. Therefore:

1. After a first crash, everything that was in flight is sent again as if nothing had happened.
2. A request that is in flight at a second crash becomes a suspect. Suspects are sent in probes: groups that have the
   child to themselves. A group that crashes is split into ``FAN_OUT`` smaller ones, down to a single request.
3. A request that crashes the child ``SOLO_DEATHS`` times on its own is guilty and is given up. It gets its second
   chance only after the other probes, so that these are answered in between. Guilty requests are often adjacent, as
   samples of one prompt are; so after two that crash on their own, the probe farthest from them comes next.

One guilty request among n costs about log(n) / log(FAN_OUT) + 4 restarts, and a few small batches at each level.
Sending n suspects one by one would leave batches nearly empty for the time of n requests; halving would need more
restarts.
"""

from collections import Counter, deque
from collections.abc import Collection

FAN_OUT = 8
SOLO_DEATHS = 2


class Recovery:
    """The requests, by serial number, that are waiting to be sent again."""

    def __init__(self) -> None:
        self._again: deque[int] = deque()
        self._probes: deque[list[int]] = deque()
        self._second_chances: deque[list[int]] = deque()
        self._probe: deque[int] = deque()
        self._is_probing = False
        self._num_deaths: Counter[int] = Counter()
        self._num_solo_deaths: Counter[int] = Counter()
        self._died_alone: list[int] = []

    def __bool__(self) -> bool:
        """Whether requests are waiting or a probe is running; no new request may be sent then."""
        return bool(self._is_probing or self._again or self._probes or self._second_chances)

    def take(self, num_in_flight: int) -> int | None:
        """Return the next request to send again; None if there is none, or if it must wait for a probe to end."""
        if num_in_flight == 0 and not self._probe:
            self._probe.extend(self._next_probe())
            self._is_probing = bool(self._probe)
        waiting = self._probe if self._is_probing else self._again
        return waiting.popleft() if waiting else None

    def _next_probe(self) -> list[int]:
        if not self._probes:
            return self._second_chances.popleft() if self._second_chances else []
        if len(self._died_alone) < 2:
            return self._probes.popleft()
        far = max(self._probes, key=lambda probe: abs(probe[0] - self._died_alone[-1]))
        self._died_alone.clear()
        self._probes.remove(far)
        return far

    def note_answer(self, serial: int) -> None:
        """Record that a request was answered, which clears it of suspicion."""
        self._died_alone.clear()
        self._forget(serial)

    def _forget(self, serial: int) -> None:
        self._num_deaths.pop(serial, None)
        self._num_solo_deaths.pop(serial, None)

    def note_death(self, in_flight: Collection[int]) -> int | None:
        """Record a crash with these requests in flight; return the guilty request if it is now known, else None."""
        guilty = None
        self._num_deaths.update(in_flight)
        if self._probe:
            self._probes.appendleft(list(self._probe))
            self._probe.clear()
        if len(in_flight) == 1:
            guilty = self._note_solo_death(*in_flight)
        else:
            suspects = [serial for serial in in_flight if self._is_probing or self._num_deaths[serial] > 1]
            self._again.extend(sorted(set(in_flight).difference(suspects)))
            self._probes.extendleft(reversed(_split(suspects)))
        self._is_probing = False
        return guilty

    def _note_solo_death(self, serial: int) -> int | None:
        self._num_solo_deaths[serial] += 1
        self._died_alone.append(serial)
        if self._num_solo_deaths[serial] < SOLO_DEATHS:
            self._second_chances.append([serial])
            return None
        self._forget(serial)
        return serial


def _split(serials: list[int]) -> list[list[int]]:
    size = -(-len(serials) // FAN_OUT)
    return [serials[start : start + size] for start in range(0, len(serials), size or 1)]
