"""Training data are known by their content: of the hub by a commit, in a folder by its files, wherever it lies."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from factory.engines import fingerprint
from factory.inputs.hf_datasets import resolve_revision
from factory.training.data import reading as rows
from factory.training.identity import identify_run, pin_data
from schemas.errors import InputError, TrainingError
from schemas.recipe.training import TrainSettings

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
    with pytest.raises(TrainingError, match=r"revision 'v1' was given, but .* is not a data set of the hub"):
        identify_run(make(tmp_path, revision="v1"))


def test_a_data_set_that_the_hub_does_not_give_is_one_sentence(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    response: Any = httpx.Response(404, request=httpx.Request("GET", "http://hub/api"))  # as good as the hub's own
    hub.error = HfHubHTTPError("404 not found\nmore", response=response)
    with pytest.raises(
        InputError, match=r"^'org/set' at revision 'x' is neither an existing file or folder .*: 404 not found$"
    ):
        resolve_revision("org/set", "x")


# What a folder's data set consists of: the files that its card names, read and counted alike.


def make_set(folder: Path, configs: str, names: str = "abc") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}.jsonl").write_text(f'{{"prompt": "{name}", "completion": "!"}}\n')
    write_card(folder, configs)
    return folder


def write_card(folder: Path, configs: str, more: str = "") -> None:
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}{more}---\nAbout it.\n")


def entry(name: str, files: str, more: str = "") -> str:
    return f"- config_name: {name}\n  data_files: {files}\n{more}"


def read_prompts(settings: TrainSettings) -> list[Any]:
    found = rows.read_rows(settings, settings.data, settings.split)
    return [row.prompt for row in found if isinstance(row, rows.TextRow)]


def test_of_a_folder_with_a_card_those_files_are_read_and_counted_that_it_names(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", entry("one", "a.jsonl"))
    settings = make(folder)
    before = identify_run(settings).id
    assert read_prompts(settings) == ["a"]
    (folder / "b.jsonl").write_text('{"prompt": "other", "completion": "!"}\n')
    (folder / "README.md").write_text((folder / "README.md").read_text() + "More about it.\n")
    assert identify_run(settings).id == before
    moved = shutil.copytree(folder, tmp_path / "moved/elsewhere")
    assert identify_run(make(moved)).id == before
    (folder / "a.jsonl").write_text('{"prompt": "changed", "completion": "!"}\n')
    assert identify_run(settings).id != before
    write_card(moved, entry("one", "b.jsonl"))
    assert identify_run(make(moved)).id != before
    assert read_prompts(make(moved)) == ["other"]


@pytest.mark.parametrize("config", [None, "one"])
def test_another_card_is_another_run(tmp_path: Path, config: str | None) -> None:
    """Whatever names the rows: the files, their order, or how they are read."""
    folder = make_set(tmp_path / "set", "")
    (folder / "t.csv").write_text("prompt;completion\nx,prompt;y,completion\n")
    ids = {}
    for files, more, read in (
        ("a.jsonl", "", ["a"]),
        ("b.jsonl", "", ["b"]),
        ("[a.jsonl, b.jsonl]", "", ["a", "b"]),
        ("[b.jsonl, a.jsonl]", "", ["b", "a"]),
        ("t.csv", "  sep: ;\n", ["x,prompt"]),
    ):
        write_card(folder, entry("one", files, more))
        settings = make(folder, dataset_config=config)
        assert read_prompts(settings) == read
        ids[identify_run(settings).id] = read
    assert len(ids) == 5
    write_card(folder, entry("one", "t.csv", "  sep: ','\n"))
    assert identify_run(settings).id not in ids


def test_the_types_of_a_card_count_too(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "set", "")
    (folder / "a.jsonl").write_text('{"prompt": "a", "completion": "!", "language": 0}\n')
    found = []
    for names in ("{'0': en, '1': fr}", "{'0': fr, '1': en}"):
        types = "".join(f"  - name: {name}\n    dtype: string\n" for name in ("prompt", "completion"))
        types += f"  - name: language\n    dtype:\n      class_label:\n        names: {names}\n"
        write_card(folder, entry("one", "a.jsonl"), f"dataset_info:\n  config_name: one\n  features:\n{types}")
        (row,) = rows.read_rows(make(folder), str(folder), "train")
        found.append((row.language, identify_run(make(folder)).id))
    assert [language for language, _ in found] == ["en", "fr"]
    assert found[0][1] != found[1][1]


def test_of_several_configurations_and_splits_those_count_that_are_asked_for(tmp_path: Path) -> None:
    splits = "\n  - split: train\n    path: a.jsonl\n  - split: dev\n    path: b.jsonl"
    folder = make_set(tmp_path / "set", entry("one", splits) + entry("two", "c.jsonl"))
    with pytest.raises(InputError, match=r"Config name is missing\. Please pick one among the available configs"):
        identify_run(make(folder))
    asked = {
        "a": {"dataset_config": "one"},
        "b": {"dataset_config": "one", "split": "dev"},
        "ab": {"dataset_config": "one", "split": "train[:50%]+dev", "eval_data": str(folder)},
        "c": {"dataset_config": "two"},
    }
    for read, changes in asked.items():
        settings = make(folder, **changes)
        before = identify_run(settings)
        for name in "abc":
            path = folder / f"{name}.jsonl"
            kept = path.read_bytes()
            path.write_bytes(kept + b"\n")
            after = identify_run(settings)
            assert (after.data != before.data) == (name in read), (name, read)
            assert before.eval_data in {None, before.data}
            path.write_bytes(kept)
    with pytest.raises(InputError, match=r"\(split 'test'\) cannot be loaded: Unknown split"):
        identify_run(make(folder, dataset_config="one", split="test"))
    with pytest.raises(InputError, match="BuilderConfig 'three' not found"):
        identify_run(make(folder, dataset_config="three"))


def test_without_a_card_the_files_of_another_split_do_not_count(tmp_path: Path) -> None:
    for name in ("train-0", "train-1", "test-0"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"prompt": "{name}", "completion": "!"}}\n')
    settings = make(tmp_path)
    before = identify_run(settings).id
    assert read_prompts(settings) == ["train-0", "train-1"]
    (tmp_path / "test-0.jsonl").write_text("{}\n")
    assert identify_run(settings).id == before
    (tmp_path / "train-1.jsonl").write_text("{}\n")
    assert identify_run(settings).id != before


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("configs: [\n", "the card of the data set in .*set cannot be read: while parsing"),
        ("configs: 5\n", "the card of the data set in .*set cannot be read: 'int' object is not iterable"),
        ("configs:\n- config_name: one\n  data_files: nix.jsonl\n", r"cannot be loaded: Unable to find '.*nix.jsonl'$"),
        (
            "configs:\n- config_name: one\n  data_files: ../x.jsonl\n",
            "names .*x.jsonl, which is outside that folder",
        ),
        ("configs:\n- data_files: a.jsonl\n", "cannot be loaded: Each config must include `config_name`"),
    ],
)
def test_a_card_that_names_no_files_of_the_folder_is_one_sentence(tmp_path: Path, card: str, said: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "x", "completion": "!"}\n')
    folder = make_set(tmp_path / "set", "")
    (folder / "README.md").write_text(f"---\n{card}---\n")
    with pytest.raises(InputError, match=said):
        identify_run(make(folder))
