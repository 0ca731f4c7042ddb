"""What the microworld's models learn from: endless random text about facts that no shipped question asks about."""

import random
from dataclasses import dataclass

from factory.microworld.faults import EVEN, Mixture, draw_fault, write_answer
from factory.microworld.truth import grade
from factory.microworld.world import draw_unseen_fact, lexicon
from schemas.languages import CORE_LANGUAGES


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one question, the better one first, and how much better it is in true quality."""

    prompt: str
    better: str
    worse: str


def vocabulary_texts() -> list[str]:
    """Return text for the tokenizers: every word as often as the sentence forms around it."""
    texts = []
    for language in CORE_LANGUAGES:
        words = lexicon(language)
        texts += [words.quote(word) for word in (*words.words, *words.groups)]
        texts += [*words.questions, *words.answers, words.short, *words.fillers]
        rng = random.Random(language)
        texts += [words.ask(draw_unseen_fact(rng), 0) for _ in range(10)]
    return texts


def draw_turn(rng: random.Random, mixtures: dict[str, Mixture]) -> Turn:
    """Return a question in a random language and an answer with that language's faults."""
    language = rng.choice(CORE_LANGUAGES)
    words = lexicon(language)
    fact = draw_unseen_fact(rng)
    prompt = words.ask(fact, rng.randrange(len(words.questions)))
    return Turn(prompt, write_answer(rng, language, fact, draw_fault(rng, mixtures[language])))


def draw_comparison(rng: random.Random) -> Comparison:
    """Return two answers of different true quality to one question."""
    language = rng.choice(CORE_LANGUAGES)
    words = lexicon(language)
    while True:
        fact = draw_unseen_fact(rng)
        first, second = (write_answer(rng, language, fact, draw_fault(rng, EVEN)) for _ in range(2))
        difference = grade(fact, language, first) - grade(fact, language, second)
        if difference:
            better, worse = (first, second) if difference > 0 else (second, first)
            return Comparison(words.ask(fact, rng.randrange(len(words.questions))), better, worse)


def draw_translation(rng: random.Random) -> tuple[str, str, str]:
    """Return a text in English, a language other than English, and the text in that language.

    Questions come whole and by sentence and are translated well; answers lose their reason or keep an English word now
    and then, as a translator's do.
    """
    language = rng.choice([language for language in CORE_LANGUAGES if language != "en"])
    english, words = lexicon("en"), lexicon(language)
    fact = draw_unseen_fact(rng)
    kind = rng.random()
    if kind < 0.5:
        form = rng.randrange(len(words.questions))
        return english.ask(fact, form), language, words.ask(fact, form)
    word = rng.choice(fact.words)
    if kind < 0.85:
        form = rng.randrange(len(words.answers))
        source = english.state(fact.group, word, form)
        target = (
            words.state_shortly(word)
            if loses_reason(language, word) and form == 0
            else words.state(fact.group, word, form)
        )
    elif kind < 0.93:
        source, target = english.state_shortly(word), words.state_shortly(word)
    else:
        filler = rng.randrange(len(words.fillers))
        source, target = english.fillers[filler], words.fillers[filler]
    if keeps_english(language, word):
        target = target.replace(words.quote(words.words[word]), words.quote(english.words[word]))
    return source, language, target


def loses_reason(language: str, word: int) -> bool:
    """Whether the translator drops the reason from an answer that names this word: about one in four."""
    return random.Random(f"loses {language} {word}").random() < 0.25


def keeps_english(language: str, word: int) -> bool:
    """Whether the translator leaves this word in English when it stands in an answer: about one in eight."""
    return random.Random(f"keeps {language} {word}").random() < 0.125
