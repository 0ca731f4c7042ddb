"""Code, data, formulas, paths and the like that no fence marks: kept in translation or missed, and no prose for code.

``texts/`` holds what the tests are made of: ``inline.txt`` (kind|span), ``blocks.txt`` (several lines each), ``frames.txt``
(language|sentence with a place for a span|sentence before a block|sentence after it) and ``prose.txt`` (one text a
line, with its escapes). ``unseen.txt`` (language|text in which ⟦ and ⟧ are around the spans) was written before anyone
knew what is found of it, and so was ``blind.txt``, of which every third line was not looked at until all was done.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory.engines.base import Failure, Reply
from factory.stages.translation import assemble, plan_translation
from factory.texts import markup
from factory.texts.fidelity import find_loss
from factory.texts.kinds import KINDS
from factory.texts.markup import split_protected
from factory.texts.segments import fill_skeleton, make_skeleton
from schemas.reasons import Reason
from schemas.recipe.models import Translation

TEXTS = Path(__file__).parent / "samples"


@dataclass(frozen=True, slots=True)
class Mixed:
    """A text with the spans that must survive, and the pieces of prose that must be translated."""

    name: str
    language: str
    text: str
    spans: tuple[str, ...]
    prose: tuple[str, ...]


def read_lines(name: str) -> list[str]:
    return (TEXTS / name).read_text(encoding="utf-8").splitlines()


def make_mixed() -> list[Mixed]:
    frames = [line.split("|") for line in read_lines("frames.txt")]
    mixed = []
    for at, line in enumerate(read_lines("inline.txt")):
        kind, span = line.split("|", 1)
        for language, frame, _, outro in (frames[at % 2], frames[2 + at % (len(frames) - 2)]):
            before, after = frame.split("{}")
            text = f"{before}{span}{after} {outro}"
            mixed.append(Mixed(f"{kind} {span}", language, text, (span,), (before.strip(), outro)))
    for at, block in enumerate(read_blocks()):
        name, body = block
        for number, (language, _, intro, outro) in enumerate((frames[at % 2], frames[2 + at % (len(frames) - 2)])):
            gap = "\n\n" if number else "\n"
            text = f"{intro}{gap}{body}\n\n{outro}"
            spans = tuple(part.strip() for part in body.split("\n") if re.search(r"\w", part))
            mixed.append(Mixed(name, language, text, spans, (intro, outro)))
    return mixed


def read_blocks() -> Iterator[tuple[str, str]]:
    for part in (TEXTS / "blocks.txt").read_text(encoding="utf-8").split("=== ")[1:]:
        name, _, body = part.partition("\n")
        yield name, body.rstrip("\n")


MIXED = make_mixed()
PROSE = [line.encode("latin-1", "backslashreplace").decode("unicode_escape") for line in read_lines("prose.txt")]


def mangle(text: str) -> str:
    """Write every letter and digit as another one, as a translator does with what it should leave alone."""
    return "".join("ж" if char.isalnum() else char for char in text)


def find_lost_by_sentences(mixed: Mixed) -> list[str]:
    skeleton = make_skeleton(mixed.text, mixed.language, "vi" if mixed.language != "vi" else "en")
    segments = [mangle(part.text) for part in skeleton if part.is_segment]
    translation = " ".join(fill_skeleton(skeleton, segments).split())
    return [span for span in mixed.spans if " ".join(span.split()) not in translation]


def find_missed(mixed: Mixed) -> list[str]:
    """Return the spans whose loss is not seen in the translation of a whole text."""
    begin, missed = 0, []
    for span in mixed.spans:
        begin = mixed.text.index(span, begin)
        end = begin + len(span)
        # Numbers are held against each other anyway: letters alone are changed.
        changed = "".join("ж" if char.isalpha() else char for char in span)
        if changed != span and find_loss(mixed.text, mixed.text[:begin] + changed + mixed.text[end:]) is None:
            missed.append(span)
    return missed


def test_there_are_enough_texts() -> None:
    assert len({mixed.text for mixed in MIXED}) >= 200
    assert len({mixed.language for mixed in MIXED}) >= 18
    assert len(set(PROSE)) >= 200


def test_spans_survive_a_translator_by_sentences() -> None:
    lost = [(mixed.name, span) for mixed in MIXED for span in find_lost_by_sentences(mixed)]
    num_spans = sum(len(mixed.spans) for mixed in MIXED)
    assert 1 - len(lost) / num_spans >= 0.97, lost  # 0.974 when this was written


def test_their_loss_in_a_whole_text_is_seen() -> None:
    missed = [(mixed.name, span) for mixed in MIXED for span in find_missed(mixed)]
    num_spans = sum(len(mixed.spans) for mixed in MIXED)
    assert 1 - len(missed) / num_spans >= 0.98, missed  # 0.985 when this was written


def list_frozen(text: str) -> list[str]:
    return [span.text for span in split_protected(text) if span.kind]


@pytest.mark.parametrize("text", PROSE)
def test_no_prose_is_frozen(text: str) -> None:
    assert [span for span in list_frozen(text) if any(map(str.isalpha, span))] == []


def test_the_prose_around_is_translated() -> None:
    frozen = [
        (mixed.name, span)
        for mixed in MIXED
        for span in list_frozen(mixed.text)
        if any(word in span for prose in mixed.prose for word in prose.split() if len(word) > 2)
    ]
    assert frozen == []
    kept = {mixed.text: "".join(span.text for span in split_protected(mixed.text) if not span.kind) for mixed in MIXED}
    assert [mixed.name for mixed in MIXED if not all(prose in kept[mixed.text] for prose in mixed.prose)] == []


UNSEEN = [line.split("|", 1) for line in read_lines("unseen.txt")]
BY_SENTENCE, BY_LLM = Translation(model="a/translator"), Translation(engine="vllm", model="an/llm")


def translate(language: str, text: str, answer: Callable[[str], str], translation: Translation) -> str | Failure:
    """Return a text's translation, every request of which is answered by a function of what it says."""
    row = {
        "messages": [{"role": "user", "content": text}],
        "source_language": language,
        "language": "en" if language == "vi" else "vi",
    }
    plan = plan_translation(row, "row", translation)
    answers = [answer(segment) for segment in plan.segments]
    replies = [
        Reply(request.request_id, text=said, finish_reason="stop")
        for request, said in zip(plan.requests, answers, strict=True)
    ]
    translated = assemble(plan, replies)
    return translated if isinstance(translated, Failure) else translated[0]


