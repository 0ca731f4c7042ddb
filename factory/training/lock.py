"""One run at a time in a folder."""

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
"""How long another run in the folder may take to end, as one does that saves its state because its parent was killed."""


@contextmanager
def hold_output(output: Path, world: World) -> Iterator[None]:
    """Keep other runs out of a folder. The lock ends with the process that holds it, however it dies.

    Raises:
        TrainingError: another process trains there.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK_FILE).open("a+", encoding="utf-8") as file:
        holders = world.gather(_wait(file) if world.is_main else None)
        for holder in holders:
            if holder is not None:
                raise TrainingError(f"process {holder or '?'} trains in {output} already; wait for its end, or stop it")
        yield


def _wait(file: TextIO) -> str | None:
    """Lock a file for this process and write down which it is; return who holds it where that could not be done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (holder := claim(file, name=str(os.getpid()))) is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    return holder
