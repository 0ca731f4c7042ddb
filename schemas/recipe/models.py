"""The models of a recipe: teachers, translators and reward models, each behind an engine."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas.toml.section import (
    EXECUTION,
    FINGERPRINTED,
    LATER,
    MODEL,
    REQUEST,
    FilePath,
    Languages,
    Names,
    Section,
    refuse_password,
    resolve_name,
)

EXECUTION_ARGS = frozenset(
    [
        "all2all_backend",
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "cudagraph_capture_sizes",
        "data_parallel_backend",
        "data_parallel_size",
        "device_ids",
        "disable_cascade_attn",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_dbo",
        "enable_eplb",
        "enable_expert_parallel",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "kv_cache_metrics",
        "limit_mm_per_prompt",
        "load_format",
        "long_prefill_token_threshold",
        "max_cpu_loras",
        "max_loras",
        "max_lora_rank",
        "max_num_batched_tokens",
        "max_num_seqs",
        "max_parallel_loading_workers",
        "mm_encoder_tp_mode",
        "mm_processor_cache_gb",
        "model_loader_extra_config",
        "num_gpu_blocks_override",
        "offload_backend",
        "optimization_level",
        "performance_mode",
        "pipeline_parallel_size",
        "prefix_caching_hash_algo",
        "safetensors_load_strategy",
        "scheduling_policy",
        "skip_mm_profiling",
        "stream_interval",
    ]
)
"""Arguments of vLLM that only affect how a text model is executed; any other one may change its answers."""


def _check_tags(tags: tuple[str, str]) -> tuple[str, str]:
    if not all(tag.strip() for tag in tags) or tags[0] == tags[1]:
        raise ValueError(f"{list(tags)} was given; the opening and the closing tag must differ and must not be empty")
    return tags


ReasoningTags = Annotated[tuple[str, str], AfterValidator(_check_tags)]
"""The opening and the closing tag of a model's thinking, which is stored apart from its answer."""


def _check_switches(switches: dict[str, object]) -> dict[str, object]:
    if taken := sorted(switches.keys() & TEMPLATE_ARGS):
        raise ValueError(f"{taken[0]!r} is not a switch of a chat template: the factory sets it itself")
    return switches


TEMPLATE_ARGS = frozenset(
    [
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    ]
)
"""Arguments of ``apply_chat_template`` that are not variables of the template."""

Switches = Annotated[dict[str, Any], AfterValidator(_check_switches), LATER]
"""Variables of a chat template, such as ``enable_thinking``."""


class Sampling(Section):
    """How completions are sampled. ``seed`` costs speed and does not make batched sampling repeatable."""

    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=None, gt=0)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=1024, gt=0)
    stop: tuple[str, ...] = ()
    seed: int | None = None


class ModelRun(Section):
    """How a model is executed; never part of its identity.

    ``engine_args`` are passed to vLLM unchanged; only ``EXECUTION_ARGS`` are allowed, all others belong to the model.

    ``gpus`` is the tensor-parallel size of one replica; ``replicas`` run in parallel, each on its own GPUs.
    ``max_in_flight`` defaults to 2048 requests for a model in a child process, and to 512 for servers.
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

    @field_validator("engine_args")
    @classmethod
    def _leave_answers_alone(cls, value: dict[str, object]) -> dict[str, object]:
        if other := sorted(value.keys() - EXECUTION_ARGS):
            own = other[0] if other[0] in {"dtype", "quantization", "revision"} else "engine_args"
            message = (
                f"{other[0]!r} may change answers, so it belongs to the model's identity: set '{own}' beside 'model'"
            )
            raise ValueError(f"{message}; allowed here are {', '.join(sorted(EXECUTION_ARGS))}")
        return value

    @field_validator("urls")
    @classmethod
    def _have_no_password(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(refuse_password, value))

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            message = "this is the name of an environment variable that holds the key, never the key itself"
            raise PydanticCustomError("password", message)
        return value


class Model(Section):
    """A model behind an engine: a hub id, or a local folder that exists or whose path begins with ``.``, ``/``, ``~``.

    Behind the openai engine, ``model`` and ``adapter`` are what the server calls them.

    ``chat_template_kwargs`` are switches of the chat template, such as ``enable_thinking``. ``engine_args`` are further
    settings that may change answers, and so are part of the identity: arguments of vLLM, fields of a request to a
    server, or options of a translator's ``generate``.
    """

    engine: Annotated[Literal["vllm", "openai", "transformers", "recorded"], FINGERPRINTED] = "vllm"
    model: Annotated[str, FINGERPRINTED, MODEL] = ""
    revision: Annotated[str | None, FINGERPRINTED] = None
    dtype: Annotated[Literal["auto", "bfloat16", "float16", "half", "float32", "float"], FINGERPRINTED] = "auto"
    quantization: Annotated[str | None, FINGERPRINTED] = None
    adapter: Annotated[str | None, FINGERPRINTED, MODEL] = None
    adapter_revision: Annotated[str | None, FINGERPRINTED] = None
    chat_template: FilePath | None = None
    chat_template_kwargs: Switches = Field(default_factory=dict)
    trust_remote_code: bool = False
    engine_args: Annotated[dict[str, Any], LATER] = Field(default_factory=dict)
    run: Annotated[ModelRun, EXECUTION] = ModelRun()

    @field_validator("model", "adapter")
    @classmethod
    def _resolve_model(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value if value is None or info.data.get("engine") == "openai" else resolve_name(value, info)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.engine != "recorded" and not self.model:
            raise ValueError("'model' is needed: a hub id or a local folder")
        if self.engine == "openai" and not self.run.urls:
            raise ValueError("the openai engine needs 'run.urls', the base URLs of one or more servers")
        if "chat_template_kwargs" in self.engine_args and (self.engine == "vllm" or self.chat_template_kwargs):
            raise ValueError("'chat_template_kwargs' is a setting of its own: set it beside 'engine_args', not inside")
        if self.engine in {"transformers", "recorded"} and self.chat_template_kwargs:
            raise ValueError(f"the {self.engine} engine has no chat template; leave 'chat_template_kwargs' out")
        return self

    @property
    def num_gpus(self) -> int:
        """How many GPUs of this machine it needs at once; 0 if a server runs it or its answers are recorded."""
        return self.run.gpus * self.run.replicas if self.engine in {"vllm", "transformers"} else 0


class Instructed(Section):
    """What may be told a ``system_prompt``.

    The stage that asks puts it into the conversation, before one that the prompt brings along; engines add nothing.
    """

    system_prompt: str | None = None


class Structured(Section):
    """The form that a completion's text must have: exactly one of a JSON schema, a regular expression and a choice."""

    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if sum(form is not None for form in (self.json_schema, self.regex, self.choice)) != 1:
            raise ValueError("exactly one of 'json_schema', 'regex' and 'choice' is needed")
        return self


