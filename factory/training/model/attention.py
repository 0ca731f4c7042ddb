"""Attention over a packed batch, registered with transformers as ``PACKED``: models call it instead of their own.

On CPU, SDPA is called once per group, so that the cost is quadratic in the group's length and not in the batch's. On a
GPU, a single call of flex attention, which is compiled once, handles the whole batch with a block mask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from factory.training.data.layout import Layout, is_seen
from schemas.errors import TrainingError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

PACKED = "packed"

BLOCK = 128
"""The block size of flex attention; the same as its default."""


class LayerOptions(TypedDict, total=False):
    """The keyword arguments from transformers that are used here, and ``layout``, which the trainer passes through."""

    scaling: float | None
    dropout: float
    sliding_window: int | None
    softcap: float | None
    layout: Layout


@dataclass(frozen=True, slots=True)
class Weighing:
    """A layer's attention parameters: the scale of the scores, sliding window (positions), soft cap and dropout."""

    scale: float
    window: int | None
    softcap: float | None
    dropout: float


def packed_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    **options: Unpack[LayerOptions],
) -> tuple[Tensor, None]:
    """Return attention outputs [1, T, heads, size], and None in place of attention weights.

    Queries are [1, heads, T, size]; keys and values are the same, or have fewer heads (grouped-query attention).
    """
    scaling = options.get("scaling")
    weighing = Weighing(
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        options.get("sliding_window"),
        options.get("softcap"),
        options.get("dropout", 0.0),
    )
    attend = _flex if query.device.type == "cuda" else _attend_by_group
    return attend(query, key, value, options["layout"], weighing).transpose(1, 2), None


def _attend_by_group(query: Tensor, key: Tensor, value: Tensor, layout: Layout, weighing: Weighing) -> Tensor:
    ratio = query.shape[1] // key.shape[1]
    if ratio > 1:
        key, value = key.repeat_interleave(ratio, 1), value.repeat_interleave(ratio, 1)
    parts = zip(*(tensor.split(layout.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    mixed = [
        _attend(*part, mask=layout.group_mask(group, weighing.window), weighing=weighing)
        for group, part in enumerate(parts)
    ]
    return torch.cat(mixed, dim=2)


def _attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, weighing: Weighing) -> Tensor:
    softcap, dropout = weighing.softcap, weighing.dropout
    if softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=weighing.scale
        )
    scores = torch.tanh((query @ key.transpose(2, 3)) * (weighing.scale / softcap)) * softcap
    length = query.shape[2]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    shares = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.dropout(shares, dropout, dropout > 0) @ value


def _flex(query: Tensor, key: Tensor, value: Tensor, layout: Layout, weighing: Weighing) -> Tensor:
    """Attend over the whole batch at once.

    The mask and score functions capture tensors, not Python numbers: torch.compile would turn the latter into constants
    and recompile for each new value, or fail.
    """
    if weighing.dropout:
        raise TrainingError(
            "attention dropout is not available on a GPU; set attention_dropout = 0 in the model's config"
        )
    cap = None
    if weighing.softcap is not None:
        bound = torch.full((), weighing.softcap, device=query.device)

        def cap(score: Tensor, *_places: Tensor) -> Tensor:
            return torch.tanh(score / bound) * bound

    name = ("flex", weighing.window)
    if name not in layout.masks:
        layout.masks[name] = _make_block_mask(layout, weighing.window)
    kind, dtype = query.device.type, value.dtype  # under autocast, rotary embeddings return float32 queries and keys
    with torch.autocast(kind, enabled=False):
        mixed: Tensor = _compiled_flex(kind)(
            query.to(dtype),
            key.to(dtype),
            value,
            block_mask=layout.masks[name],
            score_mod=cap,
            scale=weighing.scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return mixed


def _make_block_mask(layout: Layout, window: int | None) -> "BlockMask":
    """Return flex attention's mask: which blocks of queries and keys to visit, and ``is_seen`` inside partial blocks.

    Blocks are classified by the minimum and maximum group, position and branch of their tokens, so no [T, T] tensor is
    needed. This is conservative: some visited blocks may have no visible pairs. In a ``full`` block all pairs are
    visible, so flex attention skips the mask function.
    """
    from torch.nn.attention.flex_attention import BlockMask

    positions, groups, branches = layout.positions[0], layout.groups, layout.branches
    reach = torch.full((), layout.num_tokens if window is None else window, device=groups.device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return is_seen(positions, groups, branches, query, key, reach)

    first, last = _find_extremes(groups)
    nearest, farthest = _find_extremes(positions)
    lowest, highest = _find_extremes(branches)
    number = torch.arange(len(first), device=groups.device)
    query, key = number[:, None], number[None, :]
    some = (key <= query) & (last[key] >= first[query]) & (nearest[query] - farthest[key] < reach)
    is_whole = (number + 1) * BLOCK <= layout.num_tokens
    full = (
        some & (key < query) & is_whole[query] & (first[key] == last[query]) & (farthest[query] - nearest[key] < reach)
    )
    full &= (highest[key] == 0) | ((lowest[key] == highest[query]) & (highest[key] == lowest[query]))
    counts, places = zip(*(_list_blocks(blocks) for blocks in (some & ~full, full)), strict=True)
    length = layout.num_tokens
    return BlockMask.from_kv_blocks(
        counts[0], places[0], counts[1], places[1], BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length)
    )


def _find_extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of each block of ``values`` [T], both [blocks]; the last block is padded."""
    lacking = -len(values) % BLOCK
    blocks = torch.cat([values, values[-1:].expand(lacking)]).view(-1, BLOCK)
    return blocks.amin(1), blocks.amax(1)


def _list_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Convert a boolean matrix [blocks, blocks] to the form of ``BlockMask``.

    Return the number of true entries in each row, [1, 1, blocks], and their column indices followed by the others,
    [1, 1, blocks, blocks].
    """
    chosen = blocks.int()
    places = chosen.argsort(dim=1, descending=True, stable=True)
    return chosen.sum(1).int()[None, None], places.int()[None, None]


@cache
def _compiled_flex(device: str) -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # Without ``fullgraph``, torch would fall back to eager mode after too many recompilations, and eager flex attention
    # needs memory quadratic in the batch.
    options: dict[str, Any] = {"dynamic": True, "fullgraph": True, "recompile_limit": 64}
    attend: Callable[..., Any] = flex_attention
    return torch.compile(attend, **options) if device == "cuda" else attend


AttentionInterface.register(PACKED, packed_attention)
