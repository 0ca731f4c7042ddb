"""Whole expressions: what a part that is known to be code belongs to, so that no half of it is taken for prose.

A line is read as tokens. From a known part the expression goes on, to both sides, over operators with their operands,
over brackets to where they close, and to the words that begin a declaration or a block.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

WINDOW = 1000
"""Characters of a step of the windows that long lines are read in, each one three steps long."""

MAX_GROWTH = 30
"""Steps that an expression may take; one takes in a token with its spaces, or all that is in a pair of brackets."""

_TOKEN = re.compile(
    r"(?P<space>\s++)|(?P<string>\"[^\"\n]{0,200}\"|(?<!\w)'[^'\n]{1,100}'(?!\w))|(?P<word>[$@]{0,2}[A-Za-z_]\w*+)"
    r"|(?P<number>\d[\w.]*+(?<!\.))|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<sign>[-=<>!&|+*/%^~?:.\\]{1,3})|(?P<other>.)",
    re.ASCII,
)
_OPERAND = frozenset(["word", "number", "string"])
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_BINARY = frozenset(
    [
        "=",
        "+",
        "*",
        "/",
        "%",
        "<",
        ">",
        "&",
        "|",
        "^",
        "?",
        "==",
        "!=",
        "===",
        "!==",
        "<=",
        ">=",
        "&&",
        "||",
        "->",
        "=>",
        ":=",
        "<-",
        "|>",
        "??",
        "+=",
        "-=",
        "*=",
        "/=",
        "%=",
        "<=>",
        "<<",
        ">>",
        "=~",
        "~",
        "**",
        "//",
        "..",
        "...",
        "-",
        ":",
    ]
)
_TALKS = frozenset(["-", "/", ":", "...", "*", "~"])
"""Signs of prose, too: a plain word beside one is not an operand."""

_HARD = frozenset(["const", "mut", "def", "fn", "func", "constexpr", "readonly", "typeof", "val", "var", "elif"])
"""Words that are hardly ever one of prose before code."""

_BLOCK = frozenset(
    [
        "class",
        "struct",
        "enum",
        "interface",
        "if",
        "for",
        "while",
        "switch",
        "fn",
        "func",
        "fun",
        "def",
        "function",
        "try",
        "namespace",
        "impl",
        "trait",
        "match",
        "type",
        "loop",
        "guard",
        "catch",
        "unless",
        "do",
        "sort",
        "foreach",
        "main",
    ]
)
_MODIFIERS = _HARD | frozenset(
    [
        "public",
        "private",
        "protected",
        "static",
        "async",
        "await",
        "export",
        "abstract",
        "final",
        "pub",
        "guard",
        "let",
        "sealed",
        "else",
        "local",
        "my",
    ]
)
_LEADING = frozenset(["assert", "alias", "await", "echo", "export", "raise", "throw", "yield", "not"])
"""Words that belong to an expression with signs or brackets in it."""

_GO_ON = frozenset(["else", "return", "catch", "finally"])
_MAX_HEAD_TOKENS = 24

SEED = re.compile(
    r"(?<=[\w)\]\"'}] )(?:[!=]==?|&&|\|\||:=|\|>|\?\?|[-+*/%]=|<=>|<-)(?= [\w(\"'\[!$&@-])"
    r"|(?<=[\w)\]])(?:[!=]==?|&&|\|\||:=|\?\.|::)(?=[\w(\"'\[!$])"
    r"|\{\s?(?=[^{}\n]{0,200}[;=(|])(?=[^{}\n]{0,200}(?:;|=>|\w\(|\|\w{1,40}\||\breturn\b))"
    r"|(?<!\w)(?:let mut|guard let|val|var|const|local|my|let) [@$%]?\w{1,40}(?:: ?[\w<>\[\]?, ]{1,40})? ?=(?= ?[\w\"'\[({@$])"
    r"|(?<![\w.])@\w{1,40}(?:\.\w{1,40}){0,4}\((?=[^()\n]{0,100}[=\"'])"
    r"|(?<!\w)(?:struct|class|interface|enum|impl|trait|record) [A-Z]\w{0,40}(?:<[\w, ]{1,40}>)? \{(?=[^{}\n]{0,200}\})"
    r"|(?<![\w.])[A-Za-z_]\w{0,40} = (?=\[[\d\[\"'-]|\{[\"'])|\(\\\w[\w ]{0,30}->"
    r"|(?<!\w)type [A-Z]\w{0,40} = (?=[\w{(\"'\[])"
    r"|(?<!\w)def \w{1,40}\([\w, =:*]{0,80}\):(?= \w)",
    re.ASCII,
)
"""Where an expression is certain to be, though no kind of ``kinds`` says so."""


@dataclass(slots=True)
class _Line:
    """The tokens of a line: kinds, texts, where each begins in the text, and the partners of brackets."""

    kinds: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    begins: list[int] = field(default_factory=list)
    partners: dict[int, int] = field(default_factory=dict)

    def kind(self, at: int) -> str:
        return self.kinds[at] if 0 <= at < len(self.kinds) else ""

    def text(self, at: int) -> str:
        return self.texts[at] if 0 <= at < len(self.texts) else ""

    def is_binary(self, at: int) -> bool:
        return self.kind(at) == "sign" and self.text(at) in _BINARY

    def ends_sentence(self, at: int) -> bool:
        return self.text(at).strip(".?!:") == "" and self.kind(at + 1) in {"", "space", "other"}

    def find_operand_after(self, at: int) -> int | None:
        """Return the last token of the operand that begins at a token."""
        if self.kind(at) == "sign" and self.text(at) in {"!", "&", "-", "*"} and self.kind(at + 1) not in {"", "space"}:
            at += 1
        if self.kind(at) == "open":
            return self.partners.get(at)
        return at if self.kind(at) in _OPERAND else None

    def find_operand_before(self, at: int) -> int | None:
        if self.kind(at) == "close":
            return self.partners.get(at)
        return at if self.kind(at) in _OPERAND else None

    def is_plain(self, at: int) -> bool:
        """Whether a token is a word such as prose has."""
        word = self.text(at)
        return self.kind(at) == "word" and (
            (len(word) > 1 and word.isalpha() and word[1:].islower()) or word in {"a", "A", "I", "e", "o", "u", "y"}
        )


def find_seeds(text: str) -> Iterator[tuple[int, int]]:
    """Yield where what is certain to be a part of an expression begins and ends."""
    for match in SEED.finditer(text):
        yield match.span()


def grow(text: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the expressions that parts of a text belong to, each part given and returned as its begin and end."""
    grown: list[tuple[int, int]] = []
    line, read = _Line(), (0, 0)
    for begin, end in sorted(spans):
        if grown and end <= grown[-1][1]:
            continue
        window = _find_window(text, begin)
        if end > window[1]:
            grown.append((begin, end))
            continue
        if window != read:
            line, read = _read(text, *window), window
        first = bisect_right(line.begins, begin) - 1
        final = bisect_left(line.begins, end) - 1
        first, final = _grow(line, first, final, grown[-1][1] if grown else 0)
        ends = line.begins[final] + len(line.texts[final])
        grown.append((min(begin, line.begins[first]), max(end, ends)))
    return grown


