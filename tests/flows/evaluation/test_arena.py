"""A benchmark translated by the microworld's own translator, loaded as people load it, and played on."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from factory.microworld.questions import MODELS
from flows import cli
from flows.evaluation.arena import Arena, build_arena
from flows.evaluation.evaluate import evaluate
from schemas.errors import InputError, RecipeError
from schemas.recipe.arena import ArenaRecipe
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.toml_file import load_table

LANGUAGES = ("en", "ar", "ja", "fr")
UNTRANSLATABLE = "Explain `print(x)` at https://example.org/a?b=1 for 12,345 reasons."


def english_prompts(count: int) -> list[str]:
    lines = (MODELS.parent / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["prompt"] for row in map(json.loads, lines) if row["language"] == "en"][:count]


def write_arena(folder: Path, *, layout: str = "m-ArenaHard", labels: str = "") -> Path:
    """Eight questions, one that the translator cannot keep whole, one twice, and one empty."""
    prompts = english_prompts(8)
    texts = [*prompts[:4], UNTRANSLATABLE, *prompts[4:], prompts[0], " "]
    rows = [
        {"uid": f"q{number}", "category": "micro", "cluster": f"c{number % 3}", "prompt": text}
        for number, text in enumerate(texts)
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    path = folder / "arena.toml"
    path.write_text(
        f"""
[arena]
name = "m-micro"
languages = {json.dumps(LANGUAGES)}
layout = "{layout}"
{labels}
[[arena.prompts]]
name = "micro"
path = "questions.jsonl"
language = "en"
columns = {{ prompt = "prompt", id = "uid" }}
licence = "Apache-2.0"
[arena.translation]
model = "{MODELS / "translator"}"
sampling = {{ temperature = 0.0, max_tokens = 128 }}
[arena.warehouse]
catalog = "{folder}/lake/catalog.sqlite"
data = "{folder}/lake/data"
""",
        encoding="utf-8",
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set in ``v1``, written by the command, and the same warehouse for every other test."""
    folder = tmp_path_factory.mktemp("arena")
    arguments = ["factory", "evaluate", "build-prompts", str(write_arena(folder)), str(folder / "v1"), "--quiet"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        cli.main()
    return folder


def refuse_engine(*_arguments: Any, **_options: Any) -> Any:
    raise AssertionError("an engine was opened")


def load(folder: Path, language: str) -> Any:
    import datasets

    return datasets.load_dataset(str(folder), language, split="test", cache_dir=str(folder.parent / "cache"))


def test_it_loads_as_the_released_one_does(folder):
    english, arabic = load(folder / "v1", "en"), load(folder / "v1", "ar")
    assert english.column_names == ["question_id", "category", "cluster", "prompt"]
    assert english["question_id"] == [f"q{number}" for number in range(9)]
    assert english["prompt"][4] == UNTRANSLATABLE
    assert english["cluster"][5] == "c2"
    assert arabic["question_id"] == [f"q{number}" for number in range(9) if number != 4]
    assert english["prompt"][0] == english_prompts(1)[0]
    assert all("؟" in prompt or "." in prompt for prompt in arabic["prompt"])
    assert not set(arabic["prompt"]) & set(english["prompt"])


def test_what_is_missing_is_listed_with_its_reason(folder):
    missing = pl.read_ndjson(folder / "v1/missing.jsonl")
    found = Counter(missing.select("question_id", "language", "reason").iter_rows())
    assert found == {
        ("q4", "ar", "lost_content"): 1,
        ("q4", "fr", "lost_content"): 1,
        ("q4", "ja", "lost_content"): 1,
        (None, "en", "duplicate"): 1,
        (None, "en", "empty_prompt"): 1,
    }
    card = (folder / "v1/README.md").read_text(encoding="utf-8")
    assert "| Arabic (`ar`) | 8 | 1 |" in card
    assert "Licence of the prompts: Apache-2.0" in card
    assert str(folder) not in card


@pytest.fixture(scope="module")
def second(folder: Path) -> Arena:
    """The data set in the columns of the second release, out of the warehouse that holds the translations."""
    path = write_arena(folder, layout="m-ArenaHard-v2.0", labels='labels = { subcategory = "cluster" }')
    recipe = load_table(path, "arena", ArenaRecipe)
    return build_arena(recipe, folder / "v2", quiet=True, open_engine=refuse_engine)


def test_a_rerun_asks_nothing_and_another_layout_neither(folder, second):
    assert second.num_sent == 0
    assert second.num_rows == {"en": 9, "ar": 8, "ja": 8, "fr": 8}
    assert load(folder / "v2", "ja")[5] == {
        "question_id": "q6",
        "category": "micro",
        "subcategory": "c0",
        "prompt": load(folder / "v1", "ja")["prompt"][5],
        "language": "ja",
    }


def test_models_can_play_on_it(folder, second):
    answers = [
        {"id": f"q{number}", "language": language, "good": f"{number}: good", "bad": "bad"}
        for number in range(9)
        for language in LANGUAGES
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    contestants = {
        name: {
            "name": column,
            "engine": "recorded",
            "recorded": {
                "path": str(folder / "answers.jsonl"),
                "columns": {"text": column, "key": "id", "language": "language"},
            },
        }
        for name, column in (("a", "good"), ("b", "bad"))
    }
    prompts = {
        "name": "m-micro",
        "path": str(second.path / "*/test-*.parquet"),
        "columns": {"prompt": "prompt", "id": "question_id", "language": "language"},
    }
    settings = EvaluationSettings.model_validate(
        {**contestants, "languages": LANGUAGES, "prompts": prompts, "judge": {"truth": "microworld"}}
    )
    place = WarehouseSettings(catalog=str(folder / "games/catalog.sqlite"), data=str(folder / "games/data"))
    result = evaluate(settings, place, quiet=True, open_engine=refuse_engine)
    games = {row["language"]: row["num_games"] for row in result.rates.to_dicts()}
    assert games == {"ar": 8, "en": 9, "fr": 8, "ja": 8, "all": 33}


def test_mistakes_are_sentences(tmp_path):
    path = write_arena(tmp_path, labels='labels = { topic = "cluster" }')
    with pytest.raises(RecipeError, match="m-ArenaHard has no topic; its labels are category, cluster"):
        load_table(path, "arena", ArenaRecipe)
    recipe = load_table(write_arena(tmp_path, layout="m-ArenaHard-v2.0"), "arena", ArenaRecipe)
    with pytest.raises(InputError, match=r"questions.jsonl:1: no field 'subcategory' .* \[arena.labels\] says"):
        build_arena(recipe, tmp_path / "out", quiet=True, open_engine=refuse_engine)
    with pytest.raises(InputError, match="is there already and is not a data set of this command"):
        build_arena(recipe, tmp_path, quiet=True, open_engine=refuse_engine)
    recipe = load_table(write_arena(tmp_path), "arena", ArenaRecipe)
    rows = (tmp_path / "questions.jsonl").read_text()
    (tmp_path / "questions.jsonl").write_text(rows.replace('"q1"', '"q0"'))
    with pytest.raises(InputError, match=r"questions.jsonl:2: the id 'q0' is there twice"):
        build_arena(recipe, tmp_path / "out", quiet=True, open_engine=refuse_engine)
