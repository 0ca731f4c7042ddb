"""Settings of one training run: what identifies its result and, under ``run``, how it is executed."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from schemas.errors import TrainingError
from schemas.recipe.prompts import ConversationColumns
from schemas.toml.paths import complete_name
from schemas.toml.section import (
    DATA,
    EXECUTION,
    FINGERPRINTED,
    LATER,
    MODEL,
    DataName,
    FilePath,
    ModelName,
    Names,
    Section,
    fields_marked,
    resolve_path,
)
from schemas.toml.toml_file import load_table

_LABELS = ("language", "strategy", "id")
"""Columns that label a row and hold no part of its text."""


class Adapters(Section):
    """Low-rank adapters that are trained in place of a model's weights."""

    rank: int = Field(default=16, gt=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Names = ("all-linear",)


class Lora(Adapters):
    """``[train.lora]``: train low-rank adapters; ``merge`` folds them into the saved model."""

    merge: bool = True


class TrainRun(Section):
    """``[train.run]``: how a run is executed. It changes the result by rounding errors at most.

    ``micro_batch_tokens`` limits the tokens of one forward pass; a row longer than that is a micro-batch of its own.
    A checkpoint is written every ``checkpoint_every`` steps; the latest ``keep_last`` and the best one are kept.
    ``cache`` is the folder of the reference log-probabilities (default: beside the data).
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(default=1, gt=0)
    threads: int = Field(default=1, gt=0)
    micro_batch_tokens: int = Field(default=8192, gt=0)
    activation_checkpointing: bool = False
    checkpoint_every: int | None = Field(default=200, gt=0)
    keep_last: int = Field(default=2, gt=0)
    cache: Annotated[str, AfterValidator(resolve_path)] | None = None
    tensorboard: bool = True
    plot: bool = True
    log_every: int = Field(default=1, gt=0)


class TrainColumns(ConversationColumns):
    """``[train.columns]``: the columns of the training rows; those not set are recognized by their usual names.

    SFT rows have their answer in ``completion``, preference rows theirs in ``chosen`` and ``rejected``.
    """

    completion: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    strategy: str | None = None
    id: str | None = None

    def named(self) -> dict[str, str]:
        """Return the columns that are set and hold a part of the conversation, by part."""
        return {part: column for part, column in self if column is not None and part not in _LABELS}


class Training(Section):
    """How a model is trained by SFT or on preferences, independent of model and data.

    ``format`` says how prompts and answers that are plain texts are understood: as turns of a ``chat``, or as raw
    ``text`` without a chat template. Raw text is the default for columns named ``prompt`` and ``completion``,
    ``chosen`` or ``rejected``, unless they contain transcripts or turns as JSON. The formulas of ``objective`` are in
    factory/training/model/losses.py.

    A step has ``batch_rows`` rows (a pair is one row) or about ``batch_tokens`` tokens. ``max_length`` limits the
    tokens of prompt and completion together. ``length_normalized`` uses means over tokens instead of sums, as SimPO
    always does. The run stops if the loss, smoothed over ten steps, exceeds ``divergence_factor`` times its value at
    the start (held out, or in the first step, whichever is higher). ``final`` chooses the weights that are saved: of
    the last step, or of the best evaluation.
    """

    columns: Annotated[TrainColumns | None, LATER] = None
    format: Annotated[Literal["chat", "text"] | None, LATER] = None
    reference: ModelName | None = None
    objective: Literal["sft", "dpo", "ipo", "simpo"]
    train_on: Literal["completions", "all"] = "completions"
    beta: float = Field(default=0.1, gt=0)
    gamma: float = Field(default=0.5, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    length_normalized: bool = False
    nll_weight: float = Field(default=0.0, ge=0)
    chat_template: FilePath | None = None
    max_length: int = Field(default=2048, gt=1)
    overlong: Literal["truncate", "drop"] = "truncate"
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, gt=0)
    batch_rows: int | None = Field(default=None, gt=0)
    batch_tokens: int | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=5e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    min_learning_rate_ratio: float = Field(default=0.0, ge=0, le=1)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    divergence_factor: float = Field(default=4.0, gt=1)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    eval_every: int | None = Field(default=None, gt=0)
    final: Literal["last", "best"] = "last"
    seed: int = Field(default=0, ge=0)
    run: Annotated[TrainRun, EXECUTION] = TrainRun()

    @model_validator(mode="after")
    def _fits_objective(self) -> Self:
        if self.batch_rows is not None and self.batch_tokens is not None:
            raise ValueError("'batch_rows' and 'batch_tokens' both set the size of a step; give one of them")
        if self.objective == "sft" and (self.reference or self.label_smoothing or self.nll_weight):
            raise ValueError(
                "'reference', 'label_smoothing' and 'nll_weight' belong to preference objectives, not to sft"
            )
        if self.objective == "simpo" and self.reference:
            raise ValueError("simpo has no reference model; leave 'reference' out or choose dpo or ipo")
        if self.objective == "ipo" and self.label_smoothing:
            raise ValueError("ipo has no label smoothing; 'label_smoothing' is allowed with dpo and simpo")
        if self.objective != "sft" and self.train_on == "all":
            raise ValueError("train_on = 'all' belongs to sft; preference objectives score completions only")
        if self.objective != "sft" and self.batch_tokens is not None:
            raise ValueError("the steps of a preference objective are counted in pairs: give 'batch_rows'")
        if self.final == "best" and self.eval_every is None:
            raise ValueError("final = 'best' needs 'eval_every'")
        return self

    @property
    def is_preference(self) -> bool:
        return self.objective != "sft"

    @property
    def needs_reference(self) -> bool:
        return self.objective in ("dpo", "ipo")

    @property
    def step_rows(self) -> int | None:
        """The rows of a step, by default 128 as in the papers; None if steps are counted in tokens."""
        return 128 if self.batch_rows is None and self.batch_tokens is None else self.batch_rows


class TrainSettings(Training):
    """``[train]``: one run of SFT or preference training: the model, the rows, and how it is trained.

    ``data`` is an export folder of this project, a file or folder of files (globs allowed), or a Hugging Face dataset;
    ``eval_data`` defaults to the export's eval split. ``revision`` and ``eval_revision`` are revisions of hub datasets
    (a commit, branch or tag; default: the newest), resolved to a commit when a run starts. ``languages`` and
    ``strategies`` select rows by language and pair strategy (default: all). Rows that do not match are counted; a row
    without the column, or with an unknown language, is rejected.
    """

    model: ModelName = Field(min_length=1)
    data: DataName = Field(min_length=1)
    eval_data: DataName | None = None
    revision: Annotated[str | None, FINGERPRINTED] = None
    eval_revision: Annotated[str | None, FINGERPRINTED] = None
    dataset_config: str | None = None
    split: str = "train"
    languages: Names = ()
    strategies: Names = ()
    lora: Lora | None = None

    @model_validator(mode="after")
    def _has_strategies(self) -> Self:
        if self.objective == "sft" and self.strategies:
            raise ValueError("'strategies' select preference pairs; sft rows have none")
        return self


def load_train_settings(path: Path, **overrides: object) -> TrainSettings:
    """Read settings from the ``[train]`` table of a TOML file, or from a JSON file of its fields, and override some.

    Paths in TOML are relative to the file's folder, overriding paths to the working directory; JSON has absolute paths.

    Raises:
        RecipeError: the file is missing or contains a value that is not allowed.
        TrainingError: an override is not allowed.
    """
    try:
        if path.suffix == ".json":
            settings = TrainSettings.model_validate_json(path.read_bytes())
        else:
            settings = load_table(path, "train", TrainSettings)
        given = {key: value for key, value in overrides.items() if value is not None}
        given |= {
            key: complete_name(str(given[key]), Path.cwd())
            for key in given.keys() & set(fields_marked(TrainSettings, MODEL, DATA))
        }
        return TrainSettings.model_validate(settings.model_dump() | given) if given else settings
    except OSError as error:
        raise TrainingError(f"settings {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise TrainingError(f"train: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
