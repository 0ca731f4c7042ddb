"""Locks on files end with their holders and say who they are."""

import os
import subprocess
import sys
from pathlib import Path

from schemas.file_lock import claim, lock, name_holder, unlock

ROOT = Path(__file__).parents[2]

HOLD = """
import sys
from schemas.file_lock import claim, name_holder
with open(sys.argv[1], "a+") as file:
    print(name_holder() if claim(file) is None else "", flush=True)
    sys.stdin.read()
"""


def test_a_claim_names_its_holder_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("a holder of long ago with a long name, on another machine")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    holder = process.stdout.readline().strip()
    with path.open("a+") as file:
        assert claim(file) == holder == name_holder().replace(str(os.getpid()), str(process.pid))
    process.kill()
    process.communicate()
    with path.open("a+") as file:
        assert claim(file) is None
        assert path.read_text() == name_holder()


def test_readers_share_and_a_writer_does_not(tmp_path: Path) -> None:
    files = [(tmp_path / "lock").open("a") for _ in range(3)]
    first, second, writer = files
    assert lock(first, wait=False, shared=True)
    assert lock(second, wait=False, shared=True)
    assert not lock(writer, wait=False)
    unlock(first)
    second.close()
    assert lock(writer, wait=False)
    assert not lock(first, wait=False, shared=True)
    for file in files:
        file.close()
