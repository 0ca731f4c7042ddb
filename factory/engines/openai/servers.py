"""A pool of servers: chooses the server for each request, limits their concurrency, and tracks which are down."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from schemas.errors import EngineError

SUCCESSES_PER_STEP = 25
OVERLOAD_FACTOR = 0.75


@dataclass(frozen=True, slots=True)
class Patience:
    """How long requests are retried.

    Pauses double from ``first_seconds`` to ``max_seconds``, minus a random part. ``down_seconds`` is how long to wait
    if no server of the pool can be reached.
    """

    num_tries: int = 6
    first_seconds: float = 0.5
    max_seconds: float = 30.0
    down_seconds: float = 120.0
    max_retry_after_seconds: float = 600.0

    def pause_seconds(self, num_failures: int) -> float:
        """Return the pause after ``num_failures`` (at least one) failures of a request."""
        return float(min(self.max_seconds, self.first_seconds * 2.0 ** (num_failures - 1)))


class Outcome(Enum):
    """What a request revealed about its server."""

    ANSWERED = auto()
    OVERLOADED = auto()
    UNREACHABLE = auto()
    UNKNOWN = auto()


@dataclass(eq=False, slots=True)
class Server:
    """The state of a server. ``limit`` is its maximum of concurrent requests; while down it gets one as a probe."""

    url: str
    limit: float
    num_in_flight: int = 0
    num_answered: int = 0
    num_since_change: int = 0
    num_unreachable: int = 0
    opens_at: float = 0.0
    changed_at: float = 0.0

    @property
    def is_down(self) -> bool:
        return self.num_unreachable > 0

    def has_room(self, now: float) -> bool:
        return now >= self.opens_at and self.num_in_flight < (1 if self.is_down else int(self.limit))


class ServerPool:
    """Assigns servers to requests, the least loaded first, in the order in which requests wait.

    A server's limit starts at ``max_in_flight``. It drops by a quarter when the server is overloaded (once for all
    requests that were then in flight) and grows by one for every 25 answers. A server that cannot be reached only gets
    occasional probes until it answers again. All methods must be called in one event loop.
    """

    def __init__(self, urls: Sequence[str], max_in_flight: int, patience: Patience) -> None:
        self._loop = asyncio.get_running_loop()
        self._patience = patience
        self._max_in_flight = max_in_flight
        self._servers = [Server(url, float(max_in_flight)) for url in urls]
        self._waiting: deque[tuple[asyncio.Future[Server | None], Server | None]] = deque()
        self._down_since: float | None = None
        self._is_stopped = False

    async def acquire(self, avoid: Server | None = None) -> Server | None:
        """Wait for a server with room and return it, preferably not ``avoid``; None once the pool is stopped."""
        if self._is_stopped:
            return None
        future: asyncio.Future[Server | None] = self._loop.create_future()
        self._waiting.append((future, avoid))
        self._dispatch()
        return await future

    def release(
        self, server: Server, outcome: Outcome, sent_at: float, retry_after_seconds: float | None = None
    ) -> None:
        """Return a server to the pool, with the outcome of the request.

        Raises:
            EngineError: no server of the pool could be reached for too long.
        """
        now = self._loop.time()
        server.num_in_flight -= 1
        match outcome:
            case Outcome.ANSWERED:
                self._count_answer(server)
            case Outcome.OVERLOADED:
                self._lower(server, sent_at, now)
            case Outcome.UNREACHABLE:
                self._mark_down(server, sent_at, now)
        if retry_after_seconds is not None:
            self._close_for(server, min(retry_after_seconds, self._patience.max_retry_after_seconds), now)
        self._dispatch()

    def stop(self) -> None:
        """Assign no more servers; requests that are waiting get None."""
        self._is_stopped = True
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    def _count_answer(self, server: Server) -> None:
        server.num_unreachable = 0
        self._down_since = None
        server.num_answered += 1
        server.num_since_change += 1
        if server.num_since_change >= SUCCESSES_PER_STEP:
            server.num_since_change = 0
            server.limit = min(float(self._max_in_flight), server.limit + 1)

    def _lower(self, server: Server, sent_at: float, now: float) -> None:
        server.num_unreachable = 0
        self._down_since = None
        if sent_at >= server.changed_at:
            server.limit = max(1.0, server.limit * OVERLOAD_FACTOR)
            server.num_since_change = 0
            server.changed_at = now

    def _mark_down(self, server: Server, sent_at: float, now: float) -> None:
        if sent_at >= server.changed_at:
            server.num_unreachable += 1
            server.changed_at = now
            self._close_for(server, self._patience.pause_seconds(server.num_unreachable), now)
        if not all(server.is_down for server in self._servers):
            return
        self._down_since = now if self._down_since is None else self._down_since
        if now - self._down_since > self._patience.down_seconds:
            raise EngineError(
                f"no server can be reached at {', '.join(server.url for server in self._servers)} "
                f"for {now - self._down_since:.0f} s; start one, or correct 'run.urls'"
            )

    def _close_for(self, server: Server, seconds: float, now: float) -> None:
        server.opens_at = max(server.opens_at, now + seconds)
        self._loop.call_at(server.opens_at, self._dispatch)

    def _dispatch(self) -> None:
        """Assign servers with room to waiting requests."""
        while self._waiting:
            future, avoid = self._waiting[0]
            if not future.done():
                server = self._choose(avoid)
                if server is None:
                    return
                server.num_in_flight += 1
                future.set_result(server)
            self._waiting.popleft()

    def _choose(self, avoid: Server | None) -> Server | None:
        now = self._loop.time()
        free = [server for server in self._servers if server.has_room(now)]
        return min(free, key=lambda server: (server is avoid, server.num_in_flight / server.limit), default=None)
