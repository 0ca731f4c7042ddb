"""What a command loads: packages that take long to import are left alone by commands that do not need them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.build.run import execute_build
from schemas.recipe.recipe import load_recipe
from tests.flows.direct import DirectEngines
from tests.flows.recorded_build import write_recorded

HEAVY = {
    "dataframely",
    "datasets",
    "duckdb",
    "fasttext",
    "httpx",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "numpy",
    "openai",
    "pandas",
    "polars",
    "prefect",
    "pyarrow",
    "ray",
    "rich",
    "sklearn",
    "sqlalchemy",
    "torch",
    "transformers",
    "vllm",
}
"""Packages that take a twentieth of a second or more to import."""

FRAMES = {"numpy", "polars", "pyarrow"}

LOADED = {
    "--help": set(),
    "init other.toml": set(),
    "sql -f json SELECT+1": {"duckdb", "rich"},
    "sql FROM+candidates": {"duckdb", "rich"},
    "status": {"duckdb", "rich"} | FRAMES,
    "plan recipe.toml": {"duckdb", "rich"} | FRAMES,
    "export recipe.toml": {"duckdb"} | FRAMES,
    "run recipe.toml": {"duckdb", "rich", "fasttext", "dataframely", "sqlalchemy"} | FRAMES,
}
"""What each command loads of them, once the recipe's build is finished. Dataframely brings SQLAlchemy."""

COMMAND = """
import json, sys
import flows.cli
try:
    flows.cli.main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "project"
    path = write_recorded(folder, num_prompts=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute_build(load_recipe(path), quiet=True, open_engine=DirectEngines())
    return folder


@pytest.mark.parametrize("command", LOADED)
def test_a_command_loads_no_more_than_it_needs(finished: Path, command: str) -> None:
    arguments = [word.replace("+", " ") for word in command.split()]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=finished,
        env=kept | {"PYTHONPATH": str(Path(__file__).parents[2]), "PREFECT_HOME": str(finished / "prefect")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert loaded & HEAVY <= LOADED[command]
    assert "flows" in loaded
