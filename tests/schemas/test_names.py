"""What two things may not be called alike, and what no folder can be called."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.errors import RecipeError
from schemas.names import STAGES, check_folder_name, fold_name, suggest
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.policy import OnPolicy
from schemas.recipe.recipe import Recipe, load_recipe
from tests.schemas.small_recipe import PROMPTS

RECIPE = (
    PROMPTS
    + """[[teachers]]
name = "teacher"
model = "org/t"
[[reward_models]]
name = "r"
model = "org/r"
[policy]
base = "org/base"
[policy.clusters]
west = ["en"]
east = ["he"]
[[policy.steps]]
name = "online"
train = { objective = "dpo" }
on_policy = { rounds = 3 }
[[policy.steps]]
name = "last"
train = { objective = "sft" }
"""
)


def load(folder: Path, **changes: str) -> Recipe:
    """Load the recipe with a name in place of another: ``last="online_1"``."""
    text = RECIPE
    for old, new in changes.items():
        assert old in text
        text = text.replace(f'"{old}"', f'"{new}"') if f'"{old}"' in text else text.replace(f"{old} =", f"{new} =")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.toml")


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("online_1", "a round of the step 'online'"),
        ("online_3", "a round of the step 'online'"),
        ("online", "another step"),
        ("base", "the model that the policy starts from"),
        *((stage, "a stage of the build") for stage in STAGES),
    ],
)
def test_a_steps_name_that_is_taken_is_refused_with_its_line(tmp_path, name, whose):
    with pytest.raises(RecipeError, match=rf"recipe.toml:24: policy.steps.1.name: '{name}' is the name of {whose}"):
        load(tmp_path, last=name)


def test_names_of_rounds_that_there_are_not_are_free(tmp_path):
    assert load(tmp_path, last="online_4").policy.stand_names() == ["online_1", "online_2", "online_3", "online_4"]


@pytest.mark.parametrize("name", ["online_2", "last", "base", "Last", "ONLINE_1"])
def test_a_teacher_is_not_called_like_a_policy(tmp_path, name):
    """In the tables of answers a model is known by its name; a round's policy has that of its step."""
    with pytest.raises(RecipeError, match=rf"recipe.toml:9: teachers.0.name: '{name}' is .*; choose another name"):
        load(tmp_path, teacher=name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("all", "is the cluster name of a step without clusters; choose another name"),
        ("West", "clusters 'west' and 'West' would share a folder on case-insensitive disks; choose another name"),
        ("ＷＥＳＴ", "clusters 'west' and 'ＷＥＳＴ' would share a folder on case-insensitive disks"),
        ("../up", "holds '/'"),
        ("..", "begins or ends with"),
        ("a:b", "holds ':'"),
        ("", "is empty"),
        ("מזרח\\u0007", r"holds '\\x07'"),
    ],
)
def test_a_cluster_that_cannot_be_a_folder_of_its_own_is_refused_with_its_line(tmp_path, name, why):
    with pytest.raises(RecipeError, match=rf"recipe.toml:18: policy.clusters.*{why}"):
        load(tmp_path, east=f'"{name}"')


@pytest.mark.parametrize("name", ["מזרח", "東", "μέση ανατολή", "north-east", "v2.1"])
def test_names_of_any_script_are_fit_for_folders(tmp_path, name):
    assert check_folder_name(name) == name
    (tmp_path / name).mkdir()
    assert list(load(tmp_path, east=f'"{name}"').policy.clusters) == ["west", name]


def test_names_are_compared_as_disks_compare_them():
    assert fold_name("Straße") == fold_name("STRASSE")
    assert fold_name("cafe\u0301") == fold_name("café")
    assert fold_name("ｋ") == fold_name("k")
    assert fold_name("east") != fold_name("west")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"pairs": [{"name": "same"}, {"strategy": "best_vs_mean_minus_2sd", "name": "same"}]},
            "strategy 'same' is named",
        ),
        ({"pairs": [{"strategy": "strong_vs_weak", "strong": "a", "weak": "b"}]}, "only the policy answers"),
        (
            {"prompts": [{"name": "p", "path": p, "language": "en", "columns": {"prompt": "q"}} for p in "ab"]},
            "source 'p'",
        ),
    ],
)
def test_what_a_round_reads_and_pairs_has_names_of_its_own(changes, why):
    with pytest.raises(ValidationError, match=why):
        OnPolicy.model_validate(changes)


def test_a_pair_strategy_is_not_called_like_another_kind(tmp_path):
    with pytest.raises(
        ValidationError, match=r"'best_vs_worst' is the name of a different strategy; choose another name"
    ):
        OnPolicy.model_validate({"pairs": [{"strategy": "best_vs_mean_minus_2sd", "name": "best_vs_worst"}]})


def test_two_reward_models_of_an_evaluation_have_two_names():
    settings = {
        "a": {"name": "a", "model": "org/a"},
        "b": {"name": "b", "model": "org/b"},
        "judge": {"reward": {"name": "r", "model": "org/one"}},
        "reward": {"name": "r", "model": "org/other"},
    }
    with pytest.raises(ValidationError, match="different models, both named 'r'"):
        EvaluationSettings.model_validate(settings)
    settings["reward"] = settings["judge"]["reward"]
    assert EvaluationSettings.model_validate(settings).reward.model == "org/one"


def test_a_mistyped_name_is_recognized():
    assert suggest("Skywrok", ["qwen", "skywork"]) == " (did you mean 'skywork'?)"
    assert suggest("skywork", ["Skywork"]) == " (did you mean 'Skywork'?)"
    assert suggest("gemma", ["qwen", "skywork"]) == ""
    assert suggest(3, ["qwen"]) == ""
