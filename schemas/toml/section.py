"""The base of all recipe sections: strict fields, marks that say what a field identifies, paths, and shared checks."""

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
from schemas.languages import LANGUAGES, find_language
from schemas.names import suggest
from schemas.toml.paths import complete_name, complete_path, is_path


class Section(BaseModel):
    """A table of a settings file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    SETTLED: ClassVar[Mapping[str, Json]] = {}
    """Fields of related sections that cannot be set here, with the values that represent them in the identity."""


class Mark(Enum):
    """What a field contributes to the identity of its section; set where it is declared: ``Annotated[int, EXECUTION]``.

    A field without a mark identifies a result by its value. Field names are listed nowhere else, so a new field counts
    by default: a forgotten mark repeats work, but never confuses two results.
    """

    EXECUTION = auto()
    """How, where, or under which label something is executed: not part of any identity."""
    PLACE = auto()
    """Where rows are read from: not part of the identity, because rows may be added or removed under the same one."""
    FILE = auto()
    """The path of a file, or a glob: the bytes count, wherever they are."""
    MODEL = auto()
    """A folder or a hub id: the content of the model counts."""
    DATA = auto()
    """A folder, files or a hub id: the content of the data set counts."""
    FINGERPRINTED = auto()
    """Covered by the fingerprint of the section's model (``factory.engines.fingerprint``)."""
    REQUEST = auto()
    """Which requests a model receives, and what it is called: identifies the build, not how the model answers."""
    LATER = auto()
    """Added when ids already existed: left out of ids at its default, so that they stay the same.

    Most of these defaults keep the earlier behaviour; some, such as that of ``min_script_share``, reject more.
    """
    UNORDERED = auto()
    """A list whose order says nothing: sorted, it counts; as it is given, it is shown."""


EXECUTION, PLACE, FILE, MODEL, DATA = Mark.EXECUTION, Mark.PLACE, Mark.FILE, Mark.MODEL, Mark.DATA
FINGERPRINTED, REQUEST, LATER, UNORDERED = Mark.FINGERPRINTED, Mark.REQUEST, Mark.LATER, Mark.UNORDERED

CONTENT = frozenset({FILE, MODEL, DATA})
"""Marks of fields that refer to something whose content counts."""


def marks_of(field: FieldInfo) -> frozenset[Mark]:
    """Return the marks of a field: its own, and those of the types inside its annotation."""
    found = {mark for mark in field.metadata if isinstance(mark, Mark)}
    return frozenset(found | set(_marks_in(field.annotation)))


def _marks_in(annotation: object) -> Set[Mark]:
    own = {mark for mark in getattr(annotation, "__metadata__", ()) if isinstance(mark, Mark)}
    return own.union(*(_marks_in(argument) for argument in get_args(annotation)))


def fields_marked(section: type[BaseModel], *marks: Mark) -> list[str]:
    """Return the names of a section's fields that have at least one of the marks."""
    return [name for name, field in section.model_fields.items() if marks_of(field) & set(marks)]


def last_name(_mark: Mark, name: str) -> Json:
    """Return the last component of a path, or a hub id unchanged; this form is for people."""
    return Path(name).name if is_path(name) else name


def no_place(_mark: Mark, name: str) -> Json:
    """Return None for a path, or a hub id unchanged."""
    return None if is_path(name) else name


@dataclass(frozen=True, slots=True)
class _How:
    """The options of ``identify``."""

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
    """Return what identifies a section, as JSON data keyed by the names that its fields have in a file.

    Fields with a mark in ``without`` are left out, as are those that pydantic excludes. ``content`` returns what counts
    of a name with a mark in ``CONTENT``. ``stand_in`` returns the id that replaces a nested section which has an id of
    its own, or None to use the section's fields. Free tables, such as a JSON schema, are kept whole.
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
    """Return what counts of a field's value: a section's identity, a name's content, any other value as dumped."""
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
    """Return language codes unchanged.

    Raises:
        ValueError: a code is unknown or repeated.
    """
    unknown = [code for code in codes if code not in LANGUAGES]
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise ValueError(f"unknown language {named}{suggest_language(unknown[0])}; allowed are {', '.join(LANGUAGES)}")
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language {', '.join(map(repr, repeated))} is named twice")
    return codes


def suggest_language(given: str) -> str:
    """Return ``suggest`` for the code of a language, which may have been given by its name or with a region."""
    names = {name: code for code, known in LANGUAGES.items() for name in (code, known.flores, known.name)}
    return suggest(find_language(given) or given, names)


def refuse_password(value: str) -> str:
    """Return a URL or path unchanged; if it contains a password, raise a validation error that does not show it."""
    if "://" in value and urlsplit(value).password is not None:
        raise PydanticCustomError(
            "password", "the URL contains a password; leave it out, secrets come from the environment"
        )
    return value


def resolve_path(path: str, info: ValidationInfo) -> str:
    """Return a path resolved against the settings file's folder, if that is known."""
    return complete_path(path, _folder(info))


def resolve_name(name: str, info: ValidationInfo) -> str:
    """Return the path of a model or data set resolved against the settings file's folder, or a hub id unchanged."""
    return complete_name(name, _folder(info))


FilePath: TypeAlias = Annotated[str, AfterValidator(resolve_path), FILE]
"""The path of a file, relative to the settings file's folder."""

ModelName: TypeAlias = Annotated[str, AfterValidator(resolve_name), MODEL]
"""A model: a hub id, or a folder, relative to the settings file's folder."""

DataName: TypeAlias = Annotated[str, AfterValidator(resolve_name), DATA]
"""A data set: a hub id, or files or a folder, relative to the settings file's folder."""

Languages: TypeAlias = Annotated[tuple[str, ...], AfterValidator(check_languages), UNORDERED]
"""Codes of languages, each once, in any order."""

Names: TypeAlias = Annotated[tuple[str, ...], UNORDERED]
"""Names or patterns, in any order."""


def _folder(info: ValidationInfo) -> Path | None:
    folder: Path | None = (info.context or {}).get("folder")
    return folder


def list_columns(columns: BaseModel) -> list[str]:
    """Return all column names that a ``columns`` table contains."""
    named = [[value] if isinstance(value, str) else value for _, value in columns if value is not None]
    return [column for names in named for column in names]
