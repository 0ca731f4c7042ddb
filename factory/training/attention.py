"""Attention over a packed batch, registered with transformers under ``PACKED``: models call it in place of their own.

On CPU every group goes through SDPA by itself, so that its cost is the square of its own length, not of the batch's.
On a GPU one flex-attention call takes the batch with a block mask, compiled once.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from factory.training.layout import Layout
from schemas.errors import TrainingError

PACKED = "packed"


def packed_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    layout: Layout | None = None,
    **_unused: Any,
) -> tuple[Tensor, None]:
    """Return attention [1, T, heads, size] of queries [1, heads, T, size] over keys and values of as many or fewer heads."""
    assert layout is not None, "packed attention needs the layout of the batch"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = _flex if query.device.type == "cuda" else _attend_by_group
    return attend(query, key, value, layout, scale, sliding_window, softcap, dropout).transpose(1, 2), None


def _attend_by_group(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    ratio = query.shape[1] // key.shape[1]
    if ratio > 1:
        key, value = key.repeat_interleave(ratio, 1), value.repeat_interleave(ratio, 1)
    parts = zip(*(tensor.split(layout.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    mixed = [
        _attend(*part, mask=layout.group_mask(group, window), scale=scale, softcap=softcap, dropout=dropout)
        for group, part in enumerate(parts)
    ]
    return torch.cat(mixed, dim=2)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    if softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale
        )
    scores = torch.tanh((query @ key.transpose(2, 3)) * (scale / softcap)) * softcap
    length = query.shape[2]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril()
    shares = scores.masked_fill(~mask, -torch.inf).softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.dropout(shares, dropout, dropout > 0) @ value


def _flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    window: int | None,
    softcap: float | None,
    dropout: float,
) -> Tensor:
    if dropout:
        raise TrainingError(
            "attention dropout is not available on a GPU; set attention_dropout = 0 in the model's config"
        )
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Tensor, _head: Tensor, at: Tensor, other: Tensor) -> Tensor:
        return layout.sees(at, other, window)

    def cap(score: Tensor, *_places: Tensor) -> Tensor:
        assert softcap is not None
        return torch.tanh(score / softcap) * softcap

    name = ("flex", window)
    if name not in layout.masks:
        length = layout.num_tokens
        layout.masks[name] = create_block_mask(sees, None, None, length, length, device=query.device)
    mixed: Tensor = _compiled_flex(query.device.type)(
        query,
        key,
        value,
        block_mask=layout.masks[name],
        score_mod=None if softcap is None else cap,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return mixed


@cache
def _compiled_flex(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if device == "cuda" else flex_attention


AttentionInterface.register(PACKED, packed_attention)
