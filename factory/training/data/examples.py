"""Tokenized rows, which templating produces and layouts, the reference pass and the loop use."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.ids import content_id

Tokens = NDArray[np.int32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a shared prompt, and one branch (SFT) or two (chosen, rejected) that each continue it.

    ``trained`` marks the tokens of each branch whose log-probability counts, with the branch's shape. A branch's first
    token is predicted by the prompt's last token; if the prompt is empty, nothing predicts it and it is never trained.
    """

    row: str
    language: str
    prompt: Tokens
    branches: tuple[Tokens, ...]
    trained: tuple[Mask, ...]
    is_cut: bool = False

    @property
    def num_tokens(self) -> int:
        """The number of tokens if the prompt is counted once per branch, as a model without packing would see it."""
        return sum(len(self.prompt) + len(branch) for branch in self.branches)

    @property
    def num_packed(self) -> int:
        """The number of tokens in a packed batch, where the branches share the prompt."""
        return len(self.prompt) + sum(map(len, self.branches))

    @property
    def num_trained(self) -> tuple[int, ...]:
        """The number of trained tokens of each branch."""
        return tuple(int(mask.sum()) for mask in self.trained)

    def split(self) -> Iterator["Example"]:
        """Yield each branch as an example of its own, with the whole prompt."""
        for branch, trained in zip(self.branches, self.trained, strict=True):
            yield Example(self.row, self.language, self.prompt, (branch,), (trained,), self.is_cut)


def examples_digest(examples: list[Example]) -> str:
    """Return the id of all tokens and masks, which covers the effects of template, tokenizer and limits."""
    return content_id("examples", [content_id("example", _as_text(example)) for example in examples])


def _as_text(example: Example) -> list[str]:
    return [part.tobytes().hex() for part in (example.prompt, *example.branches, *example.trained)]
