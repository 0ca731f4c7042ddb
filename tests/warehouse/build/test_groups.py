"""A warehouse of two users of one group: what one makes, the other may write to, where the umask says so."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.warehouse.lake_rows import finish, start, warehouse_at

GROUP = 47110

WRITE = """
import os
os.umask(0o002)
with Lake.open(settings) as lake:
    lake.append("selections", make_selections([f"{os.getuid()}-{part}" for part in range(3)]))
    lake.append("completions", make_completions([f"{os.getuid()}"]))
    lake.delete("selections", "prompt_id LIKE '%-1'")
    lake.compact(keep=__import__("datetime").timedelta(days=-1))
    print(lake.query("SELECT count(*) FROM selections").item())
"""


def as_user(number: int) -> list[str]:
    """Return the beginning of a command line that runs as a user of the group, who may read all but not write all."""
    rights = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    command = ["setpriv", f"--reuid={number}", f"--regid={GROUP}", "--clear-groups", *rights, "--"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can be two users")
    if subprocess.run([*command, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine does not let root be another user")
    return command


def test_two_users_of_a_group_write_to_one_warehouse(tmp_path: Path) -> None:
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    home = tmp_path / "shared"
    home.mkdir()
    os.chown(home, -1, GROUP)
    home.chmod(0o2775)
    settings = warehouse_at(home / "lake")
    counts = [int(finish(start(settings, WRITE, run_as=as_user(number)))) for number in (47111, 47112, 47111)]
    assert counts == [2, 4, 4]
    for path in (home / "lake").rglob("*"):
        wanted = 0o070 if path.is_dir() else 0o060
        assert stat.S_IMODE(path.stat().st_mode) & 0o070 == wanted, path
        assert path.stat().st_gid == GROUP, path
