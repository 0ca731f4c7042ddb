"""The one layout of a batch: a row of tokens without padding, in groups that do not see each other.

A group is one example: its prompt once, then its branches, which see the prompt and themselves, with positions that go
on from the prompt. So a preference row costs its prompt once; an SFT row is a group of one branch. The same predicate
``sees`` makes the masks of SDPA on CPU and of flex attention on a GPU.
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

    ``groups`` and ``branches`` [T] say where a token belongs (branch 0 is the prompt). ``sources`` [N] are the places
    of the hidden states that predict ``targets`` [N]; ``sides`` [N] is the number of the branch, over all examples in
    their order, that a target counts for.
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
    """Whether a group has one branch alone, so that plain causal attention will do."""
    masks: dict[Any, Any] = field(default_factory=dict)
    """Masks by window, made when the first layer asks for them."""

    @property
    def num_tokens(self) -> int:
        return int(self.tokens.shape[1])

    def sees(self, query: Tensor, key: Tensor, window: int | None) -> Tensor:
        """Whether tokens at the places ``query`` see those at ``key`` (broadcast), in a sliding window if one is given."""
        return is_seen(self.positions[0], self.groups, self.branches, query, key, window)

    def group_mask(self, group: int, window: int | None) -> Tensor | None:
        """Return the mask [L, L] of one group for SDPA, or None where plain causal attention is the same."""
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
    """Whether the token at ``query`` sees the one at ``key``, by position, group and branch of each token, [T]."""
    same = (groups[query] == groups[key]) & (key <= query)
    same = same & ((branches[key] == 0) | (branches[key] == branches[query]))
    return same if window is None else same & (positions[query] - positions[key] < window)


def pack(examples: Sequence[Example], device: torch.device | str = "cpu") -> Layout:
    """Lay examples out one after another."""
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
