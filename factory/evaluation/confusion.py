"""Language confusion: how often a model answers in a language other than the requested one (arXiv 2406.20052).

A response passes at the line level if all its lines are in the requested language, and at the word level if it also
contains no English word. The line pass rate (LPR) and the word pass rate (WPR) follow the script of the Language
Confusion Benchmark in every detail that affects a figure, so that results are comparable with published ones.

Both rely on fastText's lid.176, which accepts romanized text and the other Chinese script as the language. Therefore a
rate of this project is reported beside them: the share of responses that the gates find in the right script.
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
"""A line's detected language counts only above this score; otherwise the line is in no known language and fails."""

MIN_WORDS = 5
"""Lines with fewer words are skipped, because their language cannot be detected reliably."""

MIN_WORD_CHARS = 4
"""Shorter English words are ignored, because they are words, names or abbreviations in other languages too."""

WORD_LANGUAGES = frozenset({"ar", "hi", "ja", "ko", "ru", "zh"})
"""Languages of the benchmark that are not in Latin script, so that English words can be recognized."""

ALL = "all"
"""Replaces a group's last value, or the language, in rows that are means over all of them."""

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
"""The values that responses are grouped by, such as task and source; the requested language; the text."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that is long enough to be judged, with punctuation removed."""

    text: str
    words: Sequence[str]


def check_responses(
    responses: Iterable[Response], detector: LanguageDetector, words: frozenset[str] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield one row per response, in order and in batches.

    ``words`` are English words (default: the bundled ones).
    Columns: group, language, num_chars, num_lines (long enough to be judged), is_line_pass (null if there is no such
    line), is_word_pass (also null if a line fails or the language is not in ``WORD_LANGUAGES``) and is_script_pass (of
    the whole response; null if it has too few letters).
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

    Columns: group, language, num_responses, num_skipped (no line to judge), lpr (share of judged responses without a
    wrong line), wpr (share of those that also have no English word; 1 if no response passes at the line level, as in
    the benchmark, and null in languages whose words are not checked), script_rate (this project's own: the share of
    responses with enough letters that are in the language's script) and mean_chars.
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
    """Return means of rates as in the benchmark: over a group's last value first, then over languages.

    Columns: those of ``rates``, and num_languages. Each group has a row for the mean over its languages. If groups have
    several values, the last one is then replaced by ``all``, with rows by language and for the mean over languages;
    then the last two, and so on. Null rates are left out of means; numbers of responses are summed.
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
    """Return the lines of a response that have enough words to be judged, without punctuation.

    The text is cut at a new question, which only base models write. Code is kept, as in the paper, because some models
    put prose into code fences.
    """
    text = text.split(_NEXT_QUESTION)[0].strip().translate(_PUNCTUATION)
    lines = [Line(line, split_words(line, language)) for line in text.split("\n")]
    return [line for line in lines if len(line.words) >= MIN_WORDS]


def read_words(path: Path) -> frozenset[str]:
    """Return the English words in a file, one per line; only lower-case words of at least ``MIN_WORD_CHARS`` letters.

    Others may be names or abbreviations.

    Raises:
        InputError: the file cannot be read, or contains no such word.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise InputError(f"cannot read the word list '{path}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the word list '{path}': {error}") from error
    words = frozenset(word for word in map(str.strip, lines) if word.islower() and len(word) >= MIN_WORD_CHARS)
    if not words:
        raise InputError(f"'{path}' has no lower-case words of at least {MIN_WORD_CHARS} letters, one per line")
    return words


@cache
def bundled_words() -> frozenset[str]:
    """Return the bundled English words, from SCOWL as packaged in Debian's wamerican 2020.12.07."""
    return read_words(Path(__file__).parent / "english_words.txt")
