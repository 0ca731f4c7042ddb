"""Stand-ins in the build's own process: quick, for builds whose engines need not die."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from factory.engines.base import Engine, Failure, Reply, Request
from factory.engines.open import Task
from schemas.recipe import Model
from tests.flows.standin import StandIn

Fault = Callable[[Request], Failure | None]


class DirectEngine:
    """Answers as a stand-in does, unless ``fault`` has something against a request."""

    def __init__(self, core: StandIn, fault: Fault) -> None:
        self._core = core
        self._fault = fault

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            self._core.submit(request)
            failure = self._fault(request)
            yield Reply(request.request_id, failure=failure) if failure else self._core.step()[0]
            self._core.waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._core.close()


class DirectEngines:
    """Opens them; ``asked`` counts the requests by task and model, ``open_other`` opens what is no folder."""

    def __init__(
        self,
        *,
        fault: Fault = lambda request: None,
        open_other: Callable[[Model, Task, threading.Event | None], Engine] | None = None,
    ) -> None:
        self.fault = fault
        self.open_other = open_other
        self.opened: list[str] = []

    def __call__(
        self, model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
    ) -> Engine:
        name = str(getattr(model, "name", "translator"))
        self.opened.append(name)
        if model.engine == "openai" and self.open_other is not None:
            return self.open_other(model, task, stop)
        settings = {"task": task, "name": name, "batch": 1, "seconds": 0, "log": os.devnull}
        return DirectEngine(StandIn(settings), self.fault)
