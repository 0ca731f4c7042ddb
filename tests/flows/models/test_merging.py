"""The merge commands on the command line, over the microworld's models."""

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import polars as pl
import pytest

from factory.engines.fingerprint import fingerprint_model
from factory.merging import merge as merge_module
from flows.lanes.gpus import lease
from flows.models.merge import run_leave_one_out, run_search
from schemas.errors import HeldError, RecipeError
from schemas.recipe.merging import MergeRun, MergeSettings
from schemas.recipe.models import Model
from schemas.recipe.recipe import load_recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.section import identify
from schemas.toml.toml_file import load_table
from tests.flows import slow_merging
from tests.flows.children import find_children
from tests.waiting import GUARD_SECONDS, wait_until
from warehouse.lake.lake import Lake

MODELS = Path(__file__).parents[3] / "factory/microworld/models"

TABLE = f"""
[merge]
method = "ties"
base = "{MODELS}/base"
density = 0.4
lambda = 0.9

[[merge.models]]
model = "{MODELS}/teacher-asian"
weight = [0.2, 0.8]

[[merge.models]]
model = "{MODELS}/teacher-slavic-mideast"
patterns = {{ "mlp" = 0.5 }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "merge.toml"
    path.write_text(TABLE)
    return path


def factory(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def read_checkpoints(folder: Path) -> pl.DataFrame:
    settings = WarehouseSettings(catalog=str(folder / "catalog.sqlite"), data=str(folder / "data"))
    with Lake.open(settings, read_only=True) as lake:
        return lake.query("SELECT * FROM checkpoints ORDER BY recorded_at")


def test_a_merge_is_written_and_recorded(file, tmp_path):
    done = factory(tmp_path, "merge", file, "out", "--warehouse", "lake")
    assert done.returncode == 0, done.stderr
    assert "1,245,824 parameters" in done.stdout
    (row,) = read_checkpoints(tmp_path / "lake").to_dicts()
    assert row["checkpoint_id"] == fingerprint_model(Model(model=str(tmp_path / "out")))
    assert row["checkpoint_id"] in done.stdout
    parents = [MODELS / name for name in ("teacher-asian", "teacher-slavic-mideast", "base")]
    assert row["parents"] == [fingerprint_model(Model(model=str(parent))) for parent in parents]
    assert (row["kind"], row["path"]) == ("merge", str(tmp_path / "out"))
    settings = json.loads(row["config"])["merge"]
    assert (settings["method"], settings["lambda"]) == ("ties", 0.9)
    assert [model["weight"] for model in settings["models"]] == [[0.2, 0.8], 1.0]
    again = factory(tmp_path, "merge", "run", file, "out")
    assert again.returncode == 1
    assert again.stderr == "error: 'out' already exists; choose another folder\n"


def test_without_a_warehouse_nothing_is_recorded(file, tmp_path):
    assert factory(tmp_path, "merge", "--quiet", file, "out").stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merge.toml", "out"]


INTERRUPTED = f"""
import sys
from pathlib import Path
import flows.models.merge
flows.models.merge.PACKAGE = {slow_merging.PACKAGE!r}
flows.models.merge.run_merge(Path("merge.toml"), Path.cwd() / "out", warehouse=None)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_merge_ends_with_the_command_that_started_it_and_leaves_nothing(number, file, tmp_path):
    marker = tmp_path / "merging"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), slow_merging.MARKER: str(marker)}
    environment["FACTORY_TEST_MERGING_SECONDS"] = str(GUARD_SECONDS)  # it does not end by itself
    command = [sys.executable, "-c", INTERRUPTED]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    wait_until(marker.exists, process)
    process.send_signal(number)
    assert process.wait() == -number
    wait_until(lambda: not find_children(slow_merging.PACKAGE, tmp_path), otherwise="it goes on")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merge.toml", "merging"]


