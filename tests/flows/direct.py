"""Stand-ins in the build's own process: quick, for builds whose engines need not die."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from factory.engines.base import Engine, Failure, Reply, Request
from factory.engines.open import Task
from schemas.recipe.models import Model
from tests.flows.standin import StandIn

Fault = Callable[[Request], Failure | None]


class DirectEngine:
    """Answers as a stand-in does, unless ``fault`` has something against a request."""

    def __init__(self, settings: dict[str, Any], fault: Fault) -> None:
        self._settings = settings
        self._fault = fault

    def stream(self, requests: Iterable[Request]) -> Iterator[Reply]:
        core = StandIn(self._settings)
        try:
            for request in requests:
                failure = self._fault(request)
                core.submit(request)
                yield Reply(request.request_id, failure=failure) if failure else core.answer(request)
        finally:
            core.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return


class DirectEngines:
    """Opens them. ``open_server`` opens the openai engines, ``log`` is where stand-ins note what they were asked.

    ``same`` says of which models all samples of a prompt are the same.
    """

    def __init__(
        self,
        *,
        fault: Fault = lambda request: None,
        open_server: Callable[[Model, Task, threading.Event | None], Engine] | None = None,
        log: str | os.PathLike[str] = os.devnull,
        same: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.fault = fault
        self.open_server = open_server
        self.log = log
        self.same = same
        self.opened: list[str] = []

    def __call__(
        self, model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
    ) -> Engine:
        name = str(getattr(model, "name", "translator"))
        self.opened.append(name)
        if model.engine == "openai" and self.open_server is not None:
            return self.open_server(model, task, stop)
        settings = {"task": task, "name": name, "batch": 1, "seconds": 0, "log": str(self.log)}
        settings["is_varied"] = not self.same(name)
        return DirectEngine(settings, self.fault)
