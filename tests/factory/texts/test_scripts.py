"""Scripts of texts: sentences of every language, alone, among what belongs into them, and against other scripts."""

import json
import tomllib
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.microworld import questions as world
from factory.texts import scripts
from factory.texts.markup import read_prose, split_protected
from factory.texts.scripts import measure_script
from schemas.languages import CORE_LANGUAGES, LANGUAGES, MIN_SCRIPT_SHARE

_LEXICON = tomllib.loads((Path(world.__file__).parent / "lexicon.toml").read_text(encoding="utf-8"))

RIGHT = {language: " ".join(_LEXICON[language]["fillers"]) for language in CORE_LANGUAGES} | {
    "zh-Hant": "關於這個有趣的問題，還有很多話可以說。我還想補充一點，詞語是非常美好的東西。"
}

ROMANISED = {
    "ar": "Marhaban, kayfa haluka alyawm? Atamanna an takuna bikhayr wa an yakuna yawmuka jamilan.",
    "el": "Kalimera, ti kaneis simera? Elpizo na eisai kala kai na exeis mia omorfi mera.",
    "fa": "Salam, hale shoma chetor ast? Emrooz hava kheili khub ast va ma be bagh miravim.",
    "he": "Shalom, ma shlomcha hayom? Mezeg haavir yafe veanachnu nelech lagina.",
    "hi": "Namaste, aap kaise hain? Mujhe aaj mausam bahut achha lag raha hai aur hum bahar jayenge.",
    "ja": "Konnichiwa, kyou wa tenki ga ii node, gogo wa niwa ni ikimasu.",
    "ko": "Annyeonghaseyo, oneul nalssiga joaseo ohue jeongwone gal geosimnida.",
    "ru": "Segodnya prekrasnaya pogoda, i posle obeda my poydyom v sad.",
    "uk": "Sohodni harna pohoda, i pislia obidu my pidemo v sad.",
    "zh": "Jīntiān tiānqì hěn hǎo, xiàwǔ wǒmen yào qù huāyuán.",
    "zh-Hant": "Jīntiān tiānqì hěn hǎo, xiàwǔ wǒmen yào qù huāyuán.",
}

OTHER_SCRIPTS = {
    "Latn": "it was agreed to wait for the report of the engineer and to talk about it in the spring",
    "Cyrl": "было решено подождать отчёта инженера и вернуться к этому разговору весной",
    "Grek": "αποφασίστηκε να περιμένουν την έκθεση του μηχανικού και να το ξανασυζητήσουν",
    "Arab": "تم الاتفاق على انتظار تقرير المهندس والحديث عن الأمر مرة أخرى في الربيع",
    "Hebr": "הוחלט להמתין לדוח של המהנדס ולחזור לנושא הזה פעם נוספת באביב",
    "Deva": "इंजीनियर की रिपोर्ट की प्रतीक्षा करने और वसंत में फिर बात करने का निर्णय लिया गया",
    "Hang": "결국 기술자의 보고서를 기다렸다가 봄에 다시 이야기하기로 했다",
    "Hani": "最后大家同意等待工程师的报告到春天再讨论这件事情",
    "Kana": "しらせをまってはるにもういちどはなしあうことになった",
}

INSERTED = st.sampled_from(
    [
        "\n```python\nfor row in rows:\n    print(row, sep='\\t', end=the_end)\n```\n",
        "`docker compose build --no-cache`",
        "https://example.org/a/long/path?with=many&words=in+it",
        "www.example.com/the/other/page",
        "some.body+else@mail.example.org",
        "$\\frac{a}{b} = \\sqrt{some^2 + other^2}$",
        "\\(x \\in \\mathbb{R}\\)",
        "3.14159",
        "۱۲۳",
        "१२३",
        "42 km",
        "{placeholder_name}",
        "<strong>",
        "&nbsp;",
    ]
)
NAMES = st.sampled_from(
    [
        "Albert Einstein",
        "UNESCO",
        "GPT-4o",
        "iPhone",
        "numpy",
        "git clone",
        "“open source”",
        "(machine learning)",
        "Zürich",
    ]
)


def is_right(text: str, language: str) -> bool:
    share = measure_script(text, language)
    return share is not None and share >= MIN_SCRIPT_SHARE


def count_letters(text: str) -> int:
    return sum(map(str.isalpha, text)) * (2 if max(text) >= "\u3040" else 1)


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_of_the_language_is_in_its_script(language: str) -> None:
    assert measure_script(RIGHT[language], language) == 1
    assert measure_script(unicodedata.normalize("NFD", RIGHT[language]), language) == 1


