"""Training data are known by their content: of the hub by a commit, in a folder by its files, wherever it lies."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from factory.engines import fingerprint
from factory.stages import hf_datasets
from factory.stages.hf_datasets import resolve_revision
from factory.training import rows
from factory.training.identity import identify_run, pin_data
from schemas.errors import InputError, TrainingError
from schemas.training import TrainSettings

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def known_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fingerprint, "resolve_commit", lambda *_: "commit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Hub:
    """What the client of the hub says of a data set: the commits of its revisions, or that it cannot be reached."""

    def __init__(self) -> None:
        self.commits: dict[str | None, str] = {None: OLD, "v1": OLD}
        self.error: Exception | None = None

    def dataset_info(self, name: str, *, revision: str | None = None) -> Any:
        if self.error is not None:
            raise self.error
        return SimpleNamespace(sha=self.commits[revision])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub()
    monkeypatch.setattr(
        HfApi, "dataset_info", lambda _api, name, revision=None: hub.dataset_info(name, revision=revision)
    )
    return hub


def make(data: object, **changes: Any) -> TrainSettings:
    return TrainSettings.model_validate({"model": "org/m", "data": str(data), "objective": "sft"} | changes)


def test_data_sets_of_the_hub_are_those_of_a_commit(hub: Hub) -> None:
    before = identify_run(make("org/set"))
    assert before.data == f"org/set@{OLD}"
    hub.commits[None] = NEW
    after = identify_run(make("org/set"))
    assert after.id != before.id
    for revision in ("v1", OLD):
        assert identify_run(make("org/set", revision=revision)) == before
    held_out = identify_run(make("org/set", revision=OLD, eval_data="org/set"))
    assert held_out.eval_data == f"org/set@{NEW}"


def test_what_is_read_is_the_commit_that_the_run_is_known_by(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = pin_data(make("org/set", eval_data="org/other", eval_revision="v1"))
    hub.commits = {None: NEW, "v1": NEW}
    asked = []

    def load(name: str, *, revision: str | None, **_: object) -> datasets.Dataset:
        asked.append((name, revision))
        return datasets.Dataset.from_dict({"prompt": [], "completion": []})

    monkeypatch.setattr(rows, "open_dataset", load)
    for data in ("org/set", "org/other"):
        assert list(rows.read_rows(settings, data, "train", may_be_empty=True)) == []
    assert asked == [("org/set", OLD), ("org/other", OLD)]


@pytest.mark.parametrize("error", [OfflineModeIsEnabled("offline"), httpx.ConnectError("no route")])
def test_without_the_hub_it_is_the_commit_that_was_loaded_last(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    hub.error = error
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(
        InputError, match="'org/MySet' is not in the local cache of datasets, and the hub cannot be reached"
    ):
        resolve_revision("org/MySet", None)
    for commit, config in ((OLD, "default"), (NEW, "default"), (OLD, "other")):
        folder = tmp_path / "org___my_set" / config / "0.0.0" / commit
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    assert resolve_revision("org/MySet", None, "default") in {OLD, NEW}
    assert resolve_revision("org/MySet", None, "other") == OLD
    assert resolve_revision("org/MySet", NEW) == NEW


def test_folders_count_by_their_files_and_not_by_their_place(tmp_path: Path) -> None:
    row = {"prompt": ["ق"], "completion": ["b"]}
    saved = tmp_path / "saved"
    datasets.Dataset.from_dict(row).save_to_disk(str(saved))
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "train-0.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    for folder in (saved, shards):
        moved = tmp_path / "moved" / f"other-{folder.name}"
        shutil.copytree(folder, moved)
        assert identify_run(make(moved)).id == identify_run(make(folder)).id
        changed = next(path for path in sorted(moved.iterdir()) if path.suffix in {".arrow", ".jsonl"})
        changed.write_bytes(changed.read_bytes() + b"\n")
        assert identify_run(make(moved)).id != identify_run(make(folder)).id


def test_files_have_no_revision(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"revision 'v1' was given, and .* is no data set of the hub"):
        identify_run(make(tmp_path, revision="v1"))


def test_a_data_set_that_the_hub_does_not_give_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    request = httpx.Request("GET", "http://hub/api")
    hub.error = hf_datasets.HfHubHTTPError("404 not found\nmore", response=httpx.Response(404, request=request))
    with pytest.raises(InputError, match=r"^'org/set' at revision 'x' is neither a file or folder .*: 404 not found$"):
        resolve_revision("org/set", "x")
