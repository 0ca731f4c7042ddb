"""Measures that are computed once for each text: length, repetition, language. Gates only compare these numbers."""

import re
from collections.abc import Sequence

import numpy as np

from factory.inputs.row import Row
from factory.texts.langid import Detect
from factory.texts.scripts import measure_script

NGRAM_CHARS = 24
"""The length of n-grams whose recurrence counts as repetition; a quarter of the text for texts under 96 characters."""

MIN_CHARS = 20
"""Shorter texts have a repetition of 0: "ha ha ha" and "1000000" may be good answers."""

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def measure(text: str) -> Row:
    """Return the measures that need no model: ``num_chars``, in Unicode code points, and ``repetition``."""
    return {"num_chars": len(text), "repetition": repetition(text)}


def measure_languages(texts: Sequence[tuple[str, str]], detect: Detect | None) -> list[Row]:
    """Return the language measures of each (text, expected language), in order; nulls without a detector.

    These are ``detected_language``, ``language_score`` and ``script_share`` (``scripts.measure_script``).
    """
    if detect is None:
        return [dict.fromkeys(("detected_language", "language_score", "script_share")) for _ in texts]
    return [
        {"detected_language": code, "language_score": score, "script_share": measure_script(text, language)}
        for (text, language), (code, score) in zip(texts, detect([text for text, _ in texts]), strict=True)
    ]


def repetition(text: str) -> float:
    """Return the share, in [0, 1], of a text's characters that repeat earlier text.

    A character counts if it is in an n-gram that occurred earlier; runs of white space count as one space. A text of k
    equal parts has about (k - 1) / k; prose stays below 0.1, lists and code below 0.4. Chinese, Japanese and Korean use
    n-grams of half the length, because their characters carry about twice as much information.
    """
    text = " ".join(text.split())
    if len(text) < MIN_CHARS:
        return 0.0
    longest = NGRAM_CHARS // 2 if 3 * len(_CJK.findall(text)) > len(text) else NGRAM_CHARS
    size = max(4, min(longest, len(text) // 4))
    hashes = hash_ngrams(text, size)
    first = np.unique(hashes, return_index=True)[1]
    is_again = np.ones(len(hashes), dtype=bool)
    is_again[first] = False
    # +1 at the start of a repeated n-gram, -1 after its end: the running sum counts repeated n-grams at each character.
    steps = np.zeros(len(text) + 1, dtype=np.int64)
    starts = np.flatnonzero(is_again)
    np.add.at(steps, starts, 1)
    np.add.at(steps, starts + size, -1)
    return float(np.count_nonzero(np.cumsum(steps[:-1])) / len(text))


def hash_ngrams(text: str, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return a 64-bit hash of each character n-gram, by position; of a shorter text, a single hash of all of it."""
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64)
    size = min(size, len(codes))
    num_ngrams = len(codes) - size + 1
    hashes = np.zeros(num_ngrams, dtype=np.uint64)
    for offset in range(size):
        hashes *= _FACTOR
        hashes += codes[offset : offset + num_ngrams] + np.uint64(1)
    # The upper half of a product with an odd number depends on all lower bits; folding it down mixes both halves.
    hashes ^= hashes >> np.uint64(32)
    hashes *= _FACTOR
    hashes ^= hashes >> np.uint64(29)
    return hashes
