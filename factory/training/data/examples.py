"""Rows as tokens: what templating makes, and what layouts, references and the loop use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.ids import content_id

Tokens = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Example:
    """One row: tokens that are shared, then one branch (SFT) or two (chosen, rejected) that each go on from them.

    ``trained`` marks, in each branch, the tokens whose log-probability counts. A branch's first token is predicted by
    the prompt's last; where the prompt is empty it has no predictor and is never trained.
    """

    row: str
    language: str
    prompt: Tokens
    branches: tuple[Tokens, ...]
    trained: tuple[Mask, ...]
    is_cut: bool = False

    @property
    def num_tokens(self) -> int:
        """The tokens as a model without sharing would see them: the prompt once for each branch."""
        return sum(len(self.prompt) + len(branch) for branch in self.branches)

    @property
    def num_packed(self) -> int:
        """The tokens in a packed batch, where the branches share their prompt."""
        return len(self.prompt) + sum(map(len, self.branches))

    @property
    def num_trained(self) -> tuple[int, ...]:
        """The trained tokens of each branch."""
        return tuple(int(mask.sum()) for mask in self.trained)

    def split(self) -> Iterator["Example"]:
        """Yield the branches as examples of their own, each with the whole prompt."""
        for branch, trained in zip(self.branches, self.trained, strict=True):
            yield Example(self.row, self.language, self.prompt, (branch,), (trained,), self.is_cut)


def examples_digest(examples: list[Example]) -> str:
    """Return the id of what a model will see: all tokens and masks, so template, tokenizer and limits count too."""
    return content_id("examples", [content_id("example", _as_text(example)) for example in examples])


def _as_text(example: Example) -> list[str]:
    return [part.tobytes().hex() for part in (example.prompt, *example.branches, *example.trained)]
