r"""Code by what it is made of, wherever it stands: held against a translation, and never a reason not to send prose.

The patterns of ``kinds`` find what somebody thought of. This asks the other question: what no prose is made of. A token,
which is what stands between two spaces, is

- hard if it holds what prose does not write inside a word: ``f(x``, ``a_b``, ``x=1``, ``std::cout``, ``$total``, ``-x``;
- soft if prose may hold it, but hardly twice: an operator by itself, brackets that pile up, ``SELECT``, ``void``;
- small if it is a number or one letter;
- plain otherwise.

A run is tokens that follow each other and are not plain, with what their brackets enclose and with plain ones between a
soft and another soft or hard one. It is code if one token is hard, or enough are soft.
"""

import re
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

MIN_SOFT = 2
"""Different soft tokens that make a run code; one more if there are words in it."""

MAX_ENCLOSED = 40
"""Tokens that a bracket may enclose."""

# Chinese, Japanese, Korean, Thai and Lao put no space beside code.
_UNSPACED = r"\u0e00-\u0eff\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\ufe30-\uffef"
_TOKEN = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+[\[\](){{}}.,:;|/~<>*]*)|[^\s{_UNSPACED}]+")
_BREAK = re.compile(r"\n|(?<=[\w.,;:!?)])(?:\\[nrt]){1,3}(?=[A-Z])")
_LINE_MARK = re.compile(r"[ \t>#*+•-]*")

_HARD = re.compile(
    "|".join(
        [
            # names: snake_case, but no German gender as in Kolleg_innen; camelCase, but no iPhone and no isiZulu
            r"(?!\w_(?:in|innen|r|n|rin|rinnen|e|es)(?!\w))[A-Za-z0-9]_{1,3}[A-Za-z0-9]",
            r"^(?!isi[A-Z])[a-z]{2,40}[A-Z][a-z]",
            # calls, but not student(s), Lehrer(innen) and 5(1)
            r"[A-Za-z_]\w{0,60}\((?!(?:[a-zA-Z]{0,3}|innen)\)\w*$|\d+\)|[ivx]+\))[\w\"'*&$\[{(]",
            r"^(?:[A-Za-z]|[a-z]{1,4}\d)\([a-z]\)",
            # brackets: f(), a[i], x){, but no footnote[1]
            r"[A-Za-z_](?:\(\)|\[\]|\{\}|<>)",
            r"[A-Za-z_]\[(?!\d+\]$)[\w:\"'-]",
            r"[)\]}]\.?[A-Za-z_(\[{]\w{0,60}[(\[{.=]",
            # signs between letters
            r"[\w)\]}\"'.](?:[=<>^#]+|[~;%@$|\\](?=[A-Za-z]))[\w(\[{\"'$./-]",
            r"::|[A-Za-z_)\]][-=]>|\w:=|[!=]=|&&\w|\w&&|\|\|\w|\w\|\||\+\+[a-z]|[a-z]\+\+|\?\.[a-z]|[a-z]\?\?",
            # signs before letters: $x, %d, \d, --option, -o
            r"^[$&\\^][A-Za-z_{(]|(?<!\d)%[-.]?[a-zA-Z](?![a-z])|\\[A-Za-z.()\[\]]",
            r"^--?[A-Za-z][\w-]*=|^--[a-z]|^-[A-Za-z]$",
            # paths, addresses and versions, but not and/or and km/h
            r"[A-Za-z]{2}\.[A-Za-z]{2}[^/]{0,60}/.|^\.{0,2}/[\w.-]{2,}/|[A-Za-z]/\d+\.\d|[a-z]:\d+\.\d",
        ]
    ),
    re.ASCII,
)
"""What makes a token hard, looked for in it without the punctuation around."""

_OPERATOR = re.compile(r"(?=.*[=<>&|+*/%^~\\({\[\]})@$])[-=<>!&|+*/%^~:\\@$?.(){}\[\];,]{1,20}|::")
_TYPOGRAPHY = re.compile(r"[:;8]['-]?[)(\]\[/\\|*>]+|[)(]+-?[:;]|<3|\*{1,3}|\(?[?!.]+\)?|/|&|[()\[\]]")
"""Signs alone that are none of code: faces, stars between paragraphs and the like."""

