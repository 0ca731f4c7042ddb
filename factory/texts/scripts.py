"""Whether a text is in its language's script: what lid.176, which knows romanised text and one Chinese, does not see.

Letters are counted, with the marks that a script has of its own. What says nothing about who wrote in which script is
left out: code, formulas, links, addresses, tags, digits. A text in the right script may well hold names, terms and
quotations in another one, so these count only as far as they outnumber the letters of the right script; and not even
then where language identification is sure of them, which it never is of romanised text.
"""

import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

import regex

from factory.texts.markup import Span, read_prose, split_protected
from schemas.languages import LANGUAGES

MIN_LETTERS = 12
"""Letters that a text needs to be judged, where a Chinese, Japanese or Korean one counts as two."""

MIN_SPARED_LETTERS = 36
"""The same for a text of names, terms and quotations alone: an answer may be a name."""

MIN_NAMING_LETTERS, MIN_QUOTING_LETTERS = 4, 8
"""Letters in the right script, counted like these, that make the clause in which names, or quotations, stand."""

MIN_SURE_SCORE, MIN_QUOTED_SCORE = 0.9, 0.8
"""Scores at which language identification is sure of a text full of terms, and of what a text quotes unmarked.

Of 4,751 texts half romanised, by clauses or by words, they excuse 23; the score of the whole alone would excuse 10%."""

MAX_QUOTED_WORDS = 12
"""Words of a quotation that no marks are around, which is a sentence: of more, a text is half in another language."""

MAX_ACRONYM_CHARS = 5
"""A longer word in capitals alone is not an abbreviation: a text may be written in capitals."""

MIN_RUN_WORDS, MIN_RUN_CHARACTERS = 3, 6
"""Words of another script that follow one another, or characters where there are no spaces: fewer are a name or term."""

_OTHER_CHINESE = {"Hans": "Hant", "Hant": "Hans"}

Pattern: TypeAlias = regex.Pattern[str]

Detect: TypeAlias = Callable[[Sequence[str]], Sequence[tuple[str | None, float]]]
"""Language identification: a (code, score) for every text, in order; (None, 0.0) where a text says too little."""

_FLAGS = regex.VERSION1
_LETTER = r"[[\p{L}\p{M}]--[\p{sc=Zyyy}\p{sc=Zinh}]]"
_LETTERS = regex.compile(f"{_LETTER}+", _FLAGS)
_WIDE = regex.compile(r"[\p{sc=Hani}\p{sc=Hira}\p{sc=Kana}\p{sc=Hang}\p{sc=Bopo}]", _FLAGS)
_LATIN_WORD = r"[\p{sc=Latn}&&\p{L}][\p{sc=Latn}\p{Mn}\p{Nd}]*(?:['’._+#/-][\p{sc=Latn}\p{Nd}]+)*"
_APOSTROPHE = "['’ʻʼʾʿ]?"
_NAME_MARK = regex.compile(r"[[\p{Lu}&&\p{sc=Latn}]\p{Nd}._+#/]", _FLAGS)
_STRING = re.compile(r'"(?P<string>(?:[^"\\\n]|\\.)*+)(?:"|\Z)(?P<is_key>\s*:)?')
_QUOTATION = regex.compile(
    r"“[^“”]{1,1000}”|„[^„“”]{1,1000}[“”]|«[^«»]{1,1000}»|‹[^‹›]{1,300}›|「[^「」]{1,1000}」|『[^『』]{1,1000}』"
    r"|《[^《》\n]{1,300}》|\"[^\"\n]{1,500}\"|(?<!\w)['‘][^'‘’\n]{1,500}['’](?!\w)"
    r"|\([^()\n]{1,300}\)|（[^（）\n]{1,300}）|\[[^\[\]\n]{1,300}\]|^[ \t]*>[^\n]*",
    _FLAGS | regex.MULTILINE,
)