def test_a_search_writes_the_best(file, tmp_path):
    """The fitness is the sum of the file's bytes: of no use, and different for each merge."""
    fitness = tmp_path / "fitness.py"
    fitness.write_text("import sys; print(sum(open(sys.argv[1] + '/model.safetensors', 'rb').read()))")
    command = f"{sys.executable} {fitness}"
    file.write_text(TABLE.replace("[0.2, 0.8]", "1.0").replace('patterns = { "mlp" = 0.5 }', ""))
    arguments = ("--fitness", command, "--evaluations", "scores")
    done = factory(tmp_path, "merge", "search", file, "best", *arguments, "--num-evaluations", 5, "--warehouse", "lake")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0].startswith("uniform")
    rows = [json.loads(line) for line in (tmp_path / "scores/evaluations.jsonl").read_text().splitlines()[1:]]
    best = max(rows, key=lambda row: row["fitness"])
    (row,) = read_checkpoints(tmp_path / "lake").to_dicts()
    assert json.loads(row["metrics"])["fitness"] == best["fitness"]
    assert [model["weight"] for model in json.loads(row["config"])["merge"]["models"]] == best["weights"]
    table = factory(tmp_path, "merge", "leave-one-out", file, *arguments)
    assert table.returncode == 0, table.stderr
    assert "fitness without" in table.stdout


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("density = 0.4", "densty = 0.4", r":5: merge.densty: there is no such key \(did you mean 'density'\?\)"),
        (
            "density = 0.4",
            "density = 1.4",
            r":5: merge.density: Input should be less than or equal to 1 \(given: 1.4\)",
        ),
        ("[0.2, 0.8]", '"much"', r":10: merge.models.0.weight: a weight is a number, or a list of numbers over depth"),
        ('"mlp"', '"(mlp"', r":14: merge.models.1.patterns: '\(mlp' is not a regular expression"),
        (
            '"ties"',
            '"tie"',
            r":3: merge.method: Input should be 'linear', 'slerp', 'ties', 'dare_linear' or 'dare_ties'",
        ),
        ('"ties"', '"linear"', r"merge: method = 'linear' does not use 'base'"),
        (f'base = "{MODELS}/base"', "", r"merge: method = 'ties' needs 'base'"),
        ("[merge]", "[other]", r"has no table \[merge\]"),
    ],
)
def test_a_mistake_in_the_table_is_a_sentence_with_its_line(old, new, sentence, file):
    text = TABLE if new != "[other]" else "[other]\n"
    file.write_text(text.replace(old, new))
    with pytest.raises(RecipeError, match=sentence) as caught:
        load_table(file, "merge", MergeSettings)
    assert "\n" not in str(caught.value)


def test_local_paths_are_the_files_and_other_names_the_hubs(file):
    text = '[merge]\n[[merge.models]]\nmodel = "./a"\nadapter = "../b"\n[[merge.models]]\nmodel = "owner/name"\n'
    file.write_text(text)
    first, second = load_table(file, "merge", MergeSettings).models
    assert (first.model, first.adapter) == (str(file.parent / "a"), str(file.parent.parent / "b"))
    assert second.model == "owner/name"


def test_a_folder_that_is_there_needs_no_dot(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "merge.toml").write_text(
        '[merge]\n[[merge.models]]\nmodel = "runs/a"\n[[merge.models]]\nmodel = "runs/b"\n'
    )
    first, second = load_table(tmp_path / "merge.toml", "merge", MergeSettings).models
    assert (first.model, second.model) == (str(tmp_path / "runs" / "a"), "runs/b")


def test_a_recipe_may_hold_the_table_and_is_the_same_build(tmp_path):
    recipe = (Path(__file__).parents[3] / "flows/recipes/microworld.toml").read_text()
    (tmp_path / "plain.toml").write_text(recipe)
    (tmp_path / "merging.toml").write_text(recipe + TABLE)
    plain, merging = (load_recipe(tmp_path / name) for name in ("plain.toml", "merging.toml"))
    assert merging.identity() == plain.identity()
    assert merging.merge == load_table(tmp_path / "merging.toml", "merge", MergeSettings)
    (tmp_path / "bad.toml").write_text(recipe + TABLE.replace("density", "densty"))
    with pytest.raises(RecipeError, match=r"merge.densty: there is no such key \(did you mean 'density'"):
        load_recipe(tmp_path / "bad.toml")


def test_what_is_execution_is_no_part_of_the_identity():
    models = [{"model": "./a"}]
    one = MergeSettings.model_validate({"models": models, "run": {"threads": 3, "device": "cuda"}})
    assert identify(one) == identify(MergeSettings.model_validate({"models": models}))


LEASE = """
import os, sys
from flows.lanes.slots import SlotPool, find_slots

def refuse(line):
    print(line, file=sys.stderr, flush=True)
    os._exit(1)

with SlotPool(find_slots(()), say=refuse).take(1):
    print(os.path.getsize(sys.argv[1] + "/model.safetensors"))
"""
"""A fitness that works on the GPU, as every command of the factory does, and does not wait for it."""


@pytest.mark.parametrize("command", ["search", "leave-one-out"])
def test_the_fitness_command_gets_the_gpu_on_which_is_merged(command, file, tmp_path, monkeypatch):
    """The GPU is pretended: it can be leased, and what would be computed on it is computed on the CPU."""
    gpu, held = f"GPU-{uuid.uuid4()}", []
    write = merge_module._write_weights

    def write_on_cpu(settings, *arguments):
        with pytest.raises(HeldError), lease([gpu]):
            pass
        held.append(settings.run.device)
        return write(settings.model_copy(update={"run": MergeRun()}), *arguments)

    monkeypatch.setattr(merge_module, "_check_device", lambda device: None)
    monkeypatch.setattr(merge_module, "_write_weights", write_on_cpu)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpu)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    file.write_text(TABLE + '[merge.run]\ndevice = "cuda"\n')
    (tmp_path / "fitness.py").write_text(LEASE)
    fitness = f"{sys.executable} {tmp_path}/fitness.py"
    if command == "search":
        run_search(file, tmp_path / "out", fitness, folder=tmp_path / "search", num_evaluations=3, warehouse=None)
    else:
        assert len(run_leave_one_out(file, fitness, folder=tmp_path / "search")) == 2
    assert held == ["cuda"] * (4 if command == "search" else 3)
