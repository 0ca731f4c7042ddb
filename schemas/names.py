"""Which names are allowed: reserved ones, those that collide on disk or cannot be folders; what a mistyped one meant."""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NoReturn

from pydantic_core import PydanticCustomError

STAGES = ("read", "translate", "sample", "score", "route", "pair", "export")
"""The stages of a build, in order. ``--until`` names one of them, or a step of the policy."""

TABLES = (
    "prompts",
    "completions",
    "rewards",
    "reward_index",
    "verdicts",
    "rejections",
    "build_prompts",
    "source_rows",
    "reads",
    "build_models",
    "selections",
    "pairs",
    "exports",
    "checkpoints",
    "steps",
    "step_scores",
    "builds",
    "usage",
)
"""The tables of a warehouse. They are listed here too because importing their schemas from ``schemas.tables`` takes
half a second."""

BASE = "base"
"""The name of the model that a policy's first step starts from."""

ALL = "all"
"""The cluster name of a step without clusters, which trains on all languages."""

_FORBIDDEN = set('/\\:*?"<>|')
"""Characters that some operating system does not allow in folder names."""

_MAX_BYTES = 100
"""The limit for a name that becomes part of a folder's name; file systems allow 255 bytes for the whole."""


def refuse_reference(message: str, *location: str | int) -> NoReturn:
    """Raise a validation error for a value that is at another place of the recipe than the section being validated."""
    raise PydanticCustomError("reference", "{message}", {"message": message, "location": location})


def suggest(given: object, allowed: Iterable[str] | Mapping[str, str]) -> str:
    """Return `` (did you mean 'x'?)`` for a mistyped name, or nothing if no allowed name is like it.

    A mapping gives what to write for each name that may be meant.
    """
    meanings = allowed if isinstance(allowed, Mapping) else {name: name for name in allowed}
    folded = {fold_name(name): meaning for name, meaning in meanings.items()}
    similar = difflib.get_close_matches(fold_name(str(given)), folded, n=1)
    return f" (did you mean {folded[similar[0]]!r}?)" if similar else ""


def fold_name(name: str) -> str:
    """Return a key that is equal for names that some file system treats as one: case and Unicode form are ignored."""
    return unicodedata.normalize("NFKC", name).casefold()


def check_folder_name(name: str) -> str:
    """Return a name unchanged.

    Raises:
        ValueError: the name cannot be part of a folder's name on every operating system.
    """
    strange = sorted({char for char in name if char in _FORBIDDEN or not char.isprintable()})
    if strange:
        raise ValueError(f"{name!r} cannot be part of a folder's name: it holds {', '.join(map(repr, strange))}")
    if not name or name != name.strip() or name.startswith((".", "-")) or name.endswith("."):
        raise ValueError(
            f"{name!r} cannot be part of a folder's name: it is empty, or begins or ends with ' ', '.' or '-'"
        )
    if len(name.encode()) > _MAX_BYTES:
        raise ValueError(f"{name!r} is longer than {_MAX_BYTES} bytes, and would be part of a folder's name")
    return name
