"""JSON files that are one list of rows, or rows one after another, read without holding the file in memory."""

import json
from collections.abc import Collection, Iterator
from io import StringIO
from typing import Literal, TextIO

LIST_KEYS = ("data", "rows", "examples", "instances")
"""Under which key a file that is one JSON object may have its list of rows."""

_CHUNK_CHARS = 1 << 16
_HEAD_CHARS = 1 << 20
_SPACE = " \t\n\r"


class JsonStream:
    """The values of a JSON text, each given out as text when all of it has been read.

    (Stream parsers such as ijson replace halves of surrogate pairs, which are to be rejected.)
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._is_all = "", 0, False

    def enter_list(self, keys: Collection[str]) -> bool:
        """Go into the list at the beginning of the text, or into the list of objects that is under one of some keys."""
        if self._peek() == "[":
            self._at += 1
            return True
        self._skip("{")
        while self._peek() == '"':
            key = json.loads(self._take())
            self._skip(":")
            if self._peek() == "[" and key in keys:
                self._at += 1
                if self._peek() in {"{", "]"}:
                    return True
                for _ in self.items():
                    pass
            else:
                self._take()
            if self._peek() != ",":
                return False
            self._at += 1
        return False

    def items(self) -> Iterator[str]:
        """Yield the items of the list in which the stream is."""
        while self._peek() != "]":
            yield self._take()
            if self._peek() != "]":
                self._skip(",")
        self._at += 1

    def values(self) -> Iterator[str]:
        """Yield all values that are left, one after another."""
        while self._peek():
            yield self._take()

    def _peek(self) -> str:
        """Return the next character that is no white space; none at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def _skip(self, expected: str) -> None:
        if self._peek() != expected:
            raise json.JSONDecodeError(f"Expecting '{expected}'", self._text, self._at)
        self._at += 1

    def _take(self) -> str:
        self._peek()
        while True:
            try:
                value, end = json.JSONDecoder().raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not (may_go_on and self._fill()):
                    raise
                continue
            if end < len(self._text) or isinstance(value, dict | list | str) or not self._fill():
                text, self._at = self._text[self._at : end], end
                return text

    def _fill(self) -> bool:
        """Read as much again as is being decoded, so that a long value is decoded a few times only."""
        if self._is_all:
            return False
        rest = self._text[self._at :]
        more = self._file.read(max(_CHUNK_CHARS, len(rest)))
        self._text, self._at, self._is_all = rest + more, 0, not more
        return bool(more)


def find_form(file: TextIO) -> Literal["lines", "list", "values"]:
    """Say how a JSON file holds its rows: one a line, in one list, or one after another over several lines each."""
    head = file.read(_HEAD_CHARS).lstrip(_SPACE)
    first, _, rest = head.partition("\n")
    if rest.strip() and _is_json(first):
        return "lines"
    try:
        if JsonStream(StringIO(head)).enter_list(LIST_KEYS):
            return "list"
        next(JsonStream(StringIO(head)).values(), None)
    except (ValueError, RecursionError):
        return "lines"
    return "values"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
