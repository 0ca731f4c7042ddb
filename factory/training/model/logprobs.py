"""Log-probabilities of target tokens from hidden states, computed in tiles: no [tokens, vocabulary] tensor ever exists.

    logp_t = z_t[y_t] - logsumexp_v z_t[v],    z_t = cap * tanh(s W h_t / cap)   or   z_t = s W h_t

The outer loop is over blocks of the vocabulary, so that a block of ``W`` and of its gradient stays in the cache while
all tokens are processed; a tile of logits has at most ``TILE_BYTES``. Backward recomputes the tiles:

    dL/dz_t = g_t (onehot(y_t) - softmax(z_t)),  whose terms are computed separately: the first is a gather and a
    scatter.

Logits are scaled to base 2, because ``exp2`` costs a quarter of ``exp`` on CPU.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

LOG2E = math.log2(math.e)

TILE_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
"""The size of a float32 tile of logits by device: fits a CPU's cache, or is large enough to keep a GPU busy."""

TILE_TOKENS = {"cpu": 1024, "cuda": 4096}


@dataclass(frozen=True, slots=True)
class Head:
    """The computation from a model's last hidden states to its logits. A ``cap`` of 0 means no soft cap."""

    weight: Tensor
    scale: float = 1.0
    cap: float = 0.0
    accumulates: bool = False
    """Whether backward adds to ``weight.grad`` in place, which saves a second tensor of the size of the weight."""


def token_logps(hidden: Tensor, head: Head, targets: Tensor) -> Tensor:
    """Return log p(target) of each token, [tokens] in float32.

    Args:
        hidden: last hidden states, [tokens, size]; matrix products are computed in their dtype.
        head: the output layer, its weight [vocabulary, size].
        targets: token ids, [tokens].
    """
    logps: Tensor = _TokenLogps.apply(hidden, head.weight, head, targets)  # type: ignore[no-untyped-call]
    return logps


class _Context(FunctionCtx):
    """Types of what forward stores for backward; torch sets the fields at run time."""

    head: Head
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]


class _TokenLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, hidden: Tensor, weight: Tensor, head: Head, targets: Tensor) -> Tensor:
        lse = _logsumexp2(hidden, weight, head)
        rows = weight[targets].to(hidden.dtype).float()
        picked = (hidden.float() * rows).sum(1) * head.scale
        if head.cap:
            picked = torch.tanh(picked / head.cap) * head.cap
        ctx.save_for_backward(hidden, weight, targets, lse, picked)
        ctx.head = head
        if hidden.dtype == torch.float32:
            return picked - lse / LOG2E
        exact = picked * LOG2E
        return (exact - _exchange(lse, _round(hidden, rows, head), exact)) / LOG2E

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, lse, picked = ctx.saved_tensors
        head = ctx.head
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_weight = _find_weight_grad(weight, head) if needs_weight else None
        grad_hidden = _softmax_backward(hidden, weight, head, lse, upstream, grad_weight)
        slope = upstream * head.scale
        if head.cap:
            slope = slope * (1 - (picked / head.cap).square())
        if needs_hidden:
            grad_hidden.addcmul_(weight[targets].to(hidden.dtype).float(), slope[:, None])
        if grad_weight is not None:
            grad_weight.index_add_(0, targets, (hidden.float() * slope[:, None]).to(grad_weight.dtype))
        returned = None if head.accumulates else grad_weight
        return (grad_hidden.to(hidden.dtype) if needs_hidden else None), returned, None, None


def _find_weight_grad(weight: Tensor, head: Head) -> Tensor:
    if not head.accumulates:
        return torch.zeros_like(weight, dtype=torch.float32)
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad


def _logsumexp2(hidden: Tensor, weight: Tensor, head: Head) -> Tensor:
    """Return log2 of the sum of exp(logits), [tokens] in float32, in one pass with a running maximum."""
    highest = torch.full((len(hidden),), -torch.inf, device=hidden.device)
    total = torch.zeros_like(highest)
    for tokens, _, logits, _ in _tiles(hidden, weight, head):
        peak = torch.maximum(highest[tokens], logits.amax(1))
        mass = logits.sub_(peak[:, None]).exp2_().sum(1)
        total[tokens] = total[tokens] * torch.exp2(highest[tokens] - peak) + mass
        highest[tokens] = peak
    return highest + total.log2()


