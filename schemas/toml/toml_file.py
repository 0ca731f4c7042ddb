"""Reading settings from a TOML file or one of its tables; each mistake is reported in one sentence with its line."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.disk import read_text
from schemas.errors import RecipeError
from schemas.names import suggest
from schemas.toml.section import Section

Location = tuple[str | int, ...]
"""The path to a value: names of keys, and positions in lists, from 0."""

Table = TypeVar("Table", bound=Section)

MAX_SHOWN_CHARS = 80


def load_file(path: Path, section: type[Table], missing: str) -> Table:
    """Read and check a whole file; ``missing`` is the error message if it does not exist.

    Raises:
        RecipeError: the file is missing, is not TOML, or contains a value that is not allowed.
    """
    text, data = _read_toml(path, missing)
    return _validate(path, text, section, data)


def load_table(path: Path, name: str, section: type[Table]) -> Table:
    """Read and check one top-level table of a file, such as ``[merge]``; the rest of the file is ignored.

    Raises:
        RecipeError: the file is missing, is not TOML, lacks the table, or the table contains a value that is not
        allowed.
    """
    text, data = _read_toml(path, f"there is no file {path}; a TOML file with a table [{name}] is needed")
    table = data.get(name)
    if not isinstance(table, dict):
        raise RecipeError(f"{path} has no table [{name}]")
    return _validate(path, text, section, table, name)


def _read_toml(path: Path, missing: str) -> tuple[str, dict[str, object]]:
    """Return a file's text and its parsed content; ``missing`` is the error message if it does not exist."""
    try:
        text = read_text(path)
        return text, tomllib.loads(text)
    except FileNotFoundError as error:
        raise RecipeError(missing) from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error


def _validate(path: Path, text: str, section: type[Table], data: dict[str, object], *table: str) -> Table:
    """Return the section made from the data of a table, or of the whole file if no table is named."""
    try:
        return section.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        mistakes = _leave_out_echoes(error.errors(include_url=False))
        raise RecipeError("\n".join(_sentences(path, text, mistakes, section, table))) from error


def show_place(path: Path, location: Location) -> str:
    """Return ``path:line`` of the value at ``location``, or the path alone if the file can no longer be read."""
    try:
        return f"{path}:{find_line(read_text(path), location)}"
    except (OSError, ValueError):
        return str(path)


def find_line(text: str, location: Location) -> int:
    """Return the line, from 1, on which the value at ``location`` is set, or the nearest key or table around it."""
    best, depth = 1, 0
    table: Location = ()
    num_elements: dict[Location, int] = {}
    for number, statement in _statements(text):
        names = _names(tomllib.loads(statement))
        if statement.lstrip().startswith("["):
            table = (*_with_indices(names[:-1], num_elements), names[-1])
            if statement.lstrip().startswith("[["):
                num_elements[table] = num_elements.get(table, 0) + 1
                table = (*table, num_elements[table] - 1)
            found = table
        else:
            found = (*table, *names)
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(found, location, strict=False))))
        if shared > depth:
            best, depth = number, shared
    return best


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield the headers and assignments of a TOML text, each with its first line's number; values may span lines."""
    statement, start = "", 1
    for number, line in enumerate(text.splitlines(), start=1):
        if not statement:
            start = number
        statement += line + "\n"
        try:
            is_empty = not tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # the rest of the value is on the next lines
        if not is_empty:
            yield start, statement
        statement = ""


def _names(parsed: dict[str, object]) -> list[str]:
    """Return the keys that one parsed header or assignment is made of."""
    names: list[str] = []
    value: Any = parsed
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        names.append(name)
        value = value[0] if value == [{}] else value
    return names


def _with_indices(names: Sequence[str], num_elements: dict[Location, int]) -> Location:
    """Return the path to a table, with the position of the latest element after each name of a list of tables."""
    found: Location = ()
    for name in names:
        found = (*found, name)
        if found in num_elements:
            found = (*found, num_elements[found] - 1)
    return found


def _leave_out_echoes(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop errors about lists that are too short only because their elements are invalid."""
    inner = {error["loc"][:depth] for error in errors for depth in range(len(error["loc"]))}
    return [error for error in errors if error["type"] != "too_short" or error["loc"] not in inner]


def _sentences(path: Path, text: str, errors: list[ErrorDetails], section: type[Section], table: Location) -> list[str]:
    """Return one sentence per mistake, in the order of their lines."""
    placed = []
    for error in errors:
        location: Location = (*table, *error.get("ctx", {}).get("location", error["loc"]))
        key = ".".join(map(str, location)) or "the recipe"
        placed.append((find_line(text, location), f"{key}: {_message(error, section)}{_shown(error)}{_meant(error)}"))
    return [f"{path}:{line}: {sentence}" for line, sentence in sorted(placed)]


def _message(error: ErrorDetails, section: type[Section]) -> str:
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(error["loc"], section)
        case "missing":
            return "is missing"
        case _:
            return error["msg"].removeprefix("Value error, ").replace("Tuple", "List").replace("valid tuple", "list")


def _meant(error: ErrorDetails) -> str:
    """Return which of the allowed words was meant, where one of a few is needed; pydantic lists them in quotes."""
    allowed = re.findall(r"'([^']*)'", error["ctx"]["expected"]) if error["type"] == "literal_error" else ()
    return suggest(error["input"], allowed)


def _unknown_key(location: Location, section: type[Section]) -> str:
    inner = _section_at(location[:-1], section)
    allowed = [str(field.serialization_alias or name) for name, field in inner.model_fields.items()]
    if location[-1] in inner.SETTLED:
        return f"is fixed here and cannot be set; allowed are {', '.join(allowed)}"
    return f"there is no such key{suggest(location[-1], allowed)}; allowed are {', '.join(allowed)}"


def _section_at(location: Location, section: type[Section]) -> type[Section]:
    """Return the section at a location inside another."""
    for name in location:
        if isinstance(name, str):
            section = next(_sections_in(section.model_fields[name].annotation))
    return section


def _sections_in(annotation: object) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections_in(argument)


def _shown(error: ErrorDetails) -> str:
    """Return what was given. The value of an unknown key is not shown, as it may be a secret in the wrong place."""
    given = error["input"]
    if error["type"] in {"password", "extra_forbidden", "missing", "reference"}:
        return ""
    if isinstance(given, dict):
        return "" if error["type"] == "value_error" else " (given: a table)"
    if isinstance(given, str) and len(given) > MAX_SHOWN_CHARS:
        return f" (given: {given[:MAX_SHOWN_CHARS]!r} ...)"
    shown = re.sub(r"\s+", " ", repr(list(given) if isinstance(given, tuple) else given))
    return f" (given: {shown})" if len(shown) <= 2 * MAX_SHOWN_CHARS else ""
