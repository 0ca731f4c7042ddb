"""What every part that writes folders needs of the disk."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's contents, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