@pytest.mark.parametrize("language", ROMANISED)
def test_romanised_text_is_not(language: str) -> None:
    for text in (ROMANISED[language], ROMANISED[language].upper(), unicodedata.normalize("NFD", ROMANISED[language])):
        assert measure_script(text, language) == 0
    assert measure_script(ROMANISED[language], "en") == 1


@pytest.mark.parametrize(
    ("language", "text", "share"),
    [
        ("zh", RIGHT["zh-Hant"], 0),
        ("zh-Hant", RIGHT["zh"], 0),
        ("zh", "這個软件很好用，帮助学习", pytest.approx(4 / 6)),
        ("zh-Hant", "后里台干只于面", 1),  # both write these
        ("zh", "你好", None),
        ("zh", "你好嗎？", 0),
        ("zh-Hant", "你好嗎？", 1),
        ("zh", "《後漢書》", None),
        ("zh-Hant", "後來他說：「这个软件很好用」，大家都覺得奇怪。", 1),  # a quotation
        ("ja", "東京大学で学生と会う。", 1),
        ("ja", "东京大学的学生们", 1),  # only language identification tells Chinese from Japanese
        ("ko", "대한민국(大韓民國)의 수도는 서울이다.", 1),
        ("ko", "今天天气很好，下午我们要去花园。", 0),
        ("hi", "مجھے سمندر کے بارے میں ایک کہانی سناؤ", 0),
        ("en", "The word “спасибо” and the letters α, β are known.", 1),
        ("ru", "Для этого используйте pandas, numpy и scikit-learn.", pytest.approx(1, abs=0.1)),
        ("ar", "```\nonly code in here, and a lot of it\n```", None),
        ("ar", "Albert Einstein", None),
        ("fa", "", None),
        ("he", "42 + 17 = 59", None),
        ("vi", unicodedata.normalize("NFD", "Thời tiết hôm nay rất đẹp và chúng tôi sẽ ra vườn."), 1),
        ("ar", "الطَّقْسُ جَمِيلٌ اليَوْمَ", 1),
    ],
)
def test_shares(language: str, text: str, share: object) -> None:
    assert measure_script(text, language) == share


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_right_text_may_hold_code_links_numbers_and_names(language: str, data: st.DataObject) -> None:
    parts = [RIGHT[language]] * data.draw(st.integers(2, 3))
    inserted = data.draw(st.lists(INSERTED, max_size=12))
    names = data.draw(st.lists(NAMES, max_size=4))
    text = " ".join(data.draw(st.permutations(parts + inserted + names)))
    assert is_right(text, language), text


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_text_mostly_in_another_script_fails(language: str, data: st.DataObject) -> None:
    own = set(LANGUAGES[language].scripts)
    script = data.draw(
        st.sampled_from(
            [name for name in OTHER_SCRIPTS if name not in own and not (name == "Kana" and language == "ja")]
        )
    )
    other = OTHER_SCRIPTS[script]
    right = RIGHT[language][: data.draw(st.integers(0, len(other)))]
    times = 1
    # A clause may introduce a foreign sentence in Latin letters that is longer than itself.
    weight = 14 if script == "Latn" else 1.2
    while count_letters(other) * times <= weight * count_letters(right or "a"):
        times += 1
    parts = [right, *[other] * times]
    inserted = data.draw(st.lists(INSERTED, max_size=4))
    text = "\n".join(data.draw(st.permutations(parts + inserted)))
    assert not is_right(text, language), text


BOTH_CHINESE = {"zh": "这个问题还说了很多话", "zh-Hant": "這個問題還說了很多話"}
"""The same sentence, in which seven characters differ."""


@pytest.mark.parametrize(("language", "other"), [("zh", "zh-Hant"), ("zh-Hant", "zh")])
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_chinese_that_has_most_of_its_own_characters_decides(
    language: str, other: str, data: st.DataObject
) -> None:
    num_right, num_other = data.draw(
        st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(lambda pair: pair[0] != pair[1])
    )
    parts = data.draw(st.permutations([BOTH_CHINESE[language]] * num_right + [BOTH_CHINESE[other]] * num_other))
    assert is_right("".join(parts), language) == (num_right > num_other)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.sampled_from(sorted(LANGUAGES)))
