"""A lock that allows one run at a time in an output folder."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from factory.training.processes import World
from schemas.errors import TrainingError
from schemas.file_lock import claim

LOCK_FILE = ".lock"

PATIENCE_SECONDS = 60.0
"""How long to wait for another run in the folder, which may still be saving its state after its parent was killed."""


@contextmanager
def hold_output(output: Path, world: World) -> Iterator[None]:
    """Lock an output folder against other runs. The lock is released when this process ends, however it dies.

    Raises:
        TrainingError: another process is training there; raised in all processes of this run.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK_FILE).open("a+", encoding="utf-8") as file:
        holders = world.gather(_wait(file) if world.is_main else None)
        for holder in holders:
            if holder is not None:
                raise TrainingError(
                    f"process {holder or '?'} is already training in {output}; wait until it has finished, or stop it"
                )
        yield


def _wait(file: TextIO) -> str | None:
    """Lock a file and write our process number into it; return the holder if it keeps the lock for too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (holder := claim(file, name=str(os.getpid()))) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return holder
