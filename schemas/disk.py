"""What every part that writes folders needs of the disk."""

import os
import uuid
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's contents, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears under its name when it is whole, over one that is there. Its rights follow the umask.

    Files of ``tempfile`` are the user's alone, and stay so when they are renamed.
    """
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
