"""Every shipped recipe loads, can be copied, and says what the models and defaults are."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import flows
from flows.recipes.write import write_recipe
from schemas.errors import FactoryError
from schemas.languages import CORE_LANGUAGES
from schemas.recipe import curation, models, policy, prompts, settings
from schemas.recipe.recipe import Recipe, load_recipe

SHIPPED = sorted((Path(flows.__file__).parent / "recipes").glob("*.toml"))
STARTER = next(path for path in SHIPPED if path.stem == "starter").read_text(encoding="utf-8")

DOCUMENTED: dict[str, type[BaseModel]] = {
    "prompts": prompts.PromptSource,
    "prompt_gates": prompts.PromptGates,
    "translation": models.Translation,
    "teachers": models.Teacher,
    "gates": curation.Gates,
    "rewards": curation.Rewards,
    "routing": curation.Routing,
    "pairs": curation.PairStrategy,
    "export": curation.Export,
    "warehouse": settings.WarehouseSettings,
    "run": settings.RunSettings,
}
"""Sections whose every key the starter explains; reward models have those of teachers' models."""

SECTIONS = DOCUMENTED | {"reward_models": models.RewardModel, "policy": policy.Policy}


def test_the_templates_are_there():
    assert [path.stem for path in SHIPPED] == ["aya_expanse", "microworld", "starter"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    recipe = load_recipe(path)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_sections_that_are_commented_out_are_right_too(path):
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"(?:^#\[.*\n(?:^#.*\n)+)", text, flags=re.MULTILINE)
    assert blocks
    for block in blocks:
        for section, elements in tomllib.loads(re.sub("^#", "", block, flags=re.MULTILINE)).items():
            for element in elements if isinstance(elements, list) else [elements]:
                SECTIONS[section].model_validate(element)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_copy_is_the_same_build(path, tmp_path):
    copy = tmp_path / "deep" / "copy.toml"
    write_recipe(copy, path.stem)
    shipped, copied = load_recipe(path), load_recipe(copy)
    if path.stem == "starter":  # its prompts are the user's own, beside the recipe
        assert copied.prompts[0].path == str(copy.parent / "prompts.jsonl")
        shipped, copied = (recipe.model_copy(update={"prompts": ()}) for recipe in (shipped, copied))
    assert copied == shipped


def test_an_existing_file_is_left_alone(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text("mine")
    with pytest.raises(FactoryError, match=r"there is a file .*recipe\.toml already"):
        write_recipe(path, "starter")
    assert path.read_text() == "mine"
    with pytest.raises(FactoryError, match="no template 'none'; allowed are aya_expanse, microworld, starter"):
        write_recipe(tmp_path / "other.toml", "none")
    with pytest.raises(FactoryError, match="cannot be written"):
        write_recipe(path / "below.toml", "starter")


def test_the_microworld_recipe_runs_on_what_ships():
    recipe = load_recipe(next(path for path in SHIPPED if path.stem == "microworld"))
    assert sorted(recipe.languages) == sorted(CORE_LANGUAGES)
    assert recipe.translation is not None
    assert Path(str(recipe.prompts[0].path)).is_file()
    models = [recipe.translation, *recipe.teachers, *recipe.reward_models]
    assert [model.model for model in models if not (Path(model.model) / "config.json").is_file()] == []
    assert [pair.strategy for pair in recipe.pairs] == [
        "best_vs_worst",
        "in_language_vs_translated",
        "best_vs_mean_minus_2sd",
        "strong_vs_weak",
    ]


def test_the_aya_recipe_states_licences_and_languages():
    recipe = load_recipe(next(path for path in SHIPPED if path.stem == "aya_expanse"))
    assert sorted(recipe.languages) == sorted(CORE_LANGUAGES)
    assert all(part.licence for part in (*recipe.prompts, *recipe.teachers, recipe.translation))
    assert len({teacher.model.partition("/")[0] for teacher in recipe.teachers}) == len(recipe.teachers) == 5
    assert any(teacher.reasoning for teacher in recipe.teachers)
    gpus = [model.run.gpus * model.run.replicas for model in (*recipe.teachers, *recipe.reward_models)]
    assert max(gpus) <= 8


@pytest.mark.parametrize("section", DOCUMENTED)
def test_the_starter_explains_every_key(section):
    part = "\n".join(_lines_of(section))
    missing = [name for name in DOCUMENTED[section].model_fields if not re.search(rf"\b{name}\b", part)]
    shared = {*models.Model.model_fields, *models.Instructed.model_fields} if section == "translation" else set()
    assert [name for name in missing if name not in shared] == []


@pytest.mark.parametrize("section", DOCUMENTED)
def test_the_defaults_that_the_starter_states_are_the_defaults(section):
    stated = [line.removeprefix("#") for line in _lines_of(section) if re.match(r"#[a-z_]+ = ", line)]
    for line in stated:
        if "(example)" in line or "default: " in line:
            continue
        ((name, value),) = tomllib.loads(line).items()
        default = DOCUMENTED[section].model_fields[name].default
        assert _plain(default) == value or name in {"sampling"}, f"{section}.{name}"


def test_the_starter_names_the_defaults_of_sampling_and_execution():
    for model, text in ((models.Sampling, "sampling = {"), (models.ModelRun, "run = { gpus")):
        line = next(line for line in STARTER.splitlines() if line.startswith(text))
        for name, field in model.model_fields.items():
            stated = re.search(rf"\b{name} = ([\d.]+)", line)
            assert re.search(rf"\b{name}\b", STARTER), name
            assert stated is None or name == "max_tokens" or float(stated[1]) == field.default, name


def _lines_of(section: str) -> list[str]:
    """Return the lines of the first section of that name in the starter."""
    lines = STARTER.splitlines()
    start = next(at for at, line in enumerate(lines) if re.match(rf"\[+{section}\]", line))
    end = next((at for at in range(start + 1, len(lines)) if re.match(r"#?\[|# ----", lines[at])), len(lines))
    return lines[start:end]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
