"""Whether a translation kept what it had to keep, and is one at all."""

import re
import unicodedata
from collections import Counter

from factory.texts.markup import MARKED, name_protected, split_protected
from factory.texts.scripts import count_letters, count_variants, measure_script
from factory.texts.signs import count_signs, find_names, find_runs, squeeze
from schemas.languages import LANGUAGES, MIN_SCRIPT_SHARE

MIN_WORDS = 3
"""Words in lower case that make an unchanged text a missing translation; fewer may be names or terms."""

MIN_CHARACTERS = 8
"""The same for languages that write no spaces."""

MIN_FOREIGN_WORDS, MIN_FOREIGN_CHARACTERS = 2, 3
"""The same two for a text of which no letter is in a script of the target language. One word may be a term."""

# A separator inside a number: , . ' and the Arabic ones, or one space of any width before three digits.
_NUMBER = re.compile(r"\d+(?:(?:[.,'’٫٬،]|[ \u00a0\u202f\u2009](?=\d{3}(?!\d)))\d+)*")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
HIDDEN = MARKED | {"lines"}
_MAX_SHOWN = 5
_KIND_NAMES = {"link_end": "URL", "image": "URL", "url": "URL", "code_block": "code block", "mail": "mail address"}


def find_loss(source: str, translation: str) -> str | None:
    """Say which code, formulas, links, tags, placeholders and numbers of the source are missing in the translation.

    Numbers are compared by value: digits of all scripts are equal, and the separators of thousands and decimals may
    change. What the translation has in addition is not a loss.
    """
    things, code, prose = _take_apart(source)
    found_things, _, found_prose = _take_apart(translation)
    lost = list((things - found_things).elements())
    lost += (
        [("table", "row")]
        * (_count_rows(source) - _count_rows(translation))
        * any(kind == "table" for kind, _ in things)
    )
    found = squeeze(translation)
    lost += [("code", unfenced) for unfenced in _find_lost_code(code, found)]
    if not lost:
        lost += [("code", run) for run in _find_lost_code(_find_runs(source) + Counter(find_names(prose)), found)]
    if not lost:
        lost += [("sign", sign) for sign in (count_signs(source) - count_signs(translation)).elements()]
    lost += [("number", number) for number in _find_lost_numbers(prose, found_prose)]
    if not lost:
        return None
    shown = ", ".join(f"{kind} {text[:80]!r}" for kind, text in lost[:_MAX_SHOWN])
    more = f" and {len(lost) - _MAX_SHOWN} more" if len(lost) > _MAX_SHOWN else ""
    return f"lost {shown}{more}"


def find_missing_translation(source: str, translation: str, source_language: str, target_language: str) -> str | None:
    """Say why a text is not a translation: unknown-token marks, or nothing changed but names, numbers, code and the like."""
    for mark in ("<unk>", "\ufffd"):
        if mark in translation and mark not in source:
            return f"the translation holds {mark!r}"
    if translation.split() == source.split() and _has_to_change(source, source_language, target_language):
        return f"unchanged: {source.strip()[:80]!r}"
    return None


def find_wrong_script(source: str, translation: str, source_language: str, target_language: str) -> str | None:
    """Say why a translation is in the wrong script: which share of its letters is in the right one.

    Words that it kept from the source are left out, except between the two Chinese.
    """
    if not _are_two_chinese(source_language, target_language):
        kept = set(source.split())
        translation = " ".join(word for word in translation.split() if word not in kept)
    share = measure_script(translation, target_language)
    if share is None or share >= MIN_SCRIPT_SHARE:
        return None
    return f"{share:.0%} of the letters are in the script of {target_language}: {translation.strip()[:80]!r}"


def has_letters(text: str) -> bool:
    """Whether there is anything to translate: two letters, or one that is a word by itself in its script."""
    letters = [character for character in text if character.isalpha()]
    return len(letters) > 1 or any(_UNSPACED.match(letter) for letter in letters)


def parse_numbers(text: str) -> Counter[str]:
    """Return the numbers of a text in one notation: ASCII digits, no thousands separators, a point for decimals."""
    return Counter(_normalise_number(match[0]) for match in _NUMBER.finditer(text))


def _find_lost_numbers(source: str, translation: str) -> list[str]:
    lost = parse_numbers(source) - parse_numbers(translation)
    if not lost:
        return []
    # "100, 200" and "100 200" may be two numbers on one side and look like one on the other.
    runs = Counter(re.findall(r"\d+", _to_ascii_digits(source)))
    return list(lost.elements()) if runs - Counter(re.findall(r"\d+", _to_ascii_digits(translation))) else []


def _count_rows(text: str) -> int:
    return sum(line.count("|") > 1 for line in text.split("\n"))


def _find_lost_code(expected: Counter[str], found: str) -> list[str]:
    return [code for code, num in expected.items() if found.count(squeeze(code)) < num and any(map(str.isalpha, code))]


def _normalise_number(number: str) -> str:
    number = _to_ascii_digits(number)
    groups = re.split(r"\D", number)
    marks = re.findall(r"\D", number)
    if len(marks) > 1 and len(set(marks)) == 1 and marks[0] != ".":
        return "".join(groups)  # "1,00,000": one mark, used again and again, parts thousands and lakhs
    joined = groups[0]
    for group in groups[1:]:
        joined += group if len(group) == 3 else f".{group}"
    return joined


def _to_ascii_digits(text: str) -> str:
    return "".join(str(unicodedata.digit(char)) if char.isdecimal() and char > "9" else char for char in text)


def _find_runs(text: str) -> Counter[str]:
    """Return the runs of code in what no mark sets off, with what is known as code around which they stand."""
    rest, certain = "", []
    for span in split_protected(text):
        if span.kind and span.kind not in HIDDEN:
            certain.append((len(rest), len(rest) + len(span.text)))
        rest += "\n" if span.kind in HIDDEN else span.text
    return Counter(rest[begin:end] for begin, end in find_runs(rest, certain))


def _take_apart(text: str) -> tuple[Counter[tuple[str, str]], Counter[str], str]:
    """Return the things of a text by kind, the lines of what is code without a mark of it, and the prose."""
    things: Counter[tuple[str, str]] = Counter()
    code: Counter[str] = Counter()
    prose = []
    for span in split_protected(text):
        if span.kind in MARKED and (name := name_protected(span)) is not None:
            things[_KIND_NAMES.get(span.kind, span.kind), name] += 1
        elif span.kind and span.kind not in MARKED:
            lines = [" ".join(line.split()) for line in span.text.split("\n")]
            code.update(line for line in lines if any(map(str.isalnum, line)))
        # A space keeps the numbers on both sides of a protected span apart.
        prose.append(" \n " if span.kind else span.text)
    return things, code, "".join(prose)


def _has_to_change(text: str, source_language: str, target_language: str) -> bool:
    prose = _take_apart(text)[2]
    if _are_two_chinese(source_language, target_language):
        return count_variants(prose, target_language).against > 0
    is_foreign = count_letters(prose, target_language).right == 0
    words = [word for word in prose.split() if sum(map(str.isalpha, word)) > 1]
    num_words = sum(word.islower() or word.lower() == word.upper() for word in words)
    return num_words >= (MIN_FOREIGN_WORDS if is_foreign else MIN_WORDS) or len(_UNSPACED.findall(prose)) >= (
        MIN_FOREIGN_CHARACTERS if is_foreign else MIN_CHARACTERS
    )


def _are_two_chinese(source_language: str, target_language: str) -> bool:
    return LANGUAGES[source_language].detector_code == LANGUAGES[target_language].detector_code
