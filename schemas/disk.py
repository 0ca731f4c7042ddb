"""What every part that reads and writes files of its own needs of the disk."""

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
"""How the names of folders begin that are not whole yet."""

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


@contextlib.contextmanager
def whole_folder(final: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Give a folder to write in, which appears as ``final`` when it is whole; after an error nothing of it is left.

    What a killed process has left of it is cleared away. With ``replaces``, a folder that is there already goes.

    Raises:
        HeldError: another process is writing it.
        OSError: it cannot be written, or is there already.
    """
    with contextlib.ExitStack() as held:
        unfinished = _begin_alone(final, held)
        try:
            yield unfinished
            (unfinished / _LOCK).unlink()  # still locked
            finish_folder(unfinished, final, replaces=replaces)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _begin_alone(final: Path, held: contextlib.ExitStack) -> Path:
    """Make an unfinished folder and lock a file in it; a writer that was there before may end between the two."""
    unfinished = name_unfinished(final)
    while True:
        unfinished.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened, contextlib.suppress(FileNotFoundError):
            file = opened.enter_context((unfinished / _LOCK).open("a"))
            if not lock(file, wait=False):
                raise HeldError(f"another process is writing '{final}'; wait for its end, or stop it")
            if os.path.samestat(os.fstat(file.fileno()), (unfinished / _LOCK).stat()):
                for left in unfinished.iterdir():
                    if left.is_dir():
                        shutil.rmtree(left)
                    elif left.name != _LOCK:
                        left.unlink()
                held.push(opened.pop_all())
                return unfinished


def name_unfinished(final: Path) -> Path:
    """Return where a folder lies until it is whole."""
    return final.with_name(UNFINISHED + final.name)


def finish_folder(unfinished: Path, final: Path, *, replaces: bool = False) -> None:
    """Put a folder that is whole in its place, so that all of it survives a power cut."""
    for path in (*unfinished.rglob("*"), unfinished):
        sync(path)
    if replaces:
        shutil.rmtree(final, ignore_errors=True)
    unfinished.rename(final)
    sync(final.parent)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes have left in a folder of which nobody else writes anything."""
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


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