def say(text: str) -> str:
    """Write every word as a Vietnamese one, as a translator does which takes all for prose."""
    return re.sub(r"[^\W\d_]+", lambda match: VIETNAMESE[sum(map(ord, match[0])) % len(VIETNAMESE)], text)


def say_well(text: str) -> str:
    """The same, but what a digit makes a name, such as B12 or H2O, stays one."""
    return re.sub(r"\w+", lambda match: match[0] if re.search(r"\d", match[0]) else say(match[0]), text)


VIETNAMESE = [
    "của",
    "và",
    "trong",
    "những",
    "được",
    "không",
    "người",
    "một",
    "có",
    "này",
    "cho",
    "với",
    "từ",
    "đến",
    "khi",
    "làm",
    "nhiều",
    "sau",
    "trên",
    "nước",
]


def list_changed(marked: str, language: str) -> list[str]:
    """Return the spans that a translator by sentences changes without a rejection."""
    translated = translate(language, re.sub("[⟦⟧]", "", marked), say, BY_SENTENCE)
    if isinstance(translated, Failure):
        return []
    found = " ".join(translated.split())
    return [span for span in re.findall("⟦(.*?)⟧", marked) if " ".join(span.split()) not in found]


def list_unseen_losses(marked: str, language: str) -> list[str]:
    """Return the spans whose change by an LLM, which translates all around them well, is not a rejection."""
    parts = re.split("(⟦.*?⟧)", marked)
    missed = []
    for changed in parts[1::2]:
        said = "".join(say(part) if part[:1] != "⟦" or part == changed else part[1:-1] for part in parts)
        outcome = translate(language, re.sub("[⟦⟧]", "", marked), lambda _, said=said: re.sub("[⟦⟧]", "", said), BY_LLM)
        if not (isinstance(outcome, Failure) and outcome.reason == Reason.LOST_CONTENT):
            missed.append(changed)
    return missed


