"""Tiny models of the real architectures: merged, loaded by transformers and by vLLM, and computed with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BatchEncoding,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Qwen3Config,
)

from factory.merging import merge as merge_module
from factory.merging.merge import merge
from schemas.errors import InputError
from schemas.recipe.merging import MergeSettings
from tests.factory.engines.conftest import make_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 261,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
    "initializer_range": 0.2,
}

FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "cohere": CohereConfig(**SIZES, use_qk_norm=False),
    "cohere-qk-norm": CohereConfig(**SIZES, use_qk_norm=True),
    "cohere2": Cohere2Config(**SIZES, sliding_window=64),
    "qwen3": Qwen3Config(**SIZES, tie_word_embeddings=True),
    "gemma2": Gemma2Config(**SIZES, sliding_window=64, query_pre_attn_scalar=32),
    "gemma3": Gemma3TextConfig(**SIZES, sliding_window=64, query_pre_attn_scalar=32),
}


def make_model(folder: Path, config: Any, seed: int, dtype: torch.dtype = torch.bfloat16) -> Path:
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).to(dtype).save_pretrained(folder, max_shard_size="150KB")
    make_tokenizer().save_pretrained(folder)
    return folder


def load(folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return model.eval()


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Path]]]:
    """For each family the merge of three, by another method each, and its parents."""
    root = tmp_path_factory.mktemp("families")
    methods = ["linear", "slerp", "ties", "dare_ties", "dare_linear", "linear", "ties"]
    results = {}
    for (name, config), method in zip(FAMILIES.items(), methods, strict=True):
        parents = [make_model(root / name / str(seed), config, seed) for seed in range(3)]
        base = {} if method in {"linear", "slerp"} else {"base": str(parents[0])}
        models = [{"model": str(parent), "weight": 0.5} for parent in parents[len(base) :]]
        settings = {"method": method, "models": models, **base, "run": {"max_shard_gb": 1e-4}}
        merge(MergeSettings.model_validate(settings), root / name / "merged")
        results[name] = (root / name / "merged", parents)
    return results


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_the_merge(family, merged):
    folder, parents = merged[family]
    model, parent = load(folder), load(parents[0])
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings == FAMILIES[family].tie_word_embeddings
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        name: tuple(value.shape) for name, value in parent.state_dict().items()
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": "שלום é"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert isinstance(inputs, BatchEncoding)
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        assert model(**inputs).logits.isfinite().all()
    assert len(list(folder.glob("*.safetensors"))) > 1


def test_a_linear_merge_has_the_mean_of_the_weights(merged):
    folder, parents = merged["llama"]
    states = [load(parent).state_dict() for parent in parents]
    for name, value in load(folder).state_dict().items():
        mean = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(value.double(), mean, rtol=2**-8, atol=1e-6)


def test_cohere_with_and_without_qk_norm_do_not_mix(merged, tmp_path):
    models = [{"model": str(merged[family][1][0])} for family in ("cohere", "cohere-qk-norm")]
    with pytest.raises(InputError, match=r"has the parameter 'model.layers.0.self_attn.(k|q)_norm.weight' and 3 more"):
        merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")


def test_a_tied_and_an_untied_model_make_one_that_transformers_unties(tmp_path):
    """Twice the same tied model, once untied by hand: the merge computes what the model does."""
    tied = make_model(tmp_path / "tied", FAMILIES["qwen3"], 0, torch.float32)
    model = load(tied)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.save_pretrained(tmp_path / "untied")
    make_tokenizer().save_pretrained(tmp_path / "untied")
    models = [{"model": str(tied)}, {"model": str(tmp_path / "untied")}]
    result = merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    assert any("output layer of its own" in note for note in result.notes)
    inputs = torch.arange(5, 25)[None]
    with torch.inference_mode():
        left, right = load(tied)(inputs).logits, load(tmp_path / "out")(inputs).logits
    assert torch.equal(left, right)
    assert not load(tmp_path / "out").config.tie_word_embeddings


def make_adapter(folder: Path, base: Path, seed: int, **options: Any) -> Any:
    """Save a random adapter; return the model with the adapter folded in by peft."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**shape | options)
    )
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                value.copy_(torch.randn_like(value) * 0.3)
    model.save_pretrained(str(folder))
    return PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), folder
    ).merge_and_unload()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"down_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 3}},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
    ],
    ids=["plain", "rank-stabilised, with patterns", "embeddings", "a whole module"],
)
@pytest.mark.parametrize("block_elements", [1000, 1 << 17])
def test_a_lora_adapter_counts_as_the_model_that_it_makes(options, block_elements, tmp_path, monkeypatch):
    """Two adapters on one model are merged, each with its own weight, as if they had been folded in first.

    Blocks of 1000 elements begin and end within rows.
    """
    monkeypatch.setattr(merge_module, "BLOCK_ELEMENTS", block_elements)
    base = make_model(tmp_path / "base", FAMILIES["llama"], 0, torch.float32)
    states = [make_adapter(tmp_path / str(seed), base, seed, **options).state_dict() for seed in (1, 2)]
    models = [
        {"model": str(base), "adapter": str(tmp_path / str(seed)), "weight": weight}
        for seed, weight in ((1, 0.25), (2, 0.75))
    ]
    merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    for name, value in load(tmp_path / "out").state_dict().items():
        wanted = 0.25 * states[0][name].double() + 0.75 * states[1][name].double()
        torch.testing.assert_close(value.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=["embeddings", "whole embeddings", "output layer", "both, tied"],
)
def test_an_adapter_on_one_end_of_a_tied_model_leaves_the_other_as_it_was(options, tmp_path):
    base = make_model(tmp_path / "base", FAMILIES["qwen3"], 0, torch.float32)
    make_adapter(tmp_path / "adapter", base, 1, **options)
    models = [{"model": str(base), "adapter": str(tmp_path / "adapter")}]
    merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
    adapted = PeftModel.from_pretrained(load(base), tmp_path / "adapter").eval()
    inputs = torch.arange(5, 25)[None]
    with torch.inference_mode():
        torch.testing.assert_close(load(tmp_path / "out")(inputs).logits, adapted(inputs).logits, rtol=1e-4, atol=1e-3)
    assert not load(tmp_path / "out").config.tie_word_embeddings