def _find_window(text: str, begin: int) -> tuple[int, int]:
    """Return what is read of the line around a place: all of it, unless it is long."""
    block = begin // WINDOW * WINDOW
    low, high = max(0, block - WINDOW), min(len(text), block + 2 * WINDOW)
    before, after = text.rfind("\n", low, begin), text.find("\n", begin, high)
    return (low if before < 0 else before + 1), (high if after < 0 else after)


def _read(text: str, start: int, stop: int) -> _Line:
    line, opened = _Line(), list[int]()
    for at, match in enumerate(_TOKEN.finditer(text, start, stop)):
        line.kinds.append(match.lastgroup or "other")
        line.texts.append(match[0])
        line.begins.append(match.start())
        if line.kinds[-1] == "open":
            opened.append(at)
        elif line.kinds[-1] == "close":
            while opened and _CLOSING[line.texts[opened[-1]]] != match[0]:
                opened.pop()
            if opened:
                line.partners[opened[-1]], line.partners[at] = at, opened[-1]
                opened.pop()
    return line


def _grow(line: _Line, first: int, final: int, low: int) -> tuple[int, int]:
    """Return the first and the last token of the expression; to the left it ends where the one before it does."""
    done = (first, first)
    for _ in range(MAX_GROWTH):
        before = first, final
        first, final = _close(line, first, final, done)
        done = first, final + 1
        final = _go_right(line, first, final)
        first = _go_left(line, first, final) if line.begins[first] > low else first
        if (first, final) == before:
            break
    return first, final


