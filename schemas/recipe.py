"""The recipe: one TOML file is one build.

What identifies a result (models, revisions, prompts, sampling, thresholds) and how it is executed (GPUs, batch sizes,
URLs, folders) live in different models: everything under ``run`` and ``warehouse`` is execution and is left out of
``Recipe.identity``. Relative input paths are resolved against the recipe's own folder; the warehouse and the exports
lie under the working directory.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas.languages import CORE_LANGUAGES, LANGUAGES
from schemas.merging import MergeSettings
from schemas.training import TrainSettings

_PATH_FIELDS = frozenset({"path", "model", "adapter", "chat_template", "sql"})

EXECUTION_FIELDS = frozenset({"run", "warehouse"})
"""Names of fields, at any depth, that say how a build is executed and not what it is."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _check_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [code for code in codes if code not in LANGUAGES]
    if unknown:
        raise ValueError(f"unknown language {', '.join(map(repr, unknown))}; allowed are {', '.join(LANGUAGES)}")
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language {', '.join(map(repr, repeated))} is named twice")
    return codes


def _refuse_password(value: str) -> str:
    if "://" in value and urlsplit(value).password is not None:
        raise PydanticCustomError(
            "password", "the URL holds a password; leave it out, secrets come from the environment"
        )
    return value


def _resolve(path: str, info: ValidationInfo) -> str:
    folder: Path | None = (info.context or {}).get("folder")
    expanded = Path(path).expanduser()
    return str(expanded if folder is None or expanded.is_absolute() else (folder / expanded).resolve())


class PromptColumns(_Section):
    """Where a source's rows hold what the factory needs; dots reach into nested fields (``prompt.text``, ``turns.0``)."""

    prompt: str | None = None
    messages: str | None = None
    system: str | None = None
    language: str | None = None
    id: str | None = None

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("exactly one of 'prompt' (single-turn text) and 'messages' (a conversation) is needed")
        return self


class PromptSource(_Section):
    """``[[prompts]]``: a file (Parquet, JSONL, CSV; globs allowed) or a Hugging Face dataset (hub id or local)."""

    name: str = Field(min_length=1)
    path: str | None = None
    dataset: str | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: PromptColumns
    language: str | None = None
    limit: int | None = Field(default=None, gt=0)
    eval_percent: float = Field(default=5.0, ge=0, le=100)
    licence: str | None = None

    @field_validator("path")
    @classmethod
    def _resolve_path(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _resolve(value, info)

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        return None if value is None else _check_languages((value,))[0]

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("exactly one of 'path' (a file) and 'dataset' (a Hugging Face dataset) is needed")
        if (self.language is None) == (self.columns.language is None):
            raise ValueError("exactly one of 'language' (one for all rows) and 'columns.language' is needed")
        return self


class PromptGates(_Section):
    """``[prompt_gates]``: what a prompt must pass. A similarity of 0 switches the removal of near-duplicates off."""

    language: bool = True
    min_language_score: float = Field(default=0.5, ge=0, le=1)
    near_duplicate_similarity: float = Field(default=0.9, ge=0, le=1)
    max_chars: int = Field(default=200_000, gt=0)


class Sampling(_Section):
    """How completions are drawn. ``seed`` is optional: it costs speed and does not make batched sampling repeatable."""

    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, gt=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, gt=0)
    stop: tuple[str, ...] = ()
    seed: int | None = None


class ModelRun(_Section):
    """How a model is executed; never part of its identity. ``engine_args`` go to vLLM as they are.

    ``gpus`` is the tensor-parallel size of one replica; ``replicas`` work in parallel on GPUs of their own. No
    ``max_in_flight`` means what suits the engine: 2048 requests for a model in a child process, 512 for servers.
    """

    gpus: int = Field(default=1, gt=0)
    replicas: int = Field(default=1, gt=0)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_in_flight: int | None = Field(default=None, gt=0)
    max_model_len: int | None = Field(default=None, gt=0)
    batch_tokens: int = Field(default=8192, gt=0)
    urls: tuple[str, ...] = ()
    api_key_env: str | None = None
    timeout_seconds: float = Field(default=600.0, gt=0)
    engine_args: dict[str, Any] = Field(default_factory=dict)

    @field_validator("urls")
    @classmethod
    def _have_no_password(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_refuse_password, value))

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            message = "this is the name of an environment variable that holds the key, never the key itself"
            raise PydanticCustomError("password", message)
        return value


