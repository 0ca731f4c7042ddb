"""A small bundled world: one kind of question, asked in 23 languages, with exactly one right answer.

A fact names a group and three words, one of which belongs to the group. Facts are numbers; a lexicon turns them into
sentences of one language, so every language says the same. Groups are numbered from 0 in the order of
``lexicon.toml``, words too: word ``w`` belongs to group ``w // WORDS_PER_GROUP``.
"""

import random
import tomllib
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.languages import CORE_LANGUAGES

FOLDER = Path(__file__).parent
MODELS = FOLDER / "models"
PROMPTS = FOLDER / "prompts.jsonl"
RECORDED = FOLDER / "recorded.jsonl"

NUM_GROUPS = 8
WORDS_PER_GROUP = 4
NUM_CHOICES = 3
NUM_TRAIN = 300
NUM_EVAL = 100


@dataclass(frozen=True, slots=True)
class Fact:
    """A group and ``NUM_CHOICES`` words, exactly one of which belongs to it."""

    group: int
    words: tuple[int, ...]

    @property
    def answer(self) -> int:
        return next(word for word in self.words if word // WORDS_PER_GROUP == self.group)

    @property
    def wrong_words(self) -> tuple[int, ...]:
        return tuple(word for word in self.words if word != self.answer)

    @property
    def key(self) -> tuple[int, frozenset[int]]:
        """What makes two facts the same question, whatever the order of the words."""
        return self.group, frozenset(self.words)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words and sentence forms of one language; forms have the slots {word}, {words} and {group}."""

    language: str
    quotes: tuple[str, str]
    separator: str
    groups: tuple[str, ...]
    words: tuple[str, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    short: str
    fillers: tuple[str, ...]

    @property
    def joiner(self) -> str:
        """What stands between two sentences."""
        return "" if self.language in {"ja", "zh"} else " "

    def quote(self, text: str) -> str:
        return text.join(self.quotes)

    def ask(self, fact: Fact, form: int) -> str:
        """Return the question about a fact in one of the ``questions`` forms."""
        return self.fill(self.questions[form], fact)

    def fill(self, form: str, fact: Fact) -> str:
        """Return a form with the fact's group and list of words in its slots."""
        words = self.separator.join(self.quote(self.words[word]) for word in fact.words)
        return form.format(group=self.quote(self.groups[fact.group]), words=words)

    def state(self, group: int, word: int, form: int) -> str:
        """Return the full sentence that names ``word`` as the one of the group, true or not."""
        return self.answers[form].format(group=self.quote(self.groups[group]), word=self.quote(self.words[word]))

    def state_shortly(self, word: int) -> str:
        """Return the sentence that names ``word`` and gives no reason."""
        return self.short.format(word=self.quote(self.words[word]))


@dataclass(frozen=True, slots=True)
class Question:
    """A shipped question in one language; ``id`` and ``split`` (train or eval) are the same in all of them."""

    id: str
    split: str
    language: str
    fact: Fact
    form: int

    @property
    def text(self) -> str:
        return lexicon(self.language).ask(self.fact, self.form)


@cache
def lexicon(language: str) -> Lexicon:
    """Return the lexicon of one of the 23 languages. Raises KeyError for any other."""
    return _lexicons()[language]


@cache
def _lexicons() -> dict[str, Lexicon]:
    source = unicodedata.normalize("NFC", (FOLDER / "lexicon.toml").read_text(encoding="utf-8"))
    tables = tomllib.loads(source)
    lexicons = {}
    for language in CORE_LANGUAGES:
        table = tables[language]
        groups = [line.split(": ") for line in table["groups"]]
        lexicons[language] = Lexicon(
            language=language,
            quotes=tuple(table["quotes"]),
            separator=table["separator"],
            groups=tuple(name for name, _ in groups),
            words=tuple(word for _, words in groups for word in words.split(", ")),
            questions=tuple(table["questions"]),
            answers=tuple(table["answers"]),
            short=table["short"],
            fillers=tuple(table["fillers"]),
        )
    return lexicons


def draw_fact(rng: random.Random) -> Fact:
    """Return a random fact; there are 12,096 that differ by more than the order of their words."""
    group = rng.randrange(NUM_GROUPS)
    inside = range(group * WORDS_PER_GROUP, (group + 1) * WORDS_PER_GROUP)
    outside = [word for word in range(NUM_GROUPS * WORDS_PER_GROUP) if word not in inside]
    words = [rng.choice(inside), *rng.sample(outside, NUM_CHOICES - 1)]
    rng.shuffle(words)
    return Fact(group, tuple(words))


def draw_unseen_fact(rng: random.Random) -> Fact:
    """Return a random fact that no shipped question asks about: what the models are trained on."""
    while True:
        fact = draw_fact(rng)
        if fact.key not in _shipped_keys():
            return fact


@cache
def _shipped_keys() -> frozenset[tuple[int, frozenset[int]]]:
    return frozenset(question.fact.key for question in questions())


@cache
def questions(language: str = "en") -> tuple[Question, ...]:
    """Return the shipped questions in one language: ``NUM_TRAIN`` of split train, then ``NUM_EVAL`` of split eval.

    The order, ids, facts and forms are the same in every language.
    """
    rng = random.Random("microworld questions")
    facts: dict[tuple[int, frozenset[int]], Fact] = {}
    while len(facts) < NUM_TRAIN + NUM_EVAL:
        fact = draw_fact(rng)
        facts.setdefault(fact.key, fact)
    num_forms = len(lexicon(language).questions)
    return tuple(
        Question(f"micro-{number:04d}", "train" if number < NUM_TRAIN else "eval", language, fact, number % num_forms)
        for number, fact in enumerate(facts.values())
    )
