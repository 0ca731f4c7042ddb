"""The ``[merge]`` table: which models are merged into one, how, and with what weights.

The identity of a merge is computed in ``factory.merging.identity``.
"""

import re
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from schemas.toml.section import EXECUTION, FINGERPRINTED, ModelName, Section


def _check_weight(value: object) -> object:
    numbers = value if isinstance(value, list | tuple) else [value]
    if not numbers or not all(type(number) in {int, float} for number in numbers):
        raise ValueError("a weight is a number, or a list of numbers over depth")
    return value


Weight: TypeAlias = Annotated[float | tuple[float, ...], BeforeValidator(_check_weight)]
"""One number, or a gradient over depth: evenly spaced anchors from first to last layer, interpolated linearly."""

Method: TypeAlias = Literal["linear", "slerp", "ties", "dare_linear", "dare_ties"]


class _Section(Section):
    model_config = ConfigDict(allow_inf_nan=False, validate_by_name=True)


class MergeModel(_Section):
    """``[[merge.models]]``: one parent: a checkpoint, or a LoRA adapter on one.

    ``patterns`` maps regular expressions to weights for the parameters whose names they match; the first match counts.
    DARE's random mask is seeded with ``name``, or with the model's position if it has none.
    """

    model: ModelName = Field(min_length=1)
    revision: Annotated[str | None, FINGERPRINTED] = None
    adapter: ModelName | None = None
    name: str | None = Field(default=None, min_length=1)
    weight: Weight = 1.0
    patterns: dict[str, Weight] = Field(default_factory=dict)
    density: float | None = Field(default=None, ge=0, le=1)

    @field_validator("patterns")
    @classmethod
    def _are_patterns(cls, value: dict[str, Weight]) -> dict[str, Weight]:
        for pattern in value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return value


class MergeRun(_Section):
    """``[merge.run]``: how a merge is executed; ``device`` is ``cpu``, ``cuda`` or ``cuda:1``.

    ``threads`` defaults to one per core.
    """

    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int | None = Field(default=None, gt=0)
    max_shard_gb: float = Field(default=5.0, gt=0)


class Merging(_Section):
    """How models are merged, independent of which.

    ``normalize`` divides by the sum of the weights; the default is true except for DARE. ``density`` is the share of
    each task vector that ties and DARE keep. ``rescale`` says how DARE compensates for what it drops: by dividing by
    the density (as in the paper), or by restoring the task vector's L1 norm (as in mergekit). ``dtype`` defaults to
    that of the first model.
    """

    method: Method = "linear"
    normalize: bool | None = None
    density: float = Field(default=0.5, ge=0, le=1)
    lambda_: float = Field(default=1.0, validation_alias="lambda", serialization_alias="lambda")
    rescale: Literal["density", "l1", "none"] = "density"
    seed: int = Field(default=0, ge=0)
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    run: Annotated[MergeRun, EXECUTION] = MergeRun()

    @property
    def has_task_vectors(self) -> bool:
        """Whether the method merges differences from a base model."""
        return self.method in {"ties", "dare_linear", "dare_ties"}

    @property
    def is_normalized(self) -> bool:
        return self.method in {"linear", "slerp", "ties"} if self.normalize is None else self.normalize


class MergeSettings(Merging):
    """One merge. The order of the models does not matter, except that the tokenizer and other files are the first's."""

    models: tuple[MergeModel, ...] = Field(min_length=1)
    base: MergeModel | None = None

    @field_validator("base", mode="before")
    @classmethod
    def _base_by_name(cls, value: object) -> object:
        return {"model": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if self.has_task_vectors and self.base is None:
            raise ValueError(f"method = '{self.method}' needs 'base', the model that the others were trained from")
        if not self.has_task_vectors and self.base is not None:
            raise ValueError(f"method = '{self.method}' does not use 'base'; ties, dare_linear and dare_ties do")
        named = [model.name for model in self.models if model.name is not None]
        if len(set(named)) < len(named):
            raise ValueError("two models have the same 'name'; names must differ")
        return self

    def density_of(self, model: MergeModel) -> float:
        return self.density if model.density is None else model.density
