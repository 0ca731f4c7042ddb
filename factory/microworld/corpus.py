"""What the microworld's models learn from: endless random text about facts that no shipped question asks about."""

import random
from dataclasses import dataclass

from factory.microworld.faults import Mixture, draw_fault, write_answer
from factory.microworld.questions import NUM_CHOICES, NUM_GROUPS, WORDS_PER_GROUP, Fact, draw_unseen_fact, lexicon
from factory.microworld.truth import find_named_word, grade
from schemas.languages import CORE_LANGUAGES

_TARGETS = tuple(language for language in CORE_LANGUAGES if language != "en")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question, its answer, the answer's true quality and what a judge has to find out on the way to it."""

    prompt: str
    completion: str
    quality: float
    group: int
    named_group: int
    named_place: int


def vocabulary_texts() -> list[str]:
    """Return text for the tokenizers: words more often than the sentence forms, so that a word is a single token."""
    texts = []
    for language in CORE_LANGUAGES:
        words = lexicon(language)
        texts += [words.quote(word) for word in (*words.words, *words.groups)] * 4
        texts += [*words.questions, *words.answers, words.short, *words.fillers]
    return texts


def draw_turn(rng: random.Random, mixtures: dict[str, Mixture]) -> Turn:
    """Return a question in a random language and an answer with that language's faults."""
    language = rng.choice(CORE_LANGUAGES)
    words = lexicon(language)
    fact = draw_unseen_fact(rng)
    prompt = words.ask(fact, rng.randrange(len(words.questions)))
    completion = write_answer(rng, language, fact, draw_fault(rng, mixtures[language]))
    named = find_named_word(completion, language)
    return Turn(
        prompt,
        completion,
        grade(fact, language, completion),
        group=fact.group,
        named_group=NUM_GROUPS if named is None else named // WORDS_PER_GROUP,
        named_place=fact.words.index(named) if named in fact.words else NUM_CHOICES,
    )


def draw_translation(rng: random.Random) -> tuple[str, str, str]:
    """Return a text in English, a language other than English, and the text in that language.

    Questions come whole and by sentence and are translated well; answers lose their reason or keep an English word now
    and then, as a translator's do.
    """
    language = rng.choice(_TARGETS)
    fact = draw_unseen_fact(rng)
    kind = rng.choices(("question", "statement", "short", "filler", "ramble"), (50, 30, 6, 6, 8))[0]
    if kind == "question":
        seed = rng.random()
        source, target = (_write_question(random.Random(seed), code, fact) for code in ("en", language))
    else:
        word, seed = rng.choice(fact.words), rng.random()
        source = _write_statement(random.Random(seed), "en", fact.group, word, kind, is_lossy=False)
        target = _write_statement(random.Random(seed), language, fact.group, word, kind, is_lossy=True)
    return source, language, target


def _write_question(rng: random.Random, language: str, fact: Fact) -> str:
    """Return a question or one of its sentences; equal random states give the same in every language."""
    words = lexicon(language)
    form, part = rng.randrange(len(words.questions)), rng.randrange(4)
    cut = words.questions[form].index("{words}") + len("{words}") + 1
    parts = (words.questions[form][:cut], words.questions[form][cut:].strip())
    template = parts[part] if part < 2 and parts[1] else words.questions[form]
    return words.fill(template, fact)


def _write_statement(rng: random.Random, language: str, group: int, word: int, kind: str, *, is_lossy: bool) -> str:
    """Return an answer or a part of one; equal random states give the same in every language."""
    words = lexicon(language)
    form, fillers = rng.randrange(len(words.answers)), rng.choices(words.fillers, k=rng.randint(1, 2))
    if kind == "filler":
        return fillers[0]
    is_short = kind == "short" or (is_lossy and form == 0 and loses_reason(language, word))
    text = words.state_shortly(word) if is_short else words.state(group, word, form)
    if is_lossy and keeps_english(language, word):
        text = text.replace(words.quote(words.words[word]), words.quote(lexicon("en").words[word]))
    return words.joiner.join([text, *fillers]) if kind == "ramble" else text


def loses_reason(language: str, word: int) -> bool:
    """Whether the translator drops the reason from an answer that names this word: about one in four."""
    return random.Random(f"loses {language} {word}").random() < 0.25


def keeps_english(language: str, word: int) -> bool:
    """Whether the translator leaves this word in English when it stands in an answer: about one in eight."""
    return random.Random(f"keeps {language} {word}").random() < 0.125
