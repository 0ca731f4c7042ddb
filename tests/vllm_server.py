"""vLLM's own OpenAI-compatible server, on the CPU, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.services import free_port
from tests.waiting import GUARD_SECONDS

KEY = "sk-loopback"


@contextmanager
def vllm_serve(model: Path, log: Path, *arguments: str, max_model_len: int = 64) -> Iterator[str]:
    """Start vLLM's server with a model named ``tiny`` and the key ``KEY``, yield its base URL, and end it."""
    port = str(free_port())
    options = ["--host", "127.0.0.1", "--port", port, "--model", str(model), "--served-model-name", "tiny"]
    options += [
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        str(max_model_len),
        "--api-key",
        KEY,
        *arguments,
    ]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as output:
        # The command `vllm serve` looks for a package of the name vllm, which the CPU build has not.
        process = subprocess.Popen(
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + GUARD_SECONDS
        while not _is_healthy(port):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "the server takes too long to start"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_healthy(port: str) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").is_success
    except httpx.TransportError:
        return False
