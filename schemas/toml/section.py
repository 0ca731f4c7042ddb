"""What the sections of a recipe have in common: strict fields, what each field identifies, paths, and shared checks."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from schemas.ids import Json
from schemas.languages import LANGUAGES
from schemas.toml.paths import complete_name, complete_path, is_path


class Section(BaseModel):
    """A table of a settings file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    SETTLED: ClassVar[Mapping[str, Json]] = {}
    """Fields that sections like this one have and this one has not, at the values that stand for them in its identity."""


class Mark(Enum):
    """What a field is to the identity of its section: ``Annotated[int, EXECUTION]``, said where it is declared.

    A field without a mark identifies a result by its value. No other place lists names of fields, so a field that
    nobody thought of counts; forgetting a mark asks too much again, and never takes one result for another.
    """

    EXECUTION = auto()
    """How, where, or under which label for people something is executed: part of no identity."""
    PLACE = auto()
    """Where rows are looked for; what they are follows from the rows, which come and go under one identity."""
    FILE = auto()
    """The path of a file, or a glob: the bytes count, wherever they lie."""
    MODEL = auto()
    """A folder or a hub id: the content of the model counts."""
    DATA = auto()
    """A folder, files or a hub id: the content of the data set counts."""
    FINGERPRINTED = auto()
    """What the fingerprint of the section's model stands for (``factory.engines.fingerprint``)."""
    REQUEST = auto()
    """Which requests are made of a model, and what it is called: part of what asks it, not of how it answers."""
    LATER = auto()
    """Declared after ids had been made: at its default it is left out of them, so they stay the same.

    Some of these defaults keep what was done before; others, such as that of ``min_script_share``, reject more.
    """
    UNORDERED = auto()
    """A list whose order says nothing: sorted, it counts; as it is given, it is shown."""


EXECUTION, PLACE, FILE, MODEL, DATA = Mark.EXECUTION, Mark.PLACE, Mark.FILE, Mark.MODEL, Mark.DATA
FINGERPRINTED, REQUEST, LATER, UNORDERED = Mark.FINGERPRINTED, Mark.REQUEST, Mark.LATER, Mark.UNORDERED

CONTENT = frozenset({FILE, MODEL, DATA})
"""Marks of fields that name something of which the content counts."""


def marks_of(field: FieldInfo) -> frozenset[Mark]:
    """Return the marks of a field: its own, and those of the types that its type is made of."""
    found = {mark for mark in field.metadata if isinstance(mark, Mark)}
    return frozenset(found | set(_marks_in(field.annotation)))


def _marks_in(annotation: object) -> Set[Mark]:
    own = {mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Mark)}
    return own.union(*(_marks_in(argument) for argument in get_args(annotation)))


def fields_marked(section: type[BaseModel], *marks: Mark) -> list[str]:
    """Return the names of a section's fields that have one of the marks."""
    return [name for name, field in section.model_fields.items() if marks_of(field) & set(marks)]


def last_name(_mark: Mark, name: str) -> Json:
    """Return the last name of a path, and a hub id as it is: what a person should read of it."""
    return Path(name).name if is_path(name) else name


def no_place(_mark: Mark, name: str) -> Json:
    """Return nothing of a path, and a hub id as it is."""
    return None if is_path(name) else name


@dataclass(frozen=True, slots=True)
class _How:
    """What ``identify`` leaves out, makes of names, and puts in the place of sections."""

    without: Set[Mark]
    content: Callable[[Mark, str], Json]
    stand_in: Callable[[BaseModel], Json]


def identify(
    section: BaseModel,
    *,
    without: Set[Mark] = frozenset({EXECUTION, PLACE}),
    content: Callable[[Mark, str], Json] = last_name,
    stand_in: Callable[[BaseModel], Json] = lambda _: None,
) -> dict[str, Json]:
    """Return what identifies a section, as JSON-able data by the names that its fields have in a file.

    Fields with a mark of ``without`` are left out, as are those that pydantic excludes. ``content`` says what counts of
    a name with a mark of ``CONTENT``; ``stand_in`` gives the id of a section that has one of its own, in place of its
    fields, and None for others. Keys of free tables, as of a JSON schema, are data and stay.
    """
    how = _How(without, content, stand_in)
    data: dict[str, Json] = section.model_dump(mode="json", by_alias=True)
    for name, field in type(section).model_fields.items():
        marks, key = marks_of(field), field.serialization_alias or name
        value = getattr(section, name)
        if key in data and (
            marks & without or (LATER in marks and value == field.get_default(call_default_factory=True))
        ):
            del data[key]
        elif key in data:
            data[key] = _identify_value(value, data[key], marks, how)
    return data | dict(section.SETTLED) if isinstance(section, Section) else data


def _identify_value(value: object, dumped: Any, marks: Set[Mark], how: _How) -> Json:
    """Return what counts of a field's value: of sections their identity, of names their content, all else as it is."""
    match value:
        case BaseModel():
            own = how.stand_in(value)
            if own is not None:
                return own
            return identify(value, without=how.without, content=how.content, stand_in=how.stand_in)
        case tuple() if UNORDERED in marks:
            return sorted(dumped)
        case tuple():
            return [_identify_value(item, shown, marks, how) for item, shown in zip(value, dumped, strict=True)]
        case dict():
            return {key: _identify_value(item, dumped[key], marks, how) for key, item in value.items()}
        case str() if marks & CONTENT:
            (mark,) = marks & CONTENT
            return how.content(mark, value)
        case _:
            found: Json = dumped
            return found


def check_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return language codes as they are; refuse unknown and repeated ones with a ``ValueError``."""
    unknown = [code for code in codes if code not in LANGUAGES]
    if unknown:
        raise ValueError(f"unknown language {', '.join(map(repr, unknown))}; allowed are {', '.join(LANGUAGES)}")
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language {', '.join(map(repr, repeated))} is named twice")
    return codes


def refuse_password(value: str) -> str:
    """Return a URL or path as it is; refuse one that holds a password."""
    if "://" in value and urlsplit(value).password is not None:
        raise PydanticCustomError(
            "password", "the URL holds a password; leave it out, secrets come from the environment"
        )
    return value


def resolve_path(path: str, info: ValidationInfo) -> str:
    """Return a path in full where the settings file's folder is known."""
    return complete_path(path, _folder(info))


def resolve_name(name: str, info: ValidationInfo) -> str:
    """Return the path of a model or data set in full where the settings file's folder is known, and a hub id as it is."""
    return complete_name(name, _folder(info))


FilePath: TypeAlias = Annotated[str, AfterValidator(resolve_path), FILE]
"""The path of a file, from the settings file's folder."""

ModelName: TypeAlias = Annotated[str, AfterValidator(resolve_name), MODEL]
"""A model: a hub id, or a folder, from the settings file's folder."""

DataName: TypeAlias = Annotated[str, AfterValidator(resolve_name), DATA]
"""A data set: a hub id, files or a folder, from the settings file's folder."""

Languages: TypeAlias = Annotated[tuple[str, ...], AfterValidator(check_languages), UNORDERED]
"""Codes of languages, each once, in any order."""

Names: TypeAlias = Annotated[tuple[str, ...], UNORDERED]
"""Names or patterns, in any order."""


def _folder(info: ValidationInfo) -> Path | None:
    folder: Path | None = (info.context or {}).get("folder")
    return folder


def list_columns(columns: BaseModel) -> list[str]:
    """Return every column that a table of columns names."""
    named = [[value] if isinstance(value, str) else value for _, value in columns if value is not None]
    return [column for names in named for column in names]
