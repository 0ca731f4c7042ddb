"""All that a build leaves has the rights that the umask says, no fewer and no more: a group shares it, or nobody does."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import WORDS
from tests.flows.policy_recipe import make_policy

ROOT = Path(__file__).parents[2]

BUILD = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from flows.evaluation.winrate import run_winrate
from flows.build.run import execute_build
from flows.held_out import make_evaluation
from flows.report.page import write_report
from flows.policy.policy import train_policy
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines
import flows.evaluation.winrate as report

recipe = load_recipe(Path(sys.argv[1]))
engines = DirectEngines()
build = execute_build(recipe, quiet=True, open_engine=engines)
write_report(recipe.warehouse, None, Path("report.html"))
if recipe.policy:
    train_policy(recipe, build, until="sft", quiet=True, open_engine=engines)
evaluate = report.evaluate
report.evaluate = lambda *arguments, **options: evaluate(*arguments, **options, open_engine=engines)
models = ("north", str(Path("models/north").resolve())), ("south", str(Path("models/south").resolve()))
run_winrate(make_evaluation(recipe, build.config_id, "small", *models), warehouse=recipe.warehouse, quiet=True)
"""


def build(recipe: Path, umask: str) -> None:
    """Run a recipe in a process of its own, with a cache of its own."""
    home = recipe.parent
    environment = os.environ | {"XDG_CACHE_HOME": str(home / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BUILD, str(recipe), umask]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def list_made(home: Path, recipe: Path, umask: str) -> set[Path]:
    """Run a recipe with recorded answers; return what it made, after a look at the rights of each file and folder."""
    answers = [{"id": f"row-{number}", "a": f"An answer about the {WORDS[number % 12]}"} for number in range(40)]
    (home / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    columns = '{ text = "a", key = "id" }'
    teacher = f'name = "old"\nengine = "recorded"\nrecorded = {{ path = "answers.jsonl", columns = {columns} }}'
    recipe.write_text(recipe.read_text().replace("[gates]", f"[[teachers]]\n{teacher}\n[gates]", 1))
    before = set(home.rglob("*"))
    build(recipe, umask)
    made = set(home.rglob("*")) - before
    for path in sorted(made):
        wanted = (0o777 if path.is_dir() else 0o666) & ~int(umask, 8)
        assert stat.S_IMODE(path.stat().st_mode) == wanted, f"{path}: {stat.filemode(path.stat().st_mode)}"
    return made


@pytest.mark.parametrize("umask", ["002", "077"])
def test_what_a_build_leaves_follows_the_umask(write_recipe, tmp_path: Path, umask: str) -> None:
    made = {path.name for path in list_made(tmp_path, write_recipe(), umask)}
    assert {"catalog.sqlite", "catalog.sqlite.locks", "manifest.json", "report.html", "evaluations"} <= made


def test_what_a_policy_leaves_follows_the_umask(write_recipe, tmp_path: Path) -> None:
    made = {path.name for path in list_made(tmp_path, write_recipe(extra=make_policy(max_steps=1)), "002")}
    assert {"model.safetensors", "result.json", "checkpoints"} <= made
