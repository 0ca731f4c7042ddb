import random
import unicodedata

import pytest

from factory.microworld.faults import write_answer
from factory.microworld.questions import lexicon, questions
from factory.microworld.truth import parse, quality
from schemas.languages import CORE_LANGUAGES

languages = pytest.mark.parametrize("language", CORE_LANGUAGES)


@languages
def test_grades_every_fault(language: str) -> None:
    rng = random.Random(language)
    expected = {"right": 1.0, "short": 0.7, "ramble": 0.5, "wrong": 0.15, "wrong_ramble": 0.075}
    for question in questions(language)[:40]:
        for fault, grade in expected.items():
            answer = write_answer(rng, language, question.fact, fault)  # type: ignore[arg-type]
            assert quality(question.text, language, answer) == grade, answer
        english = write_answer(rng, language, question.fact, "english")
        assert quality(question.text, language, english) == (1.0 if language == "en" else 0.25)


@languages
def test_garbled_answers_are_near_the_bottom(language: str) -> None:
    rng = random.Random(language)
    grades = []
    for question in questions(language)[:40]:
        grade = quality(question.text, language, write_answer(rng, language, question.fact, "garbled"))
        assert grade is not None
        grades.append(grade)
    assert sum(grades) / len(grades) < 0.35


@languages
def test_a_copied_question_is_no_answer(language: str) -> None:
    for question in questions(language)[:20]:
        assert quality(question.text, language, question.text) == 0.0
        assert quality(question.text, language, "") == 0.0


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@languages
def test_composition_and_case_do_not_count(language: str, form: str) -> None:
    question = questions(language)[0]
    answer = lexicon(language).state(question.fact.group, question.fact.answer, 0)
    prompt = unicodedata.normalize(form, question.text).upper()  # type: ignore[arg-type]
    if language not in {"tr", "el"}:  # dotted capitals and dropped accents do not come back
        assert quality(prompt, language, unicodedata.normalize(form, answer).upper()) == 1.0  # type: ignore[arg-type]
    assert quality(question.text, language, f" {unicodedata.normalize(form, answer)}\n") == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize("language", ["ar", "fa", "he"])
def test_direction_marks_do_not_count(language: str) -> None:
    question = questions(language)[0]
    answer = lexicon(language).state(question.fact.group, question.fact.answer, 0)
    assert quality(f"\u202b{question.text}\u202c", language, f"\u200f{answer}\u200f") == 1.0


def test_partial_grades() -> None:
    question = questions("fr")[0]
    french, english = lexicon("fr"), lexicon("en")
    fact = question.fact
    other_group = (fact.group + 1) % len(french.groups)
    right = french.state(fact.group, fact.answer, 0)
    wrong = french.state(fact.group, fact.wrong_words[0], 1)
    with_english_word = right.replace(french.words[fact.answer], english.words[fact.answer])
    assert quality(question.text, "fr", french.state(other_group, fact.answer, 0)) == 0.6
    assert quality(question.text, "fr", with_english_word) == 0.4
    assert quality(question.text, "fr", f"{right} {wrong}") == 0.075
    assert quality(question.text, "fr", lexicon("es").state(fact.group, fact.answer, 0)) == 0.25
    bare = quality(question.text, "fr", french.words[fact.answer])
    assert bare is not None
    assert 0 < bare < 0.3


def test_reads_the_question_that_was_asked() -> None:
    asked, other = questions("de")[0], questions("de")[1]
    answer = lexicon("de").state(asked.fact.group, asked.fact.answer, 0)
    assert quality(asked.text, "de", answer) == 1.0
    assert quality(other.text, "de", answer) != 1.0


@pytest.mark.parametrize(
    ("prompt", "language"),
    [
        ("What is the capital of France?", "en"),
        (questions("en")[0].text, "fr"),
        (questions("en")[0].text, "xx"),
        ("Which of these belongs to “animals”: “horse”, “dog”, “rain”?", "en"),
        ("Which of these belongs to “animals”: “horse”, “rain”?", "en"),
        ("", "ja"),
    ],
)
def test_refuses_what_is_no_question(prompt: str, language: str) -> None:
    assert parse(prompt, language) is None
    assert quality(prompt, language, "The right answer is “horse”.") is None


def test_other_wording_is_read() -> None:
    fact = parse("Hmm... red, HORSE or shirt, which one is among the animals?", "en")
    assert fact is not None
    assert lexicon("en").words[fact.answer] == "horse"
    fact = parse("馬と雨とりんごのうち、動物はどれ？", "ja")
    assert fact is not None
    assert lexicon("ja").words[fact.answer] == "馬"
