"""Near-duplicates by MinHash: which earlier text, if any, shares almost all character n-grams with a new one.

A text's signature is the least value of each of ``NUM_HASHES`` hash functions over its n-grams; two texts agree in a
share of them equal to the Jaccard similarity of their n-gram sets, up to a standard error of 0.03 at 0.9 (Broder
1997). Signatures are cut into bands; texts that agree in a whole band are compared (Leskovec et al., chapter 3).
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from factory.stages.measures import hash_ngrams
from schemas.ids import content_id
from schemas.languages import LANGUAGES

NUM_HASHES = 128
MIN_RECALL = 0.99
"""Share of the pairs exactly at the threshold that the bands must find."""

Hashes: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
Signature: TypeAlias = np.ndarray[tuple[int, ...], np.dtype[np.uint16]]

_NOISE = np.random.Generator(np.random.Philox(23))
_FACTORS = _NOISE.integers(0, 2**31, size=NUM_HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SHIFTS = _NOISE.integers(0, 2**32, size=NUM_HASHES, dtype=np.uint32)
_MIX = np.uint64(0xFF51AFD7ED558CCD)


class NearDuplicates:
    """An index of texts in the order of their arrival; about 450 bytes each at a threshold of 0.9."""

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._rows_per_band = _choose_band(similarity)
        self._signatures: Signature = np.zeros((1024, NUM_HASHES), dtype=np.uint16)
        self._ids: list[str] = []
        # All bands of all indexed texts, sorted by key; a key hashes the group, the band's number and its values.
        self._keys: Hashes = np.zeros(0, dtype=np.uint64)
        self._rows = np.zeros(0, dtype=np.int32)

    def add(
        self, ids: Sequence[str], texts: Sequence[str], languages: Sequence[str], groups: Sequence[str]
    ) -> list[tuple[str, float] | None]:
        """Index each text that is no near-duplicate of an earlier one; say of which it is one, and how similar.

        Only texts of one language and group are compared. The result depends on the order of all texts so far, not on
        how they were cut into calls.
        """
        if not ids:
            return []
        minima = np.stack([_sign(text, language) for text, language in zip(texts, languages, strict=True)])
        keys = self._make_keys(
            minima, [f"{language} {group}" for language, group in zip(languages, groups, strict=True)]
        )
        signatures = minima.astype(np.uint16)
        known = self._look_up(keys)
        fresh: dict[int, list[int]] = defaultdict(list)
        found: list[tuple[str, float] | None] = []
        new_keys, new_rows = [], []
        for at, own_keys in enumerate(keys.tolist()):
            candidates = known.get(at, set()).union(*(fresh[key] for key in own_keys if key in fresh))
            match = self._find_match(signatures[at], sorted(candidates))
            found.append(match)
            if match is None:
                row = self._append(ids[at], signatures[at])
                new_keys.append(keys[at])
                new_rows.append(row)
                for key in own_keys:
                    fresh[key].append(row)
        self._insert(new_keys, new_rows)
        return found

    def _find_match(self, signature: Signature, candidates: list[int]) -> tuple[str, float] | None:
        if not candidates:
            return None
        agreement = (self._signatures[candidates] == signature).mean(axis=1)
        similar = np.flatnonzero(agreement >= self.similarity)
        return (self._ids[candidates[similar[0]]], float(agreement[similar[0]])) if len(similar) else None

    def _append(self, text_id: str, signature: Signature) -> int:
        row = len(self._ids)
        if row == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.zeros_like(self._signatures)])
        self._signatures[row] = signature
        self._ids.append(text_id)
        return row

    def _make_keys(self, minima: Hashes, groups: Sequence[str]) -> Hashes:
        codes = {group: int(content_id("group", group)[:16], 16) for group in set(groups)}
        keys = np.array([codes[group] for group in groups], dtype=np.uint64)[:, None]
        bands = minima.reshape(len(groups), -1, self._rows_per_band)
        keys = keys + np.arange(bands.shape[1], dtype=np.uint64)[None, :] * _MIX
        for at in range(self._rows_per_band):
            keys = (keys ^ bands[:, :, at]) * _MIX
            keys ^= keys >> np.uint64(29)
        return keys

    def _look_up(self, keys: Hashes) -> dict[int, set[int]]:
        """Return, by position in the batch, the indexed texts that share a band with it."""
        begins = np.searchsorted(self._keys, keys, side="left")
        ends = np.searchsorted(self._keys, keys, side="right")
        known: dict[int, set[int]] = defaultdict(set)
        for at, band in np.argwhere(begins < ends).tolist():
            known[at].update(self._rows[begins[at, band] : ends[at, band]].tolist())
        return known

    def _insert(self, keys: list[Hashes], rows: list[int]) -> None:
        if not keys:
            return
        flat = np.concatenate(keys)
        owners = np.repeat(np.array(rows, dtype=np.int32), len(keys[0]))
        order = np.argsort(flat, kind="stable")
        places = np.searchsorted(self._keys, flat[order], side="right")
        self._keys = np.insert(self._keys, places, flat[order])
        self._rows = np.insert(self._rows, places, owners[order])


def _choose_band(similarity: float) -> int:
    """Return the most rows per band, a power of two, with which a pair at the threshold is found: 1 - (1 - s^r)^b."""
    for rows in (32, 16, 8, 4, 2):
        if 1 - (1 - similarity**rows) ** (NUM_HASHES // rows) >= MIN_RECALL:
            return rows
    return 1


def _sign(text: str, language: str) -> Hashes:
    """Return the least value, below 2**32, of each hash function over a text's n-grams, case and spacing aside."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    known = LANGUAGES.get(language)
    size = 5 if known is None or known.is_spaced else 3
    grams = (hash_ngrams(normal or " ", size) >> np.uint64(32)).astype(np.uint32)
    minima = np.full(NUM_HASHES, 2**32 - 1, dtype=np.uint32)
    for begin in range(0, len(grams), 512):  # a table that fits into the processor's cache
        part = grams[begin : begin + 512, None] * _FACTORS
        part += _SHIFTS
        minima = np.minimum(minima, part.min(axis=0))
    return minima.astype(np.uint64)
