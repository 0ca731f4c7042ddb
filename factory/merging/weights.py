"""The weight of each model in each parameter: its own, that of a pattern, or a point of a gradient over depth."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from schemas.recipe.merging import MergeModel, Weight

_LAYER = re.compile(r"(?:^|\.)(?:layers|layer|h|blocks|block)\.(\d+)\.")
_FIRST = re.compile(r"embed|wte|wpe|(?:^|\.)shared\.")
"""Parameters outside the layers that come before the first layer."""


def count_layers(names: Iterable[str]) -> int:
    """Return the number of layers: the highest layer number in the names plus one."""
    return max((int(found[1]) + 1 for name in names if (found := _LAYER.search(name))), default=0)


def find_depth(name: str, num_layers: int) -> float:
    """Return a parameter's depth: 0 in the embeddings and the first layer, 1 in the last layer and after it."""
    found = _LAYER.search(name)
    if found:
        return int(found[1]) / max(num_layers - 1, 1)
    return 0.0 if _FIRST.search(name) else 1.0


def weights_of(models: Sequence[MergeModel], name: str, depth: float) -> tuple[float, ...]:
    """Return the weight of each model in the parameter ``name``, in the models' order."""
    return tuple(_at_depth(_weight(model, name), depth) for model in models)


def _weight(model: MergeModel, name: str) -> Weight:
    return next((weight for pattern, weight in model.patterns.items() if re.search(pattern, name)), model.weight)


def _at_depth(weight: Weight, depth: float) -> float:
    if not isinstance(weight, tuple):
        return weight
    return float(np.interp(depth, np.linspace(0.0, 1.0, len(weight)), weight)) if len(weight) > 1 else weight[0]
