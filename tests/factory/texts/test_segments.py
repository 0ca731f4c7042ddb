import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.texts.fidelity import find_loss
from factory.texts.markup import split_protected
from factory.texts.segments import fill_skeleton, make_skeleton
from factory.texts.sentences import MAX_CHARS, split_sentences
from tests.pace import takes_at_most

LANGUAGES = st.sampled_from(["en", "zh", "ar", "hi", "el", "ja", "he", "ko"])
# Text that is rich in what markup is made of.
_BITS = (
    "``` ```py\n ` $ $$ \\( \\) { } {{ }} <b> </b> < [ ]( http://a.b/c_(d) a@b.co %s %(x)s ** __ | -~ 1.~ >~ #~ .~ ;~ 。 ？ ؟~ "
    "। word Two~words 你好 مرحبا नमस्ते e\u0301 3.5 １２ ٣٤ \u200f \ufeff \0 ~ ~~"
)
_CODE = [
    "x = [1]",
    '{"a": 1}',
    "SELECT a FROM t;",
    "def f(x):",
    "    return x",
    "a_b",
    "C:\\a\\b",
    "/etc/a",
    "git push",
    "x^2 = 4",
    "a,b",
    "f(1);",
    "}",
]
BITS = st.sampled_from([*(bit.replace("~", " ") for bit in _BITS.split(" ")), *_CODE, "\n", "\r\n", "\t", "\u2028"])
TEXTS = st.one_of(st.text(max_size=60), st.lists(BITS, max_size=25).map("".join))


def segments(text: str, source: str = "en", target: str = "de") -> list[str]:
    return [part.text for part in make_skeleton(text, source, target) if part.is_segment]


def translate(text: str, source: str, target: str, how: dict[str, str]) -> str:
    skeleton = make_skeleton(text, source, target)
    return fill_skeleton(skeleton, [how[part.text] for part in skeleton if part.is_segment])


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("One. Two! Three? Four", "en", ["One. ", "Two! ", "Three? ", "Four"]),
        ("Dr. Smith met Mr. J. R. Jones, e.g. here.", "en", ["Dr. Smith met Mr. J. R. Jones, e.g. here."]),
        ("It is 3.5 m long. See fig. 2 and p. 7.", "en", ["It is 3.5 m long. ", "See fig. 2 and p. 7."]),
        ('He said "Stop!" and left. (Yes.) Done.', "en", ['He said "Stop!" and left. ', "(Yes.) ", "Done."]),
        (
            "Wait... what? Apples, pears, etc. Then rest.",
            "en",
            ["Wait... what? ", "Apples, pears, etc. ", "Then rest."],
        ),
        ("Am 3. Oktober, z. B. in Bonn. Schluss.", "de", ["Am 3. Oktober, z. B. in Bonn. ", "Schluss."]),
        ("你好！真的吗？“是的。”他说。", "zh", ["你好！", "真的吗？", "“是的。”", "他说。"]),
        ("ほんと!?そう。うん", "ja", ["ほんと!?", "そう。", "うん"]),
        ("هل هذا صحيح؟ نعم. انتهى", "ar", ["هل هذا صحيح؟ ", "نعم. ", "انتهى"]),
        ("यह क्या है? यह घर है। ठीक॥ हाँ", "hi", ["यह क्या है? ", "यह घर है। ", "ठीक॥ ", "हाँ"]),
        ("Τι είναι; Είναι σπίτι.", "el", ["Τι είναι; ", "Είναι σπίτι."]),
        ("One; two", "en", ["One; two"]),
        ("물이 있다. 끝났다.", "ko", ["물이 있다. ", "끝났다."]),
        ("We met on Jan. 5. It rained.", "en", ["We met on Jan. 5. ", "It rained."]),
        ("1. Open it. 2. Close it.", "en", ["1. Open it. ", "2. Close it."]),
        ("« Oui ! » dit-il. Vraiment ? Non.", "fr", ["« Oui ! » dit-il. ", "Vraiment ? ", "Non."]),
        ("Βλ. σελ. 12. Ναι!", "el", ["Βλ. σελ. 12. ", "Ναι!"]),
        (
            "「はい！」と彼は言った。「いいえ。」次に進む。",
            "ja",
            ["「はい！」と彼は言った。", "「いいえ。」", "次に進む。"],
        ),
    ],
)
def test_sentences(text: str, language: str, expected: list[str]) -> None:
    assert split_sentences(text, language) == expected


