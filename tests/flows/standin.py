"""Engines without models, for whole builds: every task of a build, deterministic, with a log of what was asked."""

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from factory.engines.base import Reply, Request
from factory.engines.open import Task
from factory.engines.supervision.supervisor import ChildEngine, ChildModel
from schemas.ids import content_id
from schemas.recipe.models import Model

CORE = "tests.flows.standin:open_core"

LETTERS = str.maketrans("0123456789", "ghijklmnop")


class StandIn:
    """Answers ``batch`` requests a step, each step taking ``seconds``; writes every request to ``log`` as it comes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.task = settings["task"]
        self.name = settings["name"]
        self.batch = settings["batch"]
        self.seconds = settings["seconds"]
        self.is_varied = settings.get("is_varied", False)
        self.log = Path(settings["log"]).open("a", encoding="utf-8")  # noqa: SIM115
        self.waiting: list[Request] = []

    def submit(self, request: Request) -> None:
        asked = [request.target_language, *(message["content"] for message in request.messages)]
        self.log.write(f"{self.task} {os.getpid()} {content_id('asked', asked)} {self.name}\n")
        self.log.flush()
        self.waiting.append(request)

    def step(self) -> list[Reply]:
        time.sleep(self.seconds)
        worked_on, self.waiting = self.waiting[: self.batch], self.waiting[self.batch :]
        return [self.answer(request) for request in worked_on]

    def answer(self, request: Request) -> Reply:
        text = request.messages[-1]["content"]
        # A supervised child sees ids of its own making, which tell nothing of the sample.
        sample = request.request_id if self.task == "generate" and self.is_varied else ""
        digest = hashlib.sha256(f"{self.name} {text} {sample}".encode()).digest()
        if self.task == "score":
            return Reply(request.request_id, score=int.from_bytes(digest[:4], "big") / 2**28, num_prompt_tokens=9)
        if self.task == "translate":
            words = f"{request.target_language} {text[::-1] if text.isalpha() else f'« {text} »'}"
        else:
            spoken = digest.hex().translate(LETTERS)  # a number of hexadecimal digits would be kept in translation
            words = f"{self.name} says {spoken[: 4 + digest[0] % 40]} to {text}"
        return Reply(request.request_id, text=words, finish_reason="stop", num_prompt_tokens=9, num_completion_tokens=5)

    def close(self) -> None:
        self.log.close()


def open_core(settings: dict[str, Any]) -> StandIn:
    return StandIn(settings)


class StandInEngines:
    """Opens stand-ins in place of a recipe's models, in supervised child processes as the real ones are."""

    def __init__(self, log: Path, *, batch: int = 4, seconds: float = 0.01, max_in_flight: int = 16) -> None:
        self.log = log
        self.batch = batch
        self.seconds = seconds
        self.max_in_flight = max_in_flight

    def __call__(
        self, model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
    ) -> ChildEngine:
        settings = {
            "task": task,
            "name": getattr(model, "name", "translator"),
            "batch": self.batch,
            "seconds": self.seconds,
            "log": str(self.log),
        }
        return ChildEngine(ChildModel(CORE, settings, devices=devices), max_in_flight=self.max_in_flight, stop=stop)

    def asked(self) -> list[tuple[str, int, str, str]]:
        """Return (task, pid, content id of what was asked, model) of every request that a stand-in was given."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [(line[0], int(line[1]), line[2], line[3]) for line in map(str.split, lines) if len(line) == 4]
