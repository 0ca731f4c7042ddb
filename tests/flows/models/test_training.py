"""The train command: a file in, a model and a row of the checkpoints table out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from factory.microworld.questions import MODELS
from factory.training.curves import read_metrics
from flows.cli import app
from flows.models.train import run_training
from schemas.errors import RecipeError, TrainingError
from schemas.recipe.recipe import load_recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.recipe.training import load_train_settings
from tests.waiting import GUARD_SECONDS
from warehouse.lake.lake import Lake

ROOT = Path(__file__).parents[3]

SETTINGS = """
[train]
model = "{model}"
data = "export"
objective = "dpo"
batch_rows = 4
max_steps = 2
dtype = "float32"
[train.run]
processes = {processes}
tensorboard = false
plot = false
"""


@pytest.fixture
def export(tmp_path):
    folder = tmp_path / "export"
    (folder / "preference").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"export_id": "the-export"}))
    rows = [
        {
            "prompt": [{"role": "user", "content": f"سؤال {number}"}],
            "chosen": [{"role": "assistant", "content": "はい"}],
            "rejected": [{"role": "assistant", "content": "no"}],
            "language": "ja",
            "pair_id": str(number),
        }
        for number in range(8)
    ]
    pl.DataFrame(rows).write_parquet(folder / "preference" / "train-00000-of-00001.parquet")
    return folder


def write_settings(folder, model=MODELS / "base", processes=1):
    (folder / "train.toml").write_text(SETTINGS.format(model=model, processes=processes))
    return folder / "train.toml"


def test_a_run_is_recorded_with_its_parents_and_export_and_not_run_again(tmp_path, export, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, output = write_settings(tmp_path), tmp_path / "run"
    warehouse = WarehouseSettings(catalog=str(tmp_path / "lake/catalog.sqlite"), data=str(tmp_path / "lake/data"))
    done = CliRunner().invoke(app, ["train", str(file), str(output), "--warehouse", str(tmp_path / "lake"), "--quiet"])
    assert done.exit_code == 0, done.output
    result = run_training(file, output, warehouse=warehouse, quiet=True)
    assert result.num_steps == 2
    with Lake.open(warehouse, read_only=True) as lake:
        (row,) = lake.query("SELECT * FROM checkpoints").to_dicts()
    assert row["kind"] == "preference"
    assert row["export_id"] == "the-export"
    assert row["path"] == str(output / "model")
    assert len(row["parents"]) == 1
    assert row["checkpoint_id"] != row["parents"][0]
    assert json.loads(row["config"])["settings.objective"] == "dpo"
    assert json.loads(row["metrics"])["train"]["languages"]["ja"]["loss"] < 1


def test_rows_that_are_not_of_the_languages_asked_for_are_accounted_for(tmp_path, capsys):
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    languages = [*["en"] * 4, "eng_Latn", "fr", "Arabic", "klingon", None]
    rows = [json.dumps({"messages": turns, "language": language, "id": str(language)}) for language in languages]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    file = write_settings(tmp_path)
    given = 'data = "rows.jsonl"\nlanguages = ["en"]\nobjective = "sft"'
    file.write_text(file.read_text().replace('data = "export"\nobjective = "dpo"', given))
    result = run_training(file, tmp_path / "run", warehouse=None)
    assert (result.num_rows, result.rejected, result.num_others) == (5, {"unknown_language": 2}, 2)
    lines = map(json.loads, (tmp_path / "run" / "rejected.jsonl").read_text().splitlines())
    assert [(line["row"], line["detail"]) for line in lines] == [
        ("klingon", "rows.jsonl:8: 'language' is 'klingon', which is not a known language; rows are selected by languages = ['en']"),
        ("None", "rows.jsonl:9: 'language' is empty; rows are selected by languages = ['en']"),
    ]  # fmt: skip
    assert "2 rows of other languages or strategies were not used" in capsys.readouterr().out.splitlines()
    written = tmp_path / "run" / "result.json"
    older = {name: value for name, value in json.loads(written.read_bytes()).items() if name != "num_others"}
    written.write_text(json.dumps(older))
    assert run_training(file, tmp_path / "run", warehouse=None).num_others == 0


def test_mistakes_of_the_trainer_reach_the_caller_as_one_sentence(tmp_path, export, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainingError, match="has no tokenizer that can be loaded"):
        run_training(write_settings(tmp_path, model=tmp_path / "export"), tmp_path / "run", warehouse=None, quiet=True)


def test_a_recipe_may_hold_the_table_and_is_the_same_build(tmp_path):
    recipe = (ROOT / "flows" / "recipes" / "microworld.toml").read_text()
    table = '[train]\nmodel = "./models/base"\ndata = "./export"\nobjective = "dpo"\nbeta = 0.2\n'
    (tmp_path / "plain.toml").write_text(recipe)
    (tmp_path / "training.toml").write_text(recipe + table)
    plain, training = (load_recipe(tmp_path / name) for name in ("plain.toml", "training.toml"))
    assert training.identity() == plain.identity()
    assert training.train == load_train_settings(tmp_path / "training.toml")
    assert training.train.model == str(tmp_path / "models" / "base")
    (tmp_path / "bad.toml").write_text(recipe + table.replace("beta = 0.2", "beta = -1"))
    with pytest.raises(RecipeError, match=r"bad\.toml:\d+: train\.beta: .*greater than 0 \(given: -1\)"):
        load_recipe(tmp_path / "bad.toml")


def test_a_run_ends_with_the_command_that_started_it_and_its_state_is_saved(tmp_path, export):
    file, output = write_settings(tmp_path), tmp_path / "run"
    file.write_text(file.read_text().replace("max_steps = 2", "max_steps = 100000"))
    command = [sys.executable, "-m", "flows.cli", "train", str(file), str(output), "--quiet"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + GUARD_SECONDS
    while len(read_metrics(output)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    trainer = int((output / ".lock").read_text())
    while (state := read_state(trainer)) not in {"", "Z"} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert state in {"", "Z"}
    assert [path.name for path in (output / "checkpoints").iterdir()] == [f"step-{len(read_metrics(output)):07d}"]


def read_state(pid: int) -> str:
    """Return the letter of a process's state, or nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_an_interrupted_command_waits_for_the_trainer_and_says_where_it_stopped(tmp_path, export):
    file, output = write_settings(tmp_path), tmp_path / "run"
    file.write_text(file.read_text().replace("max_steps = 2", "max_steps = 100000"))
    command = [sys.executable, "-m", "flows.cli", "train", str(file), str(output), "--quiet"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + GUARD_SECONDS
    while len(read_metrics(output)) < 3 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=GUARD_SECONDS)
    assert f"SIGTERM stopped the run after step {len(read_metrics(output))} of 100000" in said
