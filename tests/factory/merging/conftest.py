"""Tiny checkpoints written by hand: quick, and with every name and dtype in sight."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

Make = Callable[..., Path]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
TOKENIZER = {
    "model": {"type": "BPE", "vocab": {"a": 0, "é": 1, "שלום": 2}},
    "added_tokens": [{"id": 3, "content": "<|end|>"}],
}


def draw_weights(seed: int, dtype: torch.dtype = torch.bfloat16, scale: float = 1.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (40, 24)}
    for layer in range(3):
        shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (24, 24)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (50, 24)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (24,)
    shapes |= {"model.norm.weight": (24,), "lm_head.weight": (40, 24)}
    return {name: (torch.randn(shape, generator=generator) * scale).to(dtype) for name, shape in shapes.items()}


def write_checkpoint(
    folder: Path, weights: dict[str, torch.Tensor], *, num_shards: int = 1, tokenizer: Any = TOKENIZER, **config: Any
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"eos_token_id": 3}')
    if num_shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    names = list(weights)
    weight_map: dict[str, str] = {}
    for number in range(num_shards):
        shard = f"model-{number + 1:05}-of-{num_shards:05}.safetensors"
        save_file({name: weights[name] for name in names[number::num_shards]}, folder / shard)
        weight_map |= dict.fromkeys(names[number::num_shards], shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        weights |= load_file(path)
    return weights


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a random checkpoint: ``make("a", seed=1, num_shards=2, dtype=torch.float32, vocab_size=...)``."""

    def make_checkpoint(name: str, *, seed: int = 0, dtype: torch.dtype = torch.bfloat16, **options: Any) -> Path:
        return write_checkpoint(tmp_path / name, draw_weights(seed, dtype), **options)

    return make_checkpoint


@pytest.fixture
def parents(make: Make) -> Sequence[Path]:
    return [make(name, seed=seed) for seed, name in enumerate(("base", "a", "b", "c"))]
