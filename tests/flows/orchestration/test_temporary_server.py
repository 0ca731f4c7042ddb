"""The Prefect server of one run: it serves, it ends with its process, and a server that is configured is used instead."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from flows.orchestration.temporary_server import temporary_server
from schemas.errors import FactoryError
from tests.waiting import GUARD_SECONDS

HOLD = """
import sys
from flows.orchestration.temporary_server import temporary_server
with temporary_server() as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def is_served(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=GUARD_SECONDS):
            return True
    except OSError:
        return False


def test_a_server_ends_with_the_process_that_started_it(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert is_served(url)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + GUARD_SECONDS
    while is_served(url):
        assert time.monotonic() < deadline, "the server outlived its process"
        time.sleep(0.05)


def test_a_configured_server_is_used(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", HOLD]
    url = "http://127.0.0.1:9/api"
    printed = subprocess.check_output(command, env=environment | {"PREFECT_API_URL": url}, input="", text=True)
    assert printed.strip() == url


def test_a_server_that_cannot_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", f"sqlite+aiosqlite:///{tmp_path}/file/prefect.db")
    with pytest.raises(FactoryError, match=r"no Prefect server could be started for this run: .+"), temporary_server():
        pass
