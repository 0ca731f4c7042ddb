"""A text as a skeleton of what stays and segments of what is translated, and the way back."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factory.texts.fidelity import has_letters
from factory.texts.markup import split_protected
from factory.texts.sentences import split_sentences
from schemas.languages import LANGUAGES

_LINE_PREFIX = re.compile(
    r"\s*(?:>\s*)*(?:#{1,6}\s+|(?:[-*+•‣◦–]|\(?\d{1,3}[.)]|\(?[A-Za-z][.)])\s+)?(?:\[[ xX]\]\s+)?"
)
_LEADING_BOLD = re.compile(r"(\*\*|__)([^*_\n]{1,200})\1")
_WRAPPED = re.compile(r"([*_]{1,3})([^*_\n]+)\1")
_AFTER_PROTECTED = re.compile(r"[\s,;:.!?)\]}，。、；：！？）」』]+")
_NO_SPACE_BEFORE = frozenset(",;:.!?)]}”’»%")
_NO_SPACE_AFTER = frozenset("([{“‘«¿¡")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a skeleton: ``text`` stays as it is, unless ``is_segment``."""

    text: str
    is_segment: bool = False
    is_protected: bool = False


def make_skeleton(text: str, source_language: str, target_language: str) -> tuple[Part, ...]:
    """Cut a text into parts: sentences to be translated, and between them all else, in its place.

    Protected spans divide a sentence: translators of the NLLB class have no tokens for braces or backticks, so that a
    span sent along rarely comes back whole. Only numbers are sent along. Spaces between the parts are adapted where
    one language writes them between words and the other does not; all other characters stay.
    """
    parts = list(_split(text, source_language))
    is_spaced = LANGUAGES[source_language].is_spaced, LANGUAGES[target_language].is_spaced
    if is_spaced == (True, False):
        parts = list(_close_up(parts))
    elif is_spaced == (False, True):
        parts = list(_space_out(parts))
    return tuple(parts)


def fill_skeleton(skeleton: Sequence[Part], translations: Sequence[str]) -> str:
    """Return the text of a skeleton whose segments are replaced by their translations, in order."""
    remaining = iter(translations)
    return "".join(next(remaining).strip() if part.is_segment else part.text for part in skeleton)


def _split(text: str, language: str) -> Iterator[Part]:
    at_line_start, after_protected = True, False
    for span in split_protected(text):
        if span.kind:
            yield Part(span.text, is_protected=True)
            at_line_start, after_protected = span.text.endswith("\n"), True
            continue
        for line in span.text.splitlines(keepends=True):
            yield from _split_line(line, language, at_line_start=at_line_start, after_protected=after_protected)
            at_line_start, after_protected = line.splitlines()[0] != line, False


def _split_line(line: str, language: str, *, at_line_start: bool, after_protected: bool) -> Iterator[Part]:
    body = line
    if at_line_start:
        prefix = _LINE_PREFIX.match(body)
        assert prefix is not None
        yield from _literal(prefix[0])
        body = body[prefix.end() :]
        bold = _LEADING_BOLD.match(body)
        if bold:
            yield Part(bold[1])
            yield from _split_prose(bold[2], language)
            yield Part(bold[1])
            body = body[bold.end() :]
    elif after_protected:
        closing = _AFTER_PROTECTED.match(body)
        if closing:
            yield Part(closing[0])
            body = body[closing.end() :]
    if body.count("|") < 2 and "\t" not in body.strip():
        yield from _split_prose(body, language)
        return
    for cell in re.split(r"([|\t])", body):  # a table's row
        yield from [Part(cell)] if cell in ("|", "\t") else _split_prose(cell, language)


def _split_prose(text: str, language: str) -> Iterator[Part]:
    for sentence in split_sentences(text, language):
        core = sentence.strip()
        if not has_letters(core):
            yield from _literal(sentence)
            continue
        begin = sentence.index(core)
        yield from _literal(sentence[:begin])
        wrapped = _WRAPPED.fullmatch(core)
        yield from (
            [Part(wrapped[1]), Part(wrapped[2], is_segment=True), Part(wrapped[1])]
            if wrapped
            else [Part(core, is_segment=True)]
        )
        yield from _literal(sentence[begin + len(core) :])


def _literal(text: str) -> Iterator[Part]:
    if text:
        yield Part(text)


def _close_up(parts: list[Part]) -> Iterator[Part]:
    """Leave out the spaces between two sentences."""
    for at, part in enumerate(parts):
        is_between = 0 < at < len(parts) - 1 and parts[at - 1].is_segment and parts[at + 1].is_segment
        if not (is_between and part.text.strip(" ") == ""):
            yield part


def _space_out(parts: list[Part]) -> Iterator[Part]:
    """Put a space between two sentences, and between a sentence and a protected span that touch."""
    for at, part in enumerate(parts):
        before = parts[at - 1] if at else None
        if before is not None and (part.is_segment or before.is_segment):
            touches = (part.is_segment or part.is_protected) and (before.is_segment or before.is_protected)
            opens = before.text[-1] in _NO_SPACE_AFTER or before.text[-1].isspace()
            closes = part.text[0] in _NO_SPACE_BEFORE or part.text[0].isspace()
            if touches and not opens and not closes:
                yield Part(" ")
        yield part