_SOFT = re.compile(
    r"^\(?[(\[{]{2}\w|^[(\[{][-+*/=<>&|!]|\w[)\]}]{2}[;,]?$|[)\]};]{2};?$|[)\]}];$|^\*[A-Za-z]\w*\)$"
    r"|^-[A-Za-z]\w+$|^[:#][a-z]\w*,?$|[\"']:$|^[a-z]{2,}(?:\.[a-z]\w+)+$",
    re.ASCII,
)
_KEYWORDS = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "ORDER",
        "BY",
        "GROUP",
        "HAVING",
        "LIMIT",
        "DESC",
        "ASC",
        "AND",
        "OR",
        "NOT",
        "IN",
        "BETWEEN",
        "JOIN",
        "LEFT",
        "INNER",
        "OUTER",
        "ON",
        "AS",
        "ALTER",
        "TABLE",
        "ADD",
        "COLUMN",
        "INSERT",
        "INTO",
        "VALUES",
        "UPDATE",
        "SET",
        "DELETE",
        "CREATE",
        "DROP",
        "NULL",
        "DISTINCT",
        "UNION",
        "LIKE",
        "PRINT",
        "GOTO",
        "MOVE",
        "TO",
        "def",
        "fn",
        "func",
        "fun",
        "elif",
        "const",
        "var",
        "let",
        "rec",
        "int",
        "void",
        "bool",
        "float",
        "double",
        "char",
        "struct",
        "enum",
        "impl",
        "mut",
        "pub",
        "async",
        "await",
        "nil",
        "null",
        "forall",
        "exists",
        "foreach",
        "endif",
        "lambda",
        "proc",
        "expr",
        "echo",
        "println",
        "printf",
    ]
)
_NAME = re.compile(
    r"(?<![A-Za-z\d])(?:[A-Za-z]{1,2}\d[A-Za-z\d]*+|(?=[A-Za-z\d]*\d[A-Za-z])(?=[A-Za-z\d]*[A-Za-z]\d)[A-Za-z\d]{3,}+)",
    re.ASCII,
)
_MEASURE = re.compile(r"\d+(?:[A-Za-z]{1,4}|[hx]\d+|[ckdm]?m[23])")

_QUOTES = "\"'`´“”„‟«»‹›‘’‚‛「」『』〝〞〟″′"
_EDGE = _QUOTES + ".,;:!?…·•*_~|¿¡،؛؟。、"
_BRACKETS = {")": "(", "]": "[", "}": "{", ">": "<"}
_SIGNS = re.compile(r"[!=]==?|&&|\|\||->|=>|<-|<=|>=|:=|::|\+\+|[-+*/]=|[{}\[\]\\=^@<>]")
_SAME = str.maketrans(
    {"→": "->", "⇒": "=>", "←": "<-", "≤": "<=", "≥": ">=", "≠": "!=", "【": "[", "】": "]", "〔": "[", "〕": "]"}
    | {"،": ",", "؛": ";", "؟": "?", "٪": "%", "、": ",", "。": ".", "−": "-", "–": "-", "—": "-"}
    | dict.fromkeys(_QUOTES)
)


@dataclass(frozen=True, slots=True)
class _Token:
    """What stands between two spaces, where it does, and whether it is "hard", "soft", "small" or "plain"."""

    text: str
    begin: int
    end: int
    rank: str
    num_opened: int
    """Opening brackets less closing ones."""

    @property
    def is_operator(self) -> bool:
        return _OPERATOR.fullmatch(self.text) is not None


def find_runs(text: str, certain: Iterable[tuple[int, int]] = ()) -> Iterator[tuple[int, int]]:
    """Yield where the runs that are code begin and end, in order.

    ``certain`` says, in order, what is known to be code: a token that shares a character with it is hard.
    """
    known, begin = deque(certain), 0
    for end, after in (*(match.span() for match in _BREAK.finditer(text)), (len(text), len(text))):
        mark = _LINE_MARK.match(text, begin, end)
        tokens = []
        for match in _TOKEN.finditer(text, mark.end() if mark else begin, end):
            while known and known[0][1] <= match.start():
                known.popleft()
            is_known = known and known[0][0] < match.end()
            rank = "plain" if match["unspaced"] else _rank(match[0])
            num_opened = sum((char in "([{") - (char in ")]}") for char in match[0])
            tokens.append(_Token(match[0], *match.span(), "hard" if is_known else rank, num_opened))
        yield from _find_runs(text, tokens)
        begin = after


