"""One run at a time in a folder."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from factory.training.processes import World
from schemas.errors import TrainingError

LOCK_FILE = ".lock"

PATIENCE_SECONDS = 60.0
"""How long another run in the folder may take to end, as one does that saves its state because its parent was killed."""


@contextmanager
def hold_output(output: Path, world: World) -> Iterator[None]:
    """Keep other runs out of a folder. The lock ends with the process that holds it, however it dies.

    Raises:
        TrainingError: another process trains there.
    """
    holder = ""
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK_FILE).open("a+", encoding="utf-8") as file:
        if world.is_main and not _lock(file):
            file.seek(0)
            holder = file.read() or "?"
        holder = "".join(world.gather(holder))
        if holder:
            raise TrainingError(f"process {holder} trains in {output} already; wait for its end, or stop it")
        yield


def _lock(file: TextIO) -> bool:
    """Lock a file for this process and write down which it is; return whether that could be done."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        else:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return True
