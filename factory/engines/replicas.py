"""Several engines of one model as one: they share a stream of requests and a stream of replies."""

import queue
import threading
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from typing import Self

from factory.engines.base import Engine, Reply, Request


class EnginePool:
    """Replicas behind the ``Engine`` protocol. A replica that fails permanently ends the stream with its error."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for engine in self._engines:
                stack.enter_context(engine)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def stream(self, requests: Iterable[Request]) -> Generator[Reply]:
        """Yield one reply per request as each finishes; a replica takes its next request when it has room."""
        shared = _Shared(requests)
        replies: queue.Queue[Reply | BaseException | None] = queue.Queue(maxsize=1024)
        threads = [
            threading.Thread(target=_feed, args=(engine, shared, replies), name=f"replica-{number}", daemon=True)
            for number, engine in enumerate(self._engines)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in threads:
                while (item := replies.get()) is not None:
                    if isinstance(item, BaseException):
                        raise item
                    yield item
        finally:
            shared.close()
            while any(thread.is_alive() for thread in threads):
                _drain(replies)
                for thread in threads:
                    thread.join(timeout=0.05)


class _Shared:
    """An iterator that several threads may use."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)
        self._lock = threading.Lock()
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Request:
        with self._lock:
            if self._is_closed:
                raise StopIteration
            return next(self._requests)

    def close(self) -> None:
        self._is_closed = True


def _feed(engine: Engine, requests: _Shared, replies: "queue.Queue[Reply | BaseException | None]") -> None:
    try:
        for reply in engine.stream(requests):
            replies.put(reply)
    except BaseException as error:  # handed to the reader, which raises it
        replies.put(error)
    else:
        replies.put(None)


def _drain(replies: "queue.Queue[Reply | BaseException | None]") -> None:
    while True:
        try:
            replies.get_nowait()
        except queue.Empty:
            return
