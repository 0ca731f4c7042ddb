"""What things may be called: names that are taken, that a disk takes for one another, or that no folder can have."""

import unicodedata
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
"""The tables of a warehouse; ``schemas.tables`` says what is in them, and takes half a second to load."""

BASE = "base"
"""What the model is called that a policy's steps begin with."""

ALL = "all"
"""What the cluster of a step is called that has none: all languages."""

_FORBIDDEN = set('/\\:*?"<>|')
"""What no name of a folder may hold on one system or another."""

_MAX_BYTES = 100
"""Of a name that becomes a part of a folder's name; file systems take 255 bytes for the whole."""


def refuse_reference(message: str, *location: str | int) -> NoReturn:
    """Refuse a value at a place of the recipe that is not the section being checked."""
    raise PydanticCustomError("reference", "{message}", {"message": message, "location": location})


def fold_name(name: str) -> str:
    """Return what names share that a disk may take for one: they differ in case, or in how characters are composed."""
    return unicodedata.normalize("NFKC", name).casefold()


def check_folder_name(name: str) -> str:
    """Return a name as it is; refuse one that cannot be part of a folder's name everywhere, with a ``ValueError``."""
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
