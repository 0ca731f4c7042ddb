"""Tiny random models of every family, one tokenizer, and data in small files."""

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MixtralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3MoeConfig,
)

torch.set_num_threads(1)

SPECIAL = ("<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
VOCABULARY = 512

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "cohere": lambda: CohereConfig(**SHAPE, logit_scale=0.25, use_qk_norm=True),
    "cohere2": lambda: Cohere2Config(**SHAPE | {"num_hidden_layers": 4}, logit_scale=0.25, sliding_window=12),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True),
    "gemma2": lambda: Gemma2Config(
        **SHAPE, head_dim=8, query_pre_attn_scalar=8, sliding_window=12, final_logit_softcapping=3.0,
        attn_logit_softcapping=2.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(**SHAPE, head_dim=8, query_pre_attn_scalar=8, sliding_window=12),
}  # fmt: skip

EXPERTS = {
    "mixtral": lambda: MixtralConfig(**SHAPE, num_local_experts=4),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **SHAPE | {"head_dim": 8}, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=16
    ),
}

PROMPTS = ("Which of these is an animal?", "اكتب كلمة واحدة", "これは何ですか", "Где кошка?", "नमस्ते दुनिया")
ANSWERS = ("It is the cat.", "قطة", "猫です", "Кошка на столе.", "बिल्ली", "A dog, I think, or a horse.", "No.")


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PROMPTS, *ANSWERS] * 3, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def save_model(folder: Path, family: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a random model of a family with the tokenizer; return its folder."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config((CONFIGS | EXPERTS)[family](), dtype=dtype)
    model.generation_config.eos_token_id = [2, SPECIAL.index("<|end|>")]
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def broken_llama(llama: Path, tmp_path: Path) -> Path:
    """The model with one embedding that is not a number, that of a token which only a row with a tilde has."""
    folder = shutil.copytree(llama, tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(folder)
    (token,) = make_tokenizer()("~", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight")[token] = torch.nan
    model.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def chat(prompt: str, *answers: str):
    """Return the columns of an SFT row, or of a preference row."""
    user = {"role": "user", "content": prompt}
    turns = [{"role": "assistant", "content": answer} for answer in answers]
    if len(turns) == 1:
        return {"messages": [user, *turns]}
    return {"prompt": [user], "chosen": turns[:1], "rejected": turns[1:]}


def pairs(count: int):
    """Yield preference rows in five languages, of different lengths."""
    languages = ("en", "ar", "ja", "ru", "hi")
    for number in range(count):
        at = number % 5
        answers = ANSWERS[number % 3], ANSWERS[3 + number % 4]
        yield {"id": f"row-{number}", "language": languages[at]} | chat(f"{PROMPTS[at]} {number}", *answers)


def turns(count: int):
    """Yield SFT rows in five languages."""
    for row in pairs(count):
        yield {"id": row["id"], "language": row["language"], "messages": row["prompt"] + row["chosen"]}
