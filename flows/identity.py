"""What makes a build this build: model fingerprints, lane settings and the config id, resolved before anything is sent."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import BaseModel

from factory.engines.fingerprint import fingerprint_model, template_digest
from factory.inputs.finding import find_files
from factory.stages.outputs import Provenance, make_frame
from schemas.errors import FactoryError, InputError
from schemas.ids import Json, content_id, file_digest
from schemas.recipe.models import Model, RewardModel, Teacher, Translation
from schemas.recipe.recipe import Recipe
from schemas.toml.section import CONTENT, EXECUTION, FINGERPRINTED, REQUEST, Mark, fields_marked, identify, no_place
from warehouse.build.user_sql import check_sql
from warehouse.catalog.catalog import find_catalog
from warehouse.lake.lake import Lake

Role = Literal["teacher", "translator", "reward", "policy", "judge"]


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

    @property
    def provenance(self) -> Provenance:
        """What the rows that this lane makes carry."""
        return Provenance(self.settings_id, self.name, self.fingerprint)


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
            "languages": sorted(lane.languages),
            "num_samples": lane.num_samples,
            "licence": lane.licence,
        }
        for lane in lanes
    ]
    return make_frame("build_models", rows)


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


def resolve_made_build(recipe: Recipe) -> Build:
    """Resolve a recipe's build that has been run, and make no warehouse where it has not; raises as ``open_made_build``."""
    with open_made_build(recipe, read_only=True) as (build, _):
        return build


@contextmanager
def open_made_build(recipe: Recipe, *, read_only: bool) -> Iterator[tuple[Build, Lake]]:
    """Resolve a recipe's build that has been run and open its warehouse; make none where it has not.

    Raises:
        FactoryError: no build of the recipe, as it is now, has run; or what ``resolve_build`` raises.
    """
    build, catalog = resolve_build(recipe), find_catalog(recipe.warehouse)
    if catalog.sqlite is None or catalog.sqlite.exists():
        with Lake.open(recipe.warehouse, read_only=read_only) as lake:
            if lake.rows("SELECT 1 FROM builds WHERE config_id = ? LIMIT 1", [build.config_id]):
                yield build, lake
                return
    raise FactoryError(
        f"no build of recipe {recipe.name!r}, as it is now, has run on the warehouse {catalog.shown}: `factory run` makes one"
    )


def teacher_lane(teacher: Teacher, languages: tuple[str, ...], role: Role = "teacher") -> Lane:
    """Return the lane of a model that completes prompts, in those of ``languages`` that it is declared for.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
        InputError: a file of recorded answers is not there or cannot be read.
    """
    declared = tuple(code for code in languages if code in (teacher.languages or languages))
    return Lane(role, teacher.name, teacher, *identify_model(teacher), declared, teacher.samples, teacher.licence)


def _translator_lane(translation: Translation, recipe: Recipe) -> Lane:
    name = Path(translation.model).name
    ids = identify_model(translation)
    return Lane("translator", name, translation, *ids, recipe.languages, 1, translation.licence)


def reward_lane(model: RewardModel, languages: tuple[str, ...]) -> Lane:
    """Return the lane of a reward model.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
    """
    return Lane("reward", model.name, model, *identify_model(model), languages, 1, None)


def identify_model(model: Model) -> tuple[str, str]:
    """Return a model's fingerprint, and the id of all that decides its answers: that, its template and its settings.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
        InputError: a file of recorded answers is not there or cannot be read.
    """
    if isinstance(model, Teacher) and model.recorded:
        fingerprint = content_id("recorded", [model.name, _file_digests(model.recorded.path)])
        thinking = [] if model.reasoning is None else [model.reasoning]
        return fingerprint, content_id("settings", [fingerprint, identify(model.recorded, without=CONTENT), *thinking])
    fingerprint = fingerprint_model(model)
    settings = identify(model, without={EXECUTION, REQUEST, FINGERPRINTED, *CONTENT})
    return fingerprint, content_id("settings", [fingerprint, template_digest(model), settings])


def identify_asked(section: BaseModel, settings_id: str | None = None) -> Json:
    """Return what is asked of a model, with the id of all that decides its answers; None for any other section.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
        InputError: a file of recorded answers is not there or cannot be read.
    """
    if not isinstance(section, Model):
        return None
    asked = identify(section)
    settings_id = settings_id or identify_model(section)[1]
    return {"settings_id": settings_id} | {name: asked[name] for name in fields_marked(type(section), REQUEST)}


def identify_name(mark: Mark, name: str) -> Json:
    """Return what counts of a name in a build or a policy: a file's or a model's content; a data set of the hub by name.

    The rows of a data set come and go under one build, as those of files do, so one in a folder counts by its rows alone.

    Raises:
        EngineError: the model is not there, or its moving revision cannot be resolved.
        InputError: the file is not there or cannot be read.
    """
    match mark:
        case Mark.MODEL:
            return fingerprint_model(Model(model=name))
        case Mark.DATA:
            return no_place(mark, name)
        case _:
            try:
                return file_digest(Path(name))
            except OSError as error:
                raise InputError(f"{name} cannot be read: {error.strerror}") from error


def _config_id(recipe: Recipe, lanes: tuple[Lane, ...]) -> str:
    """Derive the build's id from the recipe less places; models, SQL files and templates go in by content."""
    settings = {id(lane.model): lane.settings_id for lane in lanes}
    without_policy = recipe.model_copy(update={"policy": None})
    identity = identify(
        without_policy,
        content=identify_name,
        stand_in=lambda section: identify_asked(section, settings.get(id(section))),
    )
    return content_id("config", identity)


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
    if (num_read := int(lake.value(sql, [build.config_id]))) > most:
        raise InputError(
            f"--limit {limit} allows {most:,} prompts, and the build has read {num_read:,} already, all of which would be "
            "worked on; leave the limit away, or try the recipe under another name"
        )
