import json
import random
import unicodedata
from pathlib import Path

import pytest

from factory.microworld.faults import TEACHERS, mixtures
from factory.microworld.questions import (
    NUM_EVAL,
    NUM_GROUPS,
    NUM_TRAIN,
    PROMPTS,
    RECORDED,
    WORDS_PER_GROUP,
    draw_unseen_fact,
    lexicon,
    questions,
)
from factory.microworld.samples import prompt_rows, recorded_rows
from factory.microworld.truth import parse
from factory.texts.langid import LanguageDetector
from schemas.languages import CORE_LANGUAGES

languages = pytest.mark.parametrize("language", CORE_LANGUAGES)


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector()


@languages
def test_every_language_has_the_same_shape(language: str) -> None:
    words = lexicon(language)
    assert len(words.groups) == NUM_GROUPS
    assert len(set(words.words) | set(words.groups)) == NUM_GROUPS * (WORDS_PER_GROUP + 1)
    assert [len(forms) for forms in (words.questions, words.answers, words.fillers)] == [3, 2, 3]
    assert all("{words}" in form and "{group}" in form for form in words.questions)
    assert all("{word}" in form and "{group}" in form for form in words.answers)
    assert all(unicodedata.is_normalized("NFC", text) for text in (*words.words, *words.questions))


@languages
def test_questions_are_parallel(language: str) -> None:
    english = questions("en")
    translated = questions(language)
    assert [(question.id, question.split, question.fact) for question in translated] == [
        (question.id, question.split, question.fact) for question in english
    ]
    assert [parse(question.text, language) for question in translated] == [question.fact for question in english]


@languages
def test_detector_knows_prompts_and_answers(language: str, detector: LanguageDetector) -> None:
    words = lexicon(language)
    asked = questions(language)
    answers = [words.state(question.fact.group, question.fact.answer, question.form % 2) for question in asked]
    for texts in ([question.text for question in asked], answers, list(words.fillers)):
        hits = [label == language and score > 0.5 for label, score in detector.label_lines(texts)]
        assert sum(hits) / len(hits) >= 0.97


def test_splits_and_ids() -> None:
    splits = [question.split for question in questions("en")]
    assert splits == ["train"] * NUM_TRAIN + ["eval"] * NUM_EVAL
    assert len({question.id for question in questions("en")}) == NUM_TRAIN + NUM_EVAL
    assert len({question.fact.key for question in questions("en")}) == NUM_TRAIN + NUM_EVAL


def test_training_facts_are_not_shipped() -> None:
    shipped = {question.fact.key for question in questions("en")}
    rng = random.Random(0)
    assert not any(draw_unseen_fact(rng).key in shipped for _ in range(5000))


@pytest.mark.parametrize(("path", "rows"), [(PROMPTS, prompt_rows), (RECORDED, recorded_rows)])
def test_shipped_files_are_up_to_date(path: Path, rows: object) -> None:
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == list(rows())  # type: ignore[operator]


@pytest.mark.parametrize("teacher", TEACHERS)
def test_mixtures_cover_all_languages(teacher: str) -> None:
    assert set(mixtures(teacher)) == set(CORE_LANGUAGES)
    assert all(abs(sum(mixture.values()) - 1) < 1e-9 for mixture in mixtures(teacher).values())
