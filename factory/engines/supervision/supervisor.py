"""An engine whose model runs in a supervised child process, which is monitored and restarted when it crashes.

CUDA errors, out-of-memory kills and hangs take down the whole process in which they happen. In a child process they
cost only a restart, and all memory is released when the child ends.
"""

import contextlib
import itertools
import os
import select
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from factory.engines.base import Failure, Reply, Request
from factory.engines.devices import visible_devices
from factory.engines.supervision.child import Alive, Ready, Refused, decode_event, encode_request
from factory.engines.supervision.process import ChildProcess
from factory.engines.supervision.recovery import Recovery
from schemas.errors import EngineError
from schemas.reasons import Reason

MAX_DEATHS_WITHOUT_ANSWER = 16
"""The limit of consecutive crashes without an answer. Finding one guilty request among 2,048 takes at most 7 crashes,
finding eight adjacent ones 12, in the worst case without an answer in between."""

START_SECONDS = 3600.0
POLL_SECONDS = 0.2
NUM_PULLED_AHEAD = 64
_MAX_UNSENT_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class ChildModel:
    """The core that a child process runs, opened by the function ``core`` (``module:function``) with ``settings``.

    ``name`` is used in error messages. ``devices`` are GPU numbers among those that are visible to this process.
    """

    core: str
    settings: Mapping[str, object]
    name: str = "the model"
    devices: tuple[int, ...] = ()


class ChildEngine:
    """A core (``factory.engines.supervision.child.Core``) in a child process, behind the ``Engine`` protocol.

    The child starts with the first request and ends on exit. A child that crashes, or is silent for ``stall_seconds``
    while it has work, is replaced and the requests in flight are sent again. A request that repeatedly crashes it on
    its own becomes a failure (POISON, or TIMEOUT if the child hung), and the run continues. Setting ``stop`` ends a
    stream early and cleanly: nothing new is sent, and replies to requests in flight are still yielded. Only one stream
    may be open at a time.
    """

    def __init__(
        self,
        model: ChildModel,
        *,
        max_in_flight: int = 512,
        stall_seconds: float = 600.0,
        stop: threading.Event | None = None,
    ) -> None:
        self._model = model
        self.name = model.name
        self.max_in_flight = max_in_flight
        self.stall_seconds = stall_seconds
        self.stop = stop or threading.Event()
        self.serials = itertools.count()
        self.child: ChildProcess | None = None
        self.is_ready = False
        self.was_ready = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.end_child()

    def stream(self, requests: Iterable[Request]) -> Generator[Reply]:
        """Yield one reply per request as each finishes.

        Raises:
            EngineError: the core cannot be loaded, or the child keeps crashing without answering anything.
        """
        exchange = _Exchange(self, requests)
        try:
            yield from exchange.replies()
        finally:
            exchange.close()

    def start_child(self) -> ChildProcess:
        """Start a new child; ``is_ready`` becomes true when the child reports it."""
        self.is_ready = False
        self.child = ChildProcess(self._model.core, self._model.settings, visible_devices(self._model.devices))
        return self.child

    def end_child(self) -> None:
        """End the child, if there is one; it is given a moment to close its model."""
        if self.child is not None:
            if self.is_ready:
                self.child.close()
            self.child.kill()
            self.child = None


class _Puller:
    """Takes a few requests in advance from an iterable, in a thread, so that slow planning does not delay the rest."""

    def __init__(self, requests: Iterable[Request], wake: "_Alarm") -> None:
        self._requests = requests
        self._wake = wake
        self._pulled: deque[Request] = deque()
        self._room = threading.Semaphore(NUM_PULLED_AHEAD)
        self._is_closed = False
        self._is_exhausted = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine-puller", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for request in self._requests:
                self._room.acquire()
                if self._is_closed:
                    break
                self._pulled.append(request)
                self._wake.ring()
        except BaseException as error:
            self._error = error
        finally:
            if isinstance(self._requests, Generator):
                self._requests.close()
            self._is_exhausted = True
            self._wake.ring()

    def __bool__(self) -> bool:
        return bool(self._pulled)

    def take(self) -> Request | None:
        if not self._pulled:
            return None
        self._room.release()
        return self._pulled.popleft()

    def is_finished(self) -> bool:
        """Whether the iterable is exhausted; re-raises its exception, if it raised one."""
        if self._is_exhausted and self._error is not None:
            raise self._error
        return self._is_exhausted and not self._pulled

    def close(self) -> None:
        self._is_closed = True
        self._room.release()
        self._thread.join(timeout=5.0)


