"""Cutting text into sentences for translators that drop what follows the first one."""

import re
import unicodedata

from schemas.languages import LANGUAGES

MAX_CHARS = {True: 400, False: 150}
"""The longest piece that is sent, for languages with and without spaces between words: about 100 tokens each."""

# A run of marks is looked at from its first one only, and never again in part: a text of nothing but "!" takes no
# quadratic time.
_MARKS, _CLOSERS = ".!?…‼⁇⁈⁉", r"(?:[\u00a0\u202f ]?»)?+[\"'”’»)\]*_]*+"  # « Oui ! » has a space before its mark
_ENDS = re.compile(
    rf"(?<![{_MARKS}])[{_MARKS}]++{_CLOSERS}(?=\s)"
    r"|[。！？｡．]++[」』）”’》】\"]*+(?!(?<=」)(?:と|って|、))"  # but not in a quotation that the sentence goes on after
    r"|(?<![!?])[!?]++(?=[\u3040-\u30ff\u3400-\u9fff])"
    rf"|(?<![؟۔])[؟۔]++{_CLOSERS}(?=\s)"
    r"|[।॥]+"
)
_GREEK_ENDS = re.compile(rf"{_ENDS.pattern}|(?<![;\u037e])[;\u037e]++{_CLOSERS}(?=\s)")

_ABBREVIATIONS = (
    # before a name or another word; those that often end a sentence ("etc.", "usw.") are told by what follows
    "mr mrs ms dr prof sr jr st mt gen rep sen gov lt col sgt rev hon vs e.g i.e cf al approx dept "
    "z.b d.h u.a bzw ca bspw vgl fr hr mme mlle mm p.ex sra srta dra ud uds p.ej sig dott ing dhr mevr "
    "bijv d.w.z o.a np tzn ul tj např mgr bc dl dna т.е т.к им ул гр пл обл напр ім вул örn sn av doç yth bpk tp "
    "π.χ δηλ κ βλ"
)
_BEFORE_NUMBERS = (
    "no nr num núm fig p pp pág vol eq art sec ch cap kap abb tab str стр рис č n° "
    "jan feb mar apr jun jul aug sep sept oct nov dec σελ"
)

_ORDINALS = frozenset({"cs", "de", "pl", "tr"})
"""Languages that write ordinals with a full stop: "am 3. Oktober"."""

_JOINED, _NUMBERED = frozenset(_ABBREVIATIONS.split()), frozenset(_BEFORE_NUMBERS.split())
_LAST_WORD = re.compile(r"[\w.°]+$")
_CLAUSE_ENDS = re.compile(r"[,;:—–]\s|[，；、：،؛]\s*")


def split_sentences(text: str, language: str) -> list[str]:
    """Return the sentences of a text, each with the white space after it; together they are the text.

    A sentence longer than ``MAX_CHARS`` is cut further, after a clause or a word if it can be.
    """
    known = LANGUAGES.get(language)
    ends = _GREEK_ENDS if language == "el" else _ENDS
    sentences: list[str] = []
    begin = 0
    for match in ends.finditer(text):
        end = match.end()
        while end < len(text) and text[end].isspace():
            end += 1
        if end < len(text) and _is_end(text, begin, match, end, has_ordinals=language in _ORDINALS):
            sentences.append(text[begin:end])
            begin = end
    sentences.append(text[begin:])
    limit = MAX_CHARS[known is None or known.is_spaced]
    return [part for sentence in sentences for part in _cut(sentence, limit)]


def _is_end(text: str, begin: int, match: re.Match[str], following: int, *, has_ordinals: bool) -> bool:
    mark = match[0][0]
    if mark not in _MARKS:
        return True
    if text[following].islower():
        return False
    if mark != "." or match[0].startswith(".."):
        return True
    last = _LAST_WORD.search(text, max(begin, match.start() - 40), match.start())
    word = last[0].lower() if last else ""
    if word in _NUMBERED:
        return not text[following].isdigit()
    # An ordinal, or the number of an item ("1. Open it."), but not "in 1999." or, in English, "on Jan. 5."
    if word.isdigit() and len(word) <= 2:
        return not has_ordinals and text[begin : match.start()].strip() != word
    is_initial = len(word) == 1 and word.upper() != word  # "J. R. R. Tolkien", "z. B."
    return not is_initial and word not in _JOINED


def _cut(sentence: str, limit: int) -> list[str]:
    parts = []
    while len(sentence.rstrip()) > limit:
        at = _find_cut(sentence, limit)
        parts.append(sentence[:at])
        sentence = sentence[at:]
    return [*parts, sentence]


def _find_cut(sentence: str, limit: int) -> int:
    for pattern in (_CLAUSE_ENDS, re.compile(r"\s+")):
        ends = [match.end() for match in pattern.finditer(sentence, limit // 2, limit)]
        if ends:
            return ends[-1]
    at = limit
    # Never between a letter and its marks, nor inside a joined sequence.
    while at > limit // 2 and (unicodedata.category(sentence[at])[0] == "M" or "\u200d" in sentence[at - 1 : at + 1]):
        at -= 1
    return at
