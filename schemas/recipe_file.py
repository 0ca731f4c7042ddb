"""Reading a recipe file: TOML in, a ``Recipe`` out, or one sentence per mistake with its line, key and value."""

import re
import tomllib
from pathlib import Path

from pydantic import ValidationError

from schemas.errors import RecipeError
from schemas.recipe import Recipe


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe.

    Raises:
        RecipeError: the file is missing, is not TOML, or holds a value that is not allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {path} is not TOML: {error}") from error
    try:
        return Recipe.model_validate(data, context={"folder": path.resolve().parent})
    except ValidationError as error:
        raise RecipeError("\n".join(_sentence(path, text, item) for item in error.errors())) from error


def _sentence(path: Path, text: str, error: object) -> str:
    assert isinstance(error, dict)
    location: tuple[str | int, ...] = error["loc"]
    key = ".".join(map(str, location)) or "the recipe"
    message = str(error["msg"]).removeprefix("Value error, ")
    given = error["input"]
    is_secret = error["type"] == "password"
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) and not is_secret else ""
    return f"{path}:{find_line(text, location)}: {key}: {message}{shown}"


def find_line(text: str, location: tuple[str | int, ...]) -> int:
    """Return the line, from 1, on which the value at ``location`` stands, or that of the nearest table above it."""
    names = [str(part) for part in location if isinstance(part, str)]
    wanted = {".".join(names[:depth]): depth for depth in range(1, len(names) + 1)}
    index_of = {
        ".".join(str(part) for part in location[:at] if isinstance(part, str)): part
        for at, part in enumerate(location)
        if isinstance(part, int)
    }
    best, best_depth, table, seen = 1, 0, "", dict[str, int]()
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*(\[\[?)\s*([^\]]+?)\s*\]", line)
        assignment = re.match(r"\s*([A-Za-z0-9_.\"-]+)\s*=", line)
        if header:
            table = header[2]
            if header[1] == "[[":
                seen[table] = seen.get(table, -1) + 1
            found = table
        elif assignment:
            found = f"{table}.{assignment[1]}".lstrip(".").replace('"', "")
        else:
            continue
        in_element = all(
            seen.get(array, -1) == index
            for array, index in index_of.items()
            if array in seen and found.startswith(array)
        )
        if in_element and wanted.get(found, 0) > best_depth:
            best, best_depth = number, wanted[found]
    return best
