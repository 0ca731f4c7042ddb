import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.texts.fidelity import find_loss, find_missing_translation, find_wrong_script, parse_numbers
from factory.texts.wrappers import strip_wrappers


@pytest.mark.parametrize(
    ("source", "translation"),
    [
        ("It costs 1,234.56 dollars", "Es kostet 1.234,56 Dollar"),
        ("12,345 people", "12 345 personnes"),
        ("12,345 people", "12\u202f345 personnes"),
        ("in 1999 and 2024", "في ١٩٩٩ و٢٠٢٤"),
        ("in 1999", "۱۹۹۹ میں"),
        ("3.5 kg", "३.५ किलो"),
        ("100,000 rupees", "1,00,000 रुपये"),
        ("9:30 on 2024-01-05", "2024年01月05日9点30分"),
        ("one hundred", "100"),
        ("pages 100, 200", "pages 100 200"),
        ("Use <b>this</b> now", "<b>Dies</b> jetzt verwenden"),
        ('See <a href="x" title="the page">it</a>', '<a title="die Seite" href="x">Dies</a> ansehen'),
        ("{a} before {b}", "{b} nach {a}"),
        ("see [docs](http://a.b)", "siehe [Doku](http://a.b)"),
        ("```py\n  x = 1\n```", "```python\nx = 1\n```\n"),
        ("Why is max(alpha, beta) three?", "为什么max（alpha，beta）是三？"),
        ('Call greet("you", n); then stop.', "Appelez greet(« you », n) ; puis arrêtez."),
        ("Set my_count and your_count to one", "Setze your_count und my_count auf eins"),
        ("The student(s) and/or (re)view it :-D", "Die Studierenden und Prüfer(innen) :-D"),
        ("Happiness = health + love, A -> B", "Glück = Gesundheit + Liebe, A -> B"),
    ],
)
def test_what_is_kept_in_another_form_is_no_loss(source: str, translation: str) -> None:
    assert find_loss(source, translation) is None


@pytest.mark.parametrize(
    ("source", "translation", "lost"),
    [
        ("3.5 kg", "35 kg", "number '3.5'"),
        ("7 of 7", "alle 7", "number '7'"),
        ("see https://a.b/c", "siehe https://a.b/d", "URL 'https://a.b/c'"),
        ("see [docs](http://a.b)", "siehe [Doku](http://a.c)", "URL 'http://a.b'"),
        ("mail a@b.co", "Post an a@b.com", "mail address 'a@b.co'"),
        ("run `ls -l`", "führe `ls` aus", "code '`ls -l`'"),
        ("```\nx = 1\n```", "```\nx = 2\n```", "code block 'x = 1'"),
        ("Hi {name}", "Hallo {Name}", "placeholder '{name}'"),
        ("%s files", "Dateien", "placeholder '%s'"),
        ("<b>x</b>", "<b>x", "tag '</b>'"),
        ("<NAME> says", "<Name> sagt", "tag '<NAME>'"),
        ("$x^2$ is", "x ist", "formula '$x^2$'"),
        ("Why (let ((x 5)) (show x)) fails", "Warum (sei ((x 5)) (zeige x)) fehlschlägt", "code"),
        ("use max(alpha, beta) here", "nimm max(alpha, gamma) hier", "code 'max(alpha, beta)'"),
        ("add ORDER BY price DESC LIMIT 20", "füge ORDER BY Preis DESC LIMIT 20 an", "code 'ORDER BY price DESC LIMIT"),
        ("map :: (a -> b) -> [a]", "map :: (c -> b) -> [c]", "code"),
        ("how to burn C6H12O6", "wie man C6H12 verbrennt", "code 'C6H12O6'"),
    ],
)
def test_what_is_lost_is_named(source: str, translation: str, lost: str) -> None:
    assert lost in (find_loss(source, translation) or "")


def test_a_long_list_of_losses_is_cut_short() -> None:
    assert "and 3 more" in (find_loss("1 a 2 a 3 a 4 a 5 a 6 a 7 a 8", "") or "")


@settings(max_examples=200, deadline=None)
@given(st.text(), st.integers(0, 10**9))
def test_a_text_loses_nothing_against_itself_and_a_number_is_missed(text: str, number: int) -> None:
    assert find_loss(text, text) is None
    assert f"{number}" in "".join(parse_numbers(f"a {number:,} b"))


