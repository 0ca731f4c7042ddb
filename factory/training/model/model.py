"""The model in training: its body on packed batches, its output layer in tiles, and a check that both are equivalent.

The trainer supports a scale and a cap between the last hidden states and the logits, and scaling, windows and a cap in
attention. A model that does anything else is found by the check: a batch is computed both ways and the results
compared.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, PreTrainedModel

from factory.training.data.examples import Example
from factory.training.data.layout import Layout, pack
from factory.training.model.attention import PACKED
from factory.training.model.logprobs import Head, token_logps
from factory.training.model.sharding import load_rows, shard
from schemas.errors import TrainingError
from schemas.recipe.training import Lora

if TYPE_CHECKING:
    from peft import PeftModel

CHECKED_TOKENS = 16
"""How many targets of each branch are compared with the model's own logits."""

MAX_CHECKED_TOKENS = 2048

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3}
"""The largest difference of a log-probability that rounding can explain, by dtype of the computation: that of the
weights or, in a sharded model, that in which shards are gathered."""


class Policy(nn.Module):
    """A causal language model whose ``forward`` returns the log-probabilities of a layout's targets."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        super().__init__()
        self.model: PreTrainedModel | PeftModel = model
        self.dtype = dtype
        self.shares_prompts = True
        self.is_sharded = False

    @property
    def causal_lm(self) -> Any:
        """The transformers model, without adapters around it."""
        return self.model if isinstance(self.model, PreTrainedModel) else self.model.get_base_model()

    def forward(self, layout: Layout, own: Tensor | None = None) -> Tensor:
        """Return log p of each target, [targets] in float32; or, with ``own``, of the targets at these indices as
        computed by the unmodified model.

        Both computations start here because FSDP2 gathers shards only inside the forward pass of its root module.
        """
        return self._compute_packed(layout) if own is None else self._compute_own(layout, own)

    def _compute_packed(self, layout: Layout) -> Tensor:
        lm = self.causal_lm
        with self._autocast(layout.tokens.device.type):
            body = getattr(lm, lm.base_model_prefix)
            output = body(input_ids=layout.tokens, position_ids=layout.positions, use_cache=False, layout=layout)
            hidden = output.last_hidden_state[0, layout.sources].to(self.dtype)
        weight = lm.get_output_embeddings().weight
        accumulates = torch.is_grad_enabled() and weight.requires_grad and not self.is_sharded
        return token_logps(hidden, Head(weight, *_find_scaling(lm), accumulates), layout.targets)

    def _compute_own(self, layout: Layout, places: Tensor) -> Tensor:
        """Return log p of some targets in a layout with one example, computed by the unmodified transformers model."""
        lm = self.causal_lm
        lm.set_attn_implementation("eager")
        try:
            kept = layout.sources[places]
            logits = lm(input_ids=layout.tokens, use_cache=False, logits_to_keep=kept).logits[0]
        finally:
            lm.set_attn_implementation(PACKED)
        logps: Tensor = torch.log_softmax(logits.float(), -1).gather(1, layout.targets[places, None])[:, 0]
        return logps

    def pack(self, examples: Sequence[Example], device: torch.device) -> Layout:
        """Return the layout of examples, with shared prompts if the model allows it."""
        parts = examples if self.shares_prompts else [part for example in examples for part in example.split()]
        return pack(parts, device)

    def trained_parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def prepare_gradients(self) -> None:
        """Give every trained parameter a gradient of zeros, to which backward adds in place.

        The gradient of the input embedding is made sparse: only the rows of tokens in the batch are computed and added.
        """
        if self.is_sharded:
            return
        for parameter in self.trained_parameters():
            parameter.grad = torch.zeros_like(parameter)
        embedding = self.causal_lm.get_input_embeddings()
        embedding.sparse = embedding.weight.requires_grad

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard each layer, and then the rest of the model, over all processes."""
        names = set(
            self.causal_lm._no_split_modules or ()
        )  # transformers says nowhere else which modules are its layers
        shard(self, [module for module in self.modules() if type(module).__name__ in names], self.dtype, mesh)
        self.is_sharded = True

    def _autocast(self, device: str) -> AbstractContextManager[object]:
        if self.dtype == torch.float32 or self.is_sharded:
            return nullcontext()
        context: AbstractContextManager[object] = torch.autocast(device, self.dtype)
        return context

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Compute in float32, without autocast, inside the ``with`` block."""
        dtype, self.dtype = self.dtype, torch.float32
        try:
            yield
        finally:
            self.dtype = dtype


def load_policy(
    name: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    lora: Lora | None = None,
    checkpointing: bool = False,
    mesh: DeviceMesh | None = None,
) -> Policy:
    """Load a model for training, with float32 weights (with LoRA on a GPU, ``dtype``) and computation in ``dtype``.

    With a mesh, each process loads only its shard.

    Raises:
        TrainingError: the model cannot be loaded, or its files lack a weight.
    """
    weights = dtype if lora is not None and device.type == "cuda" else torch.float32
    options: dict[str, Any] = {"dtype": weights, "attn_implementation": PACKED, "output_loading_info": True}
    try:
        load: Callable[..., Any] = (
            AutoModelForCausalLM.from_pretrained if mesh is None else partial(load_rows, mesh=mesh)
        )
        model, found = load(name, **options)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        line = str(error).strip().partition("\n")[0]
        raise TrainingError(f"model '{name}' cannot be loaded for training: {line}") from error
    if found["missing_keys"]:
        lacking = ", ".join(sorted(found["missing_keys"])[:3])
        raise TrainingError(f"model '{name}' cannot be trained: its files have no weights for {lacking}")
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return Policy(model.to(device), dtype)


def check_lengths(policy: Policy, name: str, examples: Sequence[Example]) -> None:
    """Check that the model's vocabulary covers all token ids and its positions the longest row.

    Raises:
        TrainingError: a token id or a row is too large.
    """
    config = policy.causal_lm.config
    highest = max(int(part.max(initial=0)) for example in examples for part in (example.prompt, *example.branches))
    num_words = policy.causal_lm.get_input_embeddings().num_embeddings
    if highest >= num_words:
        raise TrainingError(
            f"the tokenizer of model '{name}' produces token {highest}, but the model has only {num_words} tokens"
        )
    longest = max(len(example.prompt) + max(map(len, example.branches)) for example in examples)
    limit = getattr(config, "max_position_embeddings", None) or longest
    if longest > limit:
        raise TrainingError(f"a row has {longest} tokens, but model '{name}' has {limit} positions; lower 'max_length'")


def check_logits(policy: Policy, name: str, examples: Sequence[Example], device: torch.device) -> None:
    """Compare packed, tiled log-probabilities with those of the unmodified model on a few rows.

    If they agree only without shared prompts, sharing is turned off for this policy.

    Raises:
        TrainingError: they differ by more than rounding errors.
    """
    policy.eval()
    batch = _choose(examples)
    own = torch.cat([_own_logps(policy, part, device) for example in batch for part in example.split()])
    tolerance = TOLERANCE[policy.dtype if policy.is_sharded else next(policy.parameters()).dtype]
    for shares in (True, False):
        policy.shares_prompts = shares
        gap = float((_packed_logps(policy, batch, device) - own).abs().max())
        if gap <= tolerance:
            return
    raise TrainingError(
        f"model '{name}' is not supported: its own logits and the trainer's differ by {gap:.2g} in the log-probability "
        f"of a token ({tolerance:g} is allowed), so its attention or output layer has a feature that the trainer lacks"
    )


def _choose(examples: Sequence[Example]) -> list[Example]:
    """Return the shortest and the median of the first rows, without a very long median: eager attention is slow."""
    by_length = sorted(examples[:32], key=lambda example: example.num_packed)
    middle = by_length[len(by_length) // 2]
    return by_length[:1] if middle.num_packed > MAX_CHECKED_TOKENS else [by_length[0], middle]


def _checked_places(example: Example) -> list[Tensor]:
    """Return the indices of the compared targets of each branch: the first and the last ones."""
    half = CHECKED_TOKENS // 2
    return [
        torch.tensor(sorted({*range(min(half, count)), *range(max(0, count - half), count)}))
        for count in example.num_trained
    ]


@torch.no_grad()
def _packed_logps(policy: Policy, batch: Sequence[Example], device: torch.device) -> Tensor:
    layout = policy.pack(batch, device)
    with policy.in_float32():
        logps = policy(layout)
    by_side = logps.split(torch.bincount(layout.sides, minlength=1).tolist())
    places = [place for example in batch for place in _checked_places(example)]
    return torch.cat([side[place.to(device)] for side, place in zip(by_side, places, strict=True)])


@torch.no_grad()
def _own_logps(policy: Policy, example: Example, device: torch.device) -> Tensor:
    """Return the checked log-probabilities of an example with one branch, computed by the unmodified model."""
    logps: Tensor = policy(pack([example], device), _checked_places(example)[0].to(device))
    return logps


def _find_scaling(model: Any) -> tuple[float, float]:
    """Return the scale and the cap of a model's logits (Cohere, Granite; Gemma)."""
    config = model.config
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    return float(scale), float(getattr(config, "final_logit_softcapping", None) or 0.0)


def add_adapters(policy: Policy, lora: Lora) -> None:
    """Freeze the model and add low-rank adapters.

    Raises:
        TrainingError: a target module does not exist, or is the output layer.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    targets: Any = lora.targets[0] if lora.targets == ("all-linear",) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type] # peft only divides it by the rank, so a float works too
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        policy.model = get_peft_model(policy.model, config)
    except ValueError as error:
        raise TrainingError(f"adapters cannot be added to {', '.join(lora.targets)}: {error}") from error
    if isinstance(policy.causal_lm.get_output_embeddings(), BaseTunerLayer):
        raise TrainingError("adapters cannot be added to the output layer, because its logits are computed in tiles")
