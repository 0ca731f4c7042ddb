"""Tool definitions and tool calls of data sets, converted to OpenAI's chat format."""

from collections.abc import Iterable
from typing import Any

from factory.inputs.json_values import parse_json
from factory.inputs.row import RowError

Call = dict[str, Any]


def read_tools(value: object, place: str) -> tuple[dict[str, object], ...]:
    """Return tool definitions from a list or its JSON text; bare functions are wrapped in OpenAI's form.

    Raises:
        RowError: an item is not a tool definition.
    """
    return tuple(_read_tool(tool, f"tool {at} of {place}") for at, tool in enumerate(_decode_list(value, place)))


def read_calls(value: object, place: str) -> list[Call]:
    """Return tool calls with their ``arguments`` as dictionaries.

    In dictionaries null means absent, because Parquet fills missing fields with it; in JSON text nulls are kept.

    Raises:
        RowError: an item is not a tool call.
    """
    return [_read_call(call, f"tool call {at} of {place}") for at, call in enumerate(_decode_list(value, place))]


def drop_nulls(value: object) -> object:
    """Return a value without null fields, at any depth."""
    match value:
        case dict():
            return {key: drop_nulls(inner) for key, inner in value.items() if inner is not None}
        case list():
            return [drop_nulls(inner) for inner in value]
    return value


def _decode_list(value: object, place: str) -> list[object]:
    found = decode_json(value, place) if isinstance(value, str) else drop_nulls(value)
    if found is None:
        return []
    if isinstance(found, dict):
        found = [found]
    if not isinstance(found, list):
        raise RowError(f"{place} must be a list, got {found!r:.60}")
    return [decode_json(item, place) if isinstance(item, str) else item for item in found]


def decode_json(text: str, place: str) -> object:
    """Return the value of a JSON text, or None for a blank text.

    Raises:
        RowError: it is not JSON, or is nested too deeply.
    """
    if not text.strip():
        return None
    try:
        return parse_json(text)
    except ValueError as error:
        raise RowError(f"{place} is not JSON ({error}): {text[:40]!r}") from error


def _read_tool(tool: object, place: str) -> dict[str, object]:
    if isinstance(tool, dict) and "function" not in tool and isinstance(tool.get("name"), str):
        tool = {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{place} must be a function with a name, got {tool!r:.60}")
    return tool


def _read_call(call: object, place: str) -> Call:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise RowError(f"{place} must be a function with a name and arguments, got {call!r:.60}")
    _refuse_others(
        call, {"id", "type", "index", "function", *(("name", "arguments") if function is call else ())}, place
    )
    if function is not call:
        _refuse_others(function, {"name", "arguments"}, place)
    named = {"name": function["name"], "arguments": _read_arguments(function.get("arguments"), place)}
    identified = {"id": call["id"]} if call.get("id") not in (None, "") else {}
    return {**identified, "type": call.get("type") or "function", "function": named}


def _refuse_others(found: dict[str, object], known: Iterable[str], place: str) -> None:
    others = found.keys() - set(known)
    if others:
        raise RowError(f"{place} has the unknown key {min(others)!r}")


def _read_arguments(value: object, place: str) -> dict[str, object]:
    found = decode_json(value, f"the arguments of {place}") if isinstance(value, str) else value
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise RowError(f"the arguments of {place} must be an object, got {found!r:.60}")
    return found
