"""Content ids; nothing else in the project computes hashes.

An id is the first 32 hex digits of SHA-256 over the canonical JSON of ``[kind, value]``: keys sorted, no spaces,
UTF-8, nothing escaped that JSON does not require. The warehouse carries the same function as the SQL macro
``CONTENT_ID_SQL``; a test holds the two equal.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

ID_LENGTH = 32

_ESCAPE = re.compile(r"\\(?:(\\)|u(00[0-9a-f]{2}))")
"""An escaped backslash, or an escaped control character; DuckDB writes the hex digits of the latter in upper case."""

CONTENT_ID_SQL = f"""
CREATE OR REPLACE TEMP MACRO content_id(kind, value) AS
    substr(sha256('[' || to_json(kind)::VARCHAR || ',' || to_json(value)::VARCHAR || ']'), 1, {ID_LENGTH})
"""
"""DuckDB macro equal to ``content_id`` for strings, integers, lists and nulls."""


def content_id(kind: str, value: Json) -> str:
    """Return the id of ``value`` as a ``kind`` of thing: 32 hex digits, equal for equal content.

    Raises:
        TypeError: the value contains something that JSON cannot represent; it is refused, never stringified.
        ValueError: the value contains NaN or an infinity.
    """
    _refuse_strange(value)
    canonical = json.dumps([kind, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    if "\\u" in canonical:
        canonical = _ESCAPE.sub(lambda match: match[0] if match[1] else "\\u" + match[2].upper(), canonical)
    return hashlib.sha256(canonical.encode("utf-8", errors="surrogatepass")).hexdigest()[:ID_LENGTH]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return the id of a folder's content: the relative names and bytes of all its files except hidden ones."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    return content_id("folder", [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])


def _refuse_strange(value: object) -> None:
    match value:
        case None | bool() | int() | str():
            return
        case float():
            if not math.isfinite(value):
                raise ValueError(f"a content id cannot be made of {value!r}")
        case Mapping():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"a content id needs string keys, got {key!r}")
                _refuse_strange(item)
        case list() | tuple():
            for item in value:
                _refuse_strange(item)
        case _:
            raise TypeError(f"a content id cannot be made of {type(value).__name__} {value!r}")
