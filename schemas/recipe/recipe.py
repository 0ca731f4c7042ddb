"""The recipe: one TOML file is one build.

What identifies a result (models, revisions, prompts, sampling, thresholds) and how it is executed (GPUs, batch sizes,
URLs, folders: everything under ``run`` and ``warehouse``) are different sections; the marks of ``schemas.toml.section``
say which is which. Input paths are relative to the recipe's folder; those of the warehouse, the exports and the models
are relative to the working directory.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, model_validator

from schemas.ids import Json
from schemas.languages import CORE_LANGUAGES
from schemas.names import BASE, fold_name, refuse_reference, suggest
from schemas.recipe.curation import Export, Gates, PairStrategy, Rewards, Routing
from schemas.recipe.merging import MergeSettings
from schemas.recipe.models import RewardModel, Teacher, Translation
from schemas.recipe.policy import Policy
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.recipe.settings import RunSettings, WarehouseSettings
from schemas.recipe.training import TrainSettings
from schemas.toml.named import Named
from schemas.toml.section import EXECUTION, Languages, Section, identify
from schemas.toml.toml_file import load_file, show_place


@dataclass(frozen=True, slots=True)
class Origin:
    """The file that a recipe was read from. It is left out of comparisons."""

    file: Path | None = field(default=None, compare=False)


class Recipe(Section):
    """One build. ``name`` labels it; two recipes that differ only in ``run`` and ``warehouse`` are the same build.

    ``round`` is 0 if the teachers are a pool of models, otherwise the online round in which a policy is the teacher.
    """

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    languages: Languages = Field(default=CORE_LANGUAGES, min_length=1)
    round: int = Field(default=0, ge=0)
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    prompt_gates: PromptGates = PromptGates()
    translation: Translation | None = None
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    gates: Gates = Gates()
    reward_models: tuple[RewardModel, ...] = Field(min_length=1)
    rewards: Rewards = Rewards()
    routing: Routing = Routing()
    pairs: tuple[PairStrategy, ...] = (PairStrategy(),)
    export: Export = Export()
    warehouse: Annotated[WarehouseSettings, EXECUTION] = WarehouseSettings()
    run: Annotated[RunSettings, EXECUTION] = RunSettings()
    # about the models that are trained on the build; not part of the build's own identity
    policy: Policy | None = None
    train: TrainSettings | None = Field(default=None, exclude=True)
    merge: MergeSettings | None = Field(default=None, exclude=True)
    _origin: Origin = PrivateAttr(default=Origin())

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        self._refuse_repeated("prompts", "prompt source", [source.name for source in self.prompts])
        self._refuse_repeated("teachers", "teacher", [teacher.name for teacher in self.teachers])
        self._refuse_repeated("reward_models", "reward model", [model.name for model in self.reward_models])
        self._refuse_repeated("pairs", "pair strategy", [pair.label for pair in self.pairs])
        teachers = [teacher.name for teacher in self.teachers]
        for location, name in self._named_teachers():
            if name not in teachers:
                refuse_reference(
                    f"unknown teacher {name!r}{suggest(name, teachers)}; the pool has {', '.join(teachers)}", *location
                )
        sources = [source.name for source in self.prompts]
        for at, teacher in enumerate(self.teachers):
            named = teacher.recorded and teacher.recorded.source
            if named and named not in sources:
                meant = suggest(named, sources)
                known = f"unknown prompt source {named!r}{meant}; the recipe has {', '.join(sources)}"
                refuse_reference(known, "teachers", at, "recorded", "source")
        return self

    @staticmethod
    def _refuse_repeated(section: str, what: str, names: list[str]) -> None:
        for at, name in enumerate(names):
            if name in names[:at]:
                refuse_reference(f"{what} {name!r} is named twice; names must differ", section, at, "name")

    def _named_teachers(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the location and the name of every reference to a teacher."""
        for language, name in self.routing.teachers.items():
            yield ("routing", "teachers", language), name
        for name in self.translation.completions_of if self.translation else ():
            yield ("translation", "completions_of"), name
        for at, pair in enumerate(self.pairs):
            for side in ("strong", "weak"):
                if (named := getattr(pair, side)) is not None:
                    yield ("pairs", at, side), named

    @model_validator(mode="after")
    def _policy_agrees(self) -> Self:
        if self.policy is None:
            return self
        policy, labels = self.policy, [pair.label for pair in self.pairs]
        self._refuse_teachers_of_the_policy(policy)
        self._refuse_languages_of_the_policy(policy)
        for at, step in enumerate(policy.steps):
            for label in step.pairs:
                if label not in labels:
                    known = (
                        f"unknown pair strategy {label!r}{suggest(label, labels)}; the recipe has {', '.join(labels)}"
                    )
                    refuse_reference(known, "policy", "steps", at, "pairs")
            exported = self.export.preference if step.train.is_preference else self.export.sft
            if not exported and step.on_policy is None:
                part = "preference" if step.train.is_preference else "sft"
                refuse_reference(f"the step trains on {part} rows, but export.{part} is false", "policy", "steps", at)
        return self

    def _refuse_languages_of_the_policy(self, policy: Policy) -> None:
        """Refuse languages that are not in the recipe, because the build has no rows of them."""
        tables: list[tuple[tuple[str | int, ...], dict[str, tuple[str, ...]]]] = [
            (("policy", "clusters"), policy.clusters)
        ]
        tables += [(("policy", "steps", at, "clusters"), step.clusters or {}) for at, step in enumerate(policy.steps)]
        named = [
            ((*table, name), f"cluster {name!r}", codes)
            for table, clusters in tables
            for name, codes in clusters.items()
        ]
        for location, what, codes in [*named, (("policy", "shared"), "'shared'", policy.shared)]:
            for code in codes:
                if code not in self.languages:
                    has = ", ".join(self.languages)
                    refuse_reference(f"{what} has the language {code!r}, but the recipe only has {has}", *location)

    def _refuse_teachers_of_the_policy(self, policy: Policy) -> None:
        """Refuse teachers whose answers would be stored under the name of a policy."""
        policies = {fold_name(name): f"a step or round of the policy ({name!r})" for name in policy.stand_names()}
        policies[BASE] = "the model that the policy starts from"
        for at, teacher in enumerate(self.teachers):
            if whose := policies.get(fold_name(teacher.name)):
                taken = f"{teacher.name!r} is the name of {whose}; choose another name"
                refuse_reference(taken, "teachers", at, "name")

    def place(self, named: Named) -> str:
        """Return where the recipe refers to something: ``file:line: key``, or only the key if no file was read."""
        file = self._origin.file
        return named.label if file is None else f"{show_place(file, named.location)}: {named.label}"

    def derive(self, **changes: object) -> Self:
        """Return a copy with some fields changed, which no longer points to the recipe's file."""
        derived = self.model_copy(update=changes)
        derived._origin = Origin()
        return derived

    def identity(self) -> dict[str, Json]:
        """Return what identifies this build, in a form for people: everything except execution and the policy."""
        return identify(self.model_copy(update={"policy": None}), without={EXECUTION})


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: the file is missing, is not TOML, or contains a value that is not allowed.
    """
    recipe = load_file(path, Recipe, f"there is no recipe {path}; `factory init {quote(str(path))}` writes one")
    recipe._origin = Origin(path)
    return recipe
