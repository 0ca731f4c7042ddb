"""Line and word pass rates, on sentences in the languages' own scripts and with the real detector."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from factory.evaluation.confusion import (
    average_confusion,
    bundled_words,
    check_responses,
    rate_confusion,
    read_words,
    split_lines,
)
from factory.evaluation.responses import read_responses
from factory.evaluation.segmenters import split_words
from factory.texts.langid import LanguageDetector
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
def detector():
    return LanguageDetector()


def check(language, text, detector, words=None):
    (row,) = pl.concat(check_responses([((), language, text)], detector, words)).to_dicts()
    return row


@pytest.mark.parametrize(
    ("language", "text", "line", "word"),
    [
        ("ar", ARABIC, True, True),
        ("ar", f"{ARABIC}\n{ENGLISH}", False, None),
        ("ar", f"{ARABIC}\nYes.", True, True),  # too short a line says nothing
        ("ar", f"{ARABIC} weather", True, False),
        ("ar", f"{ARABIC} Weather NASA", True, True),  # names begin with a capital
        ("ar", f"{ARABIC} the sun", True, True),  # shorter words say nothing
        ("he", f"{HEBREW} flowers", True, None),  # the benchmark looks at words in six languages only
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
        ("ru", f"{RUSSIAN}\nQ: {ENGLISH}", True, True),  # a next question that a base model asked itself
        ("ru", f"Q: {RUSSIAN}", True, True),
        ("fr", "", None, None),
        ("fr", "Oui.", None, None),
    ],
)
def test_a_response_passes_by_lines_and_by_words(language, text, line, word, detector):
    row = check(language, text, detector)
    assert (row["is_line_pass"], row["is_word_pass"]) == (line, word)


@pytest.mark.parametrize(
    ("label", "score", "passes"),
    [
        ("fr", 0.31, True),
        ("fr", 0.3, False),
        ("fr", 0.05, False),
        ("de", 0.05, False),
        ("de", 0.9, False),
        (None, 0.0, False),
    ],
)
def test_a_line_of_an_unknown_language_is_an_error(label, score, passes):
    detector = SimpleNamespace(label_lines=lambda lines: [(label, score)])
    assert check("fr", FRENCH, detector)["is_line_pass"] is passes


def test_lines_are_labelled_as_they_stand():
    """Without ASCII punctuation and the Arabic comma, a dash being a space; but with code, links and capitals."""
    shown = []

    def label_lines(lines):
        shown.extend(lines)
        return [("fr", 1.0)] * len(lines)

    text = "  \n# `Un` (deux), trois—quatre: cinq!\nUN DEUX TROIS QUATRE\nwww.a.fr/b est 1، un «lien»\n\nQ: non\nnon non non non non"
    assert check("fr", text, SimpleNamespace(label_lines=label_lines))["num_lines"] == 2
    assert shown == [" Un deux trois quatre cinq", "wwwafrb est 1 un «lien»"]


def test_five_words_are_enough_by_a_dictionary_where_there_are_no_spaces():
    assert split_words("今天天气很好", "zh") == ["今天天气", "很", "好"]
    assert split_words("我们 去", "zh") == ["我们", " ", "去"]
    assert split_words("コンピュータを買いました", "ja") == ["コンピュータ", "を", "買い", "まし", "た"]
    assert split_words("one  two", "en") == ["one", "two"]
    assert split_lines("今天天气很好", "zh") == []
    assert [line.text for line in split_lines(f"好的\n{CHINESE}", "zh")] == [CHINESE]
    assert [line.text for line in split_lines("コンピュータを買いました", "ja")] == ["コンピュータを買いました"]
    assert split_lines("コンピュータを買う", "ja") == []


def test_the_segmenters_write_and_say_nothing(tmp_path):
    code = (
        "from factory.evaluation.segmenters import split_words as split\n"
        "print(split('今天天气很好', 'zh'), split('東京に行く', 'ja'))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("['今天天气', '很', '好'] ['東京', 'に', '行く']\n", "")
    assert not list(tmp_path.iterdir())


def test_rates_and_their_means_are_the_benchmarks(detector):
    """By hand: rates of a source and language, the mean over sources, then the mean over languages."""
    responses = [
        (("mono", "a"), "ar", ARABIC),
        (("mono", "a"), "ar", f"{ARABIC} weather"),
        (("mono", "a"), "ar", ENGLISH),
        (("mono", "a"), "ar", "نعم"),
        (("mono", "a"), "fr", FRENCH),
        (("mono", "b"), "ar", ENGLISH),
        (("cross", "a"), "ar", ARABIC),
    ]
    rates = rate_confusion(pl.concat(check_responses(responses, detector)))
    expected = pl.DataFrame(
        {
            "group": [["cross", "a"], ["mono", "a"], ["mono", "a"], ["mono", "b"]],
            "language": ["ar", "ar", "fr", "ar"],
            "num_responses": [1, 4, 1, 1],
            "num_skipped": [0, 1, 0, 0],
            "lpr": [1.0, 2 / 3, 1.0, 0.0],
            "wpr": [1.0, 0.5, None, 1.0],  # where no response passes by lines, none fails by words
            "script_rate": [1.0, 2 / 3, 1.0, 0.0],
            "mean_chars": [
                float(len(ARABIC)),
                (2 * len(ARABIC) + 8 + len(ENGLISH) + 3) / 4,
                float(len(FRENCH)),
                float(len(ENGLISH)),
            ],
        }
    )
    assert_frame_equal(rates, expected)
    means = {("/".join(row["group"]), row["language"]): row for row in average_confusion(rates).to_dicts()}
    assert {key: (row["lpr"], row["wpr"], row["num_responses"]) for key, row in means.items()} == {
        ("cross/a", "all"): (1.0, 1.0, 1),
        ("mono/a", "all"): (pytest.approx((2 / 3 + 1) / 2), 0.5, 5),
        ("mono/b", "all"): (0.0, 1.0, 1),
        ("cross/all", "ar"): (1.0, 1.0, 1),
        ("mono/all", "ar"): (pytest.approx((2 / 3 + 0) / 2), (0.5 + 1) / 2, 5),
        ("mono/all", "fr"): (1.0, None, 1),
        ("cross/all", "all"): (1.0, 1.0, 1),
        ("mono/all", "all"): (pytest.approx((1 / 3 + 1) / 2), 0.75, 6),
    }


def test_the_other_script_fails_by_script_alone(detector):
    texts = [CHINESE, "今天天氣很好，下午我們要去花園。", "好", f"{CHINESE}GPU `print(1)`"]
    rates = rate_confusion(pl.concat(check_responses([((), "zh", text) for text in texts], detector)))
    assert rates.select("lpr", "script_rate").rows() == [(1.0, pytest.approx(2 / 3))]


def test_foreign_words_that_are_known_do_not_fail_by_script(detector):
    texts = [
        "英語では I would like a cup of coffee, please と言います。",
        "東京は nihon no shuto de totemo ookii machi desu。",
    ]
    rates = rate_confusion(pl.concat(check_responses([((), "ja", text) for text in texts], detector)))
    assert rates["script_rate"].to_list() == [0.5]


def test_batches_keep_every_response(detector):
    responses = [((), "ru", RUSSIAN if number % 2 else ENGLISH) for number in range(2500)]
    checked = pl.concat(check_responses(iter(responses), detector))
    assert checked["is_line_pass"].to_list() == [bool(number % 2) for number in range(2500)]


def test_english_words(tmp_path):
    words = bundled_words()
    assert words >= {"weather", "flowers", "beautiful", "grandmother", "however"}
    assert words.isdisjoint(["the", "Weather", "numpy", "kwargs", "jardin", "garten", "weath", "wétter"])
    path = tmp_path / "words"
    path.write_text("Paris\r\ncat\r\nquux\r\nNATO\r\n")
    assert read_words(path) == {"quux"}


def test_words_of_ones_own_replace_the_bundled_ones(detector):
    text = f"{ARABIC} weather"
    assert check("ar", text, detector, frozenset({"rain"}))["is_word_pass"]
    assert not check("ar", text, detector, frozenset({"weather"}))["is_word_pass"]


@pytest.mark.parametrize("content", [None, b"Paris\ncat\n", b"\xff\xfe\x00"])
def test_a_list_without_words_is_refused(content, tmp_path):
    path = tmp_path / "words"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="words'"):
        read_words(path)


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
    found = list(read_responses(str(path), text="out.turns.0", language="lang", groups=["task"], rejected=rejected))
    assert found == [(("mono",), "ar", ARABIC), (("mono",), "pt", "")]
    assert rejected == {"unknown_language": 1, "invalid_row": 3}


def test_a_file_without_responses_is_refused(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"text": "x", "language": "Klingon"}\n')
    with pytest.raises(InputError, match=r"answers.jsonl:1: unknown language 'Klingon'"):
        list(read_responses(str(path), text="text", language="language", rejected=Counter()))
