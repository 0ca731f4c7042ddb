import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factory.engines import fingerprint
from factory.engines.fingerprint import fingerprint_model, template_digest
from schemas.errors import EngineError
from schemas.ids import folder_digest
from schemas.recipe.models import Model, ModelRun


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def make_folder(folder: Path, weights: str = "weights") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_text(weights, encoding="utf-8")
    return folder


def age(folder: Path, seconds: float = 60.0) -> None:
    for path in folder.iterdir():
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_copy_is_the_same_model_and_its_path_and_gpus_do_not_count(tmp_path: Path) -> None:
    one, other = make_folder(tmp_path / "a"), make_folder(tmp_path / "deep" / "b")
    run = ModelRun(gpus=8, max_model_len=100, engine_args={"enforce_eager": True})
    assert fingerprint_model(Model(model=str(one))) == fingerprint_model(Model(model=str(other), run=run))


def test_whatever_changes_the_weights_changes_the_fingerprint(tmp_path: Path) -> None:
    folder, adapter = str(make_folder(tmp_path / "a")), str(make_folder(tmp_path / "adapter", "low rank"))
    models = [
        Model(model=folder),
        Model(model=str(make_folder(tmp_path / "b", "weightz"))),
        Model(model=folder, dtype="float32"),
        Model(model=folder, quantization="fp8"),
        Model(model=folder, adapter=adapter),
        Model(model=folder, adapter=str(make_folder(tmp_path / "other", "another"))),
    ]
    assert len({fingerprint_model(model) for model in models}) == len(models)


def test_a_model_on_a_server_is_its_name_and_stated_revision() -> None:
    run = ModelRun(urls=("http://one:8000/v1",))
    model = Model(engine="openai", model="m", revision="2", run=run)
    moved = model.model_copy(update={"run": ModelRun(urls=("http://two:9000/v1",))})
    assert fingerprint_model(model) == fingerprint_model(moved)
    assert fingerprint_model(model) != fingerprint_model(model.model_copy(update={"revision": "3"}))


def test_a_folder_is_read_again_only_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def note(folder: Path) -> str:
        read.append(folder)
        return folder_digest(folder)

    monkeypatch.setattr(fingerprint, "folder_digest", note)
    folder = make_folder(tmp_path / "model")
    age(folder)
    first = fingerprint_model(Model(model=str(folder)))
    assert fingerprint_model(Model(model=str(folder))) == first
    assert len(read) == 1
    (folder / "model.safetensors").write_text("weightz", encoding="utf-8")
    assert fingerprint_model(Model(model=str(folder))) != first
    assert len(read) == 2


def test_a_folder_that_has_just_changed_is_not_remembered(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    first = fingerprint_model(Model(model=str(folder)))
    stat = (folder / "model.safetensors").stat()
    (folder / "model.safetensors").write_text("weightz", encoding="utf-8")
    os.utime(folder / "model.safetensors", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint_model(Model(model=str(folder))) != first


def test_a_damaged_memory_is_ignored(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    age(folder)
    first = fingerprint_model(Model(model=str(folder)))
    (memory,) = (tmp_path / "cache").rglob("*.json")
    memory.write_text("{torn", encoding="utf-8")
    assert fingerprint_model(Model(model=str(folder))) == first


def test_a_hub_id_counts_by_the_commit_in_the_cache(tmp_path: Path) -> None:
    """In a process of its own: the hub's client reads its environment when it is imported."""
    repository = tmp_path / "hub" / "models--nobody--model"
    for commit, revision in (("a" * 40, "main"), ("b" * 40, "v2")):
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text("{}", encoding="utf-8")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / revision).write_text(commit, encoding="utf-8")
    code = (
        "from factory.engines.fingerprint import fingerprint_model as f; from schemas.recipe.models import Model as M\n"
        "for r in (None, 'main', 'a' * 40, 'v2'): print(f(M(model='nobody/model', revision=r)))"
    )
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    none, main, commit, second = run.stdout.split()
    assert none == main == commit != second


def test_a_folder_whose_name_looks_like_a_hub_id_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a", "runs/a/deep"):  # the second cannot be an id
        with pytest.raises(
            EngineError, match=rf"'{name}' is taken as an id of the hub.* write \./{name}, or in a file"
        ):
            fingerprint_model(Model(model=name))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="there is no model folder"):
        fingerprint_model(Model(model=str(tmp_path / "nowhere")))
    with pytest.raises(
        EngineError, match="there is no folder 'nobody/nothing', and as a hub id it is not in the cache"
    ):
        fingerprint_model(Model(model="nobody/nothing"))
    with pytest.raises(EngineError, match="there is no chat template"):
        template_digest(Model(model="m", chat_template=str(tmp_path / "nowhere.jinja")))


def test_a_template_counts_by_its_content(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "y")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    a, b, c = (template_digest(Model(model="m", chat_template=str(tmp_path / name))) for name in "abc")
    assert a == b != c
    assert template_digest(Model(model="m")) is None