def find_names(text: str) -> list[str]:
    """Return the words of a text that hold a digit among letters or after one or two, as H2O and B12 do."""
    return [match[0] for match in _NAME.finditer(text) if not _MEASURE.fullmatch(match[0])]


def count_signs(text: str) -> Counter[str]:
    """Return how often each sign of code stands in a text."""
    return Counter(_SIGNS.findall(unicodedata.normalize("NFKC", text.translate(_SAME))))


def squeeze(text: str) -> str:
    """Return a text without what good translators change in code, too: spaces, quotes, and forms of one sign."""
    return "".join(unicodedata.normalize("NFKC", text.translate(_SAME)).split())


def _find_runs(text: str, tokens: Sequence[_Token]) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(tokens):
        if tokens[at].rank == "plain":
            at += 1
            continue
        end = _find_end(tokens, at)
        run = _cut_smalls(tokens[at:end])
        if _is_code(run):
            core = _strip(text[run[0].begin : run[-1].end])
            place = text.index(core, run[0].begin)
            yield place, place + len(core)
        at = end


def _find_end(tokens: Sequence[_Token], begin: int) -> int:
    """Return where the run ends that begins with a token."""
    end = begin
    while end < len(tokens) and (tokens[end].rank != "plain" or _is_between(tokens, end)):
        end = _find_closing(tokens, end) if tokens[end].rank in {"hard", "soft"} else end + 1
    return end


def _is_between(tokens: Sequence[_Token], at: int) -> bool:
    """Whether a token has a soft one at one side, and a soft or hard one at the other."""
    sides = {token.rank for token in (*tokens[at - 1 : at], *tokens[at + 1 : at + 2])}
    return 0 < at < len(tokens) - 1 and "soft" in sides and sides <= {"soft", "hard"}


def _find_closing(tokens: Sequence[_Token], at: int) -> int:
    """Return the place behind the token that closes what a token opens, or behind itself if none does."""
    depth = 0
    for end in range(at, min(at + MAX_ENCLOSED, len(tokens))):
        depth += tokens[end].num_opened
        if depth <= 0:
            return end + 1
    return at + 1


def _cut_smalls(run: Sequence[_Token]) -> Sequence[_Token]:
    """Leave out small tokens at both ends that no operator ties to the rest: "a" and "I" are words."""
    begin, end = 0, len(run)
    while begin + 1 < end and run[begin].rank == "small" and not run[begin + 1].is_operator:
        begin += 1
    while end - 1 > begin and run[end - 1].rank == "small" and not run[end - 2].is_operator:
        end -= 1
    return run[begin:end]


def _is_code(run: Sequence[_Token]) -> bool:
    if any(token.rank == "hard" for token in run):
        return True
    num_soft = len({token.text for token in run if token.rank == "soft"})
    return num_soft >= MIN_SOFT + any(token.text.isalpha() and token.rank != "small" for token in run)


def _rank(text: str) -> str:
    if _OPERATOR.fullmatch(text):
        return "plain" if _TYPOGRAPHY.fullmatch(text) else "soft"
    core = _strip(text)
    is_small = len(core) == 1 or not any(map(str.isalpha, core))
    if not is_small and _HARD.search(core):
        return "hard"
    if core in _KEYWORDS or _SOFT.search(text):
        return "soft"
    return "small" if is_small else "plain"


def _strip(text: str) -> str:
    """Return a text without the punctuation, quotes and brackets of prose around it."""
    core = text.lstrip(_EDGE.replace(":", "") + "([{<")
    end, num = len(core), Counter(core)
    while end and (core[end - 1] in _EDGE or num[core[end - 1]] > num[_BRACKETS.get(core[end - 1], core[end - 1])]):
        end -= 1
        num[core[end]] -= 1
    return core[:end]