class Model(_Section):
    """A model behind an engine: a hub id or, beginning with ``./``, ``../``, ``/`` or ``~``, a local folder."""

    engine: Literal["vllm", "openai", "transformers", "recorded"] = "vllm"
    model: str = ""
    revision: str | None = None
    dtype: str = "auto"
    quantization: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    chat_template: str | None = None
    system_prompt: str | None = None
    trust_remote_code: bool = False
    run: ModelRun = ModelRun()

    @field_validator("model", "adapter")
    @classmethod
    def _resolve_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        return _resolve(value, info) if value and value.startswith((".", "/", "~")) else value

    @field_validator("chat_template")
    @classmethod
    def _resolve_template(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _resolve(value, info)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.engine != "recorded" and not self.model:
            raise ValueError("'model' is needed: a hub id or a local folder")
        if self.engine == "openai" and not self.run.urls:
            raise ValueError("the openai engine needs 'run.urls', the base URLs of one or more servers")
        return self


class Structured(_Section):
    """What the text of a completion must look like: exactly one of a JSON schema, a regular expression, a choice."""

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.json_schema, self.regex, self.choice)) != 1:
            raise ValueError("exactly one of 'json_schema', 'regex' and 'choice' is needed")
        return self


class RecordedColumns(_Section):
    """Where recorded rows hold the answer and the key that joins it to a prompt; dots reach into nested fields."""

    text: str
    key: str
    language: str | None = None


class Recorded(_Section):
    """Completions that a team already has. ``join`` says what ``columns.key`` holds: a source's row id, or the text."""

    path: str
    columns: RecordedColumns
    join: Literal["source_row", "prompt_text"] = "source_row"
    source: str | None = None

    @field_validator("path")
    @classmethod
    def _resolve_path(cls, value: str, info: ValidationInfo) -> str:
        return _resolve(value, info)


class Teacher(Model):
    """``[[teachers]]``: one model of the pool, for the languages it is declared for (none named: all)."""

    name: str = Field(min_length=1)
    languages: tuple[str, ...] = ()
    samples: int = Field(default=1, gt=0)
    sampling: Sampling = Sampling()
    structured: Structured | None = None
    reasoning: tuple[str, str] | None = None
    recorded: Recorded | None = None
    licence: str | None = None

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _check_languages(value)

    @model_validator(mode="after")
    def _fits_engine(self) -> Self:
        if (self.engine == "recorded") != (self.recorded is not None):
            raise ValueError("a [teachers.recorded] section and engine = 'recorded' go together")
        if self.engine == "transformers":
            raise ValueError("the transformers engine serves translators; allowed for teachers: vllm, openai, recorded")
        return self


class Translation(Model):
    """``[translation]``: an encoder-decoder translator (engine transformers) or an LLM (vllm, openai).

    ``completions_of`` names the teacher whose English completions are translated for the rejected side of
    in_language_vs_translated pairs. ``instruction`` is what an LLM is told; it may use {source}, {target} and {text}.
    """

    engine: Literal["vllm", "openai", "transformers", "recorded"] = "transformers"
    prompts: bool = True
    completions_of: tuple[str, ...] = ()
    sampling: Sampling = Sampling(temperature=0.0)
    instruction: str | None = None
    licence: str | None = None

    @model_validator(mode="after")
    def _fits_engine(self) -> Self:
        if self.engine == "recorded":
            raise ValueError("a translator runs on the transformers, vllm or openai engine")
        return self


