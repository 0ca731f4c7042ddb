"""The known truth of the microworld. For demo, tests and evaluation only: the factory itself never sees it."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import cache

from factory.microworld.questions import NUM_CHOICES, WORDS_PER_GROUP, Fact, lexicon
from schemas.languages import CORE_LANGUAGES

RIGHT = 1.0
SHORT = 0.7
WRONG_REASON = 0.6
RAMBLING = 0.5
ENGLISH_WORD = 0.4
BROKEN = 0.3
WRONG_LANGUAGE = 0.25
WRONG = 0.15
GARBAGE = 0.0

_LETTER = r"[\w\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963]"
"""A letter or a combining mark of the world's scripts; ``\\w`` alone has no marks."""


def quality(prompt_text: str, language: str, completion: str) -> float | None:
    """Return the true quality of a completion, from 0 to 1, or None where the prompt is not a question of this world.

    The prompt is read as it stands, in ``language``, also where a translator wrote it: what counts is the question
    that the answering model saw. 1.0 is the right word in a full sentence of that language and nothing more; 0.7 has
    no reason, 0.6 a wrong one, 0.5 goes on after the right answer, 0.4 leaves the word in English, 0.3 is broken
    grammar around the right word, 0.25 is right but in another language, 0.15 and less is wrong, 0.0 is garbage.
    """
    fact = parse(prompt_text, language)
    return None if fact is None else grade(fact, language, completion)


def parse(prompt_text: str, language: str) -> Fact | None:
    """Return the fact that a question asks about: one group and three words, one of them of that group.

    None where the text, read in ``language`` (one of the 23), does not name exactly that.
    """
    if language not in CORE_LANGUAGES:
        return None
    groups, words = _mentions(prompt_text, language)
    if len(groups) != 1 or len(words) != NUM_CHOICES or len(set(words)) != NUM_CHOICES:
        return None
    inside = [word for word in words if word // WORDS_PER_GROUP == groups[0]]
    return Fact(groups[0], tuple(words)) if len(inside) == 1 else None


def grade(fact: Fact, language: str, completion: str) -> float:
    """Return the true quality of an answer to a fact's question, as ``quality`` does."""
    text = _fold(completion)
    statements = list(_statements(text, language))
    if statements:
        return _grade_statement(fact, text, statements)
    for other in CORE_LANGUAGES:
        if other != language and (found := list(_statements(text, other))):
            return WRONG_LANGUAGE if found[0].word == fact.answer else WRONG_LANGUAGE / 5
    return _grade_fragment(fact, language, text)


def find_named_word(completion: str, language: str) -> int | None:
    """Return the number of the first word that an answer names in its language, None where there is none."""
    _, words = _mentions(completion, language)
    return words[0] if words else None


class _Statement:
    """A sentence of the world found in a text; ``group`` is None where it gives no reason."""

    def __init__(self, start: int, end: int, group: int | None, word: int, is_english_word: bool) -> None:
        self.start, self.end, self.group, self.word, self.is_english_word = start, end, group, word, is_english_word


def _grade_statement(fact: Fact, text: str, statements: Sequence[_Statement]) -> float:
    first = statements[0]
    is_alone = first.start == 0 and first.end == len(text)
    if any(statement.word != fact.answer for statement in statements):
        return WRONG if is_alone else WRONG / 2
    if not is_alone:
        return RAMBLING / 2 if first.is_english_word else RAMBLING
    if first.is_english_word:
        return ENGLISH_WORD
    if first.group is None:
        return SHORT
    return RIGHT if first.group == fact.group else WRONG_REASON


def _grade_fragment(fact: Fact, language: str, text: str) -> float:
    """Grade a text without any proper sentence: at best ``BROKEN``, less the further it is from a right answer."""
    _, words = _mentions(text, language)
    if set(words) != {fact.answer}:
        return GARBAGE
    ideals = (lexicon(language).state(fact.group, fact.answer, form) for form in range(len(lexicon(language).answers)))
    return BROKEN * max(SequenceMatcher(None, text, _fold(ideal), autojunk=False).ratio() for ideal in ideals)


def _mentions(text: str, language: str) -> tuple[list[int], list[int]]:
    """Return the groups and the words that a text names, each in order of appearance."""
    pattern, group_ids, word_ids = _vocabulary(language)
    names = pattern.findall(_fold(text))
    return [group_ids[name] for name in names if name in group_ids], [
        word_ids[name] for name in names if name in word_ids
    ]


@cache
def _vocabulary(language: str) -> tuple[re.Pattern[str], dict[str, int], dict[str, int]]:
    words = lexicon(language)
    group_ids = {_fold(name): number for number, name in enumerate(words.groups)}
    word_ids = {_fold(word): number for number, word in enumerate(words.words)}
    names = sorted((*group_ids, *word_ids), key=len, reverse=True)
    pattern = "|".join(map(re.escape, names))
    is_spaced = words.joiner == " "
    return re.compile(f"(?<!{_LETTER})(?:{pattern})(?!{_LETTER})" if is_spaced else pattern), group_ids, word_ids


def _statements(text: str, language: str) -> Iterator[_Statement]:
    """Yield the sentences of one language that a folded text holds, in order of appearance."""
    pattern, group_ids, word_ids = _sentences(language)
    _, _, english_ids = _vocabulary("en")
    for match in pattern.finditer(text):
        found = {name.rstrip("0123456789"): value for name, value in match.groupdict().items() if value}
        word = found["word"]
        group = group_ids[found["group"]] if "group" in found else None
        is_english_word = word not in word_ids
        yield _Statement(
            match.start(), match.end(), group, word_ids.get(word, english_ids.get(word, -1)), is_english_word
        )


@cache
def _sentences(language: str) -> tuple[re.Pattern[str], dict[str, int], dict[str, int]]:
    words = lexicon(language)
    _, group_ids, word_ids = _vocabulary(language)
    _, _, english_ids = _vocabulary("en")
    any_word = "|".join(map(re.escape, sorted({*word_ids, *english_ids}, key=len, reverse=True)))
    any_group = "|".join(map(re.escape, sorted(group_ids, key=len, reverse=True)))
    forms = []
    for number, form in enumerate((*words.answers, words.short)):
        sentence = re.escape(_fold(form.format(word=words.quote("\0"), group=words.quote("\1"))))
        sentence = sentence.replace(re.escape("\0"), f"(?P<word{number}>{any_word})")
        forms.append(sentence.replace(re.escape("\1"), f"(?P<group{number}>{any_group})"))
    return re.compile("|".join(forms)), group_ids, word_ids


def _fold(text: str) -> str:
    """Return a text without what does not count: case, composition, direction marks, runs of white space."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(visible.split())
