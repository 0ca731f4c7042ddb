"""Recipes, training and merging read the names of models and data by one rule."""

from pathlib import Path

import pytest

from schemas.recipe.merging import MergeSettings
from schemas.recipe.models import Model
from schemas.recipe.training import TrainSettings, load_train_settings
from schemas.toml.paths import complete_name, split_glob
from schemas.toml.toml_file import load_table


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "settings" / "runs" / "model").mkdir(parents=True)
    (tmp_path / "elsewhere" / "org" / "model").mkdir(parents=True)
    return tmp_path / "settings"


def read(folder: Path, name: str) -> set[str | None]:
    """Return what every kind of settings file in a folder understands by a name."""
    file = folder / "settings.toml"
    file.write_text(
        f"[teacher]\nmodel = '{name}'\nadapter = '{name}'\n"
        f"[merge]\nmodels = [{{ model = '{name}', adapter = '{name}' }}]\n"
        f"[train]\nmodel = '{name}'\ndata = '{name}'\neval_data = '{name}'\nreference = '{name}'\nobjective = 'dpo'\n"
    )
    teacher, train = load_table(file, "teacher", Model), load_train_settings(file)
    (parent,) = load_table(file, "merge", MergeSettings).models
    names: set[str | None] = {train.model, train.data, train.eval_data, train.reference}
    return {teacher.model, teacher.adapter, parent.model, parent.adapter} | names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("./model", "{folder}/model"),
        ("../model", "{parent}/model"),
        ("/models/model", "/models/model"),
        ("~/model", "{home}/model"),
        ("runs/model", "{folder}/runs/model"),
        ("org/model", "org/model"),
    ],
)
def test_a_name_is_a_path_by_its_form_or_because_it_is_there(name, meant, folder, monkeypatch):
    monkeypatch.chdir(folder.parent / "elsewhere")  # which has an org/model, and does not count
    assert read(folder, name) == {meant.format(folder=folder, parent=folder.parent, home=Path.home())}


def test_names_that_were_read_stay_as_they_are(folder, monkeypatch):
    monkeypatch.chdir(folder.parent / "elsewhere")
    settings = TrainSettings(model="org/model", data=str(folder / "runs"), objective="sft")
    (folder / "read.json").write_text(settings.model_dump_json())
    assert load_train_settings(folder / "read.json") == settings


def test_a_path_in_settings_made_in_python_is_relative_to_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder)
    settings = TrainSettings(model="./runs/model", data="../data.jsonl", objective="sft")
    assert (settings.model, settings.data) == (str(folder / "runs/model"), str(folder.parent / "data.jsonl"))


def test_what_overrides_is_meant_from_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder.parent / "elsewhere")
    file = folder / "settings.toml"
    file.write_text("[train]\nmodel = 'org/model'\ndata = 'runs/model'\nobjective = 'sft'\n")
    assert load_train_settings(file, data="rows").model == "org/model"
    settings = load_train_settings(file, model="org/model")
    assert settings.model == str(folder.parent / "elsewhere" / "org" / "model")
    assert settings.data == str(folder / "runs" / "model")


def test_a_servers_model_is_what_the_server_calls_it(folder):
    file = folder / "settings.toml"
    file.write_text("[a]\nengine = 'openai'\nmodel = 'runs/model'\nadapter = './x'\nrun.urls = ['http://h/v1']\n")
    model = load_table(file, "a", Model)
    assert (model.model, model.adapter) == ("runs/model", "./x")


def test_a_glob_is_a_path(folder):
    assert complete_name("rows/*.jsonl", folder) == str(folder / "rows" / "*.jsonl")


def test_a_glob_begins_where_no_folder_is_called_so(tmp_path):
    (tmp_path / "exp[1]" / "a").mkdir(parents=True)
    assert split_glob(f"{tmp_path}/exp[1]/*.jsonl") == (tmp_path / "exp[1]", "*.jsonl")
    assert split_glob(f"{tmp_path}/exp[1]/*/x.jsonl") == (tmp_path / "exp[1]", "*/x.jsonl")
    assert split_glob(f"{tmp_path}/exp[2]/x.jsonl") == (tmp_path, "exp[2]/x.jsonl")
    assert split_glob("x.jsonl") == (Path(), "x.jsonl")
