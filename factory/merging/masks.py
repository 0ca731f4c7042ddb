"""DARE's random mask: a function of seed, model, parameter and element alone.

Each (seed, model, parameter) has a stream of its own (PCG64DXSM, keyed by a SHA-256), of which element ``i`` uses 16 bits
at position ``i``. The generator jumps to any position, so that neither blocks nor shards, threads or devices show.
"""

from functools import lru_cache
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

RESOLUTION = 1 << 16
DRAWS_PER_WORD = 4


def draw_mask(seed: int, model: str, parameter: str, density: float, start: int, stop: int) -> Tensor:
    """Return 1 (keep) or 0 (drop) for elements ``start`` to ``stop`` of a flattened parameter: uint8, 1-dimensional.

    An element is kept with probability ``density``, to within 1 / 131072. ``start`` is a multiple of 4.
    """
    assert start % DRAWS_PER_WORD == 0
    generator = np.random.PCG64DXSM(_seed(seed, model, parameter))
    generator.advance(start // DRAWS_PER_WORD)
    words = generator.random_raw(-(-(stop - start) // DRAWS_PER_WORD))
    draws = words.astype("<u8", copy=False).view("<u2")[: stop - start]
    return torch.from_numpy(draws < round(density * RESOLUTION)).view(torch.uint8)


class _Seed(np.random.bit_generator.ISeedSequence):
    """The words that a stream starts from, worked out once: every block of a parameter starts its generator anew."""

    def __init__(self, entropy: int) -> None:
        self._words = np.random.SeedSequence(entropy).generate_state(4, np.uint64)

    def generate_state(self, n_words: int, dtype: object = np.uint32) -> np.ndarray:
        assert (n_words, dtype) == (4, np.uint64)
        return self._words


@lru_cache(maxsize=4096)
def _seed(seed: int, model: str, parameter: str) -> _Seed:
    key = sha256(repr((seed, model, parameter)).encode()).digest()
    return _Seed(int.from_bytes(key[:16], "little"))
