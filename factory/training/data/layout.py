"""The layout of a batch: all tokens in one row without padding, in groups that do not attend to each other.

A group is one example: its prompt once, then its branches. A branch attends to the prompt and itself, and its positions
continue those of the prompt. So the prompt of a preference pair is computed once; an SFT row is a group with one
branch. The same predicate ``is_seen`` defines the masks of SDPA on CPU and of flex attention on a GPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from factory.training.data.examples import Example


@dataclass(slots=True)
class Layout:
    """A packed batch of ``tokens`` [1, T] with ``positions`` [1, T].

    ``groups`` and ``branches`` [T] are the example and the branch of each token (branch 0 is the prompt). ``sources``
    [N] are the indices of the hidden states that predict ``targets`` [N]. ``sides`` [N] is the branch of each target,
    numbered through all examples in order. ``lengths`` are the tokens of each group.
    """

    tokens: Tensor
    positions: Tensor
    groups: Tensor
    branches: Tensor
    sources: Tensor
    targets: Tensor
    sides: Tensor
    lengths: list[int]
    is_plain: list[bool]
    """Whether each group has a single branch, so that plain causal attention is enough."""
    masks: dict[Any, Any] = field(default_factory=dict)
    """A cache of masks by window; the first layer fills it and all others reuse it."""

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.shape[1])

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether the tokens at indices ``query`` attend to those at ``key`` (broadcast); see ``is_seen``."""
        return is_seen(self.positions[0], self.groups, self.branches, query, key, window)

    def group_mask(self, group: int, window: int | None) -> Tensor | None:
        """Return the mask [L, L] of one group for SDPA, or None if plain causal attention is equivalent."""
        length = self.lengths[group]
        if self.is_plain[group] and (window is None or length <= window):
            return None
        key = (group, window)
        if key not in self.masks:
            start = sum(self.lengths[:group])
            places = torch.arange(start, start + length, device=self.tokens.device)
            self.masks[key] = self.sees(places[:, None], places[None, :], window)
        mask: Tensor = self.masks[key]
        return mask


def is_seen(
    positions: Tensor, groups: Tensor, branches: Tensor, query: Tensor, key: Tensor, window: int | Tensor | None
) -> Tensor:
    """Whether the tokens at indices ``query`` attend to those at ``key`` (broadcast).

    ``positions``, ``groups`` and ``branches`` [T] describe the tokens, as in ``Layout``.
    """
    same = (groups[query] == groups[key]) & (key <= query)
    same = same & ((branches[key] == 0) | (branches[key] == branches[query]))
    return same if window is None else same & (positions[query] - positions[key] < window)


def pack(examples: Sequence[Example], device: torch.device | str = "cpu") -> Layout:
    """Return the layout of examples, one after another."""
    tokens, positions, groups, branches, sources, targets, sides, lengths = ([] for _ in range(8))
    start = num_sides = 0
    for group, example in enumerate(examples):
        prompt_length = len(example.prompt)
        parts = [(example.prompt, 0, 0)] + [
            (branch, number, prompt_length) for number, branch in enumerate(example.branches, start=1)
        ]
        at = start
        for part, branch, offset in parts:
            tokens.append(part)
            positions.append(np.arange(offset, offset + len(part)))
            groups.append(np.full(len(part), group))
            branches.append(np.full(len(part), branch))
            if branch:
                places = np.flatnonzero(example.trained[branch - 1])
                predictors = at + places - 1
                predictors[places == 0] = start + prompt_length - 1
                sources.append(predictors)
                targets.append(part[places])
                sides.append(np.full(len(places), num_sides))
                num_sides += 1
            at += len(part)
        lengths.append(at - start)
        start = at
    return Layout(
        tokens=_tensor(tokens, device)[None],
        positions=_tensor(positions, device)[None],
        groups=_tensor(groups, device),
        branches=_tensor(branches, device),
        sources=_tensor(sources, device),
        targets=_tensor(targets, device),
        sides=_tensor(sides, device),
        lengths=lengths,
        is_plain=[len(example.branches) == 1 for example in examples],
    )


def _tensor(parts: Sequence[ArrayLike], device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)
