"""A child process and its pipes, from the supervisor's side."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

LOG_TAIL_LINES = 12
CLOSE_SECONDS = 10.0
EXIT_SECONDS = 2.0
"""How long to wait for the exit status of a child that has closed its pipe, before killing it."""

GROUP_SECONDS = 5.0
"""How long to wait for killed processes to release their memory; that of a large GPU takes a second or two."""

_CHUNK_BYTES = 1 << 16


class ChildProcess:
    """A running child (``factory.engines.supervision.child``), with non-blocking pipes and a log.

    The output of the child and its own children goes to an unlinked temporary file; ``log_tail`` returns its end.
    """

    def __init__(self, core: str, settings: Mapping[str, object], environment: Mapping[str, str]) -> None:
        request_read, self.request_fd = os.pipe()
        self.reply_fd, reply_write = os.pipe()
        lifeline_read, self._lifeline = os.pipe()
        theirs = (request_read, reply_write, lifeline_read)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "factory.engines.supervision.child", core, *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=theirs,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for descriptor in (self.request_fd, self.reply_fd):
            os.set_blocking(descriptor, False)
        self._unsent = bytearray(json.dumps(settings).encode("ascii") + b"\n")
        self._partial = bytearray()
        self._open = True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def num_unsent_bytes(self) -> int:
        return len(self._unsent)

    def is_running(self) -> bool:
        return self._process.poll() is None

    def send(self, frame: bytes) -> None:
        """Queue a frame; ``flush`` writes it."""
        self._unsent += frame

    def flush(self) -> None:
        """Write as much as the pipe accepts now. A dead child is noticed when reading, not here."""
        try:
            while self._unsent:
                del self._unsent[: os.write(self.request_fd, self._unsent[:_CHUNK_BYTES])]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent.clear()

    def read_frames(self) -> list[bytes] | None:
        """Return the complete frames that have arrived, or None at the end of the pipe."""
        try:
            data = os.read(self.reply_fd, _CHUNK_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return None
        self._partial += data
        *frames, self._partial = self._partial.split(b"\n")
        return [bytes(frame) for frame in frames]

    def kill(self) -> None:
        """Kill the child and every process of its group, and close its pipes and its log.

        The guardian stays in the group until then, so the group's number cannot have been reused.
        """
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        _await_group(self.pid)
        for descriptor in (self.request_fd, self.reply_fd, self._lifeline):
            os.close(descriptor)
        self._log.close()

    def close(self) -> None:
        """Let the child close its model, then kill whatever is left of it."""
        if self._open and self.is_running():
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.request_fd, inheritable=False)  # closes the pipe but keeps the number valid for kill()
            os.close(null)
            deadline = time.monotonic() + CLOSE_SECONDS
            while self.is_running() and time.monotonic() < deadline:
                self._discard_replies()
        self.kill()

    def _discard_replies(self) -> None:
        """Drain the reply pipe, on which the child might block, and wait a moment for the child to end."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.reply_fd, _CHUNK_BYTES):
                pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.02)

    def await_end(self) -> str:
        """Wait briefly for a child that has closed its pipe; return how it ended, for a message."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        code = self._process.poll()
        if code is None:
            return "closed its pipe"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    def log_tail(self) -> str:
        """Return the last lines of the child's output."""
        descriptor = self._log.fileno()
        start = max(0, os.fstat(descriptor).st_size - _CHUNK_BYTES)
        lines = os.pread(descriptor, _CHUNK_BYTES, start).decode("utf-8", errors="replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-LOG_TAIL_LINES:])


def _await_group(group: int) -> None:
    """Wait briefly until all killed processes of a group have released their memory.

    Orphans remain zombies until they are reaped, which may take long, so zombies count as ended.
    """
    deadline = time.monotonic() + GROUP_SECONDS
    while any(_is_alive(stat, group) for stat in Path("/proc").glob("[0-9]*/stat")) and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_alive(stat: Path, group: int) -> bool:
    try:
        state, _, process_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
    except OSError:
        return False
    return int(process_group) == group and state not in {"Z", "X"}
