"""Datasets saved to disk are cut as those of the hub are, and their class labels come by name."""

import json
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from datasets import ClassLabel, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from factory.inputs.files import read_dataset_rows, read_file_rows
from factory.inputs.hf_datasets import find_labels, name_labels, open_dataset
from factory.stages.sources import read_source
from factory.training.data.reading import TextRow, read_rows
from schemas.errors import InputError
from schemas.recipe.prompts import PromptSource
from schemas.recipe.training import TrainSettings

LANGUAGES = ["English", "العربية", "中文"]


def make_rows(count: int, start: int = 0) -> datasets.Dataset:
    features = Features(q=Value("string"), lang=ClassLabel(names=["en", "ar", "zh"]))
    numbers = range(start, start + count)
    rows = {"q": [f"سؤال {number}" for number in numbers], "lang": [number % 3 for number in numbers]}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    datasets.DatasetDict({"train": make_rows(20), "test": make_rows(5, 100)}).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows as data files, which ``load_dataset`` itself cuts."""
    folder = tmp_path_factory.mktemp("files")
    for name, rows in (("train", make_rows(20)), ("test", make_rows(5, 100))):
        rows.to_parquet(folder / f"{name}.parquet")
    return folder


def read(place: Path, split: str, config: str | None = None) -> list[Any]:
    dataset = open_dataset(str(place), config=config, split=split, revision=None)
    return [row.value for row in read_dataset_rows(dataset, str(place), ["q"], split=split)]


@pytest.mark.parametrize(
    "split",
    [
        "train",
        "test",
        "train[:2]",
        "train[-3:]",
        "train[10%:20%]",
        "train[:33%]",
        "train+test",
        "test[1:3]+train[90%:]",
        "all",
    ],
)
def test_a_saved_dataset_is_cut_as_one_of_the_hub(
    saved: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    expected = read(files, split)
    assert read(saved, split) == expected
    assert len(expected) == {"train[:2]": 2, "train[10%:20%]": 2, "train+test": 25}.get(split, len(expected))


@pytest.mark.parametrize("split", ["dev", "train[:2]+dev", "train[:2", "", "train[:300%]"])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(saved: Path, split: str) -> None:
    with pytest.raises(InputError, match="the splits are train, test") as refused:
        read(saved, split)
    assert f"(split '{split}')" in str(refused.value)


def test_a_cut_without_rows_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match=r"\(split 'train\[5:5\]'\) cannot be loaded: it selects no rows"):
        read(saved, "train[5:5]")


def test_one_saved_split_is_what_it_says_it_is(tmp_path: Path) -> None:
    rows = {"q": ["a", "b", "c"]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "plain"))
    datasets.Dataset.from_dict(rows, split=datasets.Split.TEST).save_to_disk(str(tmp_path / "test"))
    assert len(read(tmp_path / "plain", "train[:2]")) == 2
    assert len(read(tmp_path / "test", "test[1:]")) == 2
    with pytest.raises(InputError, match="the splits are train"):
        read(tmp_path / "plain", "test")
    with pytest.raises(InputError, match="the splits are test"):
        read(tmp_path / "test", "train")


def test_a_saved_dataset_has_the_configuration_and_revision_that_it_was_saved_with(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no configuration 'ar'; this dataset, saved to disk, names none"):
        read(saved, "train", config="ar")
    info = datasets.DatasetInfo(config_name="fr")
    datasets.Dataset.from_dict({"q": ["a"]}, info=info).save_to_disk(str(tmp_path / "fr"))
    assert read(tmp_path / "fr", "train", config="fr") == [{"q": "a"}]
    with pytest.raises(InputError, match="there is no configuration 'ar'; this dataset, saved to disk, has fr"):
        read(tmp_path / "fr", "train", config="ar")
    with pytest.raises(InputError, match="revision 'v2' was given"):
        open_dataset(str(saved), config=None, split="train", revision="v2")


def test_class_labels_of_prompts_come_by_name(saved: Path) -> None:
    columns = {"prompt": "q", "language": "lang", "id": ["lang", "q"]}
    source = {"name": "s", "dataset": str(saved), "split": "train[:3]", "columns": columns, "limit": 2}
    rows = pl.concat(read_source(PromptSource.model_validate(source)))
    assert rows["language"].to_list() == ["en", "ar"]
    assert rows["source_row"].to_list() == ['["en", "سؤال 0"]', '["ar", "سؤال 1"]']


def test_class_labels_of_prompts_in_parquet_files_come_by_name(files: Path) -> None:
    columns = {"prompt": "q", "language": "lang"}
    source = {"name": "s", "path": str(files / "train.parquet"), "columns": columns, "limit": 2}
    assert pl.concat(read_source(PromptSource.model_validate(source)))["language"].to_list() == ["en", "ar"]


def test_class_labels_lie_at_any_depth(tmp_path: Path) -> None:
    label = ClassLabel(names=LANGUAGES)
    features = Features(
        flat=label,
        many=datasets.List(label),
        deep={"turns": datasets.List({"lang": label, "n": Value("int64")})},
        record=datasets.Sequence({"lang": label}),
        n=Value("int64"),
    )
    row = {
        "flat": 2,
        "many": [0, 1, -1],
        "deep": {"turns": [{"lang": 1, "n": 1}]},
        "record": {"lang": [0, None]},
        "n": 1,
    }
    expected = {
        "flat": "中文",
        "many": ["English", "العربية", None],
        "deep": {"turns": [{"lang": "العربية", "n": 1}]},
        "record": {"lang": ["English", None]},
        "n": 1,
    }
    rows = datasets.Dataset.from_list([row], features=features)
    rows.save_to_disk(str(tmp_path / "saved"))
    rows.to_parquet(tmp_path / "rows.parquet")
    dataset = open_dataset(str(tmp_path / "saved"), config=None, split="train", revision=None)
    (found,) = read_dataset_rows(dataset, "saved", list(row), split="train")
    assert found.value == expected
    (found,) = read_file_rows(str(tmp_path / "rows.parquet"), list(row))
    assert found.value == expected


def test_training_rows_are_cut_and_chosen_by_the_names_of_their_labels(tmp_path: Path) -> None:
    label = ClassLabel(names=["en", "ar"])
    features = Features(prompt=Value("string"), completion=Value("string"), language=label)
    rows = {"prompt": list("abcdef"), "completion": list("ABCDEF"), "language": [0, 1] * 3}
    made = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": made}).save_to_disk(str(tmp_path / "saved"))
    table = {"model": "m", "data": str(tmp_path / "saved"), "objective": "sft", "languages": ["ar"]}
    asked = TrainSettings.model_validate(table | {"split": "train[:4]"})
    found = list(read_rows(asked, asked.data, asked.split))
    assert all(isinstance(row, TextRow) for row in found)
    assert [(row.language, row.answers) for row in found if isinstance(row, TextRow)] == [
        ("ar", ("B",)),
        ("ar", ("D",)),
    ]


def test_a_training_column_that_a_header_has_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,completion\na,b,c\n", encoding="utf-8")
    asked = TrainSettings.model_validate({"model": "m", "data": str(path), "objective": "sft"})
    with pytest.raises(InputError, match=r"rows\.csv has the column 'completion' 2 times"):
        list(read_rows(asked, asked.data, asked.split))


def test_a_split_of_a_file_is_refused(tmp_path: Path) -> None:
    source = {"name": "s", "path": "a.jsonl", "language": "en", "columns": {"prompt": "q"}}
    for more in ({"split": "train[:2]"}, {"config": "fr"}, {"revision": "v2"}):
        with pytest.raises(ValidationError, match="belong to 'dataset'; a file is always read whole"):
            PromptSource.model_validate(source | more)
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    asked = TrainSettings.model_validate({"model": "m", "data": str(path), "objective": "sft", "split": "train[:2]"})
    with pytest.raises(InputError, match=r"split 'train\[:2\]' was given, but .* has no splits"):
        list(read_rows(asked, asked.data, asked.split))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 4)), st.lists(st.text(max_size=3), min_size=1, max_size=3))
def test_every_number_has_its_name_or_stays(values: list[int], names: list[str]) -> None:
    feature = {"_type": "List", "feature": {"_type": "ClassLabel", "names": names}}
    found = name_labels(values, find_labels({"a": feature, "b": {"_type": "Value", "dtype": "int64"}})["a"])
    assert found == [None if value == -1 else [*names, *range(len(names), 9)][value] for value in values]
