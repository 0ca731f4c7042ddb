"""Everything before the first step: data, a checked model, the reference, the optimizer and the latest checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from factory.training.data.batches import plan_steps
from factory.training.data.dataset import Dataset, load_datasets, write_rejected
from factory.training.identity import RunIdentity
from factory.training.model.memory import release_memory
from factory.training.model.model import Policy, add_adapters, check_lengths, check_logits, load_policy
from factory.training.processes import World
from factory.training.run.checkpoints import Progress, find_checkpoints, load_checkpoint
from factory.training.run.optimization import make_optimizer, seed_torch
from factory.training.run.reference import ReferencePass, find_cache, read_reference
from schemas.disk import read_text, remove_unfinished
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that the loop needs. ``steps`` are the row numbers of each step of the run."""

    policy: Policy
    train: Dataset
    held_out: Dataset | None
    steps: list[list[int]]
    optimizer: torch.optim.Optimizer
    progress: Progress


def prepare(settings: TrainSettings, identity: RunIdentity, output: Path, world: World, *, quiet: bool) -> Prepared:
    """Load and check everything, and restore the latest checkpoint if there is one.

    Raises:
        InputError: the data cannot be read.
        TrainingError: the model cannot be loaded or does not match the data, or a checkpoint is damaged.
    """
    disable_progress_bar()
    tokenizer = load_tokenizer(settings)
    train, held_out = load_datasets(settings, tokenizer, _end_tokens(settings.model))
    if world.is_main:
        tokenizer.save_pretrained(output / "tokenizer")
        write_rejected(output / "rejected.jsonl", {"train": train, "eval": held_out})
    held_out = _check_held_out(held_out, settings)
    del tokenizer  # with a vocabulary of 256,000 it takes 100 MB
    policy = _load(settings, settings.model, world)
    for dataset in (train, held_out):
        if dataset is not None:
            check_lengths(policy, settings.model, dataset.examples)
    if settings.lora is not None:
        seed_torch(settings.seed)
        add_adapters(policy, settings.lora)
    if world.mesh is not None:
        policy.shard(world.mesh)
    check_logits(policy, settings.model, train.examples, world.device)
    if settings.needs_reference:
        _provide_reference(settings, identity, policy, {"train": train, "eval": held_out}, world, quiet=quiet)
    optimizer = make_optimizer(policy.trained_parameters(), settings)
    if world.is_main:
        remove_unfinished(output / "checkpoints")
    checkpoints = find_checkpoints(output / "checkpoints")
    progress = load_checkpoint(checkpoints[-1], policy, optimizer, world) if checkpoints else Progress()
    policy.prepare_gradients()
    steps = plan_steps([example.num_tokens for example in train.examples], settings)
    release_memory()
    return Prepared(policy, train, held_out, steps, optimizer, progress)


def _check_held_out(held_out: Dataset | None, settings: TrainSettings) -> Dataset | None:
    """Return the held-out data if it has examples, else None.

    Raises:
        TrainingError: it has none, but final = 'best' needs it.
    """
    if held_out is not None and held_out.examples:
        return held_out
    if settings.final == "best":
        raise TrainingError("final = 'best' needs held-out data: set 'eval_data', or export an eval split")
    return None


def load_tokenizer(settings: TrainSettings) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer, with the chat template of the settings if it is set.

    Raises:
        TrainingError: the tokenizer or the template cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(settings.model)
    except (OSError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise TrainingError(f"model '{settings.model}' has no tokenizer that can be loaded: {line}") from error
    if settings.chat_template is not None:
        try:
            tokenizer.chat_template = read_text(Path(settings.chat_template))
        except (OSError, ValueError) as error:
            raise TrainingError(f"chat template '{settings.chat_template}' cannot be read: {error}") from error
    return tokenizer


def _end_tokens(model: str) -> list[int]:
    """Return the tokens that end generation according to the model's generation config."""
    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        return []
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


def _load(settings: TrainSettings, name: str, world: World) -> Policy:
    return load_policy(
        name,
        dtype=DTYPES[settings.dtype],
        device=world.device,
        lora=settings.lora,
        checkpointing=settings.run.activation_checkpointing,
        mesh=world.mesh,
    )


def _provide_reference(
    settings: TrainSettings,
    identity: RunIdentity,
    policy: Policy,
    datasets: dict[str, Dataset | None],
    world: World,
    *,
    quiet: bool,
) -> None:
    """Set the reference's log-probabilities of each data set, from the cache or by a pass of the reference.

    Unless the settings name a reference model, the policy itself is the reference, before its first step.
    """
    fingerprint = identity.reference or identity.model
    reference = policy if settings.reference is None else None
    for split, dataset in datasets.items():
        if dataset is None:
            continue
        place = settings.eval_data if split == "eval" and settings.eval_data is not None else settings.data
        cache = find_cache(settings, dataset, fingerprint, place)
        kept = read_reference(cache, dataset)
        if all(world.gather(kept is not None)):
            dataset.reference = kept
            continue
        if reference is None:
            assert settings.reference is not None
            reference = _load(settings, settings.reference, world)
            check_lengths(reference, settings.reference, dataset.examples)
            if world.mesh is not None:
                reference.shard(world.mesh)
            check_logits(reference, settings.reference, dataset.examples, world.device)
        limit = settings.run.micro_batch_tokens
        dataset.reference = ReferencePass(reference, dataset, limit, world, cache).run(quiet=quiet)