class _Alarm:
    """A pipe by which another thread can interrupt a poll."""

    def __init__(self) -> None:
        self.fd, self._ringer = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._ringer, False)
        self._lock = threading.Lock()
        self._is_open = True

    def ring(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._is_open:
                os.write(self._ringer, b"!")

    def quiet(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 1 << 12)

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            os.close(self.fd)
            os.close(self._ringer)


class _Exchange:
    """One stream: a thread that exchanges requests and replies with the child, and replies that wait to be consumed.

    Only that thread handles the child, so neither slow planning nor a slow consumer delays it, and its state needs no
    lock.
    """

    def __init__(self, engine: ChildEngine, requests: Iterable[Request]) -> None:
        self._engine = engine
        self._alarm = _Alarm()
        self._puller = _Puller(requests, self._alarm)
        self._recovery = Recovery()
        self._requests: dict[int, Request] = {}
        self._in_flight: dict[int, None] = {}
        self._done: deque[Reply] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_finished = False
        self._error: BaseException | None = None
        self._num_deaths = 0
        self._last_sign = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._thread.start()

    # the consumer's side

    def replies(self) -> Iterator[Reply]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done or self._is_finished)
                reply = self._done.popleft() if self._done else None
            if reply is None:
                if self._error is not None:
                    raise self._error
                return
            if len(self._done) == self._engine.max_in_flight // 2:
                self._alarm.ring()  # there is room again
            yield reply

    def close(self) -> None:
        self._is_closed = True
        self._alarm.ring()
        self._thread.join()
        self._puller.close()
        self._alarm.close()

    # the supervising thread

    def _run(self) -> None:
        try:
            while not self._is_closed and not self._is_complete():
                self._send()
                self._listen()
        except BaseException as error:
            self._error = error
        with self._changed:
            self._is_finished = True
            self._changed.notify()

    def _is_complete(self) -> bool:
        if self._engine.stop.is_set():
            return not self._in_flight
        return self._puller.is_finished() and not self._requests

    def _send(self) -> None:
        engine = self._engine
        if engine.stop.is_set():
            return
        if engine.child is None and (self._puller or self._requests):
            self._last_sign = time.monotonic()
            engine.start_child()
        if engine.child is None or not engine.is_ready:
            return
        while (
            len(self._in_flight) < engine.max_in_flight
            and len(self._done) < engine.max_in_flight
            and engine.child.num_unsent_bytes < _MAX_UNSENT_BYTES
            and (serial := self._next_serial()) is not None
        ):
            if not self._in_flight:
                self._last_sign = time.monotonic()
            self._in_flight[serial] = None
            engine.child.send(encode_request(serial, self._requests[serial]))

    def _next_serial(self) -> int | None:
        serial = self._recovery.take(len(self._in_flight))
        if serial is None and not self._recovery and (request := self._puller.take()) is not None:
            serial = next(self._engine.serials)
            self._requests[serial] = request
        return serial

    def _listen(self) -> None:
        child = self._engine.child
        poll = select.poll()
        poll.register(self._alarm.fd, select.POLLIN)
        if child is not None:
            child.flush()
            poll.register(child.reply_fd, select.POLLIN)
            if child.num_unsent_bytes:
                poll.register(child.request_fd, select.POLLOUT)
        ready = {descriptor for descriptor, _ in poll.poll(POLL_SECONDS * 1000)}
        self._alarm.quiet()
        if child is None:
            return
        is_running = child.is_running()
        frames = child.read_frames() if child.reply_fd in ready or not is_running else []
        for frame in frames or ():
            self._handle(decode_event(frame))
        if frames is None or not (frames or is_running):
            self._bury(Reason.POISON)
        elif time.monotonic() - self._last_sign > self._patience():
            self._bury(Reason.TIMEOUT)

    def _patience(self) -> float:
        if not self._engine.is_ready:
            return START_SECONDS
        return self._engine.stall_seconds if self._in_flight else float("inf")

    def _handle(self, event: Ready | Alive | Refused | tuple[int, Reply]) -> None:
        self._last_sign = time.monotonic()
        match event:
            case Refused(sentence):
                self._engine.end_child()
                raise EngineError(sentence)
            case Ready():
                self._engine.is_ready = self._engine.was_ready = True
            case Alive():
                pass
            case serial, reply:
                self._answer(serial, reply)

    def _answer(self, serial: int, reply: Reply) -> None:
        """Pass on a reply with the request's own id; a reply to a request of an earlier, closed stream is dropped."""
        request = self._requests.pop(serial, None)
        if request is None:
            return
        self._in_flight.pop(serial, None)
        self._recovery.note_answer(serial)
        self._num_deaths = 0
        self._pass_on(request, reply)

    def _pass_on(self, request: Request, reply: Reply) -> None:
        named = replace(reply, request_id=request.request_id)
        with self._changed:
            self._done.append(named)
            self._changed.notify()

    def _bury(self, reason: Reason) -> None:
        """End a crashed or silent child, and decide what happens to its requests."""
        engine, child = self._engine, self._engine.child
        assert child is not None
        engine.child = None
        end = "stayed silent" if reason is Reason.TIMEOUT else child.await_end()
        tail = child.log_tail()
        child.kill()
        self._num_deaths += 1
        if not engine.was_ready:
            raise EngineError(f"{engine.name} cannot be loaded: its process {end}; its last output:\n{tail}")
        if self._num_deaths >= MAX_DEATHS_WITHOUT_ANSWER:
            raise EngineError(
                f"{engine.name} crashed {self._num_deaths} times without answering anything; the last time its process "
                f"{end}; its last output:\n{tail}"
            )
        in_flight, self._in_flight = list(self._in_flight), {}
        guilty = self._recovery.note_death(in_flight)
        if guilty is not None:
            self._num_deaths = 0
            detail = f"the engine {end} whenever it worked on this request alone"
            self._pass_on(self._requests.pop(guilty), Reply("", failure=Failure(reason, detail)))