@pytest.mark.parametrize(
    ("source", "translation", "languages", "is_missing"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", ("en", "de"), True),
        ("The cat  sat down there.", " The cat sat down there.", ("en", "ar"), True),
        ("今天的天气非常好我们去公园", "今天的天气非常好我们去公园", ("zh", "en"), True),
        ("हम आज पार्क जाएँगे", "हम आज पार्क जाएँगे", ("hi", "en"), True),
        (
            "Angela Merkel, Barack Obama, Emmanuel Macron",
            "Angela Merkel, Barack Obama, Emmanuel Macron",
            ("en", "de"),
            False,
        ),
        ("Restaurant", "Restaurant", ("en", "fr"), False),
        ("`cd the old folder` 123", "`cd the old folder` 123", ("en", "fr"), False),
        ("北京大学", "北京大学", ("zh", "ja"), False),
        ("今天的天气非常好我们去公园", "今天的天气非常好我们去公园", ("zh", "zh-Hant"), True),
        ("後來呢？", "後來呢？", ("zh-Hant", "zh"), True),
        ("你好，世界！", "你好，世界！", ("zh", "zh-Hant"), False),
        ("good morning", "good morning", ("en", "ru"), True),
        ("kubernetes", "kubernetes", ("en", "ru"), False),
        ("Angela Merkel", "Angela Merkel", ("en", "ar"), False),
        ("你好世界", "你好世界", ("zh", "en"), True),
        ("ありがとう", "ありがとう", ("ja", "zh"), True),
        ("السلام عليكم", "السلام عليكم", ("ar", "fr"), True),
        ("`git rebase` 5 km", "`git rebase` 5 km", ("en", "he"), False),
        ("the cat sat", "die <unk> saß", ("en", "de"), True),
        ("the cat sat", "die K\ufffdtze saß", ("en", "de"), True),
        ("what is <unk> for?", "wozu dient <unk>?", ("en", "de"), False),
    ],
)
def test_missing_translations(source: str, translation: str, languages: tuple[str, str], is_missing: bool) -> None:
    assert (find_missing_translation(source, translation, *languages) is not None) == is_missing


@pytest.mark.parametrize(
    ("source", "translation", "languages", "is_wrong"),
    [
        ("The weather is beautiful today.", "Aaj mausam bahut achha hai.", ("en", "hi"), True),
        ("The weather is beautiful today.", "आज मौसम बहुत अच्छा है।", ("en", "hi"), False),
        ("Run pip install numpy and pandas now.", "Run pip install numpy and pandas करो।", ("en", "hi"), False),
        ("The weather is fine.", "今天這裡天氣很好。", ("en", "zh"), True),
        ("今天天气很好。", "今天天氣很好。", ("zh", "zh-Hant"), False),
        ("这个问题我们说过。", "这个问题我們说过。", ("zh", "zh-Hant"), True),
        ("Hello", "5", ("en", "ar"), False),
    ],
)
def test_translations_in_a_wrong_script(
    source: str, translation: str, languages: tuple[str, str], is_wrong: bool
) -> None:
    assert (find_wrong_script(source, translation, *languages) is not None) == is_wrong


def test_a_translation_may_quote_another_language() -> None:
    source = "Auf Englisch sagt man dazu, dass man gern eine Tasse Kaffee hätte."
    for translation, is_wrong in (
        ("По-английски: I would like a cup of coffee, please, и всё.", False),
        ("По-английски: ya hotel by chashechku kofe, pozhaluysta, и всё.", True),
    ):
        assert (find_wrong_script(source, translation, "de", "ru") is not None) == is_wrong


@pytest.mark.parametrize(
    ("reply", "source", "expected"),
    [
        (" Guten Tag.\n", "Good day.", "Guten Tag."),
        ("Translation: Guten Tag.", "Good day.", "Guten Tag."),
        ("Here is the translation:\n\nGuten Tag.", "Good day.", "Guten Tag."),
        ("Sure! Here's the German translation of the text:\nGuten Tag.", "Good day.", "Guten Tag."),
        ("**Übersetzung:** Guten Tag.", "Good day.", "Guten Tag."),
        ("翻译：你好", "Hello", "你好"),
        ("الترجمة: مرحبا", "Hello", "مرحبا"),
        ("```\nGuten Tag.\n```", "Good day.", "Guten Tag."),
        ("<text>\nGuten Tag.\n</text>", "Good day.", "Guten Tag."),
        ('"Guten Tag."', "Good day.", "Guten Tag."),
        ("「こんにちは」", "Hello", "こんにちは"),
        ("„Ja“", '"Yes"', "„Ja“"),
        ('"Ja" und "nein"', '"Yes" and "no"', '"Ja" und "nein"'),
        ('"Ja" und "nein"', "Yes and no", '"Ja" und "nein"'),
        ("Übersetzung: ein Handwerk", "Translation: a craft", "Übersetzung: ein Handwerk"),
        ("```\nx\n```", "```\nx\n```", "```\nx\n```"),
        ("Hier ist der Plan: los.", "Here is the plan: go.", "Hier ist der Plan: los."),
        ("", "Hello", ""),
    ],
)
def test_wrappers_are_stripped_unless_the_source_has_them(reply: str, source: str, expected: str) -> None:
    assert strip_wrappers(reply, source) == expected
