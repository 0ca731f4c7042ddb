"""DARE's random mask, as a pure function of seed, model, parameter and element.

Each (seed, model, parameter) has its own random stream (PCG64DXSM, keyed by a SHA-256). Every 64 elements consume as
many words of it as the density has binary digits: one for 0.5, at most 16. The generator can jump to any position, so
the mask does not depend on blocks, shards, threads or devices.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

DIGITS = 16
WORD = 64


def draw_mask(seed: int, model: str, parameter: str, density: float, start: int, stop: int) -> Tensor:
    """Return 1 (keep) or 0 (drop) for elements ``start`` to ``stop`` of a flattened parameter: uint8, [stop - start].

    An element is kept with probability ``density``, to within 1 / 131072. ``start`` must be a multiple of 64.
    """
    assert start % WORD == 0
    count, threshold = stop - start, round(density * (1 << DIGITS))
    if threshold in {0, 1 << DIGITS}:
        return torch.full((count,), threshold >> DIGITS, dtype=torch.uint8)
    num_zeros = (threshold & -threshold).bit_length() - 1
    num_digits = DIGITS - num_zeros
    generator = np.random.PCG64DXSM(_seed(seed, model, parameter))
    generator.advance(start // WORD * num_digits)
    words = generator.random_raw(-(-count // WORD) * num_digits).reshape(-1, num_digits)
    kept = _decide(words, threshold >> num_zeros).astype("<u8", copy=False)
    return torch.from_numpy(np.unpackbits(kept.view(np.uint8), count=count, bitorder="little"))


def _decide(words: np.ndarray, threshold: int) -> np.ndarray:
    """Return one bit for each bit of a row's words: 1 with probability ``threshold / 2 ** num_words``.

    The words contain 64 random numbers bit-sliced: one binary digit of each per word, least significant first. Going
    through the threshold's digits in that order, an "or" for a 1 and an "and" for a 0 compare all 64 numbers with it.
    """
    kept = words[:, 0].copy()
    for digit in range(1, words.shape[1]):
        combine = np.bitwise_or if threshold >> digit & 1 else np.bitwise_and
        combine(kept, words[:, digit], out=kept)
    return kept


class _Seed(np.random.SeedSequence):
    """A seed whose initial state is cached, because every block of a parameter creates its generator anew."""

    def __init__(self, entropy: int) -> None:
        super().__init__(entropy)
        self._words = super().generate_state(4, np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> np.ndarray:
        assert (n_words, dtype) == (4, np.uint64)
        return self._words


@lru_cache(maxsize=4096)
def _seed(seed: int, model: str, parameter: str) -> _Seed:
    key = sha256(repr((seed, model, parameter)).encode()).digest()
    return _Seed(int.from_bytes(key[:16], "little"))