@dataclass(slots=True)
class Letters:
    """Numbers of letters: in the right script, in wrong ones, and in names, quotations and other terms of other scripts.

    With a clause of its own in the right script, a text may hold as many names and quotations as it likes. ``counted``
    are the words of the wrong letters and the spared ones.
    """

    right: int = 0
    wrong: int = 0
    spared: int = 0
    named: int = 0
    quoted: int = 0
    min_clause: int = MIN_NAMING_LETTERS
    min_quoting: int = MIN_QUOTING_LETTERS
    counted: list[str] = field(default_factory=list)

    @property
    def against(self) -> int:
        """What counts as wrong: what is spared, too, as far as it outnumbers what is right."""
        spared = self.spared
        spared += self.named if self.right < self.min_clause else 0
        spared += self.quoted if self.right < self.min_quoting else 0
        return self.wrong + max(0, spared - self.right)

    @property
    def num_spared(self) -> int:
        """What is a name, a term or quoted, whether it counts or not."""
        return self.spared + self.named + self.quoted

    @property
    def share(self) -> float:
        return self.right / (self.right + self.against)


def measure_script(text: str, language: str, detect: Detect | None = None) -> float | None:
    """Return the share, in [0, 1], of a text's letters that are in the language's script; None if it has too few.

    Of Chinese it is the smaller one of that share and the share of the right Chinese among the characters that only
    simplified or only traditional Chinese has; a single one of these tells them apart. Of a text that is JSON alone its
    values are judged. With ``detect``, foreign words that language identification is sure of do not count.
    """
    share = _judge_plain(text, language)
    if share is not None:
        return share
    spans = list(split_protected(text))
    share = _judge(" ".join(span.text for span in spans if not span.kind), language, detect)
    return _judge("\n".join(_read_strings(spans)), language, detect) if share is None else share


def _judge(prose: str, language: str, detect: Detect | None) -> float | None:
    prose = unicodedata.normalize("NFC", prose)
    found = [count_letters(prose, language)]
    if detect is not None and found[0].counted:
        _excuse_known_words(found[0], prose, language, detect)
    if found[0].right + found[0].wrong < MIN_LETTERS and found[0].num_spared < MIN_SPARED_LETTERS:
        found = []
    variants = count_variants(prose, language)
    if variants.right + variants.wrong or variants.num_spared >= MIN_RUN_CHARACTERS:
        found.append(variants)
    return min((letters.share for letters in found), default=None)


def _excuse_known_words(letters: Letters, prose: str, language: str, detect: Detect) -> None:
    """Take for quoted a sentence that is known to be of another language; for names, the terms in a text surely of this one.

    Beside Chinese, Japanese and Korean words nothing is excused: without spaces, a long passage weighs as little as a
    word.
    """
    words = " ".join(letters.counted)
    if letters.right < MIN_NAMING_LETTERS or _WIDE.search(words):
        return
    (code, score), (other, other_score) = detect([prose, words])
    if code != LANGUAGES[language].detector_code:
        return
    is_sentence = len(letters.counted) <= MAX_QUOTED_WORDS
    if is_sentence and other not in {None, code} and other_score >= MIN_QUOTED_SCORE:
        letters.quoted += letters.wrong + letters.spared
        letters.wrong = letters.spared = 0
    elif score >= MIN_SURE_SCORE:
        letters.named += letters.spared
        letters.spared = 0


def _read_strings(spans: Iterable[Span]) -> Iterator[str]:
    """Yield what JSON says, be it cut off: its values that are longer than a name or term."""
    for span in spans:
        if span.kind and span.text.lstrip()[:1] in {"{", "["}:
            for match in _STRING.finditer(span.text):
                if not match["is_key"] and not _is_term(value := _unescape(match["string"])):
                    yield value


def _unescape(string: str) -> str:
    """Return what is between the quotation marks of a JSON string as it is meant; "" if it is no such thing."""
    try:
        return str(json.loads(f'"{string}"'))
    except json.JSONDecodeError:
        return ""


def _judge_plain(text: str, language: str) -> float | None:
    """Return the share of a text of one script that has letters enough at its beginning: most texts, at little cost."""
    right, foreign = _compile_patterns(LANGUAGES[language].scripts)
    characters = unicodedata.normalize("NFC", "".join(set(text)))
    is_right = right.search(characters) is not None
    other = _OTHER_CHINESE.get(LANGUAGES[language].script)
    is_mixed = is_right == (foreign.search(characters) is not None)
    if is_mixed or (other is not None and _load_variants()[other].search(characters)):
        return None
    # As many foreign letters suffice, whichever of them are spared.
    least = MIN_LETTERS if is_right else MIN_LETTERS + MIN_SPARED_LETTERS
    prose = unicodedata.normalize("NFC", read_prose(text, 2 * least))
    num_letters = sum(map(_weigh, right.findall(prose))) if is_right else _count(prose)
    return float(is_right) if num_letters >= least else None