@pytest.mark.filterwarnings("ignore")
def test_adapters_that_do_not_fit(tmp_path):
    base = make_model(tmp_path / "base", FAMILIES["llama"], 0, torch.float32)
    make_adapter(tmp_path / "good", base, 1)
    config = json.loads((tmp_path / "good/adapter_config.json").read_text())

    def refuse(sentence: str, model: Path, adapter: Path | None = None) -> None:
        models = [{"model": str(base)}, {"model": str(model), "adapter": None if adapter is None else str(adapter)}]
        with pytest.raises(InputError, match=sentence) as caught:
            merge(MergeSettings.model_validate({"models": models}), tmp_path / "out")
        assert "\n" not in str(caught.value)

    refuse("'.*/good' is an adapter; set it as 'adapter', and its base model", tmp_path / "good")
    refuse("'.*/base' is not an adapter: it has no adapter_config.json", base, base)
    other = make_model(tmp_path / "other", LlamaConfig(**SIZES | {"hidden_size": 32}, tie_word_embeddings=False), 0)
    refuse(r"adapter '.*/good' changes '.*' by a matrix of shape .*; the model's has shape", other, tmp_path / "good")
    for change, sentence in (({"use_dora": True}, "is of type DORA"), ({"peft_type": "IA3"}, "is of type IA3")):
        (tmp_path / "good/adapter_config.json").write_text(json.dumps(config | change))
        refuse(f"adapter '.*/good' {sentence}; only plain LoRA adapters can be merged", base, tmp_path / "good")


VLLM = """
import json, sys
from vllm import LLM, SamplingParams
texts = {}
for folder in sys.argv[1:]:
    engine = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=64, max_num_seqs=4)
    output = engine.generate([{"prompt_token_ids": list(range(5, 25))}], SamplingParams(temperature=0, max_tokens=8))
    texts[folder] = list(output[0].outputs[0].token_ids)
    engine.llm_engine.engine_core.shutdown()
    del engine
print("RESULT" + json.dumps(texts))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vllm_loads_every_merge_and_agrees_with_transformers(merged):
    """In float32: in bfloat16 the two round differently, and random models write on a knife's edge."""
    folders = [str(folder) for folder, _ in merged.values()]
    environment = os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", VLLM, *folders], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout[done.stdout.index("RESULT") + 6 :].splitlines()[0])
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        inputs = torch.arange(5, 25)[None]
        with torch.inference_mode():
            output = model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=8, do_sample=False)
        assert answers[folder] == output[0, 20:].tolist(), folder
