"""Stopping a run before its last step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

import torch

from factory.training.processes import World


class StopSignals:
    """Records SIGINT and SIGTERM, so that a run can finish its step and save its state; repeats are ignored."""

    def __init__(self) -> None:
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._asked = signal.Signals(number)

    def asked(self, world: World) -> str | None:
        """Return the name of a signal that any process of the run has received, or None; the same on all processes."""
        highest = world.highest(torch.tensor(self._asked or 0, device=world.device))
        return signal.Signals(highest).name if highest else None
