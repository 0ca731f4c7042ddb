import random
import tracemalloc
import unicodedata

import pytest

from factory.stages.duplicates import NearDuplicates, _choose_band

_ENGLISH = "the old harbour town wakes early when fishing boats return with their catch and gulls cry above the roofs"
CHINESE = "古老的海港小镇清晨醒来渔船满载而归海鸥在屋顶上空鸣叫街上渐渐热闹起来人们开始新的一天的工作和生活孩子们背着书包去上学"
_ARABIC = (
    "تستيقظ بلدة الميناء القديمة مبكرا عندما تعود قوارب الصيد بحصيلتها وتصرخ النوارس فوق الأسطح وتمتلئ الشوارع بالناس"
)
ENGLISH, ARABIC = _ENGLISH.split(), _ARABIC.split()


def shingles(text: str, size: int) -> set[str]:
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return {text[at : at + size] for at in range(len(text) - size + 1)}


def similarity(a: str, b: str, size: int) -> float:
    first, second = shingles(a, size), shingles(b, size)
    return len(first & second) / len(first | second)


def find(index: NearDuplicates, *texts: str, language: str = "en", group: str = "") -> list[str | None]:
    ids = [f"{language}{group}{text}" for text in texts]
    found = index.add(ids, texts, [language] * len(texts), [group] * len(texts))
    return [None if match is None else match[0] for match in found]


@pytest.mark.parametrize(("language", "size"), [("en", 5), ("ar", 5), ("zh", 3)])
def test_finds_what_the_exact_similarity_finds(language: str, size: int) -> None:
    draw = random.Random(3)
    words, joint = {"en": (ENGLISH, " "), "ar": (ARABIC, " "), "zh": (list(CHINESE), "")}[language]
    mistakes = clear = 0
    for _ in range(150):
        base = [draw.choice(words) for _ in range(60)]
        other = list(base)
        for _ in range(draw.randrange(6)):
            other[draw.randrange(60)] = draw.choice(words)
        exact = similarity(joint.join(base), joint.join(other), size)
        if abs(exact - 0.8) < 0.1:  # three standard errors of the estimate
            continue
        clear += 1
        found = find(NearDuplicates(0.8), joint.join(base), joint.join(other), language=language)
        mistakes += (found[1] is not None) != (exact >= 0.8)
    assert clear > 40
    assert mistakes == 0


def test_case_spacing_and_width_do_not_matter() -> None:
    text = " ".join(ENGLISH)
    assert find(NearDuplicates(0.99), text, text.upper().replace(" ", " \n "))[1] == f"en{text}"
    assert find(NearDuplicates(0.99), "ＡＢＣ１２３ def", "abc123 DEF")[1] is not None


def test_short_texts_that_differ_are_kept() -> None:
    assert find(NearDuplicates(0.9), "What is 2+2?", "What is 2+3?", "2+2", "2", "?", "!") == [None] * 6


def test_languages_and_groups_are_kept_apart() -> None:
    index, text = NearDuplicates(0.9), " ".join(ENGLISH)
    assert find(index, text) == [None]
    assert find(index, text, language="de") == [None]
    assert find(index, text, group="system") == [None]
    assert find(index, text + "!") == [f"en{text}"]


def test_a_dropped_text_is_no_measure_for_later_ones() -> None:
    base = [f"word{number}" for number in range(100)]
    steps = [" ".join([*base[: 100 - moved], *(f"new{number}" for number in range(moved))]) for moved in (0, 6, 12, 18)]
    assert similarity(steps[0], steps[1], 5) > 0.85 > 0.8 > similarity(steps[0], steps[2], 5)
    # The third is close to the second, which was dropped, but not to the first: it stays.
    assert [match is None for match in find(NearDuplicates(0.82), *steps[:3])] == [True, False, True]


@pytest.mark.parametrize("step", [1, 7, 60])
def test_the_result_does_not_depend_on_the_batches(step: int) -> None:
    draw = random.Random(5)
    texts = [" ".join(draw.choice(ENGLISH) for _ in range(30)) for _ in range(40)]
    texts += [f"{text} {draw.choice(ENGLISH)}" for text in texts[:20]]
    whole = find(NearDuplicates(0.8), *texts)
    index = NearDuplicates(0.8)
    parts = [match for at in range(0, len(texts), step) for match in find(index, *texts[at : at + step])]
    assert parts == whole
    assert any(match is not None for match in whole)


def test_memory_does_not_grow_with_the_index() -> None:
    index = NearDuplicates(0.9)
    texts = [f"{number:06d} {number * 7919 % 100_003:06d} {number * 104_729 % 99_991:06d}" for number in range(3000)]
    assert find(index, *texts[:1000]) == [None] * 1000
    tracemalloc.start()
    for begin in range(1000, 3000, 100):
        assert find(index, *texts[begin : begin + 100]) == [None] * 100
    growth, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert growth < 50_000  # a signature alone has 256 bytes
    assert find(index, texts[3], texts[2400]) == [f"en{texts[3]}", f"en{texts[2400]}"]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows = _choose_band(threshold)
    assert 128 % rows == 0
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.99
