"""Rows of data sets as they are published, and what is said of columns that are not understood."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from factory.stages.sources import read_source
from factory.training.data.reading import Rejected, TextRow, read_rows
from schemas.errors import InputError, RecipeError
from schemas.recipe.prompts import PromptSource
from schemas.recipe.recipe import load_recipe
from schemas.recipe.training import TrainSettings

ASK, ANSWER = {"role": "user", "content": "なぜ空は青い？"}, {"role": "assistant", "content": "散乱のため"}
ULTRACHAT = {
    "prompt": ASK["content"],
    "prompt_id": "f0e37e9f",
    "messages": [ASK, ANSWER, {"role": "user", "content": "?"}, ANSWER],
}
ULTRAFEEDBACK = ULTRACHAT | {
    "chosen": [ASK, ANSWER],
    "rejected": [ASK, {"role": "assistant", "content": "?"}],
    "messages": [ASK, ANSWER],
    "score_chosen": 8.5,
    "score_rejected": 2.0,
}
ORCA = {"system": "Sois bref.", "question": "Pourquoi ?", "chosen": "Parce que.", "rejected": "Non."}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prompts_of(path: Path, **columns: Any) -> list[dict[str, Any]]:
    source = PromptSource(name="mine", path=str(path), language="en", columns=columns)  # type: ignore[arg-type]
    return pl.concat(read_source(source)).to_dicts()


def train_on(path: Path, objective: str, **columns: str) -> TextRow | Rejected:
    given = {"model": "m", "data": str(path), "objective": objective} | ({"columns": columns} if columns else {})
    (row,) = read_rows(TrainSettings.model_validate(given), str(path), "train")
    return row


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("row", [ULTRACHAT, ULTRAFEEDBACK])
def test_where_a_prompt_is_the_first_message_it_is_the_prompt(tmp_path: Path, row: dict[str, Any], suffix: str) -> None:
    (found,) = prompts_of(write(tmp_path / f"a{suffix}", row))
    assert (found["messages"], found["reason"]) == ([ASK], None)


@pytest.mark.parametrize("left_out", ["prompt_id", None])
def test_other_columns_beside_a_prompt_stay_refused(tmp_path: Path, left_out: str | None) -> None:
    row = {name: value for name, value in ULTRACHAT.items() if name != left_out}
    row |= {} if left_out else {"conversations": [ASK, ANSWER]}
    with pytest.raises(InputError, match=r"can be read as .* or prompt; choose"):
        prompts_of(write(tmp_path / "a.jsonl", row))


def test_pairs_beside_a_question_are_told_how_to_name_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ORCA)
    with pytest.raises(
        InputError, match=r'perhaps the question is the prompt: columns = \{ prompt = "question", system = "system" \}$'
    ):
        prompts_of(path)
    found = prompts_of(path, prompt="question", system="system")[0]
    assert [turn["content"] for turn in found["messages"]] == ["Sois bref.", "Pourquoi ?"]
    rejected = train_on(path, "dpo")
    assert isinstance(rejected, Rejected)
    named = 'columns = { prompt = "question", chosen = "chosen", rejected = "rejected", system = "system" }'
    assert rejected.detail.endswith(f"must be whole conversations; perhaps the question is the prompt: {named}")
    columns = {"prompt": "question", "chosen": "chosen", "rejected": "rejected", "system": "system"}
    assert isinstance(train_on(path, "dpo", **columns), TextRow)


@pytest.mark.parametrize(("sign", "kind"), [(";", "csv"), ("\t", "csv"), (";", "tsv")])
def test_a_file_whose_fields_are_separated_otherwise_is_told_so(tmp_path: Path, sign: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text(f"question{sign}answer\nWhy?{sign}So.\n")
    said = r"\(one column: commas separate the fields of a CSV file, tabs those of a TSV file\)"
    with pytest.raises(InputError, match=said):
        prompts_of(path)
    with pytest.raises(InputError, match=said):
        prompts_of(path, prompt="question")


def test_recorded_answers_without_columns_are_told_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(
        'name = "n"\nlanguages = ["en"]\n[[teachers]]\nname = "t"\nengine = "recorded"\n'
        '[teachers.recorded]\npath = "a.jsonl"\n'
    )
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    example = 'columns = { text = "answer", key = "id" } or columns = { messages = "messages", key = "id" }'
    (line,) = (line for line in str(error.value).splitlines() if "columns" in line)
    assert line.endswith(f"recorded: 'columns' is needed, such as {example}"), line
