"""The GPUs of this machine: what they are called, and leases on them that every process here sees.

A lease is a locked file, so it ends with the process that holds it, however it dies. The files lie where all users of a
machine may write whatever their HOME and TMPDIR are.
"""

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from schemas.errors import HeldError
from warehouse.locks import name_holder

_SHARED = Path("/dev/shm")
"""Where the leases lie: a TMPDIR may be a user's or a job's own."""

_VISIBLE = re.compile(r"\d+|(GPU|MIG)-\S+")


def find_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, in its numbering: by UUID where nvidia-smi says it, else by number."""
    listed = _list_gpus()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return listed
    names = takewhile(_VISIBLE.fullmatch, (name.strip() for name in visible.split(",")))  # CUDA stops there, too
    return tuple(_complete(name, listed) for name in names)


@contextlib.contextmanager
def lease(gpus: Sequence[str]) -> Iterator[None]:
    """Hold GPUs, alone among all processes of this machine, for the length of a ``with`` block.

    Raises:
        HeldError: another process holds one of them; none is held then.
    """
    with contextlib.ExitStack() as held:
        for gpu in gpus:
            held.enter_context(_lock(gpu))
        yield


@contextlib.contextmanager
def _lock(gpu: str) -> Iterator[None]:
    with os.fdopen(_open_for_all(_folder() / f"expanse-factory-gpu-{_slug(gpu)}"), "r+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise HeldError(f"GPU {gpu} is held by {file.read() or 'another process'}") from None
        file.truncate(0)
        file.write(name_holder())
        file.flush()
        yield


def _open_for_all(path: Path) -> int:
    """Open a file that every user may lock, whatever the umask; one that is new appears with its rights.

    It is opened without O_CREAT, which Linux refuses for other people's files in such folders.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(new, flags | os.O_CREAT | os.O_EXCL)
    os.fchmod(descriptor, 0o666)
    os.close(descriptor)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink()
    return os.open(path, flags)


def _folder() -> Path:
    return _SHARED if os.access(_SHARED, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _list_gpus() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    lines = [line for line in listed.splitlines() if line.startswith("GPU ")]
    return tuple(
        found[1] if (found := re.search(r"UUID: ([\w-]+)", line)) else str(number) for number, line in enumerate(lines)
    )


def _complete(name: str, listed: tuple[str, ...]) -> str:
    """Return the UUID of a GPU that is named by its number or by the beginning of its UUID."""
    if name.isdecimal():
        return listed[int(name)] if int(name) < len(listed) else name
    return next((uuid for uuid in listed if uuid.startswith(name)), name)


def _slug(gpu: str) -> str:
    return re.sub(r"[^\w-]", "_", gpu)