def _round(hidden: Tensor, rows: Tensor, head: Head) -> Tensor:
    """Return each token's target logit in base 2, [tokens], rounded as in a low-precision tile.

    ``rows`` [tokens, size] are the weight's rows of the targets.
    """
    rounded = (_scale(hidden, head).float() * rows).sum(1).to(hidden.dtype).float()
    return torch.tanh(rounded / (head.cap * LOG2E)) * (head.cap * LOG2E) if head.cap else rounded


def _exchange(lse: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Return a base-2 logsumexp with its term ``old`` replaced by ``new``.

    The logsumexp contains the rounded logit of the target. Compared with the exact one, a nearly certain target could
    have log p > 0.
    """
    others = (1 - torch.exp2(old - lse)).clamp_(min=0)
    return lse + (others + torch.exp2(new - lse)).log2()


def _softmax_backward(
    hidden: Tensor, weight: Tensor, head: Head, lse: Tensor, upstream: Tensor, grad_weight: Tensor | None
) -> Tensor:
    """Return the hidden states' gradient through -logsumexp, [tokens, size] in float32.

    The weight's gradient is added to ``grad_weight``, if that is given.
    The factors of a token (upstream gradient and scale) are applied outside the tiles.
    """
    grad_hidden = torch.zeros(hidden.shape, device=hidden.device)
    factor = (-head.scale * upstream)[:, None]
    weighted = (hidden.float() * factor).to(hidden.dtype)
    for tokens, block, logits, rows in _tiles(hidden, weight, head):
        if head.cap:
            slope = 1 - (logits / (head.cap * LOG2E)).square()
            tile = logits.sub_(lse[tokens, None]).exp2_().mul_(slope)
        else:
            tile = logits.sub_(lse[tokens, None]).exp2_()
        tile = tile.to(hidden.dtype)
        if tile.dtype == torch.float32:
            grad_hidden[tokens].addmm_(tile, rows)
        else:
            grad_hidden[tokens] += tile @ rows
        if grad_weight is not None:
            if grad_weight.dtype == tile.dtype:
                grad_weight[block].addmm_(tile.T, weighted[tokens])
            else:
                grad_weight[block] += tile.T @ weighted[tokens]
    return grad_hidden.mul_(factor)


def _scale(hidden: Tensor, head: Head) -> Tensor:
    return (hidden.float() * (head.scale * LOG2E)).to(hidden.dtype)


def _tiles(hidden: Tensor, weight: Tensor, head: Head) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Yield (tokens, block, logits, rows) for each tile, by blocks of the vocabulary.

    ``tokens`` and ``block`` are slices of tokens and vocabulary, ``logits`` are float32 in base 2, ``rows`` are the
    block's rows of the weight. The caller may overwrite the logits; their memory is reused for the next tile.
    """
    device = hidden.device.type
    num_tokens, num_words = len(hidden), len(weight)
    height = max(1, min(num_tokens, TILE_TOKENS[device]))
    width = max(1, min(num_words, TILE_BYTES[device] // 4 // height))
    scaled = _scale(hidden, head)
    product = hidden.new_empty(height * width)
    widened = product if hidden.dtype == torch.float32 else hidden.new_empty(height * width, dtype=torch.float32)
    for left in range(0, num_words, width):
        block = slice(left, min(left + width, num_words))
        rows = weight[block].to(hidden.dtype)
        for top in range(0, num_tokens, height):
            tokens = slice(top, min(top + height, num_tokens))
            shape = (tokens.stop - top, block.stop - left)
            size = shape[0] * shape[1]
            logits = product[:size].view(shape)
            torch.mm(scaled[tokens], rows.T, out=logits)
            if widened is not product:
                logits = widened[:size].view(shape).copy_(logits)
            if head.cap:
                bound = head.cap * LOG2E
                logits.div_(bound).tanh_().mul_(bound)
            yield tokens, block, logits, rows
