"""Reading conversations without losing anything: a part that is not supported is an error.

A conversation is a list of turns in the form of OpenAI (``role``, ``content``) or ShareGPT (``from``, ``value``), JSON
text of such a list, or a transcript whose turns begin with "Human:" and "Assistant:", as in HH.
"""

import re
from typing import Any

from factory.conversations.tool_calls import decode_json, read_calls
from factory.inputs.flags import read_weight
from factory.inputs.row import RowError
from schemas.reasons import Reason

Message = dict[str, Any]
Messages = list[Message]
"""A conversation. Each message has ``role`` (system, user, assistant, tool) and ``content`` (text; "" if an assistant
only calls tools) and, if the row has them, ``reasoning_content``, ``tool_calls`` (in OpenAI's form, with ``arguments``
as a dictionary), ``tool_call_id``, ``name`` and ``weight`` (0: not trained)."""

_CALL = "function_call"

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model"), "assistant"),
    **dict.fromkeys(("tool", "observation", "function", "function_response", "ipython"), "tool"),
    _CALL: "assistant",
}
"""The names of speakers in data sets, and their roles."""

_KEYS = {
    **{name: name for name in ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name", "weight")},
    "from": "role",
    "value": "content",
    "text": "content",
    _CALL: "tool_calls",
    **dict.fromkeys(("reasoning", "thinking"), "reasoning_content"),
}
"""The keys of turns in data sets, and the keys of messages that they become."""

_BOOKKEEPING = frozenset((
    "id", "message_id", "parent_id", "openai_id", "index", "turn", "turn_identifier", "timestamp", "created",
    "created_at", "create_time", "language", "lang", "model", "redacted", "toxic", "hashed_ip", "country", "state",
    "header", "temperature", "top_p", "usage", "token_counter", "finish_reason", "system_fingerprint",
))  # fmt: skip
"""Keys of a turn that hold metadata, not content, and are ignored."""

_ONLY_OF = {"tool_calls": "assistant", "reasoning_content": "assistant", "tool_call_id": "tool"}
_TEXT_PARTS = ("text", "input_text", "output_text")
_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def read_turns(value: object, column: str) -> Messages:
    """Return the messages of a conversation that ``column`` contains.

    Raises:
        RowError: it is not a conversation, or has something unsupported; the message names the turn.
    """
    found: Any = value
    if isinstance(value, str):
        if is_transcript(value):
            return _read_transcript(value)
        found = decode_json(value, f"'{column}'") if value.lstrip().startswith(("[", "{")) else value or None
    if found is None or found in ([], {}):
        raise RowError(f"'{column}' has no conversation", Reason.EMPTY)
    match found:
        case dict() if all(isinstance(inner, list) for inner in found.values()):
            found = _turn_rows(found, column)  # Arrow and older data sets store a list of records by column
        case dict():
            found = [found]
    if not isinstance(found, list):
        raise RowError(
            f"'{column}' must be a list of {{role, content}}, got {type(found).__name__} {str(found)[:40]!r}"
        )
    return [_read_turn(turn, f"turn {at} of '{column}'") for at, turn in enumerate(found)]


def read_text(value: object, place: str) -> str:
    """Return a text, or the texts of a list of parts joined.

    Raises:
        RowError: it is not text, or one of its parts is not.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowError(f"{place} must be text, got {type(value).__name__} {str(value)[:40]!r}")
    return "".join(_read_part(part, f"part {at} of {place}") for at, part in enumerate(value))


def is_transcript(text: str) -> bool:
    """Whether a text is a transcript: it begins with "Human:", and a later paragraph with "Assistant:"."""
    return text.startswith(("\n\nHuman:", "Human:")) and "\n\nAssistant:" in text


def is_conversation(value: object) -> bool:
    """Whether a value has the form of a turn or a list of turns: dictionaries with a speaker."""
    turns = value if isinstance(value, list) else [value]
    return bool(turns) and all(
        isinstance(turn, dict) and isinstance(turn.get("role", turn.get("from")), str) for turn in turns
    )


def are_turns(value: object) -> bool:
    """Whether a value parsed from JSON is a list of turns: each has a known role, and content or tool calls."""
    turns = value if isinstance(value, list) else []
    return is_conversation(value) and all(
        turn.get("role", turn.get("from")).strip().lower() in _ROLES
        and any(_KEYS.get(key) in {"content", "tool_calls"} for key in turn)
        for turn in turns
    )


def _read_transcript(text: str) -> Messages:
    _, *pieces = _SPEAKER.split(text)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": said.removeprefix(" ")}
        for speaker, said in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _turn_rows(columns: dict[str, list[object]], column: str) -> list[dict[str, object]]:
    if len({len(values) for values in columns.values()}) > 1:
        raise RowError(f"'{column}' must be a list of turns, got lists of several lengths")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _read_turn(turn: object, place: str) -> dict[str, object]:
    if not isinstance(turn, dict):
        raise RowError(f"{place} must be {{role, content}}, got {str(turn)[:80]!r}")
    fields = _collect(turn, place)
    said = fields.pop("role", None)
    role = _ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None or not isinstance(said, str):
        if said is None:
            raise RowError(f"{place} must be {{role, content}}, got {str(turn)[:80]!r}")
        raise RowError(f"{place} has the role {str(said)!r}; allowed are system, user, assistant, tool")
    if said.strip().lower() == _CALL:
        fields["tool_calls"] = fields.pop("content", None)
    for key, speaker in _ONLY_OF.items():
        if key in fields and role != speaker:
            raise RowError(f"{place} is the {role}'s and has '{key}', which only the {speaker}'s may have")
    message: dict[str, object] = {"role": role, "content": ""}
    for key, value in fields.items():
        message[key] = _READERS[key](value, f"'{key}' of {place}")
    if "content" not in fields and not message.get("tool_calls"):
        raise RowError(f"{place} is the {role}'s and has no content")
    return message


def _collect(turn: dict[str, object], place: str) -> dict[str, object]:
    """Return the fields of a turn by message key. Null means absent, because Parquet fills missing fields with it."""
    found: dict[str, Any] = {}
    for key, value in turn.items():
        name = _KEYS.get(key)
        is_empty = value is None or value in ([], {}) or (value == "" and name != "content")
        if is_empty or key in _BOOKKEEPING:
            continue
        if name is None:
            raise RowError(f"{place} has the unknown key {key!r}: {value!r:.60}")
        if name in found and found[name] != value:
            raise RowError(f"{place} has two values for '{name}': {found[name]!r:.40} and {value!r:.40}")
        found[name] = value
    return found


def _read_part(part: object, place: str) -> str:
    given = {key: value for key, value in part.items() if value not in (None, [], {})} if isinstance(part, dict) else {}
    if given.get("type", "text") not in _TEXT_PARTS:
        raise RowError(f"{place} has the type {given['type']!r}; only text can be used")
    if not isinstance(given.get("text"), str) or not given.keys() <= {"type", "text"}:
        raise RowError(f"{place} must be {{type, text}}, got {str(part)[:60]!r}")
    return str(given["text"])


def _read_word(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{place} must be text, got {type(value).__name__} {str(value)[:40]!r}")
    return value


_READERS: dict[str, Any] = {
    "content": read_text,
    "reasoning_content": read_text,
    "tool_calls": read_calls,
    "tool_call_id": _read_word,
    "name": _read_word,
    "weight": read_weight,
}
