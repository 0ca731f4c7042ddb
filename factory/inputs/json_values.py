"""Parsing JSON more strictly than ``json``: neither deep nesting nor repeated fields are allowed."""

import json
from collections.abc import Iterable

MAX_DEPTH = 100
"""The maximum nesting of lists and objects. Python, templates and tokenizers fail at a few hundred levels."""


def parse_json(text: str) -> object:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or an object in it repeats a field; the message says which.
    """
    try:
        value = json.loads(text, object_pairs_hook=_make_object)
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def _is_deep(value: object) -> bool:
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _items(outer)]
        if not level:
            return False
    return True


def _items(outer: dict[str, object] | list[object]) -> Iterable[object]:
    return outer.values() if isinstance(outer, dict) else outer


def _make_object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return the dictionary of an object's fields; a repeated field is an error, because either value may be meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"the field {twice!r} occurs twice")
    return found
