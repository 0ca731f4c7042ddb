"""What a recipe names, looked for before anything is spent: files and their first rows, models, data sets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from factory.engines.fingerprint import fingerprint_model
from factory.engines.open import PACKAGES
from factory.stages.recorded import open_recorded
from factory.stages.sources import read_source
from schemas.errors import EngineError, FactoryError, InputError
from schemas.extras import require
from schemas.names import STAGES, suggest
from schemas.recipe.models import Model, Recorded
from schemas.recipe.prompts import PromptSource
from schemas.recipe.recipe import Recipe
from schemas.recipe.settings import WarehouseSettings
from schemas.toml.named import Named, find_named
from schemas.toml.paths import is_path
from schemas.toml.section import Mark
from warehouse.lake.lake import Lake

OTHER_COMMANDS = ("train", "merge")
"""Tables of a recipe that other commands than `run` read; what they name may come to be only later."""

ASKED_BY = {"translation": "translate", "teachers": "sample", "reward_models": "score"}
"""The stage that asks the models of a table."""


def refuse_missing(recipe: Recipe, *, with_policy: bool) -> None:
    """Refuse a recipe that names what is not there or cannot be read, as far as this machine can tell.

    Models of the policy are looked for on the hub too; of those of the build ``resolve_build`` does so.

    Raises:
        FactoryError: the place in the recipe, and what is wrong with what it names.
    """
    left_out = {*OTHER_COMMANDS, *(() if with_policy else ("policy",))}
    names = [named for named in find_named(recipe) if named.location[0] not in left_out]
    for named in names:
        _check_at(recipe, named, is_on_disk=True)
    for named in names:
        if named.location[0] == "policy":
            _check_at(recipe, named, is_on_disk=False)


def _check_at(recipe: Recipe, named: Named, *, is_on_disk: bool) -> None:
    try:
        if is_on_disk:
            check_name(named)
        elif named.mark is Mark.MODEL and not is_path(named.name):
            fingerprint_model(named.section if isinstance(named.section, Model) else Model(model=named.name))
    except FactoryError as error:
        raise type(error)(f"{recipe.place(named)}: {error}") from error


def check_name(named: Named) -> bool:
    """Look for what a recipe names on this machine; return whether it has any row, where it has rows.

    A hub id passes, and so does what a server calls its model.

    Raises:
        FactoryError: it is not there, or its first rows cannot be read.
    """
    match named.section:
        case PromptSource() as source if source.path is not None or Path(named.name).exists():
            return _has_rows(read_source(source))
        case Recorded() as recorded:
            return _has_rows(open_recorded(recorded))
        case Model(engine="openai") if named.mark is Mark.MODEL:
            return True
    if named.mark is Mark.FILE:
        if not Path(named.name).is_file():
            raise InputError(f"no file at {named.name}")
    elif is_path(named.name) and not Path(named.name).exists():
        if named.mark is Mark.MODEL:
            raise EngineError(f"there is no model folder '{named.name}'")
        raise InputError(f"no file or folder at {named.name}")
    return True


def _has_rows(rows: Iterator[object]) -> bool:
    return next(rows, None) is not None


@contextmanager
def open_empty() -> Iterator[Lake]:
    """Open a warehouse without rows that goes away in the end."""
    with TemporaryDirectory() as folder:
        settings = WarehouseSettings(catalog=f"{folder}/catalog.sqlite", data=f"{folder}/data")
        with Lake.open(settings) as lake:
            yield lake


def stages_of(recipe: Recipe) -> tuple[str, ...]:
    """Return what `until` may name, in order: the stages of the build, then the steps of the policy."""
    return STAGES + (tuple(step.name for step in recipe.policy.steps) if recipe.policy else ())


def check_run(recipe: Recipe, until: str | None) -> str:
    """Return what a run ends with; refuse a stage that there is not, and what the recipe needs and is not there."""
    allowed = stages_of(recipe)
    until = until or allowed[-1]
    check_stage(until, allowed)
    refuse_missing(recipe, with_policy=until not in STAGES)
    _require_packages(recipe, until)
    return until


def _require_packages(recipe: Recipe, until: str) -> None:
    """Refuse a run whose models need packages that are not installed here."""
    reached = STAGES[: STAGES.index(until) + 1] if until in STAGES else STAGES
    engines = {
        named.section.engine
        for named in find_named(recipe)
        if isinstance(named.section, Model) and ASKED_BY.get(str(named.location[0])) in reached
    }
    if until not in STAGES:
        engines.add("vllm")  # by which a policy answers; what trains and merges it comes along
    require(sorted({package for engine in engines for package in PACKAGES.get(engine, ())}))


def check_stage(until: str, allowed: tuple[str, ...]) -> None:
    """Refuse a stage that there is not."""
    if until not in allowed:
        raise FactoryError(f"there is no stage {until!r}{suggest(until, allowed)}; allowed are {', '.join(allowed)}")
