"""Line and word pass rates, on sentences in the languages' own scripts and with the real detector."""

import json
from collections import Counter

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from factory.engines.langid import LanguageDetector
from factory.evaluation.confusion import (
    average_confusion,
    check_responses,
    count_words,
    is_english_word,
    rate_confusion,
    split_lines,
)
from factory.evaluation.responses import read_responses
from schemas.errors import InputError

ARABIC = "الطقس جميل اليوم وسنذهب إلى الحديقة بعد الظهر"
HEBREW = "מזג האוויר יפה היום ואנחנו נלך לגינה אחר הצהריים"
HINDI = "आज मौसम बहुत अच्छा है और हम दोपहर में बगीचे में जाएंगे"
JAPANESE = "今日は天気がいいので、午後は庭に行きます。"
CHINESE = "今天天气很好，下午我们要去花园。"
KOREAN = "오늘은 날씨가 좋아서 오후에 정원에 갈 것입니다"
RUSSIAN = "Сегодня прекрасная погода, и после обеда мы пойдём в сад"
ENGLISH = "The weather is beautiful today and we will go to the garden."
FRENCH = "Il fait beau aujourd'hui et nous irons au jardin cet après-midi."


@pytest.fixture(scope="module")
def detect():
    return LanguageDetector().detect


@pytest.mark.parametrize(
    ("language", "text", "line", "word"),
    [
        ("ar", ARABIC, True, True),
        ("ar", f"{ARABIC}\n{ENGLISH}", False, None),
        ("ar", f"{ARABIC}\nYes.", True, True),  # too short a line says nothing
        ("ar", f"{ARABIC} weather", True, False),
        ("ar", f"{ARABIC} Weather NASA", True, True),  # names begin with a capital
        ("ar", f"{ARABIC} the sun", True, True),  # shorter words say nothing
        ("he", f"{HEBREW} flowers", True, False),
        ("hi", HINDI, True, True),
        ("ja", JAPANESE, True, True),
        ("ja", f"{JAPANESE}important", True, False),
        ("ja", CHINESE, False, None),
        ("zh", CHINESE, True, True),
        ("zh-Hant", "今天天氣很好，下午我們要去花園。", True, True),
        ("zh", "今天 (beautiful) 天气很好，下午我们要去花园。", True, False),
        ("ko", f"{KOREAN}\n{ENGLISH}", False, None),
        ("ru", RUSSIAN, True, True),
        ("ru", f"{RUSSIAN}\n\n{FRENCH}", False, None),
        ("fr", FRENCH, True, None),  # the same script as English: words are not looked at
        ("fr", ENGLISH, False, None),
        ("en", ENGLISH, True, None),
        ("ko", f"```\n{KOREAN}\n```", True, True),  # prose between fences counts
        ("fr", "", None, None),
        ("fr", "Oui.", None, None),
    ],
)
def test_a_response_passes_by_lines_and_by_words(language, text, line, word, detect):
    (row,) = pl.concat(check_responses([("", language, text)], detect)).to_dicts()
    assert (row["is_line_pass"], row["is_word_pass"]) == (line, word)


def test_a_label_without_certainty_is_no_fault():
    for score, passes in ((0.3, True), (0.31, False)):
        checked = pl.concat(check_responses([("", "fr", FRENCH)], lambda lines, score=score: [("de", score)]))
        assert checked["is_line_pass"].to_list() == [passes]


def test_rates_leave_out_what_cannot_be_judged(detect):
    responses = [
        ("mono", "ar", ARABIC),
        ("mono", "ar", f"{ARABIC} weather"),
        ("mono", "ar", ENGLISH),
        ("mono", "ar", "نعم"),
        ("mono", "fr", FRENCH),
        ("cross", "ar", ENGLISH),
    ]
    rates = rate_confusion(pl.concat(check_responses(responses, detect)))
    expected = pl.DataFrame(
        {
            "group": ["cross", "mono", "mono"],
            "language": ["ar", "ar", "fr"],
            "num_responses": [1, 4, 1],
            "num_skipped": [0, 1, 0],
            "lpr": [0.0, 2 / 3, 1.0],
            "wpr": [None, 0.5, None],
            "mean_chars": [float(len(ENGLISH)), (2 * len(ARABIC) + 8 + len(ENGLISH) + 3) / 4, float(len(FRENCH))],
        }
    )
    assert_frame_equal(rates, expected)
    (mono,) = average_confusion(rates).filter(pl.col("group") == "mono").to_dicts()
    assert (mono["lpr"], mono["wpr"]) == (pytest.approx(5 / 6), 0.5)


def test_batches_keep_every_response(detect):
    responses = [("", "ru", RUSSIAN if number % 2 else ENGLISH) for number in range(2500)]
    checked = pl.concat(check_responses(iter(responses), detect))
    assert checked["is_line_pass"].to_list() == [bool(number % 2) for number in range(2500)]


def test_words_are_counted_without_spaces_too():
    assert count_words("今天天气很好", "zh") == 3
    assert count_words("コンピュータを買いました", "ja") == 1 + 1 + 1 + 2
    assert count_words("one two", "en") == 2
    assert split_lines("好的\n" + CHINESE, "zh") == [CHINESE]


def test_english_words():
    assert all(map(is_english_word, ["weather", "flowers", "beautiful", "grandmother", "however"]))
    assert not any(map(is_english_word, ["the", "Weather", "numpy", "kwargs", "jardin", "garten", "weath", "wétter"]))


def test_responses_are_read_from_nested_fields(tmp_path):
    path = tmp_path / "answers.jsonl"
    lines = [
        {"out": {"turns": [ARABIC]}, "lang": "Arabic", "task": "mono"},
        {"out": {"turns": [None]}, "lang": "pt-BR", "task": "mono"},
        {"out": {"turns": ["x"]}, "lang": "Klingon", "task": "mono"},
        {"out": {"turns": [7]}, "lang": "fr", "task": "mono"},
        {"out": {}, "lang": "fr", "task": "mono"},
    ]
    path.write_text("\n".join([*map(json.dumps, lines), "no JSON"]))
    rejected: Counter[str] = Counter()
    found = list(read_responses(str(path), text="out.turns.0", language="lang", group="task", rejected=rejected))
    assert found == [("mono", "ar", ARABIC), ("mono", "pt", "")]
    assert rejected == {"unknown_language": 1, "invalid_row": 3}


def test_a_file_without_responses_is_refused(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"text": "x", "language": "Klingon"}\n')
    with pytest.raises(InputError, match=r"answers.jsonl:1: unknown language 'Klingon'"):
        list(read_responses(str(path), text="text", language="language", group=None, rejected=Counter()))
