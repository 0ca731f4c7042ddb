"""JSON files whose rows are in lists, follow one another, or are under a key of one object; read as a stream."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Literal, TextIO

LIST_KEYS = ("data", "rows", "examples", "instances")
"""The keys under which a file that is one JSON object may have its list of rows."""

_CHUNK_CHARS = 1 << 16
_HEAD_CHARS = 1 << 20
_SPACE = " \t\n\r"

_DECODER = json.JSONDecoder(parse_int=str, strict=False)
"""Finds where a value ends. It is lenient: mistakes inside a value, such as a huge number, are reported for its row."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[][{}]|"', re.DOTALL)


class JsonListError(ValueError):
    """A JSON text that is unreadable or ambiguous; the message is a predicate that follows the file's name."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a JSON file stores its rows.

    ``lines``: one per line. ``values``: one after another, or in lists. ``object``: in a list under a key of one
    object.
    """

    kind: Literal["lines", "values", "object"]
    lists: tuple[str, ...] = ()
    """The keys of the object that have lists of objects as values."""


class JsonStream:
    """A JSON text that is read in chunks; each value is returned as text once it is complete.

    Stream parsers such as ijson are not used because they replace lone surrogates, which must be rejected.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._is_all, self._line = "", 0, False, 1

    def rows(self) -> Iterator[str]:
        """Yield all values to the end of the text, and the items of lists in place of the lists."""
        while self.peek():
            if self.enter_list():
                yield from self.items()
            else:
                yield self.take()

    def rows_of_object(self, form: Form, columns: Collection[str]) -> Iterator[str]:
        """Yield the items of the only list of objects in the object that is the whole text.

        Raises:
            JsonListError: the object has several lists, or one of the ``columns`` beside its list.
        """
        wanted, lists = form.lists[0], list(form.lists)
        for key, items in self.fields():
            if key in columns:
                raise _refuse_both(wanted, key)
            if items and self.peek() == "{" and key not in lists:
                lists.append(key)
            if len(lists) > 1:
                named = " and ".join(map(repr, lists))
                raise JsonListError(f"is one object with the lists {named}; its rows must be in one list")
            if key == wanted and items:
                yield from items
        if self.peek():
            raise self._fail("nothing may follow the one object that holds the rows", self._at)

    def fields(self) -> Iterator[tuple[str, Iterator[str] | None]]:
        """Yield each key of the object at the current position, with the items of its list or, for other values, None.

        Items that the caller does not consume are skipped.
        """
        self._skip("{")
        while self.peek() != "}":
            key = _DECODER.decode(self.take())
            self._skip(":")
            items = self.items() if self.enter_list() else None
            yield key, items
            if items is None:
                self.take()
            else:
                for _ in items:
                    pass
            if self.peek() != "}":
                self._skip(",")
        self._at += 1

    def enter_list(self) -> str:
        """Enter the list at the current position and return its next character; "" if there is no list."""
        if self.peek() != "[":
            return ""
        self._at += 1
        return self.peek()

    def items(self) -> Iterator[str]:
        """Yield the remaining items of the list that was entered, and leave it."""
        while self.peek() != "]":
            yield self.take()
            if self.peek() != "]":
                self._skip(",")
        self._at += 1

    def peek(self) -> str:
        """Skip white space and return the next character without consuming it; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def take(self) -> str:
        """Consume the value at the current position and return its text."""
        is_plain = self.peek() not in '{["'  # only the next character shows where a number or word ends
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                end = self._find_end()
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not (may_go_on and self._fill()):
                    raise self._fail(f"not JSON: {error.msg}", error.pos) from error
                continue
            if end < len(self._text) or not is_plain or not self._fill():
                text, self._at = self._text[self._at : end], end
                return text

    def _find_end(self) -> int:
        """Return the end of a value that is nested too deeply for the decoder."""
        while True:
            depth = 0
            for token in _TOKEN.finditer(self._text, self._at):
                if token[0] == '"':
                    break  # an unclosed quote: the string continues in what has not been read yet
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
                if depth == 0:
                    return token.end()
            if not self._fill():
                raise self._fail("not JSON: a list or object has no end", self._at)

    def _skip(self, expected: str) -> None:
        if self.peek() != expected:
            raise self._fail(f"not JSON: Expecting '{expected}'", self._at)
        self._at += 1

    def _fail(self, what: str, at: int) -> JsonListError:
        line = self._line + self._text.count("\n", 0, at)
        return JsonListError(f"cannot be read: {what} in line {line} at {self._text[at : at + 40]!r}")

    def _fill(self) -> bool:
        """Read on, and return whether there was more.

        The unread rest is doubled, so that a long value is decoded only a logarithmic number of times.
        """
        if self._is_all:
            return False
        rest = self._text[self._at :]
        more = self._file.read(max(_CHUNK_CHARS, len(rest)))
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at, self._is_all = rest + more, 0, not more
        return bool(more)


def find_form(file: TextIO, columns: Collection[str]) -> Form:
    """Return how a JSON file stores its rows; only the first ``_HEAD_CHARS`` characters are examined.

    A file that is one object stores its rows in a list under one of ``LIST_KEYS``, unless one of ``columns`` is beside
    the list: then the object itself is a row.

    Raises:
        JsonListError: the object may be a row or contain the rows, as both have the column.
    """
    head = file.read(_HEAD_CHARS).lstrip(_SPACE)
    first, _, rest = head.partition("\n")
    if rest.strip() and _is_line(first):
        return Form("lines")
    if not head or JsonStream(StringIO(head)).enter_list() in {"{", "]"}:
        return Form("values")
    try:
        next(JsonStream(StringIO(head)).rows(), None)
        other = Form("values")
    except JsonListError:  # not JSON, or cut off at the end of the head
        other = Form("lines")
    return _find_object(head, set(columns)) or other


def _find_object(head: str, columns: set[str]) -> Form | None:
    """Return the form of a text that is one object containing the rows, or None if the object is itself a row."""
    stream, names, lists = JsonStream(StringIO(head)), set[str](), dict[str, set[str]]()
    try:
        for name, items in stream.fields():
            names.add(name)
            if items and (stream.peek() == "{" or (stream.peek() == "]" and name in LIST_KEYS)):
                lists[name] = set()
                lists[name] = {field for field, _ in JsonStream(StringIO(next(items, "{}"))).fields()}
        if stream.peek():
            return None
    except JsonListError:
        pass  # as above; what was found so far must suffice
    held = [name for name in lists if name in LIST_KEYS]
    if held and (both := names & columns & lists[held[0]]):
        raise _refuse_both(held[0], min(both))
    return Form("object", tuple(lists)) if held and not names & columns else None


def _refuse_both(held: str, column: str) -> JsonListError:
    return JsonListError(
        f"is one object with the list '{held}' and '{column}' beside it, so it may be a row or contain the rows"
    )


def _is_line(text: str) -> bool:
    """Whether a line is exactly one JSON value that is not a list of rows."""
    if JsonStream(StringIO(text)).enter_list() in {"{", "]"}:
        return False
    stream = JsonStream(StringIO(text))
    try:
        stream.take()
        return not stream.peek()
    except JsonListError:
        return False
