"""Ids that warehouses, exports and folders of models hold already: what they name stays answered, written and trained."""

from pathlib import Path
from typing import Any

import pytest

from factory.engines import fingerprint
from factory.merging.identity import identify_merge
from factory.training.identity import identify_run
from flows.evaluation.evaluate import resolve_judge
from flows.identity import identify_asked, resolve_build, teacher_lane
from schemas.ids import content_id
from schemas.recipe.evaluation import Judge, JudgeModel
from schemas.recipe.merging import MergeSettings
from schemas.recipe.models import Teacher
from schemas.recipe.policy import Step
from schemas.recipe.recipe import Recipe, load_recipe
from schemas.recipe.training import TrainSettings
from schemas.toml.section import identify

RECIPES = Path(__file__).parents[3] / "flows" / "recipes"

BUILDS = {
    "microworld": [
        "f6a65b4ea8d7640fa30fc2eadc7f502c",
        "abde8020246be05cf9f2c73d85c16fc5",
        "92b775562502839d004c62596bca0839",
        "550f315902d3fd1bc65b309e49c309a6",
        "23ad8b8490a976bb00a1e2c714ee0eb4",
        "230f96e25037beb1e9fe2a8bb47c002a",
    ],
    "starter": [
        "66ddbffafbef8a3b4912714d984376c8",
        "b268058a5cce1b4451df0b8493de94aa",
        "d52fb1ec38e78ba0291ccb51a0bfad6d",
        "ada91d1e15e41cac2623a4802752e605",
    ],
    "aya_expanse": [
        "a7d2e21a508c3652048a2d9e6b74cb0c",
        "bae3b465046e4ae4f02ff38ebf2079e6",
        "50712dc078d7cb3adfc7ececfe6e3f7a",
        "e104128acc9b414bb8485498e32d3776",
        "5a50593c384dbe7be1acb13306a0f0bd",
        "4cebc25f9da0ce68642733759e808f43",
        "f7a16f24d632e8c483609e534bd9fc07",
        "35057f0733e4f84e91ab9f13af75a6b4",
    ],
}
"""The id of each shipped recipe's build, and those of its lanes' settings: teachers, translator, reward models."""