def test_any_text_has_a_share_or_none(text: str, language: str) -> None:
    share = measure_script(text, language)
    assert share is None or 0 <= share <= 1


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("hi", "Microsoft Azure, Amazon Web Services और Google Cloud Platform तीन बड़ी कंपनियाँ हैं।"),
        ("el", 'Το "The Lord of the Rings: The Fellowship of the Ring" είναι ταινία.'),
        ("ja", "はい。iPhone 15 Pro Max, Samsung Galaxy S24 Ultra, Google Pixel 8 Pro"),
        ("zh-Hant", "我在北京買了一本《现代汉语词典》。"),
        ("zh", "我想读《紅樓夢與國學講義》这本书。"),
        ("ru", "Лучшие группы: The Beatles, The Rolling Stones, Pink Floyd, Led Zeppelin, Queen."),
        ("he", "הטלפונים הם iPhone 15 Pro Max, Samsung Galaxy S24 Ultra, Google Pixel 8 Pro."),
    ],
)
def test_a_clause_may_name_and_quote_more_than_it_says(language: str, text: str) -> None:
    assert measure_script(text, language) == 1


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("hi", "(Namaste, aap kaise hain? Main aaj bahut khush hoon.)\nनमस्ते"),
        ("ru", "Ответ:\nPrivet, kak dela? Segodnya ochen khoroshaya pogoda na ulitse."),
        ("ru", "Ответ:\nPRIVET, KAK DELA? SEGODNYA OCHEN KHOROSHAYA POGODA NA ULITSE."),
        ("el", '"Kalimera, ti kaneis simera? Elpizo na eisai kala."'),
        ("el", "KALIMERA TI KANETE SIMERA FILOI MOU ELPIZO NA EISTE KALA"),
    ],
)
def test_a_word_before_romanised_text_makes_it_no_clause(language: str, text: str) -> None:
    assert not is_right(text, language)


def read_samples(name: str) -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / "samples" / name).read_text(encoding="utf-8").splitlines()
    return [(language, text.replace("\\n", "\n")) for language, _, text in (line.partition("\t") for line in lines)]


def is_rejected(language: str, text: str) -> bool:
    share = measure_script(text, language)
    return share is not None and share < MIN_SCRIPT_SHARE


def test_answers_full_of_terms_and_foreign_sentences() -> None:
    """Answers about code, nature and languages, and lists, tables and quotations, written before anyone knew how they score."""
    assert not [text for language, text in read_samples("right_script.tsv") if is_rejected(language, text)]
    rejected = [text for language, text in read_samples("foreign_words.tsv") if is_rejected(language, text)]
    assert [text[:8] for text in rejected] == ["Перевод:"]  # one word, and 16 in English


def test_romanised_answers_of_all_kinds() -> None:
    """Whole and in part, in lists, tables and backticks, in short answers and in chat spellings."""
    samples = read_samples("romanised.tsv")
    assert len(samples) == 64
    assert len([text for language, text in samples if not is_rejected(language, text)]) == 1


@pytest.mark.parametrize(("language", "text"), read_samples("wrong_script.tsv"))
def test_romanised_answers_are_rejected_whatever_they_are_taken_for(language: str, text: str) -> None:
    assert is_rejected(language, text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ja", "CSS のプロパティは margin, padding, border, color, background, display, position です。"),
        ("ja", "Reactを使う場合は、npm install react react-dom typescript eslint prettierを実行してください。"),
        ("ja", "英語では I would like a cup of coffee, please と言います。"),
        ("ru", "Латинские названия: Passer domesticus, Homo sapiens, Canis lupus familiaris."),
        ("he", "התשובה היא C: because the mitochondria is the powerhouse of the cell"),
    ],
)
def test_known_foreign_words_do_not_count(language: str, text: str) -> None:
    assert not is_rejected(language, text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("zh-Hant", "常用的 Linux 指令有 ls, cd, cp, mv, rm 等，这些软件很好用。"),
        ("ru", "Ответ: I would like to book a table for two people tonight."),  # in English
        (
            "ar",
            "Sure! Here are three questions that you may be asked during your interview, with a short note on each:\n"
            "1. ما هو النوع الرئيسي لقناتك؟\n2. لماذا تريد العمل معنا؟\n3. أين ترى نفسك بعد خمس سنوات؟",
        ),
        ("ru", "Хорошо, давай поговорим об этом. 最后大家同意等待工程师的报告到春天再讨论这件事情"),
    ],
)
def test_other_foreign_text_is_not_excused(language: str, text: str) -> None:
    assert is_rejected(language, text)


