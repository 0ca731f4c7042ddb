"""The files, models and data sets that a settings file refers to, found by the marks of their fields."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from schemas.toml.section import CONTENT, PLACE, Mark, marks_of
from schemas.toml.toml_file import Location


@dataclass(frozen=True, slots=True)
class Named:
    """One reference: the name, its mark, and the section and field that contain it.

    ``location`` is the path of keys to the field; ``label`` is the same for people, such as ``teachers.small.model``.
    """

    name: str
    mark: Mark
    section: BaseModel
    field: str
    location: Location
    label: str


def find_named(section: BaseModel, location: Location = (), label: str = "") -> Iterator[Named]:
    """Yield all references in a section, at any depth, in the order of its fields."""
    for field, info in type(section).model_fields.items():
        key = info.serialization_alias or field
        mark = next(iter(marks_of(info) & {*CONTENT, PLACE}), None)
        for value, at, called in _list_values(getattr(section, field), (*location, key), f"{label}.{key}".lstrip(".")):
            if isinstance(value, BaseModel):
                yield from find_named(value, at, called)
            elif mark is not None and isinstance(value, str) and value:
                yield Named(value, mark, section, field, at, called)


def _list_values(value: object, location: Location, label: str) -> Iterator[tuple[object, Location, str]]:
    """Yield a field's value, or each item of a list or table, with its location and label.

    An item of a list is labelled by its own name where it has one, otherwise by its number.
    """
    match value:
        case tuple():
            for number, item in enumerate(value):
                name = getattr(item, "label", None) or getattr(item, "name", None) or number
                yield item, (*location, number), f"{label}.{name}"
        case dict():
            for key, item in value.items():
                yield item, (*location, key), f"{label}.{key}"
        case _:
            yield value, location, label
