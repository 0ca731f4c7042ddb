"""Every key of a settings file: its type, its default, and what it counts for, with what the starter recipe says of it."""

import re
import types
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.recipe.arena import ArenaRecipe
from schemas.recipe.evaluation import EvaluationSettings
from schemas.recipe.merging import MergeSettings
from schemas.recipe.recipe import Recipe
from schemas.recipe.training import TrainSettings
from schemas.toml.section import Mark, marks_of

_TABLES: dict[str, type[BaseModel]] = {
    "": Recipe,
    "train": TrainSettings,
    "merge": MergeSettings,
    "evaluation": EvaluationSettings,
    "arena": ArenaRecipe,
}
"""The tables that a file may begin with; the recipe's own keys stand outside of any."""

_COUNTS = {
    Mark.EXECUTION: "no",
    Mark.PLACE: "no",
    Mark.FILE: "its bytes",
    Mark.MODEL: "its content",
    Mark.DATA: "its content",
    Mark.FINGERPRINTED: "with the model",
    Mark.REQUEST: "which rows are asked for",
    Mark.LATER: "unless default",
}
"""What a field counts for, by its mark; the first that it has is shown."""

_INTRO = """\
# Settings

Every key of a recipe, and of the tables `[train]`, `[merge]`, `[evaluation]` and `[arena]`, which may stand in files of
their own. Unknown keys are refused. This page is made of the code.

The column **identity** says whether a change makes another result, so that models are asked again or the build gets
another id. *no*: it says how or where something is done, and may change at any time. *its bytes*, *its content*: what is
there counts, wherever it lies. *with the model*: it is part of what the model is. *which rows are asked for*: a change asks
for what is missing and keeps what is there. *unless default*: at its default it leaves ids as they were before it came. *not the
build's*: it is about models that are made of the build.
"""


def write_recipe_page() -> str:
    """Return the page as Markdown."""
    said, parts = _read_comments(), [_INTRO]
    seen: dict[type[BaseModel], str] = {}
    for table, section in _TABLES.items():
        parts += _describe(section, table, said, seen)
    return "\n".join(parts)


def _describe(
    section: type[BaseModel], place: str, said: dict[tuple[str, str], str], seen: dict[type[BaseModel], str]
) -> Iterator[str]:
    """Yield the heading, the docstring and the keys of a section, then those of the sections in it."""
    heading = f"[{place}]" if place else "The recipe"
    seen[section] = heading
    yield f"{'##' if place.count('.') == 0 else '###'} {heading if not place else f'`{heading}`'} {{ #{_anchor(place)} }}\n"
    yield _plain(section.__doc__ or "") + "\n"
    yield "| key | type | default | identity | |"
    yield "| --- | --- | --- | --- | --- |"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in section.model_fields.items():
        key = field.serialization_alias or name
        found = _section_in(field.annotation)
        path = f"{place}.{key}" if place else key
        if found is not None and found not in seen and found not in _TABLES.values():
            inner.append((path, found))
            seen[found] = f"[{path}]"
        if found is not None and found in _TABLES.values() and not place:
            seen.setdefault(found, f"[{key}]")
        kind = _show_section(found, seen) if found is not None else _show_type(field)
        note = said.get((re.sub(r"^policy\.steps\.on_policy\.", "", place), key)) or said.get((place, key), "")
        yield f"| `{key}` | {kind} | {_show_default(field)} | {_show_counts(name, field)} | {note} |"
    yield ""
    for path, found in inner:
        yield from _describe(found, path, said, seen)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, alone or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part)) is not None), None)


def _show_section(section: type[BaseModel], seen: dict[type[BaseModel], str]) -> str:
    heading = seen.get(section, "the recipe")
    path = heading.strip("[]")
    return f"table, see [{heading.replace('[', '').replace(']', '')}](#{_anchor(path)})"


def _show_type(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(part, name):,}"
        for part in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(part, name, None) is not None
    ]
    return ", ".join([_name_type(field.annotation), *limits])


def _name_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " \\| ".join(f'`"{value}"`' for value in arguments)
    if origin in {Union, types.UnionType}:
        return " or ".join(_name_type(part) for part in arguments if part is not type(None))
    if origin is tuple:
        inner = list(dict.fromkeys(_name_type(part) for part in arguments if part is not Ellipsis))
        return f"list of {' and '.join(inner)}"
    if origin is dict:
        return f"table of {_name_type(arguments[1])}"
    if hasattr(annotation, "__metadata__"):
        return _name_type(arguments[0])
    names = {str: "text", int: "integer", float: "number", bool: "true or false", object: "value", Any: "value"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _show_default(field: FieldInfo) -> str:
    if field.is_required():
        return "**needed**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or value in (None, "", (), {}):
        return ""
    if isinstance(value, tuple):
        shown = "[" + ", ".join(f'"{item}"' if isinstance(item, str) else str(item) for item in value) + "]"
        return "all 23" if len(value) > 20 else f"`{shown}`" if not isinstance(value[0], BaseModel) else ""
    return f'`"{value}"`' if isinstance(value, str) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _show_counts(name: str, field: FieldInfo) -> str:
    if field.exclude or name == "policy":
        return "not the build's"
    marks = marks_of(field)
    return next((text for mark, text in _COUNTS.items() if mark in marks), "yes")


def _plain(docstring: str) -> str:
    """Return a docstring as Markdown: code in single backticks, without its lines' indentation."""
    lines = [line.strip() for line in docstring.strip().splitlines()]
    return "\n".join(lines).replace("``", "`")


def _anchor(place: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", place.lower()).strip("-") or "recipe"


def _read_comments() -> dict[tuple[str, str], str]:
    """Return what the starter recipe says of each key, by its table and name."""
    text = (files("flows") / "recipes" / "starter.toml").read_text(encoding="utf-8")
    table = ""
    said: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        if match := re.match(r"#?\[+([a-z_.]+)\]+", line):
            table = match[1]
        elif match := re.match(r"#?([a-z_]+) = .*?(?:\s#\s(.*))$", line):
            said.setdefault((table, match[1]), match[2].replace("|", "\\|").strip())
    return said
