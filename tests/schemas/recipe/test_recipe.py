from typing import Any

import pytest
from pydantic import ValidationError

from schemas.languages import CORE_LANGUAGES
from schemas.recipe.curation import Export
from schemas.recipe.recipe import Recipe

SMALL: dict[str, Any] = {
    "name": "small",
    "prompts": [{"name": "p", "path": "/p.jsonl", "language": "en", "columns": {"prompt": "q"}}],
    "teachers": [{"name": "a", "model": "org/a"}, {"name": "b", "model": "org/b"}],
    "translation": {"model": "org/nllb", "completions_of": ["a"]},
    "reward_models": [{"name": "r", "model": "org/r"}],
}


def make(**changes: Any) -> Recipe:
    return Recipe.model_validate(SMALL | changes)


def test_the_small_recipe_has_the_papers_languages():
    assert make().languages == CORE_LANGUAGES


def test_identity_leaves_execution_out_at_every_depth():
    other = make(
        teachers=[
            {"name": "a", "model": "org/a", "run": {"gpus": 8, "urls": ["http://h/v1"], "api_key_env": "KEY"}},
            {"name": "b", "model": "org/b", "run": {"engine_args": {"enforce_eager": True}}},
        ],
        translation=SMALL["translation"] | {"run": {"batch_tokens": 1}},
        reward_models=[{"name": "r", "model": "org/r", "run": {"gpu_memory_utilization": 0.1}}],
        warehouse={"catalog": "postgres://host/db", "data": "s3://bucket/data"},
        run={"slots": [[0, 1]], "commit_rows": 7, "exports": "elsewhere", "overlap": "wait"},
    )
    assert other != make()
    assert other.identity() == make().identity()
    assert not {"run", "warehouse"} & set(_keys(other.identity()))


def test_identity_holds_everything_else():
    identities = [
        make(),
        make(languages=["en", "fr"]),
        make(gates={"min_chars": 5}),
        make(teachers=[{"name": "a", "model": "org/a", "samples": 2}, {"name": "b", "model": "org/b"}]),
        make(teachers=[{"name": "a", "model": "org/a", "sampling": {"top_p": 0.5}}, {"name": "b", "model": "org/b"}]),
        make(reward_models=[{"name": "r", "model": "org/r", "revision": "v2"}]),
        make(pairs=[{"strategy": "best_vs_worst", "min_margin": 1.0}]),
    ]
    found = [recipe.identity() for recipe in identities]
    assert all(first != second for at, first in enumerate(found) for second in found[:at])


def test_a_users_own_keys_called_run_are_data():
    schema = {"type": "object", "properties": {"run": {"type": "string"}, "warehouse": {"type": "string"}}}
    structured = {"name": "a", "model": "org/a", "structured": {"json_schema": schema}}
    recipe = make(teachers=[structured, {"name": "b", "model": "org/b"}])
    teachers: Any = recipe.identity()["teachers"]
    assert teachers[0]["structured"]["json_schema"] == schema


def test_a_recipe_survives_json():
    recipe = make(routing={"method": "fixed", "teachers": {"en": "a"}}, run={"slots": [[0, 1], [2]]})
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        make().name = "other"


def test_a_step_of_a_policy_merges_its_adapters():
    step = {"name": "sft", "train": {"objective": "sft", "lora": {"merge": True}}}
    make(policy={"base": "org/base", "steps": [step]})
    step["train"]["lora"]["merge"] = False
    with pytest.raises(ValidationError, match=r"lora\.merge\n +Input should be True"):
        make(policy={"base": "org/base", "steps": [step]})


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for item in value.values() for key in _keys(item))]
    return [key for item in value for key in _keys(item)] if isinstance(value, list) else []


def test_recorded_answers_to_a_source_that_is_not_there_are_refused():
    recorded = {"path": "/a.jsonl", "source": "questions", "columns": {"text": "t", "key": "k"}}
    with pytest.raises(ValidationError, match="unknown prompt source 'questions'; the recipe has p"):
        make(teachers=[*SMALL["teachers"], {"name": "old", "engine": "recorded", "recorded": recorded}])
    old = {"name": "old", "engine": "recorded", "recorded": recorded | {"source": "p"}}
    assert make(teachers=[*SMALL["teachers"], old]).teachers[2].recorded is not None


def test_formats_are_the_same_in_any_order():
    assert Export(formats=("jsonl", "parquet", "jsonl")) == Export(formats=("parquet", "jsonl"))
