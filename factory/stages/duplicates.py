"""Near-duplicates by MinHash: which earlier text, if any, shares almost all character n-grams with a new one.

A text's signature is the least value of each of ``NUM_HASHES`` hash functions over its n-grams; two texts agree in a
share of them equal to the Jaccard similarity of their n-gram sets, up to a standard error of 0.03 at 0.9 (Broder
1997). Signatures are cut into bands; texts that agree in a whole band are compared (Leskovec et al., chapter 3).
"""

import unicodedata
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from factory.stages.measures import hash_ngrams
from factory.stages.scratch_database import open_scratch
from schemas.ids import content_id
from schemas.languages import LANGUAGES

NUM_HASHES = 128
MIN_RECALL = 0.99
"""The share of pairs with a similarity equal to the threshold that the bands must find."""

Hashes: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Signature: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]


def _draw_hashes() -> tuple[np.ndarray[tuple[int], np.dtype[np.uint32]], np.ndarray[tuple[int], np.dtype[np.uint32]]]:
    """Return the odd factors and the shifts of the hash functions, [NUM_HASHES] each: always the same ones."""
    noise = np.random.Generator(np.random.Philox(23))
    factors = noise.integers(0, 2**31, size=NUM_HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, noise.integers(0, 2**32, size=NUM_HASHES, dtype=np.uint32)


_FACTORS, _SHIFTS = _draw_hashes()
_MIX = np.uint64(0xFF51AFD7ED558CCD)


class NearDuplicates:
    """An index of texts in order of arrival, in a temporary file; about 500 bytes per text at a threshold of 0.9.

    Memory does not grow with the number of texts. The file disappears with the index or its process.
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._rows_per_band = _choose_band(similarity)
        self._index = open_scratch(
            "CREATE TABLE texts (row INTEGER PRIMARY KEY, text_id TEXT, signature BLOB)",
            "CREATE TABLE bands (key INTEGER, row INTEGER, PRIMARY KEY (key, row)) WITHOUT ROWID",
        )

    def add(
        self, ids: Sequence[str], texts: Sequence[str], languages: Sequence[str], groups: Sequence[str]
    ) -> list[tuple[str, float] | None]:
        """Return the id and similarity of the earlier text that each text nearly duplicates, or None.

        Texts without a match are added to the index. Only texts of the same language and group are compared. The result
        depends on the order of all texts so far, not on how they are split into calls.
        """
        if not ids:
            return []
        minima = np.stack([_sign(text, language) for text, language in zip(texts, languages, strict=True)])
        keys = self._make_keys(
            minima, [f"{language} {group}" for language, group in zip(languages, groups, strict=True)]
        )
        signatures = minima.astype(np.uint16)
        return [self._place(*text) for text in zip(ids, keys.view(np.int64).tolist(), signatures, strict=True)]

    def _place(self, text_id: str, keys: list[int], signature: Signature) -> tuple[str, float] | None:
        """Return the first similar text with its similarity; if there is none, index this text and return None."""
        earlier = self._index.execute(
            f"SELECT text_id, signature FROM texts WHERE row IN (SELECT row FROM bands WHERE key IN "
            f"({','.join('?' * len(keys))})) ORDER BY row",
            keys,
        )
        for other_id, other in earlier:
            agreement = float((np.frombuffer(other, dtype=np.uint16) == signature).mean())
            if agreement >= self.similarity:
                return other_id, agreement
        row = self._index.execute(
            "INSERT INTO texts (text_id, signature) VALUES (?, ?)", [text_id, signature.tobytes()]
        ).lastrowid
        self._index.executemany("INSERT OR IGNORE INTO bands VALUES (?, ?)", [(key, row) for key in keys])
        return None

    def _make_keys(self, minima: Hashes, groups: Sequence[str]) -> Hashes:
        """Return a key for each band of each text, [texts, bands]: a hash of group, band number and band values."""
        codes = {group: int(content_id("group", group)[:16], 16) for group in set(groups)}
        keys = np.array([codes[group] for group in groups], dtype=np.uint64)[:, None]
        bands = minima.reshape(len(groups), -1, self._rows_per_band)
        keys = keys + np.arange(bands.shape[1], dtype=np.uint64)[None, :] * _MIX
        for at in range(self._rows_per_band):
            keys = (keys ^ bands[:, :, at]) * _MIX
            keys ^= keys >> np.uint64(29)
        return keys


def _choose_band(similarity: float) -> int:
    """Return the largest number of rows per band (a power of two) that still finds pairs at the threshold.

    The probability of finding a pair of similarity s with b bands of r rows is 1 - (1 - s^r)^b.
    """
    for rows in (32, 16, 8, 4, 2):
        if 1 - (1 - similarity**rows) ** (NUM_HASHES // rows) >= MIN_RECALL:
            return rows
    return 1


def _sign(text: str, language: str) -> Hashes:
    """Return the minimum (below 2**32) of each hash function over a text's n-grams, ignoring case and spacing."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    known = LANGUAGES.get(language)
    size = 5 if known is None or known.is_spaced else 3
    grams = (hash_ngrams(normal or " ", size) >> np.uint64(32)).astype(np.uint32)
    minima = np.full(NUM_HASHES, 2**32 - 1, dtype=np.uint32)
    for begin in range(0, len(grams), 512):  # chunks that fit in the processor's cache
        part = grams[begin : begin + 512, None] * _FACTORS
        part += _SHIFTS
        minima = np.minimum(minima, part.min(axis=0))
    return minima.astype(np.uint64)
