"""Commands where packages of an extra are not installed: one sentence, which says what to install."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from factory.microworld.questions import MODELS
from flows.doctor.machine_checks import HeavyImports
from flows.recipe_names import check_run
from schemas.errors import MissingPackageError
from schemas.recipe.recipe import load_recipe
from tests.waiting import GUARD_SECONDS

ROOT = Path(__file__).parents[2]

RECIPE = f"""
name = "small"
languages = ["en"]
[[prompts]]
name = "p"
path = "prompts.jsonl"
columns = {{ prompt = "q" }}
language = "en"
[[teachers]]
name = "able"
model = "{MODELS}/base"
[[reward_models]]
name = "judge"
engine = "openai"
model = "judge"
run = {{ urls = ["http://127.0.0.1:9"] }}
"""

TRAIN = f'[train]\nmodel = "{MODELS}/base"\ndata = "rows.jsonl"\nobjective = "sft"\n[train.run]\nprocesses = 2\n'

MERGE = f'[merge]\nmethod = "linear"\n[[merge.models]]\nmodel = "{MODELS}/base"\n[[merge.models]]\nmodel = "{MODELS}/base"\n'

LOCAL = ("torch", "transformers", "vllm")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.jsonl").write_text('{"q": "What is the tallest mountain?"}\n')
    (tmp_path / "rows.jsonl").write_text('{"prompt": "What is it?", "response": "A mountain."}\n')
    (tmp_path / "lines.csv").write_text(
        "language,completion\nzh,今天天气很好，下午我们要去花园。\nja,今日は天気がいいです。\n"
    )
    for name, text in (("recipe", RECIPE), ("train", TRAIN), ("merge", MERGE)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def hide(folder: Path, *packages: str) -> dict[str, str]:
    """Return an environment in which Python finds none of the packages, in child processes either."""
    (folder / "hidden").mkdir()
    hiding = f"import sys\nsys.modules.update(dict.fromkeys({packages!r}))\n"
    (folder / "hidden" / "sitecustomize.py").write_text(hiding)
    return os.environ | {"PYTHONPATH": f"{folder / 'hidden'}{os.pathsep}{ROOT}"}


@pytest.mark.parametrize(
    ("command", "hidden", "extra"),
    [
        ("run recipe.toml", LOCAL, "cpu"),
        ("train train.toml trained", LOCAL, "cpu"),
        ("merge merge.toml merged", LOCAL, "cpu"),
        ("merge search merge.toml merged --fitness true", ("cma",), "cpu"),
        ("evaluate confusion lines.csv", ("jieba",), "evaluate"),
        ("evaluate confusion lines.csv", ("fugashi",), "evaluate"),
    ],
)
def test_a_command_says_which_extra_it_needs(folder, command, hidden, extra):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *command.split()],
        cwd=folder,
        env=hide(folder, *hidden),
        capture_output=True,
        text=True,
        timeout=GUARD_SECONDS,
    )
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert said.startswith(f"error: this needs {hidden[0]}")
    assert f"pip install 'expanse-factory[{extra}]'" in said
    assert not (folder / "merged").exists()


def test_a_run_needs_what_its_stages_need(folder, monkeypatch):
    recipe = load_recipe(folder / "recipe.toml")
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert check_run(recipe, "read") == "read"
    assert check_run(recipe, "translate") == "translate"
    with pytest.raises(MissingPackageError, match="this needs vllm, which"):
        check_run(recipe, "sample")


def test_the_doctor_calls_a_package_that_is_not_installed_a_problem_where_it_is_needed(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", hide(folder, "torch", "transformers")["PYTHONPATH"])
    with HeavyImports() as imports:
        found = list(imports.check(0, needed=set()))
    assert [(each.check, each.state) for each in found[:2]] == [("torch", "note"), ("transformers", "note")]
    assert "pip install 'expanse-factory[cpu]'" in found[0].to_do
    with HeavyImports() as imports:
        found = list(imports.check(0, needed={"torch"}))
    assert [each.state for each in found[:2]] == ["problem", "note"]
