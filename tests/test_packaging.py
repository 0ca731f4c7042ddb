"""The package as others get it: what it declares, and a wheel in an environment of its own, where nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.flows.recorded_build import serve_reward, write_recorded
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("schemas", "warehouse", "factory", "flows")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_lock_files_hold_what_is_declared(device):
    lines = (ROOT / f"requirements-{device}.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.partition(" ;")[0].split("==") for line in lines if is_for_this_python(line))
    wanted = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][device])]
    wanted += [line for extra in ("models", "evaluate", "dev") for line in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name == PROJECT["name"] or requirement.specifier.contains(locked[name]), f"make lock: {requirement}"


def is_for_this_python(line: str) -> bool:
    marker = Requirement(line).marker
    return marker is None or marker.evaluate()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy, since a build leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder / "dist", folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment that has the wheel and what it declares, in the versions of the lock file."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip(folder / "bin/python", "install", "--constraint", ROOT / "requirements-cpu.lock", wheel)
    return folder / "bin/python"


def pip(python: Path | str, *arguments: Path | str) -> None:
    done = subprocess.run([python, "-m", "pip", "--quiet", *arguments], env=plain(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def plain() -> dict[str, str]:
    """Return an environment in which Python finds only what is installed."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PREFECT_API_URL")}


@pytest.mark.slow
def test_a_wheel_makes_queries_and_exports_a_build_without_torch(python, tmp_path):
    def factory(*arguments: str, code: int = 0) -> str:
        command = [python.with_name("factory"), *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=plain(), capture_output=True, text=True, timeout=GUARD_SECONDS, check=False
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    looked = "from importlib.util import find_spec as find; print([find(name) for name in ('torch', 'transformers', 'vllm')])"
    assert subprocess.check_output([python, "-c", looked], text=True, env=plain()).strip() == "[None, None, None]"
    assert "Usage: factory" in factory("--help")
    factory("init", "new.toml")
    assert (tmp_path / "new.toml").is_file()
    assert "problems: none" in factory("doctor")
    assert "pip install 'expanse-factory[cpu]'" in factory("demo", code=1)

    with serve_reward() as server:
        write_recorded(tmp_path, num_prompts=3, url=server.url)
        factory("run", "recipe.toml", "--until", "pair", "--quiet")
    assert json.loads(factory("sql", "SELECT 1 AS one", "--format", "json")) == {"one": 1}
    assert json.loads(factory("sql", "SELECT count(*) AS n FROM pairs", "--format", "json")) == {"n": 3}
    assert "recorded" in factory("status")
    export = tmp_path / factory("export", "recipe.toml").strip()
    assert list((export / "preference").glob("*.parquet"))
    factory("report")


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_packages(wheel, python):
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file())
    files = {path.relative_to(ROOT).as_posix() for path in paths if path.suffix not in ("", ".pyc")}
    assert len(files) > 300
    shown = subprocess.check_output([sys.executable, "-m", "zipfile", "--list", wheel], text=True)
    assert files <= {line.split()[0] for line in shown.splitlines()}
    subprocess.run([python, "-m", "pip", "check"], check=True, env=plain())
