"""What makes a build this build: model fingerprints, lane settings and the config id, resolved before anything is sent."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from factory.engines.fingerprint import fingerprint_model, template_digest
from factory.stages.files import find_files
from schemas.errors import InputError
from schemas.ids import Json, content_id, file_digest
from schemas.models import Model, RewardModel, Teacher, Translation
from schemas.recipe import EXECUTION_FIELDS, Recipe
from schemas.tables import BuildModels
from warehouse.lake import Lake
from warehouse.user_sql import check_sql

Role = Literal["teacher", "translator", "reward", "policy", "judge"]

_LOCATION_FIELDS = frozenset({"engine", "model", "revision", "adapter", "adapter_revision", "dtype", "quantization"})
"""Fields that the fingerprint stands for."""

_LABEL_FIELDS = frozenset(
    {"name", "languages", "samples", "licence", "recorded", "chat_template", "prompts", "completions_of"}
)
"""Fields that say which requests are made of a model, not how it answers one."""


@dataclass(frozen=True, slots=True)
class Lane:
    """One model of the build with the identity of its settings: what answers one kind of request."""

    role: Role
    name: str
    model: Model
    fingerprint: str
    settings_id: str
    languages: tuple[str, ...]
    num_samples: int
    licence: str | None


@dataclass(frozen=True, slots=True)
class Build:
    """A recipe with its identities resolved."""

    recipe: Recipe
    config_id: str
    teachers: tuple[Lane, ...]
    translator: Lane | None
    rewards: tuple[Lane, ...]

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return (*self.teachers, *([self.translator] if self.translator else []), *self.rewards)

    def recipe_json(self) -> str:
        """Return the recipe's identity for the table of builds."""
        return json.dumps(self.recipe.identity(), ensure_ascii=False, sort_keys=True)

    def models(self) -> pl.DataFrame:
        """Return the build's lanes as rows of ``build_models``."""
        return make_model_rows(self.config_id, self.lanes)


def make_model_rows(config_id: str, lanes: Iterable[Lane]) -> pl.DataFrame:
    """Return lanes as rows of ``build_models``."""
    rows = [
        {
            "config_id": config_id,
            "role": lane.role,
            "name": lane.name,
            "settings_id": lane.settings_id,
            "model_fingerprint": lane.fingerprint,
            "languages": list(lane.languages),
            "num_samples": lane.num_samples,
            "licence": lane.licence,
        }
        for lane in lanes
    ]
    return BuildModels.validate(pl.DataFrame(rows, schema=BuildModels.create_empty().schema), cast=True)


def resolve_build(recipe: Recipe) -> Build:
    """Fingerprint every model of the recipe and derive the ids.

    Raises:
        EngineError: a model that is not there, or a moving revision that cannot be resolved.
        InputError: a file of recorded answers that is not there or cannot be read.
        RecipeError: an SQL file that is not there or not one SELECT, or a refusal pattern that is none.
    """
    check_sql(recipe)
    role: Role = "policy" if recipe.round else "teacher"
    teachers = tuple(teacher_lane(teacher, recipe.languages, role) for teacher in recipe.teachers)
    translator = _translator_lane(recipe.translation, recipe) if recipe.translation else None
    rewards = tuple(reward_lane(model, recipe.languages) for model in recipe.reward_models)
    lanes = (*teachers, *([translator] if translator else []), *rewards)
    return Build(recipe, _config_id(recipe, lanes), teachers, translator, rewards)


def teacher_lane(teacher: Teacher, languages: tuple[str, ...], role: Role = "teacher") -> Lane:
    """Return the lane of a model that completes prompts, in those of ``languages`` that it is declared for.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
        InputError: a file of recorded answers is not there or cannot be read.
    """
    if teacher.recorded:
        fingerprint = content_id("recorded", [teacher.name, _file_digests(teacher.recorded.path)])
        how = [] if teacher.reasoning is None else [teacher.reasoning]
        joined = teacher.recorded.model_dump(mode="json", exclude={"path"})
        settings = content_id("settings", [fingerprint, joined, *how])
    else:
        fingerprint = fingerprint_model(teacher)
        settings = _settings_id(teacher, fingerprint)
    declared = tuple(code for code in languages if code in (teacher.languages or languages))
    return Lane(role, teacher.name, teacher, fingerprint, settings, declared, teacher.samples, teacher.licence)


def _translator_lane(translation: Translation, recipe: Recipe) -> Lane:
    fingerprint = fingerprint_model(translation)
    settings = _settings_id(translation, fingerprint)
    name = Path(translation.model).name
    return Lane("translator", name, translation, fingerprint, settings, recipe.languages, 1, translation.licence)


def reward_lane(model: RewardModel, languages: tuple[str, ...]) -> Lane:
    """Return the lane of a reward model.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
    """
    fingerprint = fingerprint_model(model)
    return Lane("reward", model.name, model, fingerprint, _settings_id(model, fingerprint), languages, 1, None)


def _settings_id(model: Model, fingerprint: str) -> str:
    unset = set() if model.engine_args else {"engine_args"}  # younger than many an answer, whose ids do not name it
    kept = model.model_dump(mode="json", exclude=set(_LOCATION_FIELDS | _LABEL_FIELDS | EXECUTION_FIELDS) | unset)
    return content_id("settings", [fingerprint, template_digest(model), kept])


def _config_id(recipe: Recipe, lanes: tuple[Lane, ...]) -> str:
    """Derive the build's id from the recipe less locations; models, SQL files and templates go in by content."""
    identity = recipe.identity()
    settings: dict[tuple[str, str], str] = {(lane.role, lane.name): lane.settings_id for lane in lanes}
    for role, section in ((lanes[0].role, "teachers"), ("reward", "reward_models")):
        identity[section] = [_relabel(entry, settings[role, entry["name"]]) for entry in identity[section]]
    if identity["translation"]:
        (translator,) = (lane for lane in lanes if lane.role == "translator")
        identity["translation"] = _relabel(identity["translation"], translator.settings_id)
    for source in identity["prompts"]:
        source.pop("path")
    files = (recipe.routing.sql, *(pair.sql for pair in recipe.pairs))
    for section, path in zip((identity["routing"], *identity["pairs"]), files, strict=True):
        section["sql"] = path and file_digest(Path(path))
    return content_id("config", identity)


def _relabel(entry: dict[str, Any], settings_id: str) -> dict[str, Json]:
    kept = {key: value for key, value in entry.items() if key in _LABEL_FIELDS - {"recorded", "chat_template"}}
    return kept | {"settings_id": settings_id}


def _file_digests(path: str) -> list[str]:
    try:
        return [file_digest(file) for file in find_files(path)[0]]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def check_limit(build: Build, lake: Lake, limit: int | None) -> None:
    """Refuse a limit below what the build has read already, since it would bound nothing that is paid for.

    Raises:
        InputError: so it is.
    """
    if limit is None:
        return
    most = sum(source.limited_to(limit).limit or 0 for source in build.recipe.prompts)
    sql = "SELECT count(*) FROM build_prompts WHERE config_id = ?"
    if (num_read := int(lake.query(sql, [build.config_id]).item())) > most:
        raise InputError(
            f"--limit {limit} allows {most:,} prompts, and the build has read {num_read:,} already, all of which would be "
            "worked on; leave the limit away, or try the recipe under another name"
        )
