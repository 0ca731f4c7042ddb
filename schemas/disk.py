"""Durable, atomic writes of files and folders, and reading of text files."""

import codecs
import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from schemas.errors import HeldError
from schemas.file_lock import lock

UNFINISHED = ".unfinished-"
"""Prefix of the names of folders that are still being written."""

_LOCK = ".lock"


def sync(path: Path) -> None:
    """Make a file's contents, or the names in a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` atomically once it is complete; its permissions follow the umask.

    ``tempfile`` is not used because it creates files that only their owner can read, and renaming keeps that.
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


@contextlib.contextmanager
def whole_folder(final: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yield a folder to write in, which is renamed to ``final`` once it is complete and deleted after an error.

    Leftovers of a killed process are deleted first. With ``replaces``, an existing ``final`` is replaced.

    Raises:
        HeldError: another process is writing the same folder.
        OSError: the folder cannot be written, or ``final`` exists.
    """
    with contextlib.ExitStack() as held:
        unfinished = _begin_alone(final, held)
        try:
            yield unfinished
            (unfinished / _LOCK).unlink()  # the open file stays locked until the rename is done
            finish_folder(unfinished, final, replaces=replaces)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _begin_alone(final: Path, held: contextlib.ExitStack) -> Path:
    """Create an unfinished folder, empty but for the lock file that this process holds, and return it.

    Another writer may finish, and rename or delete the folder, between our opening the lock file and locking it. The
    lock then guards a file that is no longer there, so the file is compared with the one on disk and we try again.
    """
    unfinished = name_unfinished(final)
    while True:
        unfinished.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            file = opened.enter_context((unfinished / _LOCK).open("a"))
            if not lock(file, wait=False):
                raise HeldError(f"another process is writing '{final}'; wait until it has finished, or stop it")
            if os.path.samestat(os.fstat(file.fileno()), (unfinished / _LOCK).stat()):
                for left in unfinished.iterdir():
                    if left.is_dir():
                        shutil.rmtree(left)
                    elif left.name != _LOCK:
                        left.unlink()
                held.push(opened.pop_all())
                return unfinished


def name_unfinished(final: Path) -> Path:
    """Return the path of a folder while it is being written."""
    return final.with_name(UNFINISHED + final.name)


def finish_folder(unfinished: Path, final: Path, *, replaces: bool = False) -> None:
    """Rename a complete folder to its final name; afterwards all of it survives a power cut."""
    for path in (*unfinished.rglob("*"), unfinished):
        sync(path)
    if replaces:
        shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    sync(final.parent)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes have left in a folder; the caller must be its only writer."""
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without the byte order mark that some editors write.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if path.read_bytes()[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "CP1252"
        raise ValueError(f"it is not UTF-8; save it as UTF-8, as `iconv -f {encoding} -t UTF-8` does") from error


def write_text(path: Path, text: str) -> None:
    """Write a text atomically as UTF-8, with its line endings unchanged."""
    with whole_file(path) as file:
        file.write(text.encode())


def share(folder: Path) -> None:
    """Give all files below a folder the folder's own read and write permissions, which follow the umask.

    Some libraries write files that only their owner can read.
    """
    rights = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(rights)