def _close(line: _Line, first: int, final: int, done: tuple[int, int]) -> tuple[int, int]:
    """Take in what pairs of brackets hold of which one is inside, and a call of which only what it is given is."""
    new = (*range(first, done[0]), *range(done[1], final + 1))
    partners = [line.partners[at] for at in new if at in line.partners]
    first, final = min(first, *partners, final), max(final, *partners, first)
    if line.kind(first - 1) == "open" and line.kind(first - 2) in {"word", "close"} and first - 1 in line.partners:
        return first - 2, max(final, line.partners[first - 1])
    return first, final


def _go_right(line: _Line, first: int, final: int) -> int:
    at = final + 1
    kind = line.kind(at)
    if kind == "space":
        return _go_right_over_space(line, first, final)
    if kind == "open":
        return line.partners.get(at, final)
    if kind in _OPERAND:
        return at
    if line.text(at) == ":" and line.text(final) == ")" and line.text(at + 4) in {"=", "{"}:
        return at + 2 if line.kind(at + 2) == "word" else final
    if line.text(at) == ";" and any(line.text(number) in "=(){}" for number in range(first, final + 1)):
        return at
    if kind == "sign" and not line.ends_sentence(at):
        operand = line.find_operand_after(at + 1)
        if line.text(at) in {"++", "--"} or (line.text(at) == "?" and line.text(at + 2) in {"=", "{"}):
            return at
        is_talk = line.is_plain(at + 1) and (line.text(at) in _TALKS or line.text(at + 1)[:1].isupper())
        return final if operand is None or is_talk else operand
    return final


def _go_right_over_space(line: _Line, first: int, final: int) -> int:
    at = final + 2
    if line.is_binary(final) and line.kind(final - 1) == "space":
        operand = line.find_operand_after(at)
        return final if operand is None else operand
    if line.is_binary(at) and line.kind(at + 1) == "space":
        operand = line.find_operand_after(at + 2)
        is_talk = line.text(at) in _TALKS and line.is_plain(at + 2)
        return final if operand is None or is_talk else operand
    if line.text(at) == "{" and at in line.partners:
        return line.partners[at]
    if line.text(final) == "range" and first < final and line.kind(at) == "word":
        return at
    if line.text(at)[:1] in {"$", "@"} and line.text(final) == "}" and line.kind(at) == "word":
        return at
    if line.text(at) in _GO_ON and line.text(final) in {"}", ")", ":"} and (line.text(at) != "return" or first < final):
        return at
    if line.text(final) == "return" and (operand := line.find_operand_after(at)) is not None and first < final:
        return operand
    return final


def _go_left(line: _Line, first: int, final: int) -> int:
    at = first - 1
    kind = line.kind(at)
    if kind == "space":
        return _go_left_over_space(line, first, final)
    if kind == "close":
        return line.partners.get(at, first)
    if kind in _OPERAND:
        return at
    if kind == "sign":
        operand = line.find_operand_before(at - 1)
        if operand is not None:
            is_talk = line.is_plain(at - 1) and line.text(at) in _TALKS
            return first if is_talk else operand
        return at if line.text(at) in {"!", "=", "&", "::"} else first
    return first


def _go_left_over_space(line: _Line, first: int, final: int) -> int:
    at = first - 2
    if line.is_binary(first) and line.kind(first + 1) == "space":
        operand = line.find_operand_before(at)
        return first if operand is None else operand
    if line.is_binary(at) and line.kind(at - 1) == "space":
        operand = line.find_operand_before(at - 2)
        is_talk = line.text(at) in _TALKS and line.is_plain(at - 2)
        return first if operand is None or is_talk else operand
    if line.text(at) in _HARD or (line.text(first) == "{" and line.text(at - 1) in {".", ")"}):
        return at
    texts = line.texts[first : final + 1]
    if line.text(at) in _LEADING and any(text in _BINARY or text == "(" for text in texts):
        return at
    if line.text(at) == "," and line.kind(at - 1) == "word" and line.text(first + 2) in {"=", ":="}:
        return at - 1
    if "{" in texts:
        return _find_head(line, first)
    return first


def _find_head(line: _Line, first: int) -> int:
    """Return where the words before a block begin, if there is a word that begins one."""
    if line.text(first) in _BLOCK | _MODIFIERS:
        return first
    head = first
    for at in range(first - 1, max(-1, first - _MAX_HEAD_TOKENS), -1):
        if line.kind(at) == "other" or line.ends_sentence(at) or (line.kind(at) == "open" and at not in line.partners):
            break
        if line.text(at) in _BLOCK | _MODIFIERS:
            head = at
        elif head < first and line.kind(at) != "space":
            break
    return head
