"""The merger's steps over one parameter that is in memory, whole, as one block."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from factory.merging.passes import Block, Parameter, Scratch, plan_steps
from schemas.recipe.merging import MergeSettings

NAME = "weight"


def merge_whole(
    method: str,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    base: Tensor | None = None,
    densities: Sequence[float] | None = None,
    *,
    name: str = NAME,
    **options: Any,
) -> Tensor:
    """Return what a method makes of the models' values of one parameter; ``options`` are those of ``[merge]``."""
    models: list[dict[str, Any]] = [{"model": str(number)} for number in range(len(tensors))]
    for model, density in zip(models, densities or (), strict=False):
        model |= {"density": density}
    given = {} if base is None else {"base": "base"}
    settings = MergeSettings.model_validate({"method": method, "models": models} | given | options)
    shape, count = tensors[0].shape, tensors[0].numel()
    steps = plan_steps(settings, Parameter(name, tuple(shape), count, tuple(map(float, weights))))

    def read(number: int, slot: int = 0) -> Tensor:
        return tensors[number].flatten().clone()

    def read_base() -> Tensor:
        assert base is not None
        return base.flatten().clone()

    block = Block(0, count, read, read_base, Scratch())
    answer = None
    while True:
        try:
            asked = steps.send(answer)
        except StopIteration as last:
            return last.value(block).view(shape)
        answer = asked.join([asked.measure(block)])
