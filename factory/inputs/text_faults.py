"""Texts that cannot be stored: invalid UTF-8, null characters, lone surrogates."""

import re

from factory.engines.base import Failure
from factory.engines.reply_text import list_texts
from schemas.reasons import Reason

NO_UTF8 = "not UTF-8"
"""The start of the detail of a row whose bytes are not text, after its location."""

_ESCAPED = re.compile("[\udc80-\udcff]")
"""The surrogates by which ``surrogateescape`` represents bytes that are not UTF-8."""


def find_byte_fault(text: str) -> Failure | None:
    """Return a failure that names the first byte that was not UTF-8 in a text from ``opening.open_text``, or None."""
    found = _ESCAPED.search(text)
    if found is None:
        return None
    return Failure(
        Reason.INVALID_TEXT,
        f"{NO_UTF8}: byte 0x{ord(found[0]) - 0xDC00:02x}; convert a file in Latin-1 or Windows-1252 with "
        "`iconv -f CP1252 -t UTF-8`",
    )


def find_text_fault(text: str) -> Failure | None:
    """Return why a text cannot be stored, or None: a null character, or a lone surrogate, which UTF-8 cannot encode."""
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
    """Return why some text in nested lists and dictionaries cannot be stored, or None."""
    return next((fault for text in list_texts(value) if (fault := find_text_fault(text))), None)
