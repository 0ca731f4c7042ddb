"""Language confusion: how often a model answers in another language than it was asked to (arXiv 2406.20052).

A response passes by lines when all of its lines are in the language that was asked for; by words when, besides, it
holds no English word. The rates are the line pass rate (LPR) and the word pass rate (WPR), counted as the Language
Confusion Benchmark's own script counts them, in every detail that changes a figure: they bear the benchmark's name.

fastText's lid.176, which they rest on, takes romanised text and the other Chinese script for the language. The
project's own rate, of the responses that the gates find in the right script, stands beside them.
"""

import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

import polars as pl

from factory.evaluation.segmenters import split_words
from factory.inputs.row import Row
from factory.texts.langid import LanguageDetector
from factory.texts.scripts import measure_script
from schemas.errors import InputError
from schemas.languages import LANGUAGES, MIN_SCRIPT_SHARE

MIN_SCORE = 0.3
"""The label of a line counts above this score. Up to it the language is unknown, and so not the one asked for."""

MIN_WORDS = 5
"""Lines of fewer words are left out: too little to tell a language by."""

MIN_WORD_CHARS = 4
"""Shorter English words say nothing: they are words, names or abbreviations elsewhere too."""

WORD_LANGUAGES = frozenset({"ar", "hi", "ja", "ko", "ru", "zh"})
"""Languages of the benchmark with another script than English, where an English word stands out."""

ALL = "all"
"""In place of a group's last value or of a language: the mean over all of them."""

_BATCH_ROWS = 1000
_NEXT_QUESTION = "\nQ:"
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation + "،") | {"—": " "})

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "group": pl.List(pl.String),
    "language": pl.String,
    "num_chars": pl.Int64,
    "num_lines": pl.Int64,
    "is_line_pass": pl.Boolean,
    "is_word_pass": pl.Boolean,
    "is_script_pass": pl.Boolean,
}

Response = tuple[tuple[str, ...], str, str]
"""The values that responses are grouped by, such as task and source; the language that was asked for; the text."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is long enough to judge, without punctuation."""

    text: str
    words: Sequence[str]


