"""File locks between processes. The kernel releases a lock when its holder ends, however it dies, so none goes stale.

The package ``filelock`` is not used: it has no shared locks beside exclusive ones on the same file, it polls where the
kernel would wake the waiting process, on file systems without locks it falls back to marker files that a killed process
leaves behind, and importing it adds a tenth of a second to every command.
"""

import fcntl
import os
import socket
from typing import IO


def name_holder() -> str:
    """Return how a lock file names this process as its holder."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock(file: IO[bytes] | IO[str], *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file until it is unlocked or closed, exclusively or, with ``shared``, together with other readers.

    Returns false if ``wait`` is false and another process, or another open file of this process, holds the lock.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: IO[bytes] | IO[str]) -> None:
    """Release a lock before its file is closed."""
    fcntl.flock(file, fcntl.LOCK_UN)


def claim(file: IO[str], *, wait: bool = False, name: str | None = None) -> str | None:
    """Lock a text file that is open for reading and writing, and write the holder's name into it (default: our own).

    Returns None on success, otherwise the name that the holder of the lock has written: empty if it is about to.
    """
    if not lock(file, wait=wait):
        file.seek(0)
        return file.read()
    file.truncate(0)
    file.seek(0)
    file.write(name or name_holder())
    file.flush()
    return None