@pytest.fixture(autouse=True)
def known_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is there, at a commit or with files that are always the same."""
    monkeypatch.setattr(fingerprint, "resolve_commit", lambda name, *_: f"commit of {name}")
    monkeypatch.setattr(fingerprint, "remembered_digest", lambda folder: f"digest of {folder.name}")


@pytest.mark.parametrize("name", ["microworld", "starter", "aya_expanse"])
def test_builds_of_the_shipped_recipes(name: str) -> None:
    build = resolve_build(load_recipe(RECIPES / f"{name}.toml"))
    assert [build.config_id, *(lane.settings_id for lane in build.lanes)] == BUILDS[name]


def test_a_build_by_sql_of_ones_own_of_a_dataset_of_the_hub(tmp_path: Path) -> None:
    sql = write(tmp_path / "own.sql", "SELECT prompt_id, completion_id FROM candidates")
    pairs = write(tmp_path / "pairs.sql", "SELECT 1")
    recipe = Recipe.model_validate(
        {
            "name": "own",
            "prompts": [{"name": "p", "dataset": "org/set", "columns": {"prompt": "p"}, "language": "en"}],
            "teachers": [FULL | {"chat_template": write(tmp_path / "t.jinja", "{{ messages }}")}],
            "reward_models": [{"name": "r", "model": "org/reward", "system_prompt": "Be strict."}],
            "routing": {"method": "sql", "sql": sql},
            "pairs": [{"strategy": "sql", "name": "mine", "sql": pairs}, {"strategy": "best_vs_worst"}],
        }
    )
    assert resolve_build(recipe).config_id == "2894fad0997737d96b9588d081854328"


FULL: dict[str, Any] = {
    "name": "full",
    "model": "org/model",
    "revision": "r1",
    "dtype": "float16",
    "quantization": "fp8",
    "adapter": "org/adapter",
    "adapter_revision": "r2",
    "system_prompt": "Brief.",
    "engine_args": {"hf_overrides": {"a": [1, 2.5]}},
    "languages": ["en"],
    "samples": 3,
    "sampling": {"temperature": 0.3, "stop": ["x"], "seed": 4},
    "structured": {"json_schema": {"type": "object"}},
    "reasoning": ["<t>", "</t>"],
    "licence": "MIT",
}


def test_the_settings_of_a_teacher(tmp_path: Path) -> None:
    teacher = FULL | {"chat_template": write(tmp_path / "t.jinja", "{{ messages }}")}
    assert teacher_lane(Teacher.model_validate(teacher), ("en",)).settings_id == "60ea257c8bd13603d69f43c7797ed8c4"


def test_recorded_answers(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", "{}\n")
    recorded = {"path": path, "columns": {"text": "t", "key": ["a", "b"]}}
    teacher = Teacher.model_validate({"name": "old", "engine": "recorded", "recorded": recorded})
    assert teacher_lane(teacher, ("en",)).settings_id == "c8e17c41d73cbde1bf1765db7075b6bc"


def test_training_runs(tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", '{"prompt": "a", "completion": "b"}\n')
    base = tmp_path / "base"
    base.mkdir()
    sft = TrainSettings(model=str(base), data=data, objective="sft")
    dpo = {
        "model": str(base),
        "data": data,
        "eval_data": data,
        "objective": "dpo",
        "reference": "org/reference",
        "languages": ["en"],
        "strategies": ["best_vs_worst"],
        "chat_template": write(tmp_path / "t.jinja", "{{ messages }}"),
        "lora": {"rank": 4},
        "betas": [0.8, 0.9],
        "run": {"processes": 3},
    }
    assert identify_run(sft).id == "2cf1ad2a27f88ca0bacd0a70c1fa390e"
    assert identify_run(TrainSettings.model_validate(dpo)).id == "f568b70609f5ea6513cf7d024d5bfe16"


def test_merges() -> None:
    models = [
        {"model": "org/a", "revision": "r", "adapter": "org/adapter", "weight": [0.1, 1], "patterns": {"x.*": 0.5}},
        {"model": "org/b", "name": "b", "density": 0.2},
    ]
    merge = {"method": "ties", "base": "org/base", "lambda": 0.7, "models": models, "run": {"threads": 2}}
    assert (
        content_id("merge", identify_merge(MergeSettings.model_validate(merge))) == "b6cd5eb5a26053820667abd8efe9a9b5"
    )


JUDGES: dict[str, dict[str, Any]] = {
    "b9ad90be671a623bb7cbf9f419510ae9": {"reward": {"name": "r", "model": "org/r"}, "tie_margin": 0.1},
    "696bf0505ea473b1417fd3202a0115a5": {"truth": "microworld"},
    "ae217a0a9fbfcc4333f09eda8f0c70de": {"llm": {"name": "j", "model": "org/j"}},
    "4b32ce68a4efb252de438486f375ba27": {
        "llm": {"name": "j", "model": "org/j", "reasoning": ["<a>", "</a>"]},
        "scale": "arena",
        "max_reason_chars": 50,
    },
}


@pytest.mark.parametrize("pinned", JUDGES)
def test_judges(pinned: str) -> None:
    assert resolve_judge(Judge.model_validate(JUDGES[pinned]), ("en",))[1] == pinned


def test_steps_of_a_policy() -> None:
    merge = {"method": "ties", "lambda": 0.7, "weights": {"east": 2.0}, "run": {"threads": 2}}
    train = {"objective": "dpo", "betas": [0.8, 0.9], "lora": {"rank": 4}, "run": {"processes": 3}}
    step = Step.model_validate({"name": "dpo", "train": train, "clusters": {"east": ["ja"]}, "merge": merge})
    assert content_id("step", identify(step)) == "20a9abbed45b2409cff90689d91eee4a"


def test_a_judge_that_is_asked() -> None:
    judge = {"name": "j", "model": "org/j", "sampling": {"temperature": 0.1}, "reasoning": ["<a>", "</a>"]}
    assert content_id("asked", identify_asked(JudgeModel.model_validate(judge))) == "a6579d4ac84048bf61c7aaa4e4084ac5"


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)
