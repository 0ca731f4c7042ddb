"""A core without a model: deterministic text, a set pace, and requests that kill it."""

import ctypes
import os
import signal
import subprocess
import time
from typing import Any

from factory.engines.base import Failure, Reply, Request
from schemas.errors import EngineError
from schemas.reasons import Reason


class StandIn:
    """Echoes the last message. ``batch`` requests finish in each step, which takes ``seconds``.

    What the last message begins with decides: ``poison`` kills the process once it is worked on, ``hang`` never ends,
    ``refuse`` is a failure; ``pid`` is answered with the ids of the process and its child, ``devices`` with its GPUs.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        if sentence := settings.get("refuse"):
            raise EngineError(sentence)
        if settings.get("crash"):
            print("cannot allocate memory for the stand-in", flush=True)
            os._exit(3)
        self.batch = settings.get("batch", 16)
        self.seconds = settings.get("seconds", 0.0)
        self.idle_steps = settings.get("idle_steps", 0)
        self.waiting: list[Request] = []
        self.grandchild = subprocess.Popen(["sleep", "600"]) if settings.get("grandchild") else None

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    def step(self) -> list[Reply]:
        time.sleep(self.seconds)
        if self.idle_steps:
            self.idle_steps -= 1
            return []
        worked_on, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        return [self.answer(request) for request in worked_on]

    def answer(self, request: Request) -> Reply:
        text = request.messages[-1]["content"]
        if text.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith("segfault"):
            ctypes.string_at(0)
        if text.startswith("hang"):
            ctypes.PyDLL(None).sleep(3600)  # holds the interpreter's lock, as a kernel that never returns may
        if text.startswith("refuse"):
            return Reply(request.request_id, failure=Failure(Reason.PROMPT_TOO_LONG, "too long"))
        if text.startswith("pid"):
            grandchild = self.grandchild.pid if self.grandchild else 0
            return Reply(request.request_id, text=f"{os.getpid()} {grandchild}")
        if text.startswith("devices"):
            return Reply(request.request_id, text=os.environ["CUDA_VISIBLE_DEVICES"])
        return Reply(request.request_id, text=f"echo {text}", finish_reason="stop", num_completion_tokens=1)

    def close(self) -> None:
        if self.grandchild is not None:
            self.grandchild.kill()
            self.grandchild.wait()


def open_core(settings: dict[str, Any]) -> StandIn:
    return StandIn(settings)
