"""The parents of a merge: Hugging Face checkpoints, optionally with a LoRA adapter, and checks that they match."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from factory.merging.checkpoints.adapters import CONFIG, LowRank, read_adapter, read_config
from factory.merging.checkpoints.safetensors_files import Reader, StoredTensor, read_header
from schemas.errors import InputError
from schemas.recipe.merging import MergeModel
from schemas.toml.paths import is_path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "shared.weight")
"""The endings of the names of the output layer and the token embeddings."""

DOWNLOADED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py")

SAME = ("model_type", "vocab_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
"""Config keys in which all parents must agree, because equal shapes do not imply them."""

UNIMPORTANT = frozenset(
    {
        "_name_or_path",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
        "tie_word_embeddings",
        "architectures",
    }
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A parent: where its parameters are stored, and the changes of its adapter."""

    label: str
    folders: tuple[Path, ...]
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    changes: Mapping[str, LowRank]
    is_tied: bool

    @property
    def head(self) -> str | None:
        return next((name for name in self.tensors if name == HEAD or name.endswith("." + HEAD)), None)

    @property
    def embedding(self) -> str | None:
        return next((name for name in self.tensors if name.endswith(EMBEDDINGS)), None)

    def find_file(self, name: str) -> Path | None:
        """Return a file besides the weights, from the adapter's folder or else the model's; None if there is none."""
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def paths(self) -> set[Path]:
        """Return all files with weights."""
        factors = [tensor.path for change in self.changes.values() for tensor in (change.a, change.b)]
        return {tensor.path for tensor in self.tensors.values()} | set(factors)

    def fill(self, values: Tensor, reader: Reader, raw: Tensor, name: str, start: int) -> Tensor:
        """Fill the flat tensor ``values`` with a parameter's elements from ``start`` on, adapter included; return it.

        ``raw`` is a buffer of the same number of elements in the stored dtype. They are copied to a GPU in that dtype
        and converted there, which halves the transfer.
        """
        reader.fill(raw, self.tensors[name], start)
        values.copy_(raw.to(values.device))
        change = self.changes.get(name)
        if change is not None:
            columns = change.shape[1]
            first, last = start // columns, -(-(start + values.numel()) // columns)
            left, right = _factors(reader, change, values)
            rows = (left[first:last] @ right).flatten()[start - first * columns :]
            values.add_(rows[: values.numel()], alpha=change.scale)
        return values


def _factors(reader: Reader, change: LowRank, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return two matrices whose product is the change of the stored matrix, with the dtype and device of ``like``."""
    a, b = (reader.read_matrix(tensor, like.dtype, like.device) for tensor in (change.a, change.b))
    return (a.T, b.T) if change.is_transposed else (b, a)


def open_checkpoint(model: MergeModel) -> Checkpoint:
    """Locate the parameters of a parent, without reading weights.

    Raises:
        InputError: a file is missing, damaged, or of a kind that cannot be merged.
    """
    folder = locate(model.model, model.revision)
    opened = _tie(Checkpoint(model.model, (folder,), _read_config(folder), _read_tensors(folder), {}, is_tied=False))
    return opened if model.adapter is None else _adapt(opened, model.adapter)


def _adapt(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Add an adapter to a parent; if it changes only one of the tied embeddings and output layer, they are untied.

    The other one keeps the model's weights, as in the adapter's training.
    """
    folder = locate(name, None)
    adapter = read_adapter(folder)
    changed = (*adapter.changes, *adapter.replaced)
    if checkpoint.is_tied and any(key.endswith((HEAD, *EMBEDDINGS)) for key in changed):
        checkpoint = _untie(checkpoint, next((key for key in changed if key.endswith(HEAD)), HEAD))
    for key, change in adapter.changes.items():
        _check_change(name, key, change, checkpoint.tensors)
    unknown = [key for key in adapter.replaced if key not in checkpoint.tensors]
    if unknown:
        raise InputError(f"adapter '{name}' contains '{unknown[0]}', which '{checkpoint.label}' does not have")
    tensors = {**checkpoint.tensors, **adapter.replaced}
    folders = (folder, *checkpoint.folders)
    return replace(checkpoint, label=name, folders=folders, tensors=tensors, changes=adapter.changes)


def locate(name: str, revision: str | None) -> Path:
    """Return the folder of a local model, or of one that is downloaded from the hub.

    Raises:
        InputError: there is no such model.
    """
    if is_path(name):
        folder = Path(name)
        if not folder.is_dir():
            raise InputError(f"there is no model folder '{folder}'")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(DOWNLOADED)))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError) as error:
        line = str(error).strip().partition("\n")[0]
        raise InputError(f"'{name}' is neither a local folder nor a model that the hub provides: {line}") from error


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if (folder / CONFIG).is_file():
            base = read_config(folder).get("base_model_name_or_path")
            hint = f"set it as 'adapter', and its base model ({base}) as 'model'"
            raise InputError(f"'{folder}' is an adapter; {hint}") from error
        raise InputError(f"model folder '{folder}' has no config.json") from error
    except (OSError, ValueError) as error:
        raise InputError(f"config.json in '{folder}' cannot be read: {error}") from error
    if config.get("quantization_config"):
        raise InputError(f"'{folder}' is quantized; merge the original model instead")
    return config


