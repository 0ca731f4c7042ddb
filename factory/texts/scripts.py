"""Whether a text is in its language's script: what lid.176, which knows romanised text and one Chinese, does not see.

Letters are counted, with the marks that a script has of its own. What says nothing about who wrote in which script is
left out: code, formulas, links, addresses, tags, digits. Words in Latin letters in a text of another script are either
the language itself, romanised, which its frequent words tell (``romanised_words.toml``), and then all of them are wrong;
or they are names, terms, commands and quotations, which count little or nothing once a clause in the right script has
introduced them.
"""

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
"""Letters in the right script, counted like these, that make the clause in which names, or foreign sentences, stand."""

FOREIGN_WEIGHT = 1 / 8
"""What a letter of a foreign sentence counts beside such a clause. Names, terms and quotations count nothing."""

MIN_ROMANISED_WORDS, MIN_ROMANISED_SHARE = 2, 0.1
"""Different frequent words of the language among the foreign ones, and their share of them, that show it is romanised."""

MAX_WORD_LETTERS = 20
"""A longer word is several: of romanised text whose script has no spaces."""

MAX_ACRONYM_CHARS = 5
"""A longer word in capitals alone is not an abbreviation: a text may be written in capitals."""

MIN_RUN_WORDS, MIN_RUN_CHARACTERS = 3, 6
"""Words of another script that follow one another, or characters where there are no spaces: fewer are a name or term."""

_SEVERAL_WORDS = rf"\w{{{MAX_WORD_LETTERS + 1},}}"
_OTHER_CHINESE = {"Hans": "Hant", "Hant": "Hans"}

Pattern: TypeAlias = regex.Pattern[str]

_FLAGS = regex.VERSION1
_LETTER = r"[[\p{L}\p{M}]--[\p{sc=Zyyy}\p{sc=Zinh}]]"
_LETTERS = regex.compile(f"{_LETTER}+", _FLAGS)
_WIDE = regex.compile(r"[\p{sc=Hani}\p{sc=Hira}\p{sc=Kana}\p{sc=Hang}\p{sc=Bopo}]", _FLAGS)
_LATIN_WORD = r"[\p{sc=Latn}&&\p{L}][\p{sc=Latn}\p{Mn}\p{Nd}]*(?:['’._+#/-][\p{sc=Latn}\p{Nd}]+)*"
_APOSTROPHE = "['’ʻʼʾʿ]?"
_LATIN = regex.compile(r"\p{sc=Latn}", _FLAGS)
_MARKS = regex.compile(r"[\p{Mn}'’ʻʼʾʿ`]", _FLAGS)
_DOUBLED = re.compile(r"([aeiou])\1+")
_SENTENCE = regex.compile(r"`++(?:[\p{L}\p{M}'’]++[,.;:!?…]*+\s*+){2,}+`++", _FLAGS)
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
    """Numbers of letters: right ones, wrong ones, and those of foreign sentences, of names and terms, of quotations.

    With a clause in the right script a text may hold as many names and quotations as it likes.
    """

    right: int = 0
    wrong: int = 0
    foreign: int = 0
    named: int = 0
    quoted: int = 0
    min_quoting: int = MIN_QUOTING_LETTERS

    @property
    def are_enough(self) -> bool:
        """Whether there are as many as a text needs to be judged."""
        return self.right + self.wrong + self.foreign >= MIN_LETTERS or self.named + self.quoted >= MIN_SPARED_LETTERS

    @property
    def against(self) -> float:
        """What counts as wrong: foreign sentences and what is quoted for little or nothing, once a clause says what they are."""
        against = self.wrong + (0 if self.right >= MIN_NAMING_LETTERS else self.named)
        if self.right < self.min_quoting:
            return against + self.foreign + self.quoted
        return against + FOREIGN_WEIGHT * self.foreign

    @property
    def share(self) -> float:
        return self.right / (self.right + self.against)


def measure_script(text: str, language: str) -> float | None:
    """Return the share, in [0, 1], of a text's letters that are in the language's script; None if it has too few.

    Of Chinese it is the smaller one of that share and the share of the right Chinese among the characters that only
    simplified or only traditional Chinese has; a single one of these tells them apart. Of a text that is JSON alone its
    values are judged.
    """
    share = _judge_plain(text, language)
    if share is not None:
        return share
    spans = list(split_protected(text))
    prose = " ".join(span.text for span in spans if not span.kind)
    words = " ".join(span.text.strip("`") for span in spans if span.kind == "code" and _SENTENCE.fullmatch(span.text))
    if is_romanised(words.split(), language):
        prose += f"\n{words}"
    share = _judge(prose, language)
    return _judge("\n".join(_read_strings(spans)), language) if share is None else share


