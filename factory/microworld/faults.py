"""The faults of the microworld's models: how each one answers, by language.

A model is trained on answers that are wrong in its own way at its own rate, so its faults are in the text it learnt.
"""

import random
from collections.abc import Mapping
from typing import Literal, TypeAlias

from factory.microworld.questions import WORDS_PER_GROUP, Fact, lexicon
from schemas.languages import CORE_LANGUAGES, LANGUAGES, SHARED_LANGUAGES

Fault: TypeAlias = Literal["right", "short", "wrong", "ramble", "wrong_ramble", "unlisted", "english", "garbled"]
"""right: no fault. short: no reason given. wrong: another word of the question. unlisted: a word of the group that the
question does not have. ramble: goes on after the answer. english: the right answer, in English. garbled: the right
answer with its pieces in any order."""

Mixture: TypeAlias = Mapping[Fault, float]
"""Relative weights of the faults."""

FLAWLESS: Mixture = {"right": 1.0}
STRONG: Mixture = {"right": 0.86, "short": 0.05, "ramble": 0.04, "wrong": 0.05}
MEDIUM: Mixture = {"right": 0.55, "short": 0.05, "ramble": 0.15, "wrong": 0.25}
GUESSING: Mixture = {"right": 0.16, "wrong": 0.74, "ramble": 0.04, "wrong_ramble": 0.06}
RAMBLING: Mixture = {"right": 0.12, "wrong": 0.06, "ramble": 0.66, "wrong_ramble": 0.16}
ENGLISH: Mixture = {"right": 0.20, "wrong": 0.10, "ramble": 0.05, "english": 0.65}
WEAK: Mixture = {"right": 0.15, "short": 0.02, "wrong": 0.62, "ramble": 0.05, "wrong_ramble": 0.12, "english": 0.04}
JUDGED: Mixture = {
    "right": 0.32,
    "short": 0.08,
    "wrong": 0.31,
    "unlisted": 0.03,
    "ramble": 0.06,
    "wrong_ramble": 0.06,
    "english": 0.07,
    "garbled": 0.07,
}
"""What the reward model learns to judge."""

_BY_CLUSTER: dict[str, dict[str, Mixture]] = {
    "teacher-european": {"european": STRONG, "slavic": GUESSING, "middle_eastern": ENGLISH, "asian": RAMBLING},
    "teacher-slavic-mideast": {"european": RAMBLING, "slavic": STRONG, "middle_eastern": STRONG, "asian": GUESSING},
    "teacher-asian": {"european": GUESSING, "slavic": ENGLISH, "middle_eastern": RAMBLING, "asian": STRONG},
    "base": {"european": WEAK, "slavic": WEAK, "middle_eastern": WEAK, "asian": WEAK},
}
TEACHERS = tuple(name for name in _BY_CLUSTER if name.startswith("teacher-"))
POLICIES = tuple(_BY_CLUSTER)
"""The models that write answers: the teachers and the base policy."""


def mixtures(policy: str) -> dict[str, Mixture]:
    """Return a policy's mixture of faults by language.

    No teacher is worse than medium in the languages that all clusters share.
    """
    by_cluster = _BY_CLUSTER[policy]
    found = {language: by_cluster[LANGUAGES[language].cluster] for language in CORE_LANGUAGES}
    if policy in TEACHERS:
        found |= {language: MEDIUM for language in SHARED_LANGUAGES if found[language] is not STRONG}
    return found


def draw_fault(rng: random.Random, mixture: Mixture) -> Fault:
    """Return one of a mixture's faults, as likely as its weight says."""
    return rng.choices(list(mixture), list(mixture.values()))[0]


def write_answer(rng: random.Random, language: str, fact: Fact, fault: Fault) -> str:
    """Return an answer to a fact's question that has the given fault."""
    words = lexicon(language)
    form = rng.randrange(len(words.answers))
    word = _choose_word(rng, fact, fault)
    statement = words.state(fact.group, word, form)
    match fault:
        case "right" | "wrong" | "unlisted":
            return statement
        case "short":
            return words.state_shortly(word)
        case "ramble" | "wrong_ramble":
            fillers = rng.choices(words.fillers, k=rng.randint(1, 3))
            return words.joiner.join([statement, *fillers])
        case "english":
            english = lexicon("en")
            return english.state(fact.group, word, form % len(english.answers))
        case "garbled":
            return _shuffle_pieces(rng, statement)


def _choose_word(rng: random.Random, fact: Fact, fault: Fault) -> int:
    match fault:
        case "wrong" | "wrong_ramble":
            return rng.choice(fact.wrong_words)
        case "unlisted":
            members = range(fact.group * WORDS_PER_GROUP, (fact.group + 1) * WORDS_PER_GROUP)
            return rng.choice([word for word in members if word != fact.answer])
        case _:
            return fact.answer


def _shuffle_pieces(rng: random.Random, text: str) -> str:
    pieces = text.split(" ") if text.count(" ") > 2 else [text[at : at + 2] for at in range(0, len(text), 2)]
    joiner = " " if text.count(" ") > 2 else ""
    shuffled = rng.sample(pieces, len(pieces))
    return joiner.join(shuffled)