def _read_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return all parameters of a folder, in the order of its files."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise InputError(f"model folder '{folder}' has neither {SINGLE} nor {INDEX}")
        return read_header(folder / SINGLE)
    try:
        shard_of: dict[str, str] = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{INDEX} in '{folder}' cannot be read") from error
    tensors: dict[str, StoredTensor] = {}
    for shard in shards:
        if not (folder / shard).is_file():
            raise InputError(f"model folder '{folder}' lacks the shard {shard}, which its index names")
        header = read_header(folder / shard)
        tensors |= {name: tensor for name, tensor in header.items() if shard_of.get(name) == shard}
    missing = [name for name in shard_of if name not in tensors]
    if missing:
        raise InputError(f"shard {shard_of[missing[0]]} in '{folder}' lacks the tensor '{missing[0]}'")
    return tensors


def _check_change(label: str, name: str, change: LowRank, tensors: Mapping[str, StoredTensor]) -> None:
    """Raise an InputError if a change does not match its parameter."""
    if name not in tensors:
        raise InputError(f"adapter '{label}' changes '{name}', which its model does not have")
    if tensors[name].shape != change.shape or change.b.shape[1] != change.a.shape[0]:
        raise InputError(
            f"adapter '{label}' changes '{name}' by a matrix of shape {change.shape}; "
            f"the model's has shape {tensors[name].shape}"
        )


def _says_tied(config: Mapping[str, object]) -> bool | None:
    said, inner = config.get("tie_word_embeddings"), config.get("text_config")
    if said is None and isinstance(inner, dict):
        said = inner.get("tie_word_embeddings")
    return None if said is None else bool(said)


def _tie(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with ``is_tied`` set; a tied output layer has no tensor of its own, even if one is stored.

    The config decides or, if it does not say (defaults differ between architectures), the presence of the tensor.
    """
    said = _says_tied(checkpoint.config)
    generates = any("ForCausalLM" in name for name in checkpoint.config.get("architectures") or ())
    is_tied = generates and (checkpoint.head is None if said is None else said)
    if generates and not is_tied and checkpoint.head is None:
        raise InputError(f"'{checkpoint.label}' has no {HEAD}, although its config.json says that it is not tied")
    if not is_tied:
        return checkpoint
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name != checkpoint.head}
    return replace(checkpoint, tensors=tensors, is_tied=True)


def fit_together(checkpoints: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Return the parents with matching parameters, and notes for the user.

    If all parents tie their embeddings, so does the result. If only some do, they get an output layer equal to their
    embeddings, and the result is not tied.

    Raises:
        InputError: architectures, vocabularies, parameters or shapes differ.
    """
    first, *others = checkpoints
    notes = [note for other in others for note in _compare_configs(first, other)]
    if any(one.is_tied for one in checkpoints) and not all(one.is_tied for one in checkpoints):
        tied = ", ".join(f"'{one.label}'" for one in checkpoints if one.is_tied)
        head = next(one.head for one in checkpoints if one.head is not None)
        checkpoints = [_untie(one, head) if one.is_tied else one for one in checkpoints]
        notes.append(f"only some parents tie their embeddings ({tied}): the result has an output layer of its own")
    first, *others = checkpoints
    for other in others:
        _compare_parameters(first, other)
    return list(checkpoints), notes


def _untie(checkpoint: Checkpoint, head: str) -> Checkpoint:
    """Return a tied parent with an output layer of its own, equal to its embeddings."""
    source = checkpoint.embedding
    if source is None:
        raise InputError(f"'{checkpoint.label}' ties its embeddings, but they were not found among its parameters")
    tensors = {**checkpoint.tensors, head: checkpoint.tensors[source]}
    return replace(checkpoint, tensors=tensors, is_tied=False)


def _compare_configs(first: Checkpoint, other: Checkpoint) -> list[str]:
    """Return notes on differences between configs.

    Raises:
        InputError: the architectures differ, or a key that must be equal.
    """
    ours, theirs = first.config, other.config
    if sorted(ours.get("architectures") or ()) != sorted(theirs.get("architectures") or ()):
        raise InputError(
            f"'{first.label}' is a {', '.join(ours.get('architectures') or ['model of no named architecture'])} and "
            f"'{other.label}' a {', '.join(theirs.get('architectures') or ['model of no named architecture'])}; "
            "only models of one architecture can be merged"
        )
    for key in SAME:
        if ours.get(key) != theirs.get(key):
            raise InputError(f"{key} is {ours.get(key)} in '{first.label}' and {theirs.get(key)} in '{other.label}'")
    differing = sorted(key for key in {*ours, *theirs} - UNIMPORTANT if ours.get(key) != theirs.get(key))
    return [
        f"config.json: {key} is {json.dumps(ours.get(key))} in '{first.label}', which is used, "
        f"and {json.dumps(theirs.get(key))} in '{other.label}'"
        for key in differing
    ]


def _compare_parameters(first: Checkpoint, other: Checkpoint) -> None:
    for one, another in ((first, other), (other, first)):
        missing = [name for name in one.tensors if name not in another.tensors]
        if missing:
            number = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"'{one.label}' has the parameter '{missing[0]}'{number}, which '{another.label}' does not have"
            )
    for name, tensor in first.tensors.items():
        if tensor.shape != other.tensors[name].shape:
            raise InputError(
                f"parameter '{name}' has shape {tensor.shape} in '{first.label}' "
                f"and {other.tensors[name].shape} in '{other.label}'"
            )
        if tensor.dtype.is_floating_point != other.tensors[name].dtype.is_floating_point:
            raise InputError(
                f"parameter '{name}' has dtype {tensor.dtype} in '{first.label}' "
                f"and {other.tensors[name].dtype} in '{other.label}'"
            )
