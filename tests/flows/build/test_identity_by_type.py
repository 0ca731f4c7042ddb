"""Every leaf field of every section is asked: what identifies a result changes its id, what executes it or moves does not."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import datasets
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from factory.engines import fingerprint
from factory.merging.identity import identify_merge
from factory.training.identity import identify_run
from flows import identity
from flows.doctor.recipe_checks import check_files, check_models
from flows.evaluation import evaluate as evaluation_flow
from flows.evaluation.evaluate import resolve_evaluation
from flows.identity import identify_model, resolve_build
from flows.policy.policy import identify_policy
from flows.policy.step import Source
from flows.recipe_names import refuse_missing
from schemas.errors import FactoryError, RecipeError
from schemas.ids import content_id
from schemas.recipe.arena import ArenaRecipe
from schemas.recipe.evaluation import EvaluationSettings, JudgeModel
from schemas.recipe.merging import MergeSettings
from schemas.recipe.models import Teacher
from schemas.recipe.policy import StepMerge, StepTraining
from schemas.recipe.recipe import Recipe
from schemas.recipe.training import TrainSettings
from schemas.toml.section import (
    CONTENT,
    EXECUTION,
    FINGERPRINTED,
    PLACE,
    REQUEST,
    UNORDERED,
    Mark,
    Section,
    marks_of,
)
from schemas.toml.toml_file import load_table

Way = tuple[str | int, ...]

EXECUTED = {
    "ArenaRecipe.run",
    "ArenaRecipe.warehouse",
    "Contestant.licence",
    "Contestant.name",
    "Contestant.run",
    "EvaluationSettings.name",
    "EvaluationSettings.run",
    "JudgeModel.licence",
    "JudgeModel.name",
    "JudgeModel.run",
    "MergeSettings.run",
    "Policy.run",
    "Recipe.run",
    "Recipe.warehouse",
    "RewardModel.run",
    "StepMerge.run",
    "StepTraining.run",
    "Teacher.run",
    "TrainSettings.run",
    "Translation.run",
}
"""All fields that are not part of an identity. Whoever marks another one says so here."""

ORDERED = {
    "betas": "of the rounds, or of the optimizer's moments",
    "choice": "an engine is given it as it is",
    "formats": "one order whatever is given",
    "id": "parts of one key",
    "key": "parts of one key",
    "models": "tokenizer and configuration are the first one's",
    "pairs": "tables: in whatever order, warehouses hold their ids",
    "patterns": "weights over depth",
    "prompts": "of duplicates the first source's is kept",
    "reasoning": "what opens, what closes",
    "reward_models": "the first one judges where no judge is named",
    "steps": "one after another",
    "stop": "an engine is given it as it is",
    "teachers": "tables: in whatever order, warehouses hold their ids",
    "weight": "over depth",
    "weights": "over depth",
}
"""All lists that are part of an identity in the order in which they are given, by field, and why."""

SETTLED = (StepTraining, StepMerge, JudgeModel)
"""Sections whose identity holds fields that others like them have and they have not."""


@dataclass(frozen=True)
class Root:
    """A section with everything in it, the id that is made of it, and which of its leaves are asked."""

    section: BaseModel
    make_id: Callable[[Any], str]
    asked: Callable[[Way], bool] = lambda way: True
    ignored: frozenset[Mark] = frozenset()


@dataclass(frozen=True)
class World:
    """Files and models that the sections name, and copies of them elsewhere; models are folders, or lie on the hub."""

    folder: Path
    has_hub: bool = False

    def file(self, name: str, text: str = "{}\n") -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return str(path)

    def model(self, name: str) -> str:
        if self.has_hub:
            return f"org/{name.rpartition('/')[2]}"
        return self.data_folder(name)

    def data_folder(self, name: str) -> str:
        self.file(f"{name}/config.json", name)
        return str(self.folder / name)

    def moved(self, name: str) -> str:
        """Copy a file or folder to another place, under another name."""
        path = Path(name)
        copy = self.folder / "moved" / f"other-{path.name}"
        copy.parent.mkdir(exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, dirs_exist_ok=True)
        else:
            shutil.copy(path, copy)
        return str(copy)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(fingerprint, "resolve_commit", lambda *of: f"commit of {of}")
    monkeypatch.setattr(fingerprint, "_cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(evaluation_flow, "resolve_revision", lambda *of: f"commit of {of}")
    monkeypatch.setattr(identity, "check_sql", lambda recipe: None)
    return World(tmp_path)


def full_model(world: World, **own: Any) -> dict[str, Any]:
    return {
        "model": world.model("models/a"),
        "adapter": world.model("models/adapter"),
        "chat_template": world.file("template.jinja", "{{ messages }}"),
        "engine_args": {"rope_theta": 1.0},
        "sampling": {"stop": ["x"]},
        "run": {"urls": ["http://localhost:1/v1"]},
        **own,
    }


def full_teacher(world: World, **own: Any) -> dict[str, Any]:
    return full_model(world, name="t", structured={"choice": ["a"]}, reasoning=["<t>", "</t>"], **own)


def recorded_teacher(world: World) -> dict[str, Any]:
    recorded = {"path": world.file("answers.jsonl"), "columns": {"text": "t", "key": "k", "language": "l"}}
    return {"name": "recorded", "engine": "recorded", "recorded": recorded}


def reward_model(world: World) -> dict[str, Any]:
    return {key: value for key, value in full_model(world, name="r").items() if key != "sampling"}


def full_recipe(world: World, **own: Any) -> dict[str, Any]:
    columns = {"prompt": "p", "id": "i", "system": "s"}
    return {
        "name": "full",
        "prompts": [
            {"name": "file", "path": world.file("prompts.jsonl"), "language": "en", "columns": columns},
            {"name": "folder", "dataset": world.data_folder("set"), "language": "en", "columns": columns},
            {"name": "hub", "dataset": "org/set", "language": "en", "columns": columns},
        ],
        "translation": full_model(world, completions_of=["t"]),
        "teachers": [full_teacher(world), recorded_teacher(world)],
        "reward_models": [reward_model(world)],
        "routing": {"method": "sql", "sql": world.file("route.sql", "SELECT 1")},
        "pairs": [{"strategy": "sql", "name": "own", "sql": world.file("pairs.sql", "SELECT 1")}],
        **own,
    }


def full_policy(world: World, judge: dict[str, Any]) -> dict[str, Any]:
    template = world.file("template.jinja", "{{ messages }}")
    step = {
        "name": "online",
        "train": {"objective": "dpo", "lora": {}, "reference": world.model("models/b"), "chat_template": template},
        "merge": {"weights": {"west": 0.5}},
        "clusters": {"west": ["en"]},
        "on_policy": {
            "prompts": full_recipe(world)["prompts"],
            "pairs": [{"strategy": "sql", "name": "own", "sql": world.file("round.sql", "SELECT 1")}],
        },
    }
    return {"base": world.model("models/a"), "steps": [step], "held_out": {"judge": judge}}


def evaluation(world: World, judge: dict[str, Any], **own: Any) -> Root:
    settings = {
        "a": full_teacher(world) | {"name": "a"},
        "b": full_teacher(world) | {"name": "b", "model": world.model("models/b")},
        "judge": judge,
        "reward": reward_model(world),
        **own,
    }
    section = EvaluationSettings.model_validate(settings)
    return Root(section, lambda section: resolve_evaluation(section, "build").evaluation_id)


def _of_one_kind(*first: str | int) -> Callable[[Way], bool]:
    return lambda way: way[: len(first)] == first


def build_id(recipe: Recipe) -> str:
    return resolve_build(recipe).config_id


def judges(world: World) -> dict[str, dict[str, Any]]:
    llm = {key: value for key, value in full_teacher(world).items() if key != "structured"}
    return {"llm": {"llm": llm}, "reward": {"reward": reward_model(world)}, "truth": {"truth": "microworld"}}


def roots(world: World) -> dict[str, Root]:
    recipe = Recipe.model_validate(full_recipe(world))
    recorded = ("teachers", 1)
    prompts = full_recipe(world)["prompts"][0]
    arena = full_recipe(
        world,
        teachers=[],
        reward_models=[],
        pairs=[],
        routing={},
        prompts=[prompts | {"columns": {"prompt": "p", "id": "i"}}],
    )
    arena["translation"] = full_model(world)
    train = {
        "model": world.model("models/a"),
        "reference": world.model("models/b"),
        "data": world.file("data.jsonl"),
        "eval_data": world.file("held-out.jsonl"),
        "chat_template": world.file("template.jinja", "{{ messages }}"),
        "objective": "dpo",
        "lora": {},
        "columns": {"prompt": "p"},
    }
    merge = {
        "method": "ties",
        "models": [{"model": world.model("models/a"), "adapter": world.model("models/adapter")}],
        "base": world.model("models/b"),
    }
    found = {
        "recipe": Root(recipe, build_id, lambda way: way[:2] != recorded or way[2:3] in (("name",), ("recorded",))),
        "arena": Root(ArenaRecipe.model_validate(arena), build_id),
        "teacher": Root(
            Teacher.model_validate(full_teacher(world)),
            lambda model: identify_model(model)[1],
            ignored=frozenset({REQUEST}),
        ),
        "training": Root(
            TrainSettings.model_validate(train),
            lambda settings: identify_run(settings).id,
            lambda way: way[-1] not in {"revision", "eval_revision"},  # refused for files: test_data_sets_of_the_hub
        ),
        "merge": Root(
            MergeSettings.model_validate(merge), lambda settings: content_id("merge", identify_merge(settings))
        ),
        "evaluation of prompts": evaluation(world, judges(world)["llm"], prompts=prompts),
    }
    for name, judge in judges(world).items():
        found[f"evaluation by {name}"] = evaluation(world, judge)
        whole = Recipe.model_validate(full_recipe(world, policy=full_policy(world, judge)))
        source = Source("config", str(world.folder))
        found[f"policy by {name}"] = Root(
            whole, lambda recipe, source=source: identify_policy(recipe, source), _of_one_kind("policy")
        )
    return found


ROOTS = (
    "recipe",
    "arena",
    "teacher",
    "training",
    "merge",
    "evaluation of prompts",
    *(f"{what} by {judge}" for what in ("evaluation", "policy") for judge in ("llm", "reward", "truth")),
)


@dataclass(frozen=True)
class Leaf:
    """A field that holds no section, its marks, and those of the fields around it."""

    way: Way
    section: type[BaseModel]
    field: FieldInfo
    value: Any
    marks: frozenset[Mark]

    def __str__(self) -> str:
        return ".".join(map(str, self.way))


def find_leaves(section: BaseModel, way: Way = (), around: frozenset[Mark] = frozenset()) -> Iterator[Leaf]:
    for name, field in type(section).model_fields.items():
        if field.exclude:
            continue
        value = getattr(section, name)
        marks = (marks_of(field) | around) if around & {EXECUTION} else marks_of(field)
        inner = value if isinstance(value, tuple) else ()
        if isinstance(value, BaseModel):
            yield from find_leaves(value, (*way, name), marks)
        elif inner and all(isinstance(item, BaseModel) for item in inner):
            for at, item in enumerate(inner):
                yield from find_leaves(item, (*way, name, at), marks)
        elif value or not any(types_in(field.annotation)):
            yield Leaf((*way, name), type(section), field, value, marks)


def put(section: Any, way: Way, value: Any) -> Any:
    """Return a section with another value at a place, which is not checked: only the id is made of it."""
    if not way:
        return value
    at, *inner = way
    if isinstance(at, int):
        return (*section[:at], put(section[at], tuple(inner), value), *section[at + 1 :])
    return section.model_copy(update={at: put(getattr(section, at), tuple(inner), value)})


def other_value(leaf: Leaf, world: World) -> Any:
    """Return another value than a leaf has."""
    marks = marks_of(leaf.field)
    if leaf.way[-1] == "engine":
        return "openai"  # which of the others runs a model follows from the model
    if marks & CONTENT and not isinstance(leaf.value, str):
        return world.file("another", "other") if Mark.FILE in marks else world.model("models/another")
    if marks & {PLACE, *CONTENT} and str(leaf.value).startswith("/"):
        return (
            world.data_folder("models/another") if Path(leaf.value).is_dir() else world.file("another.jsonl", "other")
        )
    return _other(leaf.value, leaf.field.annotation)


def _other(value: Any, annotation: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value / 2 or 0.5
        case str():
            return next((choice for choice in choices_in(annotation) if choice != value), f"{value}x")
        case tuple() if value:
            return (_other(value[0], annotation), *value[1:])
        case dict() if value:
            return {}
        case _:
            return _sample(annotation)


def choices_in(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from choices_in(part)


def _sample(annotation: Any) -> Any:
    """Return a value of a type, other than none and nothing."""
    origin, arguments = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return tuple(_sample(part) for part in arguments if part is not Ellipsis)
    if origin is dict:
        return {"enforce_eager": _sample(arguments[1])}  # a key that is allowed wherever keys are checked
    if arguments:
        return _sample(arguments[0])
    return {str: "x", int: 7, float: 0.7, bool: True, Any: 7}[annotation]


def counts(leaf: Leaf, root: Root) -> bool:
    """Whether a leaf's value is part of an identity, by its marks.

    Rows come and go under the identity of a build; those of an evaluation's own prompts are what it is of.
    """
    is_build = isinstance(root.section, Recipe)
    if leaf.way[-1] == "dataset" and str(leaf.value).startswith("/"):
        return not is_build
    if leaf.way[-2:] == ("prompts", "path"):
        return True
    return not leaf.marks & {EXECUTION, PLACE, *root.ignored}


@pytest.mark.parametrize("name", ROOTS)
def test_what_identifies_changes_the_id_and_what_executes_does_not(world: World, name: str) -> None:
    world = replace(world, has_hub=True)
    root = roots(world)[name]
    before = root.make_id(root.section)
    leaves = [leaf for leaf in find_leaves(root.section) if root.asked(leaf.way)]
    wrong = []
    for leaf in leaves:
        has_changed = root.make_id(put(root.section, leaf.way, other_value(leaf, world))) != before
        if has_changed != counts(leaf, root):
            wrong.append(f"{leaf}: the id {'changes' if has_changed else 'stays'}")
    assert not wrong
    assert root.make_id(root.section) == before


@pytest.mark.parametrize("name", ROOTS)
def test_what_lies_elsewhere_is_what_it_was(world: World, name: str) -> None:
    root = roots(world)[name]
    before = root.make_id(root.section)
    named = [leaf for leaf in find_leaves(root.section) if isinstance(leaf.value, str) and root.asked(leaf.way)]
    paths = [leaf for leaf in named if leaf.marks & {PLACE, *CONTENT} and Path(leaf.value).exists()]
    assert paths
    for leaf in paths:
        assert root.make_id(put(root.section, leaf.way, world.moved(leaf.value))) == before, leaf


def test_every_section_is_asked_with_everything_in_it(world: World) -> None:
    """A section that a field may hold and that no root has would not be asked."""
    found = {type(section) for root in roots(world).values() for section in find_sections(root.section)}
    allowed = {kind for root in roots(world).values() for kind in kinds_in(type(root.section))}
    assert allowed - found == set()


def find_sections(section: BaseModel) -> Iterator[BaseModel]:
    yield section
    for name in type(section).model_fields:
        value = getattr(section, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, BaseModel):
                yield from find_sections(item)


def kinds_in(section: type[BaseModel], *, executed: bool = True) -> set[type[BaseModel]]:
    """Return every section that one may hold, at any depth, by the types of its fields."""
    found = {section}
    for field in section.model_fields.values():
        if executed or EXECUTION not in marks_of(field):
            for kind in types_in(field.annotation):
                if kind not in found:
                    found |= kinds_in(kind, executed=executed)
    return found


def types_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from types_in(argument)


def test_what_is_no_part_of_an_identity_is_listed(world: World) -> None:
    sections = {kind for root in roots(world).values() for kind in kinds_in(type(root.section))}
    marked = {
        f"{kind.__name__}.{name}"
        for kind in sections
        for name, field in kind.model_fields.items()
        if EXECUTION in marks_of(field)
    }
    assert marked == EXECUTED


def is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(map(is_list, get_args(annotation)))


def test_the_order_of_every_list_is_thought_of(world: World) -> None:
    sections = {kind for root in roots(world).values() for kind in kinds_in(type(root.section), executed=False)}
    lists = {
        (kind.__name__, name): marks_of(field)
        for kind in sections
        for name, field in kind.model_fields.items()
        if is_list(field.annotation)
    }
    ordered = {place for place, marks in lists.items() if not marks & {UNORDERED, EXECUTION}}
    assert {name for _, name in ordered} == set(ORDERED)


@pytest.mark.parametrize("name", ROOTS)
def test_a_list_whose_order_says_nothing_is_the_same_in_any(world: World, name: str) -> None:
    root = roots(world)[name]
    for leaf in find_leaves(root.section):
        if UNORDERED in marks_of(leaf.field) and root.asked(leaf.way) and counts(leaf, root):
            orders = (("ja", "en"), ("en", "ja"), ("en",))
            values = [{"west": order} if isinstance(leaf.value, dict) else order for order in orders]
            one, other, less = (root.make_id(put(root.section, leaf.way, value)) for value in values)
            assert one == other, leaf
            assert one != less, leaf


@pytest.mark.parametrize("judge", ["llm", "reward"])
def test_whatever_a_recipe_names_is_looked_for(world: World, judge: str) -> None:
    """By the command that needs it and by the check-up, with the place in the recipe."""
    recipe = Recipe.model_validate(full_recipe(world, policy=full_policy(world, judges(world)[judge])))
    row = {"p": "Why?", "i": 1, "s": "Be kind."}
    world.file("prompts.jsonl", json.dumps(row))
    datasets.Dataset.from_list([row]).save_to_disk(world.folder / "set")
    world.file("answers.jsonl", '{"t": "So.", "k": 1, "l": "en"}\n')
    world.file("models/adapter/adapter_config.json")
    named = [leaf for leaf in find_leaves(recipe) if leaf.marks & {PLACE, *CONTENT} and leaf.value]
    assert len(named) > 20
    for leaf in named:
        lacking = put(recipe, leaf.way, f"/nowhere/{leaf.way[-1]}.jsonl")
        with pytest.raises(FactoryError, match=rf"^{leaf.way[0]}\b.*\b{leaf.way[-1]}: .*/nowhere/"):
            refuse_missing(lacking, with_policy=True)
        findings = (*check_files(lacking), *check_models(lacking))
        assert any(f"/nowhere/{leaf.way[-1]}" in finding.found for finding in findings), leaf


@pytest.mark.parametrize("kind", SETTLED)
def test_settled_fields_do_not_exist(kind: type[Section], tmp_path: Path) -> None:
    assert kind.SETTLED
    for name in kind.SETTLED:
        assert name not in kind.model_fields
        (tmp_path / "file.toml").write_text(f'[table]\n{name} = "x"\n')
        with pytest.raises(
            RecipeError, match=rf"file.toml:2: table.{name}: is fixed here and cannot be set; allowed are"
        ):
            load_table(tmp_path / "file.toml", "table", kind)


def test_fields_of_models_are_told_apart() -> None:
    """What the fingerprint stands for, what is asked, and how it is executed."""
    kinds = {
        name: marks_of(field) & {FINGERPRINTED, REQUEST, EXECUTION} for name, field in Teacher.model_fields.items()
    }
    assert all(len(marks) <= 1 for marks in kinds.values())
