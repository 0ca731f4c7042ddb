"""What must come out of a translation as it went in: code, data, formulas, links, paths, tags, placeholders and the like.

One finder serves both ends: ``split_protected`` says what is not sent to a translator by sentences, and
``name_protected`` what a translation of a whole text is held against.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from factory.stages.code_lines import find_code_lines
from factory.stages.code_spans import SQL_BEGIN, find_json_end, find_sql_end
from factory.stages.kinds import KINDS

_FENCED = re.compile(
    r"(?<!`)(?P<fence>`{3,}+)[^`\n]*\n(?s:.*?)(?:(?P=fence)`*|\Z)"
    r"|(?m:^[ \t>]*)(?P<tildes>~{3,})[^\n]*\n(?s:.*?)(?:(?m:^[ \t>]*)(?P=tildes)~*|\Z)"
)
"""What is looked for first: nothing else begins inside."""

_INNER = re.compile("|".join(f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in KINDS.items()), re.ASCII)
_SCANNED = re.compile(
    r"(?P<json>[\[{](?:\s*[\[{]){0,3}\s*"
    r"(?:[\"'][^\n]|(?:-?\d[\d.]{0,12}|true|false|null)\s*,|[A-Za-z_$][\w$]{0,60}\s*:\s))"
    rf"|(?P<sql>{SQL_BEGIN})",
    re.ASCII,
)
"""Where JSON or SQL may begin; a scanner says where it ends."""

MARKED = frozenset(
    ["code_block", "code", "formula", "image", "link_begin", "link_end", "mail", "url", "tag", "table", "placeholder"]
)
"""Kinds that are found in a translation as they are in its source; of others it only counts that they stand there."""

_URL_IN_LINK = re.compile(r"\]\(([^()\s]+)")
_TAG_NAME = re.compile(r"</?[A-Za-z][\w:-]*")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text. ``kind`` is empty for prose, else what the part is."""

    text: str
    kind: str = ""


def split_protected(text: str) -> Iterator[Span]:
    """Yield the parts of a text in order, prose and protected; together they are the text."""
    end = 0
    for match in _FENCED.finditer(text):
        yield from _split_unfenced(text[end : match.start()])
        yield Span(match[0], "code_block")
        end = match.end()
    yield from _split_unfenced(text[end:])


def _split_unfenced(text: str) -> Iterator[Span]:
    end = 0
    for begin, stop in _join([*find_code_lines(text), *_scan(text)]):
        yield from _split_prose(text, end, begin)
        yield Span(text[begin:stop], "lines")
        end = stop
    yield from _split_prose(text, end, len(text))


def _split_prose(text: str, begin: int, stop: int) -> Iterator[Span]:
    """Yield the parts of a stretch of text outside of blocks."""
    end = begin
    for match in _INNER.finditer(text, begin, stop):
        kind = next(kind for kind in KINDS if match[kind] is not None)
        if kind == "formula_run" and not any(map(str.isalpha, match[0])):
            continue  # a sum in numbers alone, which are held against each other anyway
        if match.start() > end:
            yield Span(text[end : match.start()])
        yield Span(match[0], kind)
        end = match.end()
    if end < stop:
        yield Span(text[end:stop])


def _scan(text: str) -> Iterator[tuple[int, int]]:
    """Yield where JSON and SQL begin and end."""
    at = 0
    while (match := _SCANNED.search(text, at)) is not None:
        end = (find_json_end if match["json"] else find_sql_end)(text, match.start())
        if end is not None:
            yield match.start(), end
        at = max(match.start() + 1, end or 0)


def _join(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def name_protected(span: Span) -> str | None:
    """Return what must be found again in a translation: the span without what may change, or None for no thing."""
    match span.kind:
        case "" | "link_begin":
            return None
        case "code_block":
            return "\n".join(line.strip() for line in span.text.split("\n")[1:] if not line.strip().startswith("```"))
        case "formula":
            return "".join(span.text.split())
        case "image" | "link_end":
            found = _URL_IN_LINK.search(span.text)
            return found[1] if found else span.text
        case "table":
            return f"{len(re.findall('-+', span.text))} columns"
        case "tag":
            # Attributes such as alt texts may be translated; a tag of one word is itself, as <NAME> is.
            name = _TAG_NAME.match(span.text)
            return f"{name[0]}>" if name else span.text
        case _:
            return span.text
