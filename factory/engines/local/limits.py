"""The limits that a model's config sets for its run, derived as in vLLM; in case of doubt nothing is reported."""

import math
import os
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from schemas.recipe.models import Model

_LENGTHS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
    "max_target_positions",
    "max_sequence_length",
    "max_seq_length",
    "seq_len",
)
"""The config fields that vLLM reads; the smallest value is the limit."""

_SCALED = frozenset({"su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"})
"""Kinds of rotary embeddings whose config already includes the scaling factor in its number of positions."""

_OTHERS = frozenset({"config_format", "disable_sliding_window", "hf_config_path", "hf_overrides", "max_model_len"})
"""Engine arguments that replace the config, or change how it is read."""


def find_limit_fault(model: Model, place: str) -> str | None:
    """Return a message if a setting of the run exceeds what the config in a model's folder allows, else None."""
    given = model.run.engine_args | model.engine_args
    if _OTHERS & given.keys():
        return None
    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=model.trust_remote_code).get_text_config()
    except Exception:  # vLLM may know this config, or reports the error itself
        return None
    heads, gpus = getattr(config, "num_attention_heads", None), given.get("tensor_parallel_size", model.run.gpus)
    if isinstance(heads, int) and isinstance(gpus, int) and heads % gpus:
        allowed = ", ".join(str(number) for number in range(1, min(heads, 64) + 1) if heads % number == 0)
        return f"'run.gpus' is {gpus}, but the model has {heads} attention heads, which are divisible by {allowed}"
    length, limit = model.run.max_model_len, _find_length(config)
    if length is None or limit is None or length <= limit or _is_free(place):
        return None
    return f"'run.max_model_len' is {length}, but the model's configuration allows at most {limit}"


def _find_length(config: Any) -> int | None:
    """Return the maximum number of tokens in a model's context, or None if its config does not say."""
    lengths = {name: getattr(config, name, None) for name in _LENGTHS}
    known = [value for value in lengths.values() if value is not None]
    if not known or not all(isinstance(value, int) for value in known):
        return None
    own: int | None = lengths["model_max_length"]
    derived = math.floor((own or min(known)) * _find_factor(config))
    return max(derived, own or 0)


def _find_factor(config: Any) -> float:
    """Return the factor by which rotary embeddings stretch positions; the largest one if layers differ."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(rope, dict) or "gemma3" in config.model_type:
        return 1.0
    layers = [layer for layer in rope.values() if isinstance(layer, dict)] or [rope]
    stretched = [layer for layer in layers if layer.get("rope_type", layer.get("type")) not in _SCALED]
    return float(max([1.0, *(layer.get("factor") or 1.0 for layer in stretched)]))


def _is_free(place: str) -> bool:
    """Whether vLLM's limit may differ from the config: by an environment variable, or for a sentence transformer."""
    allows = os.environ.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").strip().lower() in {"1", "true"}
    return allows or any(Path(place).glob("sentence_*_config.json"))
