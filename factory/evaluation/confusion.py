"""Language confusion: how often a model answers in another language than it was asked to (arXiv 2406.20052).

A response passes by lines when none of its lines is in a wrong language; by words when, besides, it holds no English
word. The rates are the line pass rate (LPR) and the word pass rate (WPR).
"""

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

import polars as pl

from factory.stages.rows import Detect, Row
from schemas.languages import LANGUAGES

MIN_SCORE = 0.3
"""The label of a line counts from this score on; a line with less certainty counts as right."""

MIN_TOKENS = 5
"""Lines of fewer words are left out: too little to tell a language by."""

MIN_WORD_CHARS = 4
"""Shorter English words say nothing: they are words, names or abbreviations elsewhere too."""

WORD_LANGUAGES = frozenset({"ar", "hi", "ja", "ko", "ru", "zh", "zh-Hant", "el", "fa", "he", "uk"})
"""Languages with another script than English, where an English word stands out. The paper has the first six."""

_BATCH_ROWS = 1000
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "،") | {"—": " "})
_CJK_RUN = re.compile(
    r"(?P<han>[\u3400-\u4dbf\u4e00-\u9fff々]+)|(?P<kana>[\u3041-\u309f]+)|[\u30a0-\u30ffー]+"
    r"|[^\W\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff々]+"
)
"""Runs of one script: Chinese characters, hiragana, katakana, anything else that is written in words."""

SCHEMA = {
    "group": pl.String,
    "language": pl.String,
    "num_chars": pl.Int64,
    "num_lines": pl.Int64,
    "is_line_pass": pl.Boolean,
    "is_word_pass": pl.Boolean,
}


def check_responses(responses: Iterable[tuple[str, str, str]], detect: Detect) -> Iterator[pl.DataFrame]:
    """Yield one row per response, given as (group, language it should be in, text), in order and in batches.

    Columns: group, language, num_chars, num_lines (long enough to judge), is_line_pass (null where there is no such
    line) and is_word_pass (null, too, where a line fails or the language shares its script with English).
    """
    remaining = iter(responses)
    while batch := list(islice(remaining, _BATCH_ROWS)):
        lines = [split_lines(text, language) for _, language, text in batch]
        labels = iter(detect([line for own in lines for line in own]))
        rows = [
            _check_response(group, language, text, own, [next(labels) for _ in own])
            for (group, language, text), own in zip(batch, lines, strict=True)
        ]
        yield pl.DataFrame(rows, schema=SCHEMA)


def _check_response(
    group: str, language: str, text: str, lines: Sequence[str], labels: Sequence[tuple[str | None, float]]
) -> Row:
    expected = LANGUAGES[language].detector_code
    is_line_pass = is_word_pass = None
    if lines:
        is_line_pass = not any(label not in {None, expected} and score > MIN_SCORE for label, score in labels)
    if is_line_pass and language in WORD_LANGUAGES:
        is_word_pass = not any(is_english_word(word) for line in lines for word in split_words(line, language))
    return {
        "group": group,
        "language": language,
        "num_chars": len(text),
        "num_lines": len(lines),
        "is_line_pass": is_line_pass,
        "is_word_pass": is_word_pass,
    }


def rate_confusion(checked: pl.DataFrame, by: Sequence[str] = ("group", "language")) -> pl.DataFrame:
    """Return LPR and WPR of checked responses, by group and language, in alphabetical order.

    Columns: those of ``by``, num_responses, num_skipped (no line to judge), lpr (share of those judged without a wrong
    line), wpr (share of those without an English word; null where words are not looked at) and mean_chars.
    """
    return (
        checked.group_by(by)
        .agg(
            pl.len().cast(pl.Int64).alias("num_responses"),
            pl.col("is_line_pass").is_null().sum().cast(pl.Int64).alias("num_skipped"),
            pl.col("is_line_pass").mean().alias("lpr"),
            pl.col("is_word_pass").mean().alias("wpr"),
            pl.col("num_chars").mean().alias("mean_chars"),
        )
        .sort(by)
    )


def average_confusion(rates: pl.DataFrame) -> pl.DataFrame:
    """Return the macro average over languages of each group's rates, with languages where there is no rate left out."""
    return (
        rates.group_by("group")
        .agg(
            pl.len().cast(pl.Int64).alias("num_languages"),
            pl.col("num_responses", "num_skipped").sum(),
            pl.col("lpr", "wpr", "mean_chars").mean(),
        )
        .sort("group")
    )


def split_lines(text: str, language: str) -> list[str]:
    """Return the lines of a response, without punctuation, that have words enough to be judged.

    Code counts as text, as it does in the paper: some models write prose between its fences.
    """
    lines = text.translate(_PUNCTUATION).split("\n")
    return [line for line in lines if count_words(line, language) >= MIN_TOKENS]


def split_words(line: str, language: str) -> list[str]:
    """Return what a line has in words between spaces or, in Chinese and Japanese, in runs of one script."""
    if LANGUAGES[language].is_spaced:
        return line.split()
    return [match[0] for match in _CJK_RUN.finditer(line)]


def count_words(line: str, language: str) -> int:
    """Return the number of words of a line.

    Chinese and Japanese are not segmented by a dictionary: only the number counts here, and words of Chinese
    characters and of hiragana have about two characters, while a run of katakana or of foreign letters is one word.
    """
    if LANGUAGES[language].is_spaced:
        return len(line.split())
    return sum((len(run[0]) + 1) // 2 if run["han"] or run["kana"] else 1 for run in _CJK_RUN.finditer(line))


def is_english_word(word: str) -> bool:
    """Say whether a word, as it is written, is an English dictionary word: lower-case and of four letters or more.

    Names, which begin with a capital, are none. Words in -s count with the word that they are made of.
    """
    if len(word) < MIN_WORD_CHARS or not (word.isascii() and word.islower()):
        return False
    words = _english_words()
    return word in words or (word.endswith("s") and word[:-1] in words)


@cache
def _english_words() -> frozenset[str]:
    """Return the word list, made for this project: about 8,500 words, nine in ten of those of running English text.

    It holds the words that the documentation of common software uses throughout, less identifiers and jargon that is
    at home in every language, and words of everyday life that such texts lack.
    """
    return frozenset((Path(__file__).parent / "english_words.txt").read_text(encoding="utf-8").split())
