import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.stages.measures import measure, measure_languages, repetition
from factory.texts.langid import Detect
from tests.pace import takes_at_most

PROSE = {
    "en": "The committee met on Tuesday to discuss the budget for the coming year. Several members asked whether the new "
    "library could be finished in time, since the builders had found water under the cellar. In the end it was agreed "
    "to wait for the engineer's report, and to talk about the matter again in the spring.",
    "ar": "اجتمعت اللجنة يوم الثلاثاء لمناقشة ميزانية العام المقبل. وسأل عدد من الأعضاء عما إذا كان من الممكن إنجاز المكتبة "
    "الجديدة في الوقت المحدد، لأن البنائين وجدوا ماء تحت القبو. وفي النهاية تم الاتفاق على انتظار تقرير المهندس.",
    "zh": "委员会星期二开会讨论明年的预算。几位成员询问新图书馆能否按时完工，因为施工人员在地下室下面发现了水。"
    "最后大家同意等待工程师的报告，到春天再讨论这件事。有人建议先修好屋顶，也有人认为应该先买书。",
    "ja": "委員会は火曜日に来年度の予算について話し合った。何人かの委員は、地下室の下で水が見つかったため、"
    "新しい図書館が予定どおり完成するのかと尋ねた。結局、技師の報告を待ち、春にもう一度相談することになった。",
    "hi": "समिति की बैठक मंगलवार को अगले वर्ष के बजट पर चर्चा करने के लिए हुई। कई सदस्यों ने पूछा कि क्या नया पुस्तकालय समय पर पूरा "
    "हो पाएगा, क्योंकि मजदूरों को तहखाने के नीचे पानी मिला था। अंत में इंजीनियर की रिपोर्ट की प्रतीक्षा करने का निर्णय लिया गया।",
    "ko": "위원회는 화요일에 모여 내년 예산을 논의했다. 여러 위원이 지하실 아래에서 물이 발견되었으니 새 도서관이 제때 완공될 수 "
    "있느냐고 물었다. 결국 기술자의 보고서를 기다렸다가 봄에 다시 이야기하기로 했다.",
    "he": "הוועדה התכנסה ביום שלישי כדי לדון בתקציב לשנה הבאה. כמה חברים שאלו אם הספרייה החדשה תושלם בזמן, משום שהבנאים מצאו "
    "מים מתחת למרתף. בסופו של דבר הוחלט להמתין לדוח של המהנדס ולחזור לנושא באביב.",
    "el": "Η επιτροπή συνεδρίασε την Τρίτη για να συζητήσει τον προϋπολογισμό του επόμενου έτους. Αρκετά μέλη ρώτησαν αν η "
    "νέα βιβλιοθήκη θα τελειώσει εγκαίρως, αφού οι εργάτες βρήκαν νερό κάτω από το υπόγειο.",
}
LOOPS = [
    "la " * 30,
    "哈" * 40,
    "मैं नहीं जानता। " * 10,
    "I cannot say.\n" * 12,
    "نعم، " * 20,
    "! " * 40,
    "\U0001f602" * 30,
    "e\u0301" * 40,
    PROSE["en"] * 4,
    PROSE["zh"] * 4,
]


@pytest.mark.parametrize("language", PROSE)
def test_prose_hardly_repeats_itself(language: str) -> None:
    assert repetition(PROSE[language]) < 0.1


@pytest.mark.parametrize("loop", LOOPS, ids=range(len(LOOPS)))
def test_loops_do(loop: str) -> None:
    assert repetition(loop) > 0.7


@pytest.mark.parametrize("language", PROSE)
def test_an_answer_that_falls_into_a_loop_is_told(language: str) -> None:
    text = PROSE[language]
    assert repetition(text + text[-25:] * 40) > 0.5


def test_code_tables_and_lists_are_below_the_gate() -> None:
    table = "| name | value |\n|---|---|\n" + "".join(f"| row {n} | {n * 7919 % 1000} |\n" for n in range(12))
    code = "".join(f"def test_{name}() -> None:\n    assert {name}(2) == {n * 37}\n\n" for n, name in enumerate(PROSE))
    steps = "\n".join(f"{n}. {sentence}" for n, sentence in enumerate(PROSE["en"].split(". "), start=1))
    assert max(map(repetition, (table, code, steps))) < 0.5


def test_chinese_phrases_count_at_half_the_length() -> None:
    assert repetition("".join(f"{mark}我对此感到非常抱歉但是无能为力" for mark in "甲乙丙丁戊己庚辛壬癸")) > 0.7
    assert repetition("".join(f"{mark} sorry I cannot. " for mark in "abcdefghij")) < 0.1


def test_it_is_the_share_that_came_before() -> None:
    assert repetition(PROSE["en"] + PROSE["en"]) == pytest.approx(0.5, abs=0.02)
    assert repetition(PROSE["en"] + PROSE["el"]) < 0.05


@pytest.mark.parametrize("text", ["", " ", "ha ha ha ha", "1000000000000", "\n" * 500])
def test_short_and_blank_texts_have_none(text: str) -> None:
    assert repetition(text) == 0


def test_characters_are_code_points() -> None:
    assert measure("e\u0301\U0001f602日")["num_chars"] == 4


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.integers(1, 40))
def test_any_text_has_a_repetition_between_0_and_1(text: str, times: int) -> None:
    assert 0 <= repetition(text * times) <= 1


def test_languages_of_texts(detect: Detect) -> None:
    texts = [("What is dew made of?", "en"), ("123", "ar"), ("ti einai i drosia?", "el")]
    assert measure_languages(texts, detect) == [
        {"detected_language": "en", "language_score": 0.9, "script_share": 1.0},
        {"detected_language": None, "language_score": 0.0, "script_share": None},
        {"detected_language": "en", "language_score": 0.9, "script_share": 0.0},
    ]
    nothing = {"detected_language": None, "language_score": None, "script_share": None}
    assert measure_languages([("What is dew made of?", "en")], None) == [nothing]


def test_is_fast_enough() -> None:
    texts = [PROSE[language] * 3 for language in PROSE] * 20
    # 50,000 texts a minute are 1.2 ms each, a hundredth of a unit or so; it takes about a tenth of that.
    assert takes_at_most(0.012 * len(texts), lambda: [repetition(text) for text in texts])
