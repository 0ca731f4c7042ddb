"""The GPUs of this machine: what they are called, and leases on them that every process here sees.

A lease is a locked file, so it ends with the process that holds it, however it dies. The files lie where all users of a
machine may write whatever their HOME and TMPDIR are.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from schemas.errors import EngineError, HeldError
from schemas.file_lock import claim

_SHARED = Path("/dev/shm")
"""Where the leases lie: a TMPDIR may be a user's or a job's own."""

LIST_SECONDS = 30.0
"""How long nvidia-smi may take before something is wrong with the driver."""

_FIELDS = "index,uuid,name,memory.total,memory.used"

_VISIBLE = re.compile(r"\d+|(GPU|MIG)-\S+")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as nvidia-smi shows it; memory in bytes. ``uuid`` is the number where there is no UUID."""

    number: int
    uuid: str
    name: str
    memory: int
    used: int


def list_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs of this machine; none without a working nvidia-smi.

    Raises:
        EngineError: nvidia-smi does not answer.
    """
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=LIST_SECONDS).stdout
    except subprocess.TimeoutExpired:
        text = f"nvidia-smi has not answered for {LIST_SECONDS:.0f} s; its driver may hang: restart the machine"
        raise EngineError(text) from None
    rows = [[field.strip() for field in line.split(",")] for line in listed.splitlines()]
    return tuple(_read_gpu(*row) for row in rows if len(row) == len(_FIELDS.split(",")) and row[0].isdecimal())


def find_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, in its numbering: by UUID where nvidia-smi says it, else by number."""
    listed = tuple(gpu.uuid for gpu in list_gpus())
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
        holder = claim(file)
        if holder is not None:
            raise HeldError(f"GPU {gpu} is held by {holder or 'another process'}")
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


def _read_gpu(number: str, uuid: str, name: str, memory: str, used: str) -> Gpu:
    named = uuid if uuid.startswith("GPU-") else number
    return Gpu(int(number), named, name, _read_mebibytes(memory), _read_mebibytes(used))


def _read_mebibytes(text: str) -> int:
    return int(float(text) * 2**20) if text.replace(".", "").isdecimal() else 0


def _complete(name: str, listed: tuple[str, ...]) -> str:
    """Return the UUID of a GPU that is named by its number or by the beginning of its UUID."""
    if name.isdecimal():
        return listed[int(name)] if int(name) < len(listed) else name
    return next((uuid for uuid in listed if uuid.startswith(name)), name)


def _slug(gpu: str) -> str:
    return re.sub(r"[^\w-]", "_", gpu)