def test_long_sentences_are_cut_after_clauses_words_or_whole_letters() -> None:
    clauses = "this is a clause of some words, " * 40
    words = "wort " * 300
    letters = "e\u0301" * 600
    for text in (clauses, words, letters):
        parts = split_sentences(text, "en")
        assert "".join(parts) == text
        assert len(parts) > 1
        assert all(len(part.rstrip()) <= MAX_CHARS[True] for part in parts)
    assert all(part.endswith(", ") for part in split_sentences(clauses, "en"))
    assert all(part.startswith("e") for part in split_sentences(letters, "en"))
    assert all(len(part) <= MAX_CHARS[False] for part in split_sentences("很长的句子，" * 100, "zh"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("```py\nprint('Hello. World')\n```", "code_block"),
        ("```\nnever closed", "code_block"),
        ("~~~\ncode\n~~~", "code_block"),
        ("`foo bar`", "code"),
        ("$$x^2 = 4$$", "formula"),
        ("\\(a+b\\)", "formula"),
        ("$a_1 + b$", "formula"),
        ("https://de.wikipedia.org/wiki/Foo_(bar)?q=1&r=2#top", "url"),
        ("www.example.org/a", "url"),
        ("first.last@mail.example.org", "mail"),
        ("<b>", "tag"),
        ("<PLACEHOLDER>", "tag"),
        ("{name}", "placeholder"),
        ("{{ user.name }}", "placeholder"),
        ("{0:.2f}", "placeholder"),
        ("%s", "placeholder"),
        ("%(count)d", "placeholder"),
        ("${HOME}", "placeholder"),
        ("$VAR_NAME", "placeholder"),
        ("![alt text](a.png)", "image"),
    ],
)
def test_protected_spans_are_found_between_words_of_any_script(text: str, kind: str) -> None:
    for before, after in [("", ""), ("Look at ", " please. More"), ("请看", "，谢谢"), ("انظر ", " هنا")]:
        if kind == "code_block":
            before, after = f"{before}\n", "" if "never" in text else f"\n{after}"
        spans = [span for span in split_protected(before + text + after) if span.kind]
        assert [(span.text.strip(), span.kind) for span in spans] == [(text, kind)]


@pytest.mark.parametrize(
    "text",
    ["It costs $5 and $6.", "100% sure, 50%d", "a < b and c > d", "{1, 2, 3}", "5 * 3 * 2", "I said: a/b", "$5/$6"],
)
def test_ordinary_text_is_not_protected(text: str) -> None:
    assert [span.text for span in split_protected(text) if span.kind] == []


def test_lines_lists_tables_and_code_stay_in_place() -> None:
    text = (
        "# Title here\n\n  - **Note:** see `x.py` first.\n  1) Go to https://a.b/c, then stop.\n> Quoted text\n\n"
        "| Left cell | 12 |\n|---|---|\n```py\nx = 1  # stay\n```\nLast line"
    )
    expected = ["Title here", "Note:", "see", "first.", "Go to", "then stop.", "Quoted text", "Left cell", "Last line"]
    assert segments(text) == expected
    shouted = translate(text, "en", "de", {segment: segment.upper() for segment in expected})
    assert shouted == (
        "# TITLE HERE\n\n  - **NOTE:** SEE `x.py` FIRST.\n  1) GO TO https://a.b/c, THEN STOP.\n> QUOTED TEXT\n\n"
        "| LEFT CELL | 12 |\n|---|---|\n```py\nx = 1  # stay\n```\nLAST LINE"
    )


@pytest.mark.parametrize(
    "text", ["", " \n", "12 + 30 = ?", "`code`", "https://a.b", "x", "```\na b c\n```", "{a} {b}", "-- * --"]
)
def test_what_says_nothing_is_not_sent(text: str) -> None:
    assert segments(text) == []


def test_spaces_follow_the_writing_of_the_language() -> None:
    assert translate("One. Two.", "en", "zh", {"One.": "一。", "Two.": "二。"}) == "一。二。"
    chinese = "好。用`foo`函数（见https://a.b）。"
    how = {"好。": "Good.", "用": "Use", "函数（见": "function (see", "）。": ")."}
    assert translate(chinese, "zh", "en", how) == "Good. Use `foo` function (see https://a.b）。"
    assert translate("好。\n行。", "zh", "ja", {"好。": "はい。", "行。": "うん。"}) == "はい。\nうん。"


@settings(max_examples=400, deadline=None)
@given(TEXTS, LANGUAGES, LANGUAGES)
def test_a_skeleton_is_the_text(text: str, source: str, target: str) -> None:
    assert "".join(span.text for span in split_protected(text)) == text
    assert "".join(split_sentences(text, source)) == text
    skeleton = make_skeleton(text, source, target)
    joined = "".join(part.text for part in skeleton)
    assert joined.replace(" ", "") == text.replace(" ", "")
    assert all(part.text.strip() == part.text != "" for part in skeleton if part.is_segment)
    if target == source:
        assert joined == text


@settings(max_examples=300, deadline=None)
@given(TEXTS, LANGUAGES, LANGUAGES)
def test_translations_change_nothing_but_segments(text: str, source: str, target: str) -> None:
    skeleton = make_skeleton(text, source, target)
    segments = [part.text for part in skeleton if part.is_segment]
    assert fill_skeleton(skeleton, segments).replace(" ", "") == text.replace(" ", "")
    filled = fill_skeleton(skeleton, [" \n# "] * len(segments))
    assert filled == "".join("#" if part.is_segment else part.text for part in skeleton)


@pytest.mark.parametrize(
    "bit",
    [
        "!",
        ". ",
        "`",
        "` ",
        "```a ",
        "$ ",
        "\\(",
        "[",
        "![",
        "<a ",
        "{{",
        "**a",
        "1,",
        "1 ",
        "好",
        "a.",
        "|a",
        "http://(",
        '{"',
        '["a",',
        "a_",
        "x = ",
        "/a",
        "\\a",
        "[a]",
        "SELECT a from ",
        "git -a ",
        "a(",
        "a,b\n",
        "{\n",
        "a!=b ",
        "a_b && ",
        "{ a; ",
        "a_b(",
        "const a = ",
    ],
)
def test_odd_texts_take_no_quadratic_time(bit: str) -> None:
    text = bit * (20_000 // len(bit))
    assert "".join(part.text for part in make_skeleton(text, "en", "de")) == text
    assert takes_at_most(20, lambda: (make_skeleton(text, "en", "de"), find_loss(text, text)))
