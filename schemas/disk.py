"""What every part that reads and writes files of its own needs of the disk."""

import codecs
import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def sync(path: Path) -> None:
    """Make a file's contents, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that appears under its name when it is whole, over one that is there. Its rights follow the umask.

    Files of ``tempfile`` are the user's alone, and stay so when they are renamed.
    """
    unfinished = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, without the byte order mark that some editors write.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "CP1252"
        raise ValueError(f"it is not UTF-8; save it as UTF-8, as `iconv -f {encoding} -t UTF-8` does") from error


def write_text(path: Path, text: str) -> None:
    """Write a text as a file that appears when it is whole, in UTF-8, its ends of lines as they are."""
    with whole_file(path) as file:
        file.write(text.encode())


def share(folder: Path) -> None:
    """Give the files below a folder its own rights to read and write, which follow the umask.

    Some libraries write files that are the user's alone.
    """
    rights = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
