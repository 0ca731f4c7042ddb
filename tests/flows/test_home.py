"""Machines where a user has no home that can be written, or no name: commands in real processes, as a stranger runs them."""

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flows.recorded_build import serve_reward, write_recorded
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]
NAMELESS = 54321
AS_STRANGER = (
    ["unshare", "--user", f"--map-user={NAMELESS}", f"--map-group={NAMELESS}", "--"],
    ["setpriv", f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups", "--"],
)
UNSET = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "TMPDIR")
OF_HOMES = ("XDG_", "PREFECT_", "HF_", "VLLM_", "TRITON_", "NUMBA_", "MPL", "CUDA_")


@dataclass
class Machine:
    """``folder`` is where work is done, ``temporary`` is TMPDIR, ``prefix`` begins each command line."""

    folder: Path
    temporary: Path
    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, code: int = 0, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the factory, with ``more`` in its environment; whatever it says is not a traceback."""
        command = [*self.prefix, sys.executable, "-m", "flows.cli", *arguments]
        environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(self.temporary), **self.environment, **more}
        kept = {
            name: value for name, value in os.environ.items() if name not in UNSET and not name.startswith(OF_HOMES)
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=kept | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "HF_HUB_OFFLINE": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=GUARD_SECONDS,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="factory-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def stranger(place: Path) -> Machine:
    """Work as a user whom the system does not know by name, and for whom the modes of files count."""
    machine = Machine(place / "work", place / "temporary")
    for folder in (machine.folder, machine.temporary):
        folder.mkdir()
        if os.geteuid() == 0:
            folder.chmod(0o777)
    for prefix in AS_STRANGER:
        reads = [sys.executable, "-c", f"import os; os.stat({__file__!r}); assert os.getuid() == {NAMELESS}"]
        if shutil.which(prefix[0]) and subprocess.run([*prefix, *reads], capture_output=True).returncode == 0:
            machine.prefix = prefix
            return machine
    pytest.skip("there is no right to become another user, or that one cannot read this project")


@pytest.fixture
def reward() -> Iterator[str]:
    with serve_reward() as server:
        yield server.url


def make_homeless(machine: Machine, place: Path, home: str) -> None:
    if home == "read-only":
        (place / "home").mkdir(mode=0o555)
        machine.environment["HOME"] = str(place / "home")
    elif home == "missing":
        machine.environment["HOME"] = "/nonexistent/home"
    elif home == "closed":
        (place / "closed").mkdir(mode=0o700)
        (place / "closed" / "home").mkdir()
        (place / "closed").chmod(0o000)
        machine.environment["HOME"] = str(place / "closed" / "home")


def give_database(machine: Machine, place: Path, database: Path, home: Path) -> Path:
    """Put a database of Prefect's into a home, which need not be there yet, as the machine's user; return it."""
    given = home / ".prefect" / "prefect.db"
    shutil.copy(database, place)  # out of pytest's folder, which is closed to others
    code = "import os, shutil, sys; os.makedirs(os.path.dirname(sys.argv[2])); shutil.copy(*sys.argv[1:])"
    copy = [*machine.prefix, sys.executable, "-c", code, str(place / database.name), str(given)]
    subprocess.run(copy, umask=0o077, check=True)
    return given


def write_light_packages(folder: Path) -> str:
    """Write empty packages in place of those that the doctor takes long to import; return a path to them and to ours."""
    for name in ("torch", "transformers", "vllm", "vllm/v1", "vllm/v1/engine", "vllm/v1/engine/llm_engine"):
        (folder / "packages" / name).mkdir(parents=True)
        (folder / "packages" / name / "__init__.py").touch()
    return f"{folder / 'packages'}{os.pathsep}{ROOT}"


@pytest.mark.parametrize("home", ["unset", "missing", "read-only", "closed"])
def test_what_needs_a_home_gets_one_among_the_temporary_files(stranger, place, reward, prefect_database, home):
    make_homeless(stranger, place, home)
    substitute = stranger.temporary / f"factory-home-{NAMELESS}"
    database = give_database(stranger, place, prefect_database, substitute)
    write_recorded(stranger.folder, num_prompts=2, url=reward)
    assert "Usage" in stranger.run("--help").stdout
    stranger.run("init", "new.toml")
    # torch and vLLM come up in a home of each kind: one that stands in for all of it, and one for parts
    light = {} if home in ("missing", "read-only") else {"PYTHONPATH": write_light_packages(place)}
    assert re.search(r"│ home\s+│ note ", stranger.run("doctor", **light).stdout)
    stranger.run("plan", "recipe.toml")
    said = stranger.run("run", "recipe.toml").stderr
    assert "warning" not in said, said
    assert '"n":2' in stranger.run("sql", "--format", "json", "SELECT count(*) AS n FROM pairs").stdout.replace(" ", "")
    stranger.run("report")
    assert (stranger.folder / "report.html").stat().st_size > 1000
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM flow_run").fetchone() == (1,)
    if home == "read-only":
        assert not list((place / "home").iterdir())


def test_what_lies_in_a_home_that_cannot_be_written_is_still_read(stranger, place):
    home = place / "home"
    for folder in (".prefect", ".cache/huggingface/hub"):
        (home / folder).mkdir(parents=True)
    (home / ".prefect" / "profiles.toml").write_text(
        'active = "work"\n[profiles.work]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n'
    )
    for folder in (home, *(path for path in home.rglob("*") if path.is_dir())):
        folder.chmod(0o555)
    stranger.environment["HOME"] = str(home)
    said = stranger.run("schedule", write_plain(stranger.folder), "--cron", "0 2 * * *", code=1).stderr
    assert said.startswith("error: the Prefect server at http://127.0.0.1:9/api does not answer")
    command = "import os; from flows.home import provide_home; provide_home(); print(os.environ['HF_HUB_CACHE'])"
    printed = subprocess.check_output(
        [*stranger.prefix, sys.executable, "-c", command],
        cwd=stranger.folder,
        env={"HOME": str(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(stranger.temporary)},
        text=True,
    )
    assert printed.strip() == str(home / ".cache/huggingface/hub")


def write_plain(folder: Path) -> str:
    write_recorded(folder, num_prompts=2, url="http://127.0.0.1:9/v1")
    return "recipe.toml"


def test_a_current_folder_that_cannot_be_written_is_one_sentence(stranger, place, reward, prefect_database):
    write_recorded(stranger.folder, num_prompts=2, url=reward)
    home = stranger.temporary / "home"
    home.mkdir(mode=0o777)
    home.chmod(0o777)
    give_database(stranger, place, prefect_database, home)
    stranger.environment["HOME"] = str(home)
    stranger.folder.chmod(0o555)
    assert stranger.run("init", "new.toml", code=1).stderr == "error: new.toml cannot be written: Permission denied\n"
    said = stranger.run("run", "recipe.toml", code=1).stderr
    assert said.count("error: ") == 1
    assert "lake" in said
    light = write_light_packages(stranger.temporary)
    assert "cannot be written" in stranger.run("doctor", code=1, PYTHONPATH=light).stdout
    stranger.run("plan", "recipe.toml")


def test_no_folder_for_temporary_files_is_one_sentence(stranger):
    if shutil.which("prlimit") is None:
        pytest.skip("needs prlimit")
    stranger.prefix = ["prlimit", "--fsize=0", "--", *stranger.prefix]
    stranger.environment["TMPDIR"] = "/nonexistent"
    for command in (["init", "new.toml"], ["sql", "SELECT 1"]):
        done = stranger.run(*command, code=1)
        assert done.stderr == "error: no folder for temporary files can be written; name one in TMPDIR\n"


def test_a_current_folder_that_is_gone_is_one_sentence(place):
    gone = place / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from flows.cli import main; sys.argv = ['factory', 'plan', 'x.toml']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=gone,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the current folder is gone; change to one that is there\n",
    )
