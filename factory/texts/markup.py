"""What must come out of a translation as it went in: code, data, formulas, links, paths, tags, placeholders and the like.

One finder serves both ends: ``split_protected`` says what is not sent to a translator by sentences, and
``name_protected`` what a translation of a whole text is held against.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter

from factory.texts.code_lines import find_code_lines, find_prose_end
from factory.texts.code_spans import SQL_BEGIN, find_json_end, find_sql_end
from factory.texts.expressions import find_seeds, grow
from factory.texts.kinds import KINDS

_FENCED = re.compile(
    r"(?<!`)(?P<fence>`{3,}+)[^`\n]*\n(?s:.*?)(?:(?<!`)(?P=fence)`*|\Z)"
    r"|(?m:^[ \t>]*)(?P<tildes>~{3,}+)[^\n]*\n(?s:.*?)(?:(?m:^[ \t>]*)(?P=tildes)~*|\Z)"
)
"""What is looked for first: nothing else begins inside."""

_BEGIN = (
    r"(?:(?=[!-~−±√∀∃∂∆∇∫∑∏\u0370-\u03ffℝℕℤℚℂ\U0001d400-\U0001d7ff])"
    r"(?:(?<![A-Za-z0-9])|(?=[^A-Za-z0-9])|(?<![0-9])(?=[0-9])|(?=[A-Za-z0-9._+-]{1,64}@|https?://))|(?m:^)(?=[ \t]))"
)
"""Where a kind may begin, which saves trying them at most places: at a sign, or where a word or number does."""

_INNER = re.compile(
    f"{_BEGIN}(?:" + "|".join(f"(?P<{kind}>{'|'.join(patterns)})" for kind, patterns in KINDS.items()) + ")", re.ASCII
)
_SCANNED = re.compile(
    r"(?P<json>[\[{](?:\s*[\[{]){0,3}\s*"
    r"(?:[\"'][^\n]|(?:-?\d[\d.]{0,12}|true|false|null)\s*,|[A-Za-z_$][\w$]{0,60}\s*:\s))"
    rf"|(?P<sql>{SQL_BEGIN})",
    re.ASCII,
)
"""Where JSON or SQL may begin; a scanner says where it ends."""

_OPENING = re.compile(rf"`{{3}}|~{{3}}|[$\\<\[{{]|{SQL_BEGIN}", re.ASCII)
"""What may begin in one line and end in another."""

MAX_OPENING_CHARS = 100
"""Characters behind a line that are looked at for what in it opens something: the first words of SQL."""

MAX_READINGS = 4
"""How often JSON or SQL is looked for anew within what was read to look for it before."""

MARKED = frozenset(
    ["code_block", "code", "formula", "image", "link_begin", "link_end", "mail", "url", "tag", "table", "placeholder"]
)
"""Kinds that are found in a translation as they are in its source; of others it only counts that they stand there."""

GROWING = frozenset(["call", "command", "lines", "name", "path", "regex", "statement"])
"""Kinds that may be a part of a longer expression."""

_URL_IN_LINK = re.compile(r"\]\(([^()\s]+)")
_TAG_NAME = re.compile(r"</?[A-Za-z][\w:-]*")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text. ``kind`` is empty for prose, else what the part is."""

    text: str
    kind: str = ""


def split_protected(text: str) -> Iterator[Span]:
    """Yield the parts of a text in order, prose and protected; together they are the text."""
    for part, grouped in groupby(_split_blocks(text), key=itemgetter(0)):
        blocks = list(grouped)
        if blocks[0][3] == "code_block":
            yield Span(part, "code_block")
        else:
            yield from _split_part(part, blocks)


def read_prose(text: str, num_chars: int) -> str:
    """Return the beginning of a text's prose, of ``num_chars`` or more if there are as many; a space for what is protected.

    Of most texts no more than the first lines are looked at.
    """
    end = find_prose_end(text, num_chars)
    opening = _OPENING.search(text, 0, end + MAX_OPENING_CHARS)
    is_closed = end > 0 and (opening is None or opening.start() >= end)
    found = chain(_find_inner(text, 0, end), _scan(text[:end]), find_seeds(text[:end]))
    if is_closed and next(found, None) is None:
        return text[:end]
    prose = ""
    for span in split_protected(text):
        prose += " " if span.kind else span.text
        if len(prose) >= num_chars:
            break
    return prose


def _split_blocks(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Yield the blocks and what is between them in order: a text, where in it they begin and end, and the kind."""
    end = 0
    for match in _FENCED.finditer(text):
        yield from _split_unfenced(text[end : match.start()])
        yield match[0], 0, len(match[0]), "code_block"
        end = match.end()
    yield from _split_unfenced(text[end:])


def _split_unfenced(text: str) -> Iterator[tuple[str, int, int, str]]:
    end = 0
    for begin, stop in _join([*find_code_lines(text), *_scan(text)]):
        yield text, end, begin, ""
        yield text, begin, stop, "lines"
        end = stop
    yield text, end, len(text), ""


def _split_part(part: str, blocks: list[tuple[str, int, int, str]]) -> Iterator[Span]:
    """Yield the parts of a text that no fence parts, expressions whole."""
    found = [
        place
        for _, begin, stop, kind in blocks
        for place in ([(begin, stop, kind)] if kind else _find_inner(part, begin, stop))
    ]
    grown = grow(part, [(begin, stop) for begin, stop, kind in found if kind in GROWING] + list(find_seeds(part)))
    end = 0
    for begin, stop, kind in _merge(found, grown):
        if begin > end:
            yield Span(part[end:begin])
        yield Span(part[begin:stop], kind)
        end = stop
    if end < len(part):
        yield Span(part[end:])


def _find_inner(text: str, begin: int, stop: int) -> Iterator[tuple[int, int, str]]:
    for match in _INNER.finditer(text, begin, stop):
        if _is_protected(match):
            yield *match.span(), next(kind for kind in KINDS if match[kind] is not None)


def _merge(found: list[tuple[int, int, str]], grown: list[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Return the parts found, and for those that lie in something grown, or overlap it, one part that is both."""
    parts = sorted(set(found) | {(begin, stop, "expression") for begin, stop in grown}, key=lambda part: part[:2])
    merged: list[tuple[int, int, str]] = []
    for begin, stop, kind in parts:
        last = merged[-1] if merged else (0, 0, "")
        if begin >= last[1]:
            merged.append((begin, stop, kind))
        elif (begin, stop) == last[:2]:
            merged[-1] = (begin, stop, last[2] if kind == "expression" else kind)
        else:
            merged[-1] = (last[0], max(stop, last[1]), "expression")
    return merged


def _is_protected(match: re.Match[str]) -> bool:
    """Whether what was found is not a sum in numbers alone, which are held against each other anyway."""
    return match["formula_run"] is None or any(map(str.isalpha, match[0]))


def _scan(text: str) -> Iterator[tuple[int, int]]:
    """Yield where JSON and SQL begin and end."""
    at = read = num_again = 0
    while (match := _SCANNED.search(text, at)) is not None:
        begin = match.start()
        num_again = num_again + 1 if begin < read else 0
        if num_again > MAX_READINGS:
            at = read
            continue
        end, stop = (find_json_end if match["json"] else find_sql_end)(text, begin)
        if end is not None:
            yield begin, end
        at, read = max(begin + 1, end or 0), max(read, stop)


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
