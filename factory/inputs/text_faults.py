"""Texts that cannot be kept: bytes that were not UTF-8, null characters, halves of surrogate pairs."""

import re

from factory.engines.base import Failure
from factory.engines.reply_text import list_texts
from schemas.reasons import Reason

NO_UTF8 = "no UTF-8"
"""How the detail of a row begins, after its place, whose bytes are not text."""

_ESCAPED = re.compile("[\udc80-\udcff]")
"""What stands for a byte in a text that is not UTF-8."""


def find_byte_fault(text: str) -> Failure | None:
    """Say which byte of a file was not UTF-8, as ``opening.open_text`` has put it into a text."""
    found = _ESCAPED.search(text)
    if found is None:
        return None
    return Failure(
        Reason.INVALID_TEXT,
        f"{NO_UTF8}: byte 0x{ord(found[0]) - 0xDC00:02x}; a file in Latin-1 or Windows-1252 becomes UTF-8 by "
        "`iconv -f CP1252 -t UTF-8`",
    )


def find_text_fault(text: str) -> Failure | None:
    """Say why a text cannot be stored: a null character, or half of a surrogate pair, which UTF-8 has no form for."""
    if "\0" in text:
        return Failure(Reason.INVALID_TEXT, f"a null character at position {text.index(chr(0))}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return Failure(
            Reason.INVALID_TEXT, f"half of a surrogate pair, U+{ord(text[error.start]):04X}, at position {error.start}"
        )
    return None


def find_fault_within(value: object) -> Failure | None:
    """Say why a text anywhere in lists and dictionaries cannot be stored."""
    return next((fault for text in list_texts(value) if (fault := find_text_fault(text))), None)