def check_responses(
    responses: Iterable[Response], detector: LanguageDetector, words: frozenset[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield one row per response, in order and in batches.

    ``words`` are English words, by default the bundled ones.
    Columns: group, language, num_chars, num_lines (long enough to judge), is_line_pass (null where there is no such
    line), is_word_pass (null, too, where a line fails or the language is none of ``WORD_LANGUAGES``) and is_script_pass
    (of the whole response; null where it has too few letters).
    """
    remaining = iter(responses)
    words = bundled_words() if words is None else words
    while batch := list(islice(remaining, _BATCH_ROWS)):
        lines = [split_lines(text, language) for _, language, text in batch]
        labels = iter(detector.label_lines([line.text for own in lines for line in own]))
        rows = [
            _check_response(response, own, [next(labels) for _ in own], words)
            for response, own in zip(batch, lines, strict=True)
        ]
        yield pl.DataFrame(rows, schema=SCHEMA)


def _check_response(
    response: Response,
    lines: Sequence[Line],
    labels: Sequence[tuple[str | None, float]],
    words: frozenset[str],
) -> Row:
    group, language, text = response
    expected = LANGUAGES[language].detector_code
    is_line_pass = is_word_pass = None
    if lines:
        is_line_pass = all(label == expected and score > MIN_SCORE for label, score in labels)
    if is_line_pass and expected in WORD_LANGUAGES:
        is_word_pass = words.isdisjoint(word for line in lines for word in line.words)
    script_share = measure_script(text, language)
    return {
        "group": group,
        "language": language,
        "num_chars": len(text),
        "num_lines": len(lines),
        "is_line_pass": is_line_pass,
        "is_word_pass": is_word_pass,
        "is_script_pass": None if script_share is None else script_share >= MIN_SCRIPT_SHARE,
    }


def rate_confusion(checked: pl.DataFrame) -> pl.DataFrame:
    """Return LPR and WPR of checked responses, by group and language, in alphabetical order.

    Columns: group, language, num_responses, num_skipped (no line to judge), lpr (share of those judged without a wrong
    line), wpr (share of those without an English word: 1 where no line passes, as in the benchmark, and null in
    languages where words are not looked at), script_rate (share of those with letters enough that are in the language's
    script, a rate of this project's own) and mean_chars.
    """
    has_words = pl.col("language").first().str.split("-").list.first().is_in(WORD_LANGUAGES)
    return (
        checked.group_by("group", "language")
        .agg(
            pl.len().cast(pl.Int64).alias("num_responses"),
            pl.col("is_line_pass").is_null().sum().cast(pl.Int64).alias("num_skipped"),
            pl.col("is_line_pass").mean().alias("lpr"),
            pl.when(has_words & pl.col("is_line_pass").count().gt(0))
            .then(pl.col("is_word_pass").mean().fill_null(1.0))
            .alias("wpr"),
            pl.col("is_script_pass").mean().alias("script_rate"),
            pl.col("num_chars").mean().alias("mean_chars"),
        )
        .sort("group", "language")
    )


def average_confusion(rates: pl.DataFrame) -> pl.DataFrame:
    """Return the means of rates as the benchmark takes them: over a group's last value, then over languages.

    Columns: those of rates and num_languages. There is a row for each group over its languages and, where groups have
    several values, for the others with ``all`` as the last one: by language, and over languages; then with ``all`` as
    the last two, and so on. What has no rate is left out of a mean; numbers of responses are added up.
    """
    num_values = 0 if rates.is_empty() else len(rates["group"][0])
    found = [_average(rates, pl.col("group"), pl.lit(ALL))]
    for kept in range(num_values - 1, 0, -1):
        over_values = pl.concat_list(pl.col("group").list.head(kept), *[pl.lit(ALL)] * (num_values - kept))
        rates = _average(rates, over_values, pl.col("language")).select(rates.columns)
        found += [rates.with_columns(num_languages=1), _average(rates, pl.col("group"), pl.lit(ALL))]
    return pl.concat(found, how="diagonal_relaxed").select(*rates.columns, "num_languages")


def _average(rates: pl.DataFrame, group: pl.Expr, language: pl.Expr) -> pl.DataFrame:
    return (
        rates.with_columns(group=group, language=language, own_language="language")
        .group_by("group", "language")
        .agg(
            pl.col("num_responses", "num_skipped").sum(),
            pl.col("lpr", "wpr", "script_rate", "mean_chars").mean(),
            pl.col("own_language").n_unique().cast(pl.Int64).alias("num_languages"),
        )
        .sort("group", "language")
    )


def split_lines(text: str, language: str) -> list[Line]:
    """Return the lines of a response, without punctuation, that have words enough to be judged.

    What follows a next question is the invention of a base model, and left out. Code counts as text, as it does in the
    paper: some models write prose between its fences.
    """
    text = text.split(_NEXT_QUESTION)[0].strip().translate(_PUNCTUATION)
    lines = [Line(line, split_words(line, language)) for line in text.split("\n")]
    return [line for line in lines if len(line.words) >= MIN_WORDS]


def read_words(path: Path) -> frozenset[str]:
    """Return the English words of a list, one a line, that can be told from names: lower-case and of four letters or more.

    Raises:
        InputError: the file cannot be read, or holds no such word.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot read the word list '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the word list '{path}': {error}") from error
    words = frozenset(word for word in map(str.strip, lines) if word.islower() and len(word) >= MIN_WORD_CHARS)
    if not words:
        raise InputError(f"'{path}' holds no lower-case word of {MIN_WORD_CHARS} letters or more, one a line")
    return words


@cache
def bundled_words() -> frozenset[str]:
    """Return the bundled English words: those of SCOWL, as Debian's wamerican 2020.12.07 has them."""
    return read_words(Path(__file__).parent / "english_words.txt")