def is_romanised(words: Sequence[str], language: str) -> bool:
    """Whether words in Latin letters are the language itself: whether its frequent words are among them."""
    frequent = _load_romanised().get(LANGUAGES[language].detector_code)
    if frequent is None:
        return False
    # "I" is English, "i" the Russian and Ukrainian for "and".
    simple = _simplify(" ".join(word for word in words if word != "I")).split()
    found = [word for word in simple if word in frequent[0] or frequent[1].fullmatch(word)]
    return len(set(found)) >= MIN_ROMANISED_WORDS and len(found) >= MIN_ROMANISED_SHARE * len(words)


def _simplify(text: str) -> str:
    """Return a text in Latin letters as spellings have it in common: without accents, apostrophes and doubled vowels."""
    return _DOUBLED.sub(r"\1", _MARKS.sub("", unicodedata.normalize("NFD", text.lower())))


def _judge(prose: str, language: str) -> float | None:
    prose = unicodedata.normalize("NFC", prose)
    found = [count_letters(prose, language)]
    if not found[0].are_enough:
        found = []
    variants = count_variants(prose, language)
    if variants.right + variants.wrong or variants.quoted >= MIN_RUN_CHARACTERS:
        found.append(variants)
    return min((letters.share for letters in found), default=None)


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
    right, foreign = _compile_patterns(LANGUAGES[language].scripts)
    letters = Letters(right=sum(map(_weigh, right.findall(prose))))
    # What stands before the first words in the right script is not introduced by them.
    first = next((match.start() for match in right.finditer(prose) if _weigh(match[0]) >= MIN_NAMING_LETTERS), 0)
    runs: list[tuple[str, bool]] = []
    for begin, part, is_quoted in _split_quotations(prose):
        found = foreign.finditer(part)
        if is_quoted:
            letters.quoted += sum(_weigh(match[0]) for match in found)
        else:
            runs += [(match[0], begin + match.start() > first) for match in found]
    are_romanised = is_romanised([word for run, _ in runs for word in run.split()], language)
    for run, is_introduced in runs:
        is_term, is_loud = _is_term(run), sum(len(word) > 1 and word.isupper() for word in run.split()) >= MIN_RUN_WORDS
        for word in run.split():
            if not are_romanised and (is_term or (_is_name(word) and not is_loud)):
                letters.named += _weigh(word)
            elif are_romanised or not is_introduced or not _LATIN.match(word):
                letters.wrong += _weigh(word)
            else:
                letters.foreign += _weigh(word)
    return letters


def count_variants(prose: str, language: str) -> Letters:
    """Count the characters of a text that only the right one, or only the wrong one, of the two Chinese has."""
    letters = Letters(min_quoting=1)
    script = LANGUAGES[language].script
    if script not in _OTHER_CHINESE:
        return letters
    right, wrong = (_load_variants()[name] for name in (script, _OTHER_CHINESE[script]))
    letters.right = len(right.findall(prose))
    for _, part, is_quoted in _split_quotations(prose):
        found = len(wrong.findall(part))
        letters.quoted += found if is_quoted else 0
        letters.wrong += 0 if is_quoted else found
    return letters


def _split_quotations(prose: str) -> Iterator[tuple[int, str, bool]]:
    """Yield the parts of a text in order: where each begins, and whether it is in quotation marks or brackets."""
    end = 0
    for match in _QUOTATION.finditer(prose):
        yield end, prose[end : match.start()], False
        yield match.start(), match[0], True
        end = match.end()
    yield end, prose[end:], False


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


@cache
def _load_romanised() -> dict[str, tuple[frozenset[str], re.Pattern[str]]]:
    """Return, by language, the frequent words of its romanised texts, and a pattern for those of which a part is known."""
    table = tomllib.loads((Path(__file__).parent / "romanised_words.toml").read_text(encoding="utf-8"))
    return {
        language: (
            frozenset(words),
            re.compile("|".join([*(word.replace("*", r"\w{2,}") for word in words if "*" in word), _SEVERAL_WORDS])),
        )
        for language, words in ((language, _simplify(text).split()) for language, text in table.items())
    }
