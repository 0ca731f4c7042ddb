"""Columns that say what a row is of: absent is null, and a language goes by all its names, in prompts and in training."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.stages.sources import read_source
from factory.training.data.reading import Rejected, TextRow, read_rows
from schemas.errors import InputError
from schemas.recipe.prompts import PromptSource
from schemas.recipe.training import TrainSettings


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prompts_of(path: Path | str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    given = {"name": "mine", "path": str(path), "columns": columns}
    source = PromptSource.model_validate(given if "language" in columns else given | {"language": "en"})
    return pl.concat(read_source(source)).to_dicts()


def train_on(path: Path | str, **values: Any) -> list[Any]:
    settings = TrainSettings.model_validate({"model": "m", "data": str(path), "objective": "sft"} | values)
    return list(read_rows(settings, str(path), "train"))


def talk(**labels: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    return {"messages": turns} | labels


def test_an_absent_column_is_a_null_one(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"q": "a", "i": 1, "s": "S", "meta": {"l": "de"}},
        {"q": "b", "i": None, "s": None, "meta": {"l": None}},
    ]
    absent = [rows[0], {"q": "b"}]
    columns = {"prompt": "q", "id": "i", "system": "s", "language": "meta.l"}
    given = prompts_of(write(tmp_path / "null.jsonl", rows), columns)
    found = prompts_of(write(tmp_path / "absent.jsonl", absent), columns)
    for row in (*given, *found):
        row["detail"] = str(row["detail"]).replace("null.jsonl", "absent.jsonl")
    assert found == given
    assert [len(row["messages"]) for row in found] == [2, 1]


def test_a_shard_may_lack_a_column_that_another_has(tmp_path: Path) -> None:
    write(tmp_path / "0.parquet", [{"q": "a"}])
    write(tmp_path / "1.parquet", [{"q": "b", "system": "S"}])
    found = prompts_of(tmp_path, {"prompt": "q", "system": "system"})
    assert [[turn["content"] for turn in row["messages"]] for row in found] == [["a"], ["S", "b"]]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_a_column_that_no_row_has_is_refused_with_those_that_there_are(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", [{"q": "a", "uid": "1"}, {"q": "b", "uid": "2"}])
    with pytest.raises(
        InputError, match=r"no row of .*a\.\w+ has a column 'uidd' \(did you mean 'uid'\?\); there are 'q', 'uid'"
    ):
        prompts_of(path, {"prompt": "q", "id": "uidd"})


@pytest.mark.parametrize("name", ["eng_Latn", "English", "en-US", "EN", "eng"])
def test_training_finds_a_language_by_all_its_names(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.jsonl", [talk(language="Arabic"), talk(language=name), talk()])
    for asked in ("en", name):
        row, unnamed = train_on(path, languages=[asked])
        assert (row.language, unnamed.reason) == ("en", "unknown_language")
    assert [row.language for row in train_on(path)] == ["ar", "en", ""]


def test_a_language_of_which_no_row_is_a_sentence_with_those_that_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [talk(language="ara"), talk(language="Arabic"), talk(language="swh"), talk()])
    said = r"no row of .*a\.jsonl has the language en or fr; there are ar \(2\), swh \(1\), none \(1\)"
    with pytest.raises(InputError, match=said):
        train_on(path, languages=["en", "fr"])
    with pytest.warns(UserWarning, match=r"no row of .*a\.jsonl has the language en; there are ar \(2\)"):
        found = train_on(path, languages=["en", "ar"])
    assert [row.language for row in found if isinstance(row, TextRow)] == ["ar", "ar"]
    assert [row.language for row in train_on(path, languages=["swh"]) if isinstance(row, TextRow)] == ["swh"]


def test_a_strategy_of_which_no_row_is_a_sentence_with_those_that_there_are(tmp_path: Path) -> None:
    pair = {"prompt": "?", "chosen": "a", "rejected": "b"}
    path = write(tmp_path / "a.jsonl", [pair | {"strategy": "best_vs_worst"}, pair | {"kind": "x"}])
    with pytest.raises(InputError, match=r"has the strategy best; there are best_vs_worst \(1\), none \(1\)"):
        train_on(path, objective="dpo", strategies=["best"])
    row, unnamed = train_on(path, objective="dpo", strategies=["best_vs_worst"])
    assert isinstance(row, TextRow)
    assert (unnamed.reason, unnamed.detail) == (
        "invalid_row",
        "a.jsonl:2: 'strategy' is empty; rows are selected by strategies = ['best_vs_worst']",
    )


@given(st.lists(st.tuples(*[st.sampled_from(["asked", "other", "none", "unknown"])] * 2), max_size=20))
def test_every_row_is_used_rejected_or_counted(tmp_path_factory: Any, kinds: list[tuple[str, str]]) -> None:
    """Rows that do not say what they are of are rejections; those of other languages and strategies are counted."""
    languages = {"asked": "deu_Latn", "other": "fr", "none": None, "unknown": "klingon"}
    strategies = {"asked": "best", "other": "worst", "none": None, "unknown": "novel"}
    pair = {"prompt": "?", "chosen": "a", "rejected": "b"}
    kinds = [("asked", "asked"), *kinds]
    path = write(
        tmp_path_factory.mktemp("data") / "a.jsonl",
        [pair | {"language": languages[one], "strategy": strategies[two]} for one, two in kinds],
    )
    settings = TrainSettings(model="m", data=str(path), objective="dpo", languages=("de",), strategies=("best",))
    others: Counter[str] = Counter()
    found = list(read_rows(settings, str(path), "train", others=others))
    is_other = [one == "other" or two in ("other", "unknown") for one, two in kinds]
    assert others.total() == sum(is_other)
    assert [row.reason if isinstance(row, Rejected) else None for row in found] == [
        "unknown_language" if one != "asked" else "invalid_row" if two != "asked" else None
        for (one, two), other in zip(kinds, is_other, strict=True)
        if not other
    ]


def test_labels_are_found_in_columns_of_other_names(tmp_path: Path) -> None:
    rows = [talk(meta={"lang": "deu_Latn", "n": 7}), talk(meta={"lang": "fra", "n": 8}), talk()]
    path = write(tmp_path / "a.jsonl", rows)
    row, unnamed = train_on(path, languages=["de"], columns={"language": "meta.lang", "id": "meta.n"})
    assert (row.row, row.language) == ("7", "de")
    assert unnamed.detail == "a.jsonl:3: 'meta.lang' is empty; rows are selected by languages = ['de']"
