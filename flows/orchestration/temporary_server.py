"""A Prefect server for one run, where there is no other; it ends with whoever started it, however that dies.

Prefect's own temporary server outlives a process that is killed.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator

from factory.loading import loading
from flows.prefect_settings import find_url
from schemas.errors import FactoryError

START_SECONDS = 120.0
"""How long the server may take to answer; on a busy machine it is half a minute."""

_LEAN = {"PREFECT_API_BLOCKS_REGISTER_ON_START": "false"}
"""What a run does not need of its server, and what would take part of a second: the blocks that Prefect knows."""


@contextlib.contextmanager
def temporary_server() -> Iterator[str]:
    """Have a Prefect server for the length of a ``with`` block: the one that is configured, or one of its own.

    Yields its URL; that one that is configured answers is not tried.

    Raises:
        FactoryError: it does not start; with the last line that it wrote.
    """
    configured = find_url()
    if configured is not None:
        yield configured
        return
    with tempfile.TemporaryFile() as written, contextlib.ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            command = [sys.executable, "-m", "flows.orchestration.temporary_server", str(listener.fileno())]
            server = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=written,
                pass_fds=[listener.fileno()],
                env=_LEAN | os.environ,
                start_new_session=True,  # Ctrl-C is for the run, which has its end to report
            )
        stack.callback(server.wait)
        stack.enter_context(server.stdin)  # type: ignore[arg-type]
        # What will run takes as long to load as the server takes to start.

        try:
            with urllib.request.urlopen(f"{url}/health", timeout=START_SECONDS):
                pass
        except OSError as error:
            server.kill()
            server.wait()
            written.seek(0)
            lines = written.read().decode(errors="replace").split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), str(error))
            raise FactoryError(f"no Prefect server could be started for this run: {reason}") from error
        yield url


def _serve(listener: socket.socket) -> None:
    with loading():
        import uvicorn
        from prefect.server.api.server import create_app

        app = create_app(ephemeral=True, final=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on")).run(sockets=[listener])


def _end_with_parent() -> None:
    sys.stdin.read()  # ends when the other end closes, which the system sees to
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _serve(socket.socket(fileno=int(sys.argv[1])))
