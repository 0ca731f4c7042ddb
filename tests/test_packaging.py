"""The package as others get it: what it declares, and a wheel in an environment of its own, where nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.factory.engines.scripted_server import Call, ScriptedServer
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = ("schemas", "warehouse", "factory", "flows")

RECIPE = """
name = "small"
languages = ["en"]
[[prompts]]
name = "questions"
path = "prompts.jsonl"
columns = {{ prompt = "q", id = "id" }}
language = "en"
[[teachers]]
name = "recorded"
engine = "recorded"
[teachers.recorded]
path = "answers.jsonl"
columns = {{ text = "a", key = "id" }}
[[reward_models]]
name = "judge"
engine = "openai"
model = "judge"
run = {{ urls = ["{url}"] }}
[[pairs]]
strategy = "best_vs_worst"
"""


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_lock_files_hold_what_is_declared(device):
    lines = (ROOT / f"requirements-{device}.lock").read_text(encoding="utf-8").splitlines()
    locked = dict(line.split("==") for line in lines)
    wanted = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][device])]
    wanted += [line for extra in ("models", "evaluate", "dev") for line in PROJECT["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name == PROJECT["name"] or requirement.specifier.contains(locked[name]), f"make lock: {requirement}"


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


@pytest.fixture
def url() -> Iterator[str]:
    """Serve a reward model that likes long answers."""

    async def answer(call: Call) -> Any:
        if call.body["use_activation"] == "?":
            return 400, {"error": {"message": "use_activation must be a boolean"}}
        return {"data": [{"probs": [float(len(call.text))]}], "usage": {"prompt_tokens": 3}}

    with ScriptedServer(answer) as server:
        yield server.url


@pytest.mark.slow
def test_a_wheel_makes_queries_and_exports_a_build_without_torch(python, tmp_path, url):
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

    questions = "What is the capital of Spain?", "Why does the sea taste of salt?", "Who wrote the first long novel?"
    rows = [{"id": number, "q": question} for number, question in enumerate(questions)]
    answers = [
        {"id": row["id"], "a": f"That is an old question, and the answer is {words}."}
        for row in rows
        for words in ("the second city by the sea", "the largest city in the whole of the north")
    ]
    for name, written in (("prompts", rows), ("answers", answers)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    (tmp_path / "small.toml").write_text(RECIPE.format(url=url))
    factory("run", "small.toml", "--until", "pair", "--quiet")
    assert json.loads(factory("sql", "SELECT 1 AS one", "--format", "json")) == {"one": 1}
    assert json.loads(factory("sql", "SELECT count(*) AS n FROM pairs", "--format", "json")) == {"n": 3}
    assert "small" in factory("status")
    export = tmp_path / factory("export", "small.toml").strip()
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