class RewardModel(Model):
    """``[[reward_models]]``: a sequence classifier or reward model served by vLLM pooling."""

    name: str = Field(min_length=1)

    @model_validator(mode="after")
    def _fits_engine(self) -> Self:
        if self.engine not in {"vllm", "openai"}:
            raise ValueError("a reward model runs on the vllm or openai engine")
        return self


class Gates(_Section):
    """``[gates]``: what a completion must pass before it is scored."""

    language: bool = True
    min_language_score: float = Field(default=0.3, ge=0, le=1)
    truncated: bool = True
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=100_000, gt=0)
    max_repetition: float = Field(default=0.5, ge=0, le=1)
    refusal_patterns: tuple[str, ...] = ()


class Rewards(_Section):
    """``[rewards]``: how several reward models are combined within a prompt."""

    combine: Literal["mean_rank", "mean_zscore"] = "mean_rank"


class Routing(_Section):
    """``[routing]``: which completion becomes the SFT row. ``sql`` names a user's own SELECT."""

    method: Literal["reward", "fixed", "random", "sql"] = "reward"
    teachers: dict[str, str] = Field(default_factory=dict)
    seed: int = 0
    sql: str | None = None

    @field_validator("sql")
    @classmethod
    def _resolve_sql(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _resolve(value, info)

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if (self.method == "sql") != (self.sql is not None):
            raise ValueError("method = 'sql' and a path in 'sql' go together")
        if (self.method == "fixed") != bool(self.teachers):
            raise ValueError("method = 'fixed' and a table 'teachers' of language = teacher go together")
        _check_languages(tuple(self.teachers))
        return self


class PairStrategy(_Section):
    """``[[pairs]]``: one way of making preference pairs, with its guards.

    ``against_reward`` says that the strategy may pair against the reward order; then the audit counts such pairs.
    """

    strategy: Literal[
        "best_vs_worst", "in_language_vs_translated", "best_vs_mean_minus_2sd", "strong_vs_weak", "sql"
    ] = "best_vs_worst"
    name: str = ""
    sql: str | None = None
    strong: str | None = None
    weak: str | None = None
    min_margin: float = Field(default=0.0, ge=0)
    ties: Literal["drop", "keep"] = "drop"
    max_length_ratio: float | None = Field(default=None, gt=1)
    pairs_per_prompt: int = Field(default=1, gt=0)
    against_reward: bool = False

    @field_validator("sql")
    @classmethod
    def _resolve_sql(cls, value: str | None, info: ValidationInfo) -> str | None:
        return None if value is None else _resolve(value, info)

    @model_validator(mode="after")
    def _fits_strategy(self) -> Self:
        if (self.strategy == "sql") != (self.sql is not None):
            raise ValueError("strategy = 'sql' and a path in 'sql' go together")
        if (self.strategy == "strong_vs_weak") != (self.strong is not None and self.weak is not None):
            raise ValueError("strategy = 'strong_vs_weak' and the teachers 'strong' and 'weak' go together")
        if self.strategy == "sql" and not self.name:
            raise ValueError("a pair strategy of your own needs a 'name'")
        return self

    @property
    def label(self) -> str:
        """The strategy's name in the tables."""
        return self.name or self.strategy


class Export(_Section):
    """``[export]``: what is written for training."""

    sft: bool = True
    preference: bool = True
    formats: tuple[Literal["parquet", "jsonl"], ...] = ("parquet",)
    max_shard_mb: float = Field(default=256.0, gt=0)


class WarehouseSettings(_Section):
    """``[warehouse]``: where the lake lies. ``catalog`` is a SQLite path or a postgres:// URL; ``data`` may be s3://.

    ``memory`` ("4GB") is how much DuckDB may use before it spills to disk; none: most of the machine's. The password of
    a Postgres catalog comes from PGPASSWORD, never from the recipe.
    """

    catalog: str = "lake/catalog.sqlite"
    data: str = "lake/data"
    memory: str | None = Field(default=None, pattern=r"^\d+(\.\d+)? ?[MGT]i?B$")

    @field_validator("catalog", "data")
    @classmethod
    def _has_no_password(cls, value: str) -> str:
        return _refuse_password(value)


class RunSettings(_Section):
    """``[run]``: how the build is executed. ``slots`` are lists of GPU numbers; none: one slot for each GPU seen."""

    slots: tuple[tuple[int, ...], ...] = ()
    commit_rows: int = Field(default=1000, gt=0)
    commit_seconds: float = Field(default=5.0, gt=0)
    exports: str = "exports"
    push_to_hub: str | None = None
    overlap: Literal["skip", "wait"] = "skip"


class Recipe(_Section):
    """One build. ``name`` labels it; two recipes that differ in ``run`` and ``warehouse`` alone are the same build."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
    languages: tuple[str, ...] = Field(default=CORE_LANGUAGES, min_length=1)
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    prompt_gates: PromptGates = PromptGates()
    translation: Translation | None = None
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    gates: Gates = Gates()
    reward_models: tuple[RewardModel, ...] = Field(min_length=1)
    rewards: Rewards = Rewards()
    routing: Routing = Routing()
    pairs: tuple[PairStrategy, ...] = (PairStrategy(),)
    export: Export = Export()
    warehouse: WarehouseSettings = WarehouseSettings()
    run: RunSettings = RunSettings()
    # of the models that are made of the build, not of it
    train: TrainSettings | None = Field(default=None, exclude=True)
    merge: MergeSettings | None = Field(default=None, exclude=True)

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _check_languages(value)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        self._refuse_repeated("prompts", "prompt source", [source.name for source in self.prompts])
        self._refuse_repeated("teachers", "teacher", [teacher.name for teacher in self.teachers])
        self._refuse_repeated("reward_models", "reward model", [model.name for model in self.reward_models])
        self._refuse_repeated("pairs", "pair strategy", [pair.label for pair in self.pairs])
        teachers = [teacher.name for teacher in self.teachers]
        for location, name in self._named_teachers():
            if name not in teachers:
                _refuse_reference(f"unknown teacher {name!r}; the pool has {', '.join(teachers)}", *location)
        return self

    @staticmethod
    def _refuse_repeated(section: str, what: str, names: list[str]) -> None:
        for at, name in enumerate(names):
            if name in names[:at]:
                _refuse_reference(f"{what} {name!r} is named twice; names must differ", section, at, "name")

    def _named_teachers(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield every teacher's name that the recipe refers to, after the place where it does."""
        for language, name in self.routing.teachers.items():
            yield ("routing", "teachers", language), name
        for name in self.translation.completions_of if self.translation else ():
            yield ("translation", "completions_of"), name
        for at, pair in enumerate(self.pairs):
            for side in ("strong", "weak"):
                if (named := getattr(pair, side)) is not None:
                    yield ("pairs", at, side), named

    def identity(self) -> dict[str, Any]:
        """Return what makes this build this build, as JSON-able data: everything but execution."""
        return _identify(self)


def _refuse_reference(message: str, *location: str | int) -> NoReturn:
    """Refuse a name at a place that is not the section being checked."""
    raise PydanticCustomError("reference", "{message}", {"message": message, "location": location})


def _identify(section: BaseModel) -> dict[str, Any]:
    """Return a section's identity, paths by their last name; keys of free tables, as of a JSON schema, are data and stay."""
    data: dict[str, Any] = section.model_dump(mode="json", exclude=set(EXECUTION_FIELDS))
    for name in data:
        match getattr(section, name):
            case str() as path if name in _PATH_FIELDS and Path(path).is_absolute():
                data[name] = Path(path).name
            case BaseModel() as inner:
                data[name] = _identify(inner)
            case (BaseModel(), *_) as inners:
                data[name] = [_identify(inner) for inner in inners]
    return data
