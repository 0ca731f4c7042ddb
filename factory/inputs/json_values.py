"""JSON text as values that everything later can walk through: none is nested without end, none says two things."""

import json
from collections.abc import Iterable

MAX_DEPTH = 100
"""So many lists and objects may lie within one another. Python, templates and tokenizers give up at a few hundred."""


def parse_json(text: str) -> object:
    """Return what a JSON text says.

    Raises:
        ValueError: it is not JSON, is nested too deep, or an object in it has a field twice; the message says which.
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
    """Return a JSON object; one that has a field twice says two things, of which none is to be taken."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for at, (name, _) in enumerate(pairs) if name in dict(pairs[:at]))
        raise ValueError(f"the field {twice!r} is there twice")
    return found
