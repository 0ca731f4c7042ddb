"""What of a model's settings makes its answers other answers."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import ValidationError

from flows.held_out import make_evaluation
from flows.identity import resolve_build, teacher_lane
from flows.policy.policy import make_round_recipe
from flows.policy.step import PolicyRun
from flows.policy.step_records import StepOutcome
from schemas.errors import InputError
from schemas.recipe.curation import Gates
from schemas.recipe.models import ModelRun, Teacher, Translation
from schemas.recipe.policy import OnPolicy, Policy
from schemas.recipe.recipe import Recipe
from schemas.toml.section import identify


def settings_id(**changes: Any) -> str:
    run = {"urls": ["http://one:8000/v1"]} | changes.pop("run", {})
    return teacher_lane(Teacher(name="t", engine="openai", model="m", run=run, **changes), ("en",)).settings_id


def test_how_a_model_is_executed_is_no_part_of_its_identity() -> None:
    assert settings_id() == settings_id(run={"engine_args": {"enforce_eager": True, "max_num_seqs": 8}})


def test_further_arguments_and_the_system_prompt_are() -> None:
    ids = {
        settings_id(),
        settings_id(system_prompt="Be brief."),
        settings_id(engine_args={"rope_theta": 1.0}),
        settings_id(engine_args={"rope_theta": 2.0}),
    }
    assert len(ids) == 4


def test_ids_from_before_there_were_further_arguments_hold() -> None:
    assert settings_id(engine_args={}) == "60c059978f5f17f013014d3c1181ffab"


@pytest.mark.parametrize(("name", "place"), [("quantization", "quantization"), ("hf_overrides", "engine_args")])
def test_what_may_change_answers_is_refused_in_run(name: str, place: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' may change answers.*set '{place}' beside 'model'"):
        ModelRun(engine_args={name: "x"})


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("a.jsonl", "a.jsonl"),
        ("*.jsonl", "a.jsonl"),
        ("a[1].jsonl", "a[1].jsonl"),
        ("*/a.jsonl", "x/a.jsonl"),
        ("x[1]/*.jsonl", "x[1]/a.jsonl"),
    ],
)
def test_recorded_answers_are_known_by_the_bytes_of_their_files(tmp_path: Path, pattern: str, file: str) -> None:
    recorded = {"path": str(tmp_path / pattern), "columns": {"text": "t", "key": "k"}}
    teacher = Teacher.model_validate({"name": "r", "engine": "recorded", "recorded": recorded})
    with pytest.raises(InputError, match="no file at"):
        teacher_lane(teacher, ("en",))
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    fingerprints = []
    for content in ("one", "two", "one"):
        path.write_text(content, encoding="utf-8")
        fingerprints.append(teacher_lane(teacher, ("en",)).fingerprint)
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]


TAGS = ["<think>", "</think>"]


def make_recipe(
    answers: Path, translation: dict[str, Any] | None = None, teacher: dict[str, Any] | None = None
) -> Recipe:
    server = {"engine": "openai", "model": "m", "run": {"urls": ["http://one:8000/v1"]}}
    answers.write_text('{"t": "a", "k": 1}')
    recorded = {"path": str(answers), "columns": {"text": "t", "key": "k"}}
    policy = {"base": "./base", "reasoning": TAGS, "steps": [{"name": "sft", "train": {"objective": "sft"}}]}
    return Recipe.model_validate(
        {
            "name": "r",
            "languages": ["en", "ar"],
            "prompts": [{"name": "p", "path": "p.jsonl", "language": "en", "columns": {"prompt": "q"}}],
            "translation": server | (translation or {}),
            "teachers": [{"name": "old", "engine": "recorded", "recorded": recorded} | (teacher or {})],
            "reward_models": [{"name": "rm", **server}],
            "policy": policy,
        }
    )


def test_the_tags_of_thinking_are_part_of_who_translates_and_of_recorded_answers(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    plain = resolve_build(make_recipe(answers))
    thinking = resolve_build(make_recipe(answers, {"reasoning": TAGS}, {"reasoning": TAGS}))
    for one, other in zip(plain.lanes, thinking.lanes, strict=True):
        assert (one.settings_id == other.settings_id) == (one.role == "reward")
        assert one.fingerprint == other.fingerprint


def test_where_nobody_thinks_ids_are_those_from_before_translators_could() -> None:
    assert "reasoning" not in identify(Translation(model="m"))
    steps = [{"name": "sft", "train": {"objective": "sft"}}]
    assert "reasoning" not in identify(Policy.model_validate({"base": "./base", "steps": steps}))
    assert "stray_reasoning" not in identify(Gates())
    assert identify(Gates(stray_reasoning=False))["stray_reasoning"] is False


def test_the_policy_and_its_base_think_in_the_same_tags(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "answers.jsonl")
    held_out = make_evaluation(recipe, "b" * 32, "e", ("policy", "./policy"), ("base", "./base"))
    assert held_out.a.reasoning == held_out.b.reasoning == tuple(TAGS)


def test_so_does_the_policy_that_answers_in_a_round(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path / "answers.jsonl")
    assert recipe.policy is not None
    run = Mock(spec_set=PolicyRun, recipe=recipe, policy=recipe.policy)
    round_recipe = make_round_recipe(run, "online_1", 1, OnPolicy(), StepOutcome("sft", "./model", "f" * 32, {}))
    assert [teacher.reasoning for teacher in round_recipe.teachers] == [tuple(TAGS)]


@pytest.mark.parametrize("tags", [["<think>", ""], ["<think>", "<think>"], [" ", "</think>"]])
def test_tags_that_part_nothing_are_refused(tags: list[str]) -> None:
    with pytest.raises(ValidationError, match="the opening and the closing tag must differ"):
        Teacher.model_validate({"name": "t", "model": "m", "reasoning": tags})


def test_an_encoder_decoder_translator_does_not_think() -> None:
    with pytest.raises(ValidationError, match="an encoder-decoder translator does not think"):
        Translation.model_validate({"model": "nllb", "reasoning": TAGS})
