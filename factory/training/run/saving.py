"""Writing the final model as a folder that transformers and vLLM can load."""

import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from factory.training.model.model import Policy, add_adapters
from factory.training.processes import World
from schemas.disk import share, whole_folder
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings


def gather_weights(policy: Policy, settings: TrainSettings, world: World) -> dict[str, Tensor]:
    """Gather the final weights on the CPU of the first process: all weights, or only those of adapters.

    Other processes return an empty dictionary. Weights are gathered one at a time, and whole models converted to the
    dtype that they are written in, to limit memory.
    """
    has_adapters = settings.lora is not None
    dtype = None if has_adapters else _find_dtype(settings)
    weights: dict[str, Tensor] = {}
    state = get_model_state_dict(policy, options=StateDictOptions(ignore_frozen_params=has_adapters))
    for name, weight in state.items():
        whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
        assert isinstance(whole, Tensor)
        if world.is_main:
            weights[name] = whole.to("cpu", dtype)
    return weights


def write_model(
    policy: Policy, weights: dict[str, Tensor], settings: TrainSettings, tokenizer: Path, final: Path
) -> None:
    """Write weights in the dtype of the original model, with tokenizer, chat template and generation config.

    The folder is written atomically and replaces an existing one. If adapters are not merged, only they are written.

    Raises:
        TrainingError: the model cannot be written.
    """
    try:
        with whole_folder(final, replaces=True) as folder:
            if settings.lora is not None and not settings.lora.merge:
                policy.model.save_pretrained(str(folder), state_dict=_plain_names(weights))
            else:
                _save_whole(policy, weights, settings, folder)
            shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
            share(folder)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        line = str(error).strip().partition("\n")[0]
        raise TrainingError(f"the model could not be written to {final}: {line}; the checkpoints are kept") from error


def _save_whole(policy: Policy, weights: dict[str, Tensor], settings: TrainSettings, folder: Path) -> None:
    """Write a model with its config, which names the dtype of the written weights, and its original generation config.

    ``save_pretrained`` alone would record the dtype of the policy, and refuse a generation config with sampling
    parameters beside ``do_sample = false``, as some released models have it.
    """
    model, dtype = policy.causal_lm, _find_dtype(settings)
    if settings.lora is not None:
        model, weights = _merge(weights, settings, dtype)
    tied = getattr(model, "all_tied_weights_keys", {}) if model.config.tie_word_embeddings else {}
    state = {name: weight.to(dtype) for name, weight in _plain_names(weights).items() if name not in tied}
    generation, model.generation_config = model.generation_config, GenerationConfig()
    model.save_pretrained(folder, state_dict=state)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    generation.to_json_file(folder / "generation_config.json")


def _find_dtype(settings: TrainSettings) -> torch.dtype:
    """Return the dtype of the model that the run starts from, in which the final model is written."""
    dtype: torch.dtype = AutoConfig.from_pretrained(settings.model).dtype or torch.float32
    return dtype


def _merge(
    weights: dict[str, Tensor], settings: TrainSettings, dtype: torch.dtype
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """Merge adapters into a fresh copy of the base model in its own dtype; each layer is merged in float32."""
    from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

    assert settings.lora is not None
    policy = Policy(AutoModelForCausalLM.from_pretrained(settings.model, dtype=dtype), dtype)
    add_adapters(policy, settings.lora)
    policy.load_state_dict(weights, strict=False)
    _untie_adapted(policy.causal_lm)
    for layer in policy.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.get_base_layer().float()
            layer.merge()
            layer.get_base_layer().to(dtype)
    assert isinstance(policy.model.base_model, BaseTuner)
    merged = policy.model.base_model.unload()
    assert isinstance(merged, PreTrainedModel)
    return merged, {f"model.{name}": weight for name, weight in merged.state_dict().items()}


def _untie_adapted(model: PreTrainedModel) -> None:
    """Untie the output layer if the embeddings have adapters, because those were not applied to the output layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if model.config.tie_word_embeddings and isinstance(model.get_input_embeddings(), BaseTunerLayer):
        head = model.get_output_embeddings()
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _plain_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their names in the model inside the policy."""
    return {name.removeprefix("model."): weight for name, weight in weights.items()}