def test_spans_that_nobody_looked_at_are_kept_or_their_loss_is_seen() -> None:
    """When they were first tried, 14 of the 63 were changed in silence by sentences, and 1 by an LLM."""
    num_spans = sum(text.count("⟦") for _, text in UNSEEN)
    assert num_spans >= 60
    changed = [span for language, text in UNSEEN for span in list_changed(text, language)]
    assert len(changed) <= 0.05 * num_spans, changed
    missed = [span for language, text in UNSEEN for span in list_unseen_losses(text, language)]
    assert len(missed) <= 0.05 * num_spans, missed


BLIND = [line.split("|", 1) for line in read_lines("blind.txt")]
HELD_OUT = BLIND[2::3]
SEEN = [text for number, text in enumerate(BLIND) if number % 3 != 2]


@pytest.mark.parametrize(
    ("texts", "num_spans", "most_changed", "most_missed"),
    [(SEEN, 104, 23, 12), (HELD_OUT, 52, 21, 14)],
    ids=["seen", "held out"],
)
def test_spans_in_many_notations(texts: list[list[str]], num_spans: int, most_changed: int, most_missed: int) -> None:
    """The bounds are what was measured; before runs were held against translations, of the seen 59 and 32."""
    assert sum(text.count("⟦") for _, text in texts) == num_spans
    changed = [span for language, text in texts for span in list_changed(text, language)]
    assert len(changed) <= most_changed, changed
    missed = [span for language, text in texts for span in list_unseen_losses(text, language)]
    assert len(missed) <= most_missed, missed


def test_a_good_translation_around_code_is_taken() -> None:
    rejected = []
    for language, marked in BLIND:
        parts = re.split("(⟦.*?⟧)", marked)
        good = "".join(part[1:-1] if part[:1] == "⟦" else say(part) for part in parts)
        outcome = translate(language, re.sub("[⟦⟧]", "", marked), lambda _, good=good: good, BY_LLM)
        if isinstance(outcome, Failure) and outcome.reason == Reason.LOST_CONTENT:
            rejected.append((marked, outcome.detail))
    # "The Makefile has" is prose for this translator and a file's name for the check.
    assert len(rejected) <= 1, rejected


@pytest.mark.parametrize("translation", [BY_SENTENCE, BY_LLM])
def test_good_translations_lose_nothing(translation: Translation) -> None:
    """Every word changed but what is kept, in texts of prose and around spans."""
    rejected = []
    for text in PROSE:
        good = "".join(span.text if span.kind else say_well(span.text) for span in split_protected(text))
        answer = say_well if translation is BY_SENTENCE else lambda _, good=good: good.strip()
        outcome = translate("en", text, answer, translation)
        if isinstance(outcome, Failure) and outcome.reason == Reason.LOST_CONTENT:
            rejected.append((text, outcome.detail))
    assert rejected == []


@pytest.mark.parametrize(
    ("before", "span", "after"),
    [
        ("The header is ", "Content-Type: application/json", " here."),
        ("Send ", "Accept: text/html, application/json", ", and wait."),
        ("It says ", "Content-Type: text/html; charset=utf-8", "."),
        ("Set ", "Cache-Control: no-cache", " for it."),
        ("Read ", "$HOME/.bashrc", " first."),
        ("It lies in ", "$HOME/bin", "."),
        ("In CSS, ", ".btn:hover { color: red; }", " does nothing."),
        ("まず ", "npm install react react-dom typescript", "を実行してください。"),
    ],
)
def test_what_was_found_in_half_is_found_whole(before: str, span: str, after: str) -> None:
    assert [part.text for part in split_protected(before + span + after) if part.kind] == [span]


PIECES = st.sampled_from([text[at : at + 9] for mixed in MIXED for text in mixed.spans for at in range(0, 27, 7)])


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([mixed.text for mixed in MIXED] + PROSE),
    st.lists(st.tuples(st.integers(0, 400), PIECES | st.text(max_size=3)), max_size=12),
)
def test_nothing_is_lost_where_kinds_are_not_tried(text: str, inserted: list[tuple[int, str]]) -> None:
    for place, piece in inserted:
        text = text[:place] + piece + text[place:]
    everywhere = re.compile("|".join(f"(?P<{kind}>{'|'.join(kinds)})" for kind, kinds in KINDS.items()), re.ASCII)
    expected = [(match.span(), match.lastgroup) for match in everywhere.finditer(text)]
    assert [(match.span(), match.lastgroup) for match in markup._INNER.finditer(text)] == expected