def count_letters(prose: str, language: str) -> Letters:
    """Count the letters of a text that is without code and the like, by what they say of its script."""
    scripts = LANGUAGES[language].scripts
    right, foreign = _compile_patterns(scripts)
    letters = Letters(right=sum(map(_weigh, right.findall(prose))))
    for part, is_quoted, is_aside in _split_quotations(prose):
        for run in foreign.findall(part):
            is_spared = is_aside or _is_term(run)
            are_names = _are_names(run)
            for word in run.split():
                if is_quoted:
                    letters.quoted += _weigh(word)
                elif not is_aside and are_names and _is_name(word):
                    letters.named += _weigh(word)
                else:
                    letters.counted.append(word)
                    # Names and abbreviations in Latin letters have capitals or digits.
                    if is_spared or _NAME_MARK.search(word):
                        letters.spared += _weigh(word)
                    else:
                        letters.wrong += _weigh(word)
    return letters


def count_variants(prose: str, language: str) -> Letters:
    """Count the characters of a text that only the right one, or only the wrong one, of the two Chinese has."""
    letters = Letters(min_quoting=1)
    script = LANGUAGES[language].script
    if script not in _OTHER_CHINESE:
        return letters
    right, wrong = (_load_variants()[name] for name in (script, _OTHER_CHINESE[script]))
    letters.right = len(right.findall(prose))
    for part, is_quoted, is_aside in _split_quotations(prose):
        found = len(wrong.findall(part))
        letters.quoted += found if is_quoted else 0
        letters.spared += found if is_aside else 0
        letters.wrong += 0 if is_quoted or is_aside else found
    return letters


def _split_quotations(prose: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield the parts of a text in order, each with whether it is in quotation marks, and whether an aside in brackets."""
    end = 0
    for match in _QUOTATION.finditer(prose):
        is_aside = match[0][0] in "(（[> \t"
        yield prose[end : match.start()], False, False
        yield match[0], not is_aside, is_aside
        end = match.end()
    yield prose[end:], False, False


def _are_names(run: str) -> bool:
    """Whether a run of words can be names: most of them look like one, and fewer than three are in capitals alone."""
    words = run.split()
    num_capitals = sum(len(word) > 1 and word.isupper() for word in words)
    return num_capitals < MIN_RUN_WORDS and 2 * sum(map(_is_name, words)) > len(words)


def _is_name(word: str) -> bool:
    return bool(_NAME_MARK.search(word)) and not (word.isupper() and len(word) > MAX_ACRONYM_CHARS)


def _is_term(run: str) -> bool:
    return len(run.split()) < MIN_RUN_WORDS and len(_WIDE.findall(run)) < MIN_RUN_CHARACTERS


def _weigh(word: str) -> int:
    return 2 * _count(word) if _WIDE.match(word) else _count(word)


def _count(text: str) -> int:
    return len("".join(_LETTERS.findall(text)))


@cache
def _compile_patterns(scripts: tuple[str, ...]) -> tuple[Pattern, Pattern]:
    """Return patterns for runs of letters in these scripts, and of words in others that only spaces part."""
    right = "".join(rf"\p{{sc={script}}}" for script in scripts)
    others = rf"[{_LETTER}--[{right}]--\p{{sc=Latn}}]+"
    word = others if "Latn" in scripts else rf"(?:{_LATIN_WORD}|{others})"
    runs = rf"{word}(?:{_APOSTROPHE}[^\S\n]+{_APOSTROPHE}{word})*"
    return regex.compile(rf"[[{right}]&&[\p{{L}}\p{{M}}]]+", _FLAGS), regex.compile(runs, _FLAGS)


@cache
def _load_variants() -> dict[str, re.Pattern[str]]:
    """Return, by script, a pattern for the characters that only this kind of Chinese has."""
    characters = tomllib.loads((Path(__file__).parent / "chinese_characters.toml").read_text(encoding="utf-8"))
    return {name: re.compile(f"[{characters[name.lower()]}]") for name in ("Hans", "Hant")}
