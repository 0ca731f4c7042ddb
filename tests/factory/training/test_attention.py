"""Attention on a GPU, as far as a CPU shows it: its block masks, its values and its gradients, and that it compiles."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from torch._higher_order_ops.flex_attention import flex_attention as flex_operator
from torch.nn.attention.flex_attention import flex_attention

from factory.training.data.layout import pack
from factory.training.model import attention
from factory.training.model.model import load_policy
from tests.factory.training.conftest import CONFIGS, save_model
from tests.factory.training.test_logprobs import draw, relative

CPU = torch.device("cpu")
BLOCK = attention.BLOCK


def draw_batch(seed: int = 0):
    """Pairs and single sequences, over several blocks, whose edges are edges of nothing else."""
    rng = np.random.default_rng(seed)
    return [draw(rng, 140, 50, 60), draw(rng, 0, 300), draw(rng, 33, 9, 41), draw(rng, 500, 20), draw(rng, 7, 260, 270)]


def operate(query, key, value, *, block_mask, score_mod, scale, enable_gqa):
    """Flex attention's operator as it is, which has a backward on CPU; the function around it refuses one."""
    given = score_mod or (lambda score, *_: score)
    options = {"BACKEND": "AUTO", "OUTPUT_LOGSUMEXP": True, "OUTPUT_MAX": False}
    return flex_operator(query, key, value, given, block_mask.as_tuple(), scale, options)[0]


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Return a function that sends attention through flex attention, or through a function in its place."""

    def switch(flex) -> None:
        monkeypatch.setattr(attention, "_attend_by_group", attention._flex)
        monkeypatch.setattr(attention, "_compiled_flex", lambda _device: flex)

    return switch


@pytest.mark.parametrize("window", [None, 1, 12, 128, 200, 5000])
def test_blocks_are_left_out_or_taken_whole_where_every_pair_allows_it(window):
    for layout in (pack(draw_batch()), pack(draw_batch()[:1]), pack(draw_batch()[-1:])):
        length = layout.num_tokens
        places = torch.arange(length)
        exact = layout.sees(places[:, None], places[None, :], window)
        mask = attention._make_block_mask(layout, window)
        blocks = torch.zeros(2, -(-length // BLOCK), -(-length // BLOCK), dtype=torch.bool)
        found = ((mask.kv_num_blocks, mask.kv_indices), (mask.full_kv_num_blocks, mask.full_kv_indices))
        for kind, (counts, indices) in enumerate(found):
            for row, count in enumerate(counts[0, 0].tolist()):
                blocks[kind, row, indices[0, 0, row, :count].tolist()] = True
        assert not (blocks[0] & blocks[1]).any()
        some, full = (kind.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:length, :length] for kind in blocks)
        asked = mask.mask_mod(torch.tensor(0), torch.tensor(0), places[:, None], places[None, :])
        assert torch.equal((some & asked) | full, exact)
        assert exact[full].all()
        if length > 1000 and window in (None, 5000):
            assert blocks[1].sum() > 3
            assert blocks.any(0).sum() < blocks[0].tril().numel() / 3


@pytest.mark.parametrize("family", CONFIGS)
def test_flex_attention_gives_the_values_and_gradients_of_the_cpu(tmp_path, as_on_gpu, family):
    policy = load_policy(str(save_model(tmp_path / family, family)), dtype=torch.float32, device=CPU)
    found = []
    for is_flex in (False, True):
        if is_flex:
            as_on_gpu(operate)
        policy.prepare_gradients()
        layout = policy.pack(draw_batch()[:3], CPU)
        logps = policy(layout)
        (logps * torch.linspace(-1, 1, len(logps))).sum().backward()
        found.append((logps, {name: parameter.grad.double() for name, parameter in policy.named_parameters()}))
        assert any("flex" in key for key in layout.masks) == is_flex
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-4)
    for name, gradient in found[0][1].items():
        assert relative(found[1][1][name], gradient) < 1e-5, name


def test_flex_attention_takes_queries_that_autocast_left_in_float32(llama, as_on_gpu):
    policy = load_policy(str(llama), dtype=torch.bfloat16, device=CPU)
    layout = policy.pack(draw_batch()[:2], CPU)
    plain, dtypes = policy(layout), set()

    def noting(query, key, value, **rest):
        dtypes.add((query.dtype, key.dtype, value.dtype, torch.is_autocast_enabled("cpu")))
        return operate(query, key, value, **rest)

    as_on_gpu(noting)
    torch.testing.assert_close(policy(policy.pack(draw_batch()[:2], CPU)), plain, rtol=0, atol=0.1)
    assert dtypes == {(torch.bfloat16, torch.bfloat16, torch.bfloat16, False)}


def forward_compiled(folder, as_on_gpu, backend: str, batches) -> list[int]:
    """Compare compiled flex attention with the CPU's, batch by batch; return how often it had been compiled after each."""
    policy = load_policy(str(folder), dtype=torch.float32, device=CPU)
    torch.compiler.reset()
    counters.clear()
    options: dict[str, Any] = {"dynamic": True, "fullgraph": True, "recompile_limit": 64, "backend": backend}
    attend: Callable[..., Any] = flex_attention
    compiled = torch.compile(attend, **options)
    with torch.no_grad():
        plain = [policy(policy.pack(batch, CPU)) for batch in batches]
        as_on_gpu(compiled)
        counts = []
        for batch, expected in zip(batches, plain, strict=True):
            torch.testing.assert_close(policy(policy.pack(batch, CPU)), expected, rtol=1e-4, atol=1e-4)
            counts.append(counters["stats"]["unique_graphs"])
    return counts


def test_batches_of_all_sizes_and_layers_with_and_without_windows_share_what_was_compiled(tmp_path, as_on_gpu):
    batches = [draw_batch()[at : at + 2] for at in range(4)]
    counts = forward_compiled(save_model(tmp_path / "gemma2", "gemma2"), as_on_gpu, "aot_eager", batches)
    assert counts[0] == 1
    assert counts[-1] <= 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
@pytest.mark.parametrize("family", ["cohere2", "gemma2"])
def test_masks_with_windows_and_capped_scores_can_be_lowered(tmp_path, as_on_gpu, family):
    batches = [draw_batch(seed)[:3] for seed in range(2)]
    assert forward_compiled(save_model(tmp_path / family, family), as_on_gpu, "inductor", batches)[0] == 1
