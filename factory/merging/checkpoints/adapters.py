"""LoRA adapters: the changes that they make to the parameters of their base model.

``W' = W + s B A`` with ``s = alpha / r``, or ``alpha / sqrt(r)`` for rank-stabilized adapters (Hu et al., arXiv
2106.09685; Kalajdzievski, arXiv 2312.03732). Files and names are in PEFT's format.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.merging.checkpoints.safetensors_files import StoredTensor, read_header
from schemas.errors import InputError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")


@dataclass(frozen=True, slots=True)
class LowRank:
    """The change of a matrix, ``scale * B A``; transposed if the matrix is stored as (in, out)."""

    a: StoredTensor
    b: StoredTensor
    scale: float
    is_transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.is_transposed else (rows, columns)


@dataclass(frozen=True, slots=True)
class Adapter:
    """Changes of matrices, and whole parameters that replace the model's, both by parameter name."""

    changes: Mapping[str, LowRank]
    replaced: Mapping[str, StoredTensor]


def read_config(folder: Path) -> dict[str, Any]:
    """Return an adapter's configuration.

    Raises:
        InputError: it is missing or unreadable, or does not describe a plain LoRA adapter.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"'{folder}' is not an adapter: it has no {CONFIG}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{CONFIG} in '{folder}' cannot be read: {error}") from error
    kind = str(config.get("peft_type", "LORA"))
    if kind != "LORA" or config.get("use_dora"):
        kind = "DORA" if config.get("use_dora") else kind
        raise InputError(f"adapter '{folder}' is of type {kind}; only plain LoRA adapters can be merged")
    return config


def read_adapter(folder: Path) -> Adapter:
    """Return the changes that an adapter makes, without reading its weights.

    Raises:
        InputError: it cannot be read, or contains anything other than LoRA factors of matrices and whole parameters.
    """
    config = read_config(folder)
    factors: dict[str, dict[str, StoredTensor]] = {}
    embeddings: set[str] = set()
    replaced: dict[str, StoredTensor] = {}
    for key, tensor in read_header(folder / WEIGHTS).items():
        name = key.removeprefix(_PREFIX)
        if found := _FACTOR.fullmatch(name):
            factors.setdefault(found["module"], {})[found["side"]] = tensor
            if found["embedding"]:
                embeddings.add(found["module"])
        elif "lora_" in name:
            raise InputError(f"adapter '{folder}' contains '{key}'; only plain LoRA adapters of matrices can be merged")
        else:
            replaced[name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = tensor
    changes = {}
    for module, pair in factors.items():
        if set(pair) != {"A", "B"} or any(len(tensor.shape) != 2 for tensor in pair.values()):
            raise InputError(f"adapter '{folder}' has no pair of matrices A and B for '{module}'")
        is_transposed = module in embeddings or bool(config.get("fan_in_fan_out"))
        changes[f"{module}.weight"] = LowRank(pair["A"], pair["B"], _scale(config, module, pair["A"]), is_transposed)
    return Adapter(changes, replaced)


def _scale(config: Mapping[str, Any], module: str, a: StoredTensor) -> float:
    alpha = float(config.get("lora_alpha", 8))
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(value)
            break
    rank = a.shape[0]
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