class RecordedColumns(Section):
    """The columns of recorded rows: the answer, and the key that joins it to a prompt; dots reach into nested fields.

    The answer is in ``text`` (a text, its parts, or a message), or is the last turn of the conversation in
    ``messages``. A ``key`` of several columns is matched with the source's ``columns.id``, of the same number and
    order, or, with join = "prompt_text", is one text whose parts are separated by empty lines.
    """

    text: str | None = None
    messages: Annotated[str | None, LATER] = None
    key: str | tuple[str, ...] | None = Field(default=None, min_length=1)
    language: str | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.text is None) == (self.messages is None):
            raise ValueError("exactly one of 'text' (an answer) and 'messages' (a conversation up to it) is needed")
        return self


_RECORDED_COLUMNS = 'columns = { text = "answer", key = "id" } or columns = { messages = "messages", key = "id" }'


class Recorded(Section):
    """Completions that a team already has.

    ``join`` says what ``columns.key`` contains: the id of a source's row, or the prompt's text. ``source`` names the
    source, if several share ids.

    In a source without an id column, the id is the row's number in its file or split, counted from 1 without blank
    lines and the header; if there are several files or splits, their name comes first (``b.jsonl:12``, ``test:12``).
    Without a key, the prompt's text is taken from the conversation in ``columns.messages``; with a key, that
    conversation must ask the same as the prompt.
    """

    path: FilePath
    columns: RecordedColumns
    join: Literal["source_row", "prompt_text"] = "source_row"
    source: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _has_columns(cls, value: object) -> object:
        if isinstance(value, dict) and not value.get("columns"):
            raise ValueError(f"'columns' is needed, such as {_RECORDED_COLUMNS}")
        return value

    @model_validator(mode="after")
    def _has_key(self) -> Self:
        if self.columns.key is None and (self.join == "source_row" or self.columns.messages is None):
            raise ValueError(
                "'columns.key' is needed, unless join = 'prompt_text' and 'columns.messages' contains the question"
            )
        return self


class Writer(Model):
    """A model that writes text. ``reasoning`` are the tags of its thinking, which is stored apart from the text."""

    sampling: Sampling = Sampling()
    reasoning: ReasoningTags | None = None


class NamedWriter(Writer):
    """A writer with a name. It writes ``samples`` texts per prompt, in its ``languages`` (default: all)."""

    name: Annotated[str, REQUEST] = Field(min_length=1)
    languages: Annotated[Languages, REQUEST] = ()
    samples: Annotated[int, REQUEST] = Field(default=1, gt=0)
    licence: Annotated[str | None, REQUEST] = None


class Teacher(NamedWriter, Instructed):
    """``[[teachers]]``: one model of the pool, or recorded answers in place of one."""

    engine: Annotated[Literal["vllm", "openai", "recorded"], FINGERPRINTED] = "vllm"
    structured: Structured | None = None
    recorded: Annotated[Recorded | None, FINGERPRINTED] = None

    @model_validator(mode="after")
    def _fits_engine(self) -> Self:
        if (self.engine == "recorded") != (self.recorded is not None):
            raise ValueError("a [teachers.recorded] section and engine = 'recorded' go together")
        return self


class Translation(Writer, Instructed):
    """``[translation]``: an encoder-decoder translator (engine transformers) or an LLM (vllm, openai).

    ``completions_of`` names the teachers whose English completions are translated, for the rejected side of
    in_language_vs_translated pairs. ``instruction`` is an LLM's prompt; it may use {source}, {target} and {text}.
    """

    engine: Annotated[Literal["transformers", "vllm", "openai"], FINGERPRINTED] = "transformers"
    prompts: Annotated[bool, REQUEST] = True
    completions_of: Annotated[Names, REQUEST] = ()
    sampling: Sampling = Sampling(temperature=0.0)
    reasoning: Annotated[ReasoningTags | None, LATER] = None
    instruction: str | None = None
    licence: Annotated[str | None, REQUEST] = None

    @model_validator(mode="after")
    def _fits_engine(self) -> Self:
        if self.engine == "transformers" and self.reasoning is not None:
            raise ValueError("'reasoning' was given, but an encoder-decoder translator does not think; leave it out")
        return self


class RewardModel(Model, Instructed):
    """``[[reward_models]]``: a sequence classifier or reward model, run as a pooling model of vLLM."""

    engine: Annotated[Literal["vllm", "openai"], FINGERPRINTED] = "vllm"
    name: Annotated[str, REQUEST] = Field(min_length=1)