@pytest.mark.parametrize(
    ("language", "text", "share"),
    [
        ("ru", "`Privet, kak dela? Segodnya ochen khoroshaya pogoda.`", 0),
        ("ru", "`git pull origin main`", None),
        ("ru", "Выполните `npm run build and then npm run serve please`, и всё.", 1),
        ("ru", "Так: `ya ne znayu, chto skazat, i eto ploho, ochen ploho`.", pytest.approx(0.06, abs=0.02)),
    ],
)
def test_sentences_in_backticks_are_no_code(language: str, text: str, share: object) -> None:
    assert measure_script(text, language) == share


@pytest.mark.parametrize("language", ["el", "ja", "hi", "ru", "zh"])
def test_foreign_sentences_are_not_taken_for_romanised_ones(language: str) -> None:
    for sentence in (
        "I know that I have to be there on time, and I hope that so do you, my friend.",
        "Je ne sais pas si elle a pu le dire à tous les gens de la ville.",
        "Ich weiß, dass du das auch gern so hättest, aber ich kann es mir nicht leisten.",
        "No sé si es la mejor forma de hacerlo, pero ya no se me ocurre otra cosa.",
    ):
        assert not scripts.is_romanised(sentence.rstrip(".").replace(",", "").split(), language)


@pytest.mark.parametrize("language", ROMANISED)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_an_answer_in_json_is_judged_by_its_values(language: str, is_ascii: bool) -> None:
    def write(text: str) -> str:
        advice = {"advice_for_students": [text, "utf-8", 18], "is_done": True, "read_more": "https://example.org/a"}
        return json.dumps(advice, ensure_ascii=is_ascii, indent=2)

    assert measure_script(write(RIGHT[language]), language) == 1
    assert measure_script(write(ROMANISED[language]), language) == 0
    assert measure_script(write(ROMANISED[language]).rpartition(",")[0][:-20], language) == 0  # cut off
    assert measure_script(write("utf-8"), language) is None


@pytest.mark.parametrize(("language", "other"), [("zh", "zh-Hant"), ("zh-Hant", "zh")])
def test_json_in_the_other_chinese(language: str, other: str) -> None:
    assert measure_script(json.dumps({"text": RIGHT[other]}, ensure_ascii=False), language) == 0


def test_no_character_is_of_both_chinese() -> None:
    import factory.texts.scripts as module

    characters = tomllib.loads((Path(module.__file__).parent / "chinese_characters.toml").read_text(encoding="utf-8"))
    assert not set(characters["hans"]) & set(characters["hant"])
    assert set("们这说国园气软") <= set(characters["hans"])
    assert set("們這說國園氣軟裡裏") <= set(characters["hant"])
    assert not set("后里台干只于面群着床") & set(characters["hans"] + characters["hant"])


PIECES = st.sampled_from(
    [
        *RIGHT.values(),
        *(text[:9] for text in OTHER_SCRIPTS.values()),
        *(
            "```\n",
            "~~~\n",
            "`",
            "$",
            "{",
            "[",
            '"',
            "x = f(1);\n",
            "1 + 2 = 3",
            "\n",
            " ",
            "ab",
            "é",
            "e\u0301",
            "ᄒ",
            "ᅡ",
            "ᆫ",
        ),
        *("か\u3099", "क\u093c", "\u2126", "\u212b", "\u0301", "<b>", "git commit -m 'a'", "SELECT a FROM b;", "12."),
    ]
)


@pytest.mark.parametrize("language", LANGUAGES)
@settings(max_examples=60, deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=8).map("".join))
def test_plain_texts_have_the_same_share_letter_by_letter(language: str, text: str) -> None:
    expected = measure_script(text, language)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "_judge_plain", lambda *_: None)
        assert measure_script(text, language) == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_normalisation_leaves_letters_in_their_script(language: str) -> None:
    """What is judged before a text is normalised holds for what comes of it."""
    for pattern in scripts._compile_patterns(LANGUAGES[language].scripts):
        for number in range(0x110000):
            parts = unicodedata.normalize("NFD", chr(number))
            if parts != chr(number):
                assert bool(pattern.search(parts)) == bool(pattern.search(chr(number))), hex(number)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=8), max_size=8).map("".join), st.integers(1, 60))
def test_the_beginning_of_the_prose(text: str, num_chars: int) -> None:
    letters = "".join("".join(span.text for span in split_protected(text) if not span.kind).split())
    found = "".join(read_prose(text, num_chars).split())
    assert letters.startswith(found)
    assert found == letters or len(read_prose(text, num_chars)) >= num_chars
