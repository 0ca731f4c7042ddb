"""Locks on files, between processes. A lock ends with the process that holds it, however that dies: nothing is cleared up.

The package ``filelock`` would do for some of them and is not used: it has no shared locks on a file that others lock
alone, it waits by asking again and again where the kernel wakes whoever waits, where a file system has no locks it makes
do with files that a killed process leaves locked, and importing it takes a tenth of a second of every command.
"""

import fcntl
import os
import socket
from typing import IO


def name_holder() -> str:
    """Return the words by which a lock names its holder, this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lock(file: IO[bytes] | IO[str], *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file until it is unlocked or closed, alone or with others that share it.

    Return false where another process, or another open file of this one, has locked it and ``wait`` is false.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: IO[bytes] | IO[str]) -> None:
    """Give a lock back before the file is closed."""
    fcntl.flock(file, fcntl.LOCK_UN)


def claim(file: IO[str], *, wait: bool = False, name: str | None = None) -> str | None:
    """Lock a text file that is open for reading and writing, and write the holder's name into it, by default ours.

    Return None where that is done, or what the file says of the process that has locked it: nothing, if it was about to.
    """
    if not lock(file, wait=wait):
        file.seek(0)
        return file.read()
    file.truncate(0)
    file.seek(0)
    file.write(name or name_holder())
    file.flush()
    return None
