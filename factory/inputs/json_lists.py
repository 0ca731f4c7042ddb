"""JSON files whose rows are in lists, one after another, or under a key of one object, read without holding a file in memory."""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Literal, TextIO

LIST_KEYS = ("data", "rows", "examples", "instances")
"""Under which key a file that is one JSON object may have its list of rows."""

_CHUNK_CHARS = 1 << 16
_HEAD_CHARS = 1 << 20
_SPACE = " \t\n\r"

_DECODER = json.JSONDecoder(parse_int=str, strict=False)
"""Finds where a value ends; what is wrong within it, as a number of too many digits, is the fault of its row."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[][{}]|"', re.DOTALL)


class JsonListError(ValueError):
    """A JSON text that cannot be read, or whose rows may be meant in several ways; the message continues "the file ..."."""


@dataclass(frozen=True, slots=True)
class Form:
    """How a JSON file holds its rows: one a line; as values one after another and in lists; or under a key of one object."""

    kind: Literal["lines", "values", "object"]
    lists: tuple[str, ...] = ()
    """The keys of the one object under which lists of objects are."""


class JsonStream:
    """The values of a JSON text, each given out as text when all of it has been read.

    (Stream parsers such as ijson replace halves of surrogate pairs, which are to be rejected.)
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at, self._is_all, self._line = "", 0, False, 1

    def rows(self) -> Iterator[str]:
        """Yield all values to the end; of lists their items."""
        while self.peek():
            if self.enter_list():
                yield from self.items()
            else:
                yield self.take()

    def rows_of_object(self, form: Form, columns: Collection[str]) -> Iterator[str]:
        """Yield the items of the only list of objects in the one object that the text is."""
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
        """Yield the keys of the object that begins here, and the items of the list under each; none where there is no list.

        Items that are not asked for are passed over.
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
        """Go into the list that begins here, and return its next character; nothing where no list begins."""
        if self.peek() != "[":
            return ""
        self._at += 1
        return self.peek()

    def items(self) -> Iterator[str]:
        """Yield the items of the list in which the stream is."""
        while self.peek() != "]":
            yield self.take()
            if self.peek() != "]":
                self._skip(",")
        self._at += 1

    def peek(self) -> str:
        """Return the next character that is not white space; none at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._text) or not self._fill():
                return self._text[self._at : self._at + 1]

    def take(self) -> str:
        """Return the text of the value that begins here."""
        is_plain = self.peek() not in '{["'  # such a value ends where another character begins
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                end = self._find_end()
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - 16
                if not (may_go_on and self._fill()):
                    raise self._fail(f"no JSON: {error.msg}", error.pos) from error
                continue
            if end < len(self._text) or not is_plain or not self._fill():
                text, self._at = self._text[self._at : end], end
                return text

    def _find_end(self) -> int:
        """Return where a value ends that is nested too deep to be decoded."""
        while True:
            depth = 0
            for token in _TOKEN.finditer(self._text, self._at):
                if token[0] == '"':
                    break  # a text that goes on beyond what has been read
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
                if depth == 0:
                    return token.end()
            if not self._fill():
                raise self._fail("no JSON: a list or object has no end", self._at)

    def _skip(self, expected: str) -> None:
        if self.peek() != expected:
            raise self._fail(f"no JSON: Expecting '{expected}'", self._at)
        self._at += 1

    def _fail(self, what: str, at: int) -> JsonListError:
        line = self._line + self._text.count("\n", 0, at)
        return JsonListError(f"cannot be read: {what} in line {line} at {self._text[at : at + 40]!r}")

    def _fill(self) -> bool:
        """Read as much again as is being decoded, so that a long value is decoded a few times only."""
        if self._is_all:
            return False
        rest = self._text[self._at :]
        more = self._file.read(max(_CHUNK_CHARS, len(rest)))
        self._line += self._text.count("\n", 0, self._at)
        self._text, self._at, self._is_all = rest + more, 0, not more
        return bool(more)


def find_form(file: TextIO, columns: Collection[str]) -> Form:
    """Say how a JSON file holds its rows.

    One object holds them if nothing follows it and it has a list under one of ``LIST_KEYS``; but with one of the
    ``columns`` beside the list it is a row. Of a longer text only the beginning is looked at.

    Raises:
        JsonListError: an object with such a list may be a row as well.
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
    except JsonListError:  # no JSON, or it is cut off where the beginning ends
        other = Form("lines")
    return _find_object(head, set(columns)) or other


def _find_object(head: str, columns: set[str]) -> Form | None:
    """Return the form of one object that holds the rows; none where it is a row."""
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
        pass  # as above; what was found so far has to do
    held = [name for name in lists if name in LIST_KEYS]
    if held and (both := names & columns & lists[held[0]]):
        raise _refuse_both(held[0], min(both))
    return Form("object", tuple(lists)) if held and not names & columns else None


def _refuse_both(held: str, column: str) -> JsonListError:
    return JsonListError(
        f"is one object with the list '{held}' and '{column}' beside it, so that it may be a row or hold the rows"
    )


def _is_line(text: str) -> bool:
    """Whether a line is one JSON value, and no list of rows."""
    if JsonStream(StringIO(text)).enter_list() in {"{", "]"}:
        return False
    stream = JsonStream(StringIO(text))
    try:
        stream.take()
        return not stream.peek()
    except JsonListError:
        return False
