"""Ctrl-C comes while a module is imported that makes an ImportError of it, as extension modules do."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]

EXTENSION = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt as error:
    raise ImportError("initialization failed") from error
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "duckdb.py").write_text(EXTENSION)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


@pytest.mark.parametrize("command", [["status"], ["sql", "SELECT 1"]])
def test_a_command_ends_by_it(environment: dict[str, str], tmp_path: Path, command: list[str]) -> None:
    words = [sys.executable, "-m", "flows.cli", *command]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, timeout=GUARD_SECONDS, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("is_ignored", [False, True])
def test_whoever_catches_import_errors_does_not_run_on(environment: dict[str, str], is_ignored: bool) -> None:
    script = """
import contextlib
from factory.interrupts import heed_interrupts
heed_interrupts()
with contextlib.suppress(ImportError):
    import duckdb
print("ran on")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        timeout=GUARD_SECONDS,
        check=False,
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if is_ignored else None,
    )
    assert done.returncode == (0 if is_ignored else -signal.SIGINT)
    assert done.stdout == (b"ran on\n" if is_ignored else b"")


def test_between_imports_it_is_a_keyboard_interrupt(environment: dict[str, str]) -> None:
    script = """
import os, signal
from factory.interrupts import heed_interrupts
heed_interrupts()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert done.stdout == b"interrupted\n"
