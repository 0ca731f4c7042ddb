"""The vLLM core: one engine, fed continuously, that generates completions or scores conversations.

It runs in the child process. Prompts are rendered and tokenized in a thread while the engine computes. Each sample of a
prompt is a request of its own, which prefix caching makes cheap.
"""

import copy
import json
import math
import os
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub import snapshot_download
from pydantic import ValidationError
from vllm import EngineArgs, LLMEngine, PoolingParams, PoolingRequestOutput, RequestOutput, SamplingParams
from vllm.config import PoolerConfig
from vllm.config.lora import MaxLoRARanks  # has no name nearer to the top, as most of what follows
from vllm.entrypoints.pooling.scoring.utils import compress_token_type_ids
from vllm.inputs import tokens_input
from vllm.lora.request import LoRARequest
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.usage.usage_lib import UsageContext

from factory.engines.base import Failure, Reply, Request
from factory.engines.local.rendering import Renderer, RenderingError, read_template
from factory.engines.model_folders import (
    OVERRIDES,
    check_architecture,
    refuse_unknown_arguments,
    refuse_unknown_switches,
)
from factory.engines.reply_text import mend_text, split_reasoning
from schemas.errors import EngineError
from schemas.reasoning import REASONING_MARKS
from schemas.reasons import Reason
from schemas.recipe.models import Model, Sampling, Structured

ScoringTask = Literal["classify", "reward", "score"]
"""vLLM's pooling tasks for reward models; ``engine_args.task`` overrides the first one that the model supports.

``classify``: a sequence classifier with one label, on the rendered conversation. ``reward``: a model that returns a
value per token, of which the last is used. ``score``: a cross-encoder, on the last prompt and the completion as a text
pair.
"""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A tokenized request.

    ``is_thinking``: the chat template ends inside the reasoning. ``token_types``: the text of a pair that each token
    belongs to, for models that use token types.
    """

    request: Request
    token_ids: list[int]
    is_thinking: bool
    token_types: list[int] | None


class VllmCore:
    """A vLLM engine as a core of the child process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        """Load the model; ``settings`` is a section of a recipe as JSON-able data, with its ``task``.

        Raises:
            EngineError: the model cannot be loaded, or cannot do the task.
        """
        self._model = Model.model_validate({name: settings[name] for name in Model.model_fields if name in settings})
        self._is_scoring = settings["task"] == "score"
        self._reasoning: tuple[str, str] | None = settings.get("reasoning")
        self._is_structured = settings.get("structured") is not None
        self._engine, self._scoring_task = _load_engine(self._model, is_scoring=self._is_scoring)
        self._max_prompt_tokens = self._engine.model_config.max_model_len - (not self._is_scoring)
        self._tokenizer = copy.deepcopy(self._engine.get_tokenizer())  # tokenizers are not thread-safe
        template = None if self._scoring_task == "score" else read_template(self._model, self._tokenizer)
        self._renderer = Renderer(self._tokenizer, template, self._model.chat_template_kwargs)
        refuse_unknown_switches(self._model, template or "")
        self._lora = _adapter_request(self._model)
        self._params = self._pooling_params() if self._is_scoring else self._sampling_params(settings)
        self._thread = ThreadPoolExecutor(1, "tokeniser")
        self._prepared: deque[Future[_Prompt | Reply]] = deque()
        self._thinking: dict[str, bool] = {}

    def submit(self, request: Request) -> None:
        self._prepared.append(self._thread.submit(self._prepare, request))

    def step(self) -> list[Reply]:
        replies = self._admit()
        if self._engine.has_unfinished_requests():
            replies += [self._reply(output) for output in self._engine.step() if output.finished]
        return replies

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._engine.engine_core.shutdown()

    def _sampling_params(self, settings: dict[str, Any]) -> SamplingParams:
        sampling = Sampling.model_validate(settings.get("sampling") or {})
        structured = settings.get("structured") and Structured.model_validate(settings["structured"])
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or 0,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=sampling.max_tokens,
            stop=list(sampling.stop),
            structured_outputs=_structured_params(structured) if structured else None,
            skip_special_tokens=not self._marks_thinking(),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _marks_thinking(self) -> bool:
        """Whether the tags of the model's thinking are special tokens.

        They must then be kept in the text, because without them thinking and answer could not be told apart.
        """
        tokens = getattr(self._tokenizer, "added_tokens_decoder", {}).values()
        special = {token.content for token in tokens if token.special} | set(self._tokenizer.all_special_tokens)
        tags = "".join(self._reasoning or ())
        return any(token in tags or re.search(REASONING_MARKS, token) for token in special)

    def _pooling_params(self) -> PoolingParams:
        return PoolingParams(
            task="token_classify" if self._scoring_task == "reward" else "classify", use_activation=False
        )

    def _prepare(self, request: Request) -> _Prompt | Reply:
        """Render and tokenize a request; runs in the thread."""
        messages = list(request.messages)
        try:
            if not self._is_scoring and not (request.messages and messages[-1]["content"].strip()):
                return _fail(request, Reason.EMPTY_PROMPT, "the last message is empty")
            for message in messages:
                message["content"].encode()
            if self._scoring_task == "score":
                text = ""
                token_ids, token_types = self._renderer.encode_pair(*(message["content"] for message in messages[-2:]))
            else:
                rendering = self._renderer.render(messages, opens=not self._is_scoring)
                token_ids, token_types, text = self._renderer.encode(rendering), None, rendering.text
        except UnicodeEncodeError as error:
            return _fail(request, Reason.INVALID_TEXT, f"the prompt is not valid Unicode: {error.reason}")
        except RenderingError as error:
            return _fail(request, Reason.REFUSED_BY_ENGINE, str(error))
        if not token_ids:
            return _fail(request, Reason.EMPTY_PROMPT, "the prompt has no tokens")
        if len(token_ids) > self._max_prompt_tokens:
            detail = f"the prompt has {len(token_ids)} tokens, but the model allows {self._max_prompt_tokens}"
            return _fail(request, Reason.PROMPT_TOO_LONG, detail)
        is_thinking = self._reasoning is not None and text.rstrip().endswith(self._reasoning[0])
        return _Prompt(request, token_ids, is_thinking, token_types)

    def _admit(self) -> list[Reply]:
        """Pass tokenized prompts to the engine; wait for one only if the engine is idle."""
        failures = []
        while self._prepared and (self._prepared[0].done() or not self._engine.has_unfinished_requests()):
            prompt = self._prepared.popleft().result()
            failure = prompt if isinstance(prompt, Reply) else self._add(prompt)
            if failure is not None:
                failures.append(failure)
                if not self._engine.has_unfinished_requests():
                    break
        return failures

    def _add(self, prompt: _Prompt) -> Reply | None:
        request, params = prompt.request, self._params
        if request.seed is not None and isinstance(params, SamplingParams):
            params = params.clone()
            params.seed = request.seed
        try:
            if isinstance(params, PoolingParams) and prompt.token_types is not None:
                params = params.clone()
                params.extra_kwargs = {"compressed_token_type_ids": compress_token_type_ids(prompt.token_types)}
            engine_input = tokens_input(prompt.token_ids)
            self._engine.add_request(request.request_id, engine_input, params, lora_request=self._lora)
        except ValueError as error:
            return _fail(request, Reason.REFUSED_BY_ENGINE, _first_line(error))
        if prompt.is_thinking:
            self._thinking[request.request_id] = True
        return None

    def _reply(self, output: RequestOutput | PoolingRequestOutput) -> Reply:
        num_prompt_tokens = len(output.prompt_token_ids or ())
        if isinstance(output, PoolingRequestOutput):
            score = float(output.outputs.data.flatten()[-1])
            if not math.isfinite(score):
                failure = Failure(Reason.INVALID_REPLY, f"the reward is {score}")
                return Reply(output.request_id, num_prompt_tokens=num_prompt_tokens, failure=failure)
            return Reply(output.request_id, score=score, num_prompt_tokens=num_prompt_tokens)
        completion = output.outputs[0]
        text, reasoning, finish_reason = mend_text(completion.text), None, completion.finish_reason
        if self._reasoning is not None:
            # Structured output is constrained from its first token on, so it is an answer even if the template has
            # opened the thinking.
            is_thinking = self._thinking.pop(output.request_id, False) and not self._is_structured
            text, reasoning, is_whole = split_reasoning(text, self._reasoning, is_thinking=is_thinking)
            finish_reason = finish_reason if is_whole else "length"
        return Reply(
            request_id=output.request_id,
            text=text,
            reasoning=reasoning,
            finish_reason=finish_reason,
            num_prompt_tokens=num_prompt_tokens,
            num_completion_tokens=len(completion.token_ids),
        )


def open_core(settings: dict[str, Any]) -> VllmCore:
    """Return the core for a section of a recipe, given as JSON-able data with its ``task``: generate or score."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    if current_platform.is_cpu():
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # a second process takes 25 s to start
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    return VllmCore(settings)


def _load_engine(model: Model, *, is_scoring: bool) -> tuple[LLMEngine, ScoringTask | None]:
    arguments, task = _engine_arguments(model, is_scoring=is_scoring)
    try:
        config = EngineArgs(**arguments).create_engine_config(UsageContext.LLM_CLASS)
        if not OVERRIDES & set(arguments):
            check_architecture(model.model, config.model_config.architectures, is_scoring=is_scoring)
        engine = LLMEngine.from_vllm_config(config, usage_context=UsageContext.LLM_CLASS, disable_log_stats=True)
    except (OSError, ValueError) as error:
        raise EngineError(f"model '{model.model}' cannot be loaded: {_first_line(error)}") from error
    return engine, _choose_scoring_task(model, engine, task) if is_scoring else None


def _engine_arguments(model: Model, *, is_scoring: bool) -> tuple[dict[str, Any], ScoringTask | None]:
    """Return the arguments of ``EngineArgs``, and the scoring task that the recipe names."""
    given = model.run.engine_args | model.engine_args
    task = given.pop("task", None)
    refuse_unknown_arguments(model, {field.name for field in fields(EngineArgs)})
    arguments = {
        "model": model.model,
        "revision": model.revision,
        "tokenizer_revision": model.revision,
        "dtype": model.dtype,
        "quantization": model.quantization,
        "trust_remote_code": model.trust_remote_code,
        "max_model_len": model.run.max_model_len,
        "gpu_memory_utilization": model.run.gpu_memory_utilization,
        "tensor_parallel_size": max(1, model.run.gpus),
        "runner": "pooling" if is_scoring else "generate",
        "disable_log_stats": True,
    }
    if current_platform.is_cpu():
        arguments |= {"tensor_parallel_size": 1, "enforce_eager": True}
    if model.adapter is not None:
        arguments |= {"enable_lora": True, "max_lora_rank": _adapter_rank(model)}
    if isinstance(given.get("pooler_config"), dict):
        given["pooler_config"] = PoolerConfig(**given["pooler_config"])
    return arguments | given, task


def _choose_scoring_task(model: Model, engine: LLMEngine, task: ScoringTask | None) -> ScoringTask:
    supported = engine.get_supported_tasks()
    fitting: list[ScoringTask] = ["classify", "score"] if "classify" in supported else []
    fitting += ["reward"] if "token_classify" in supported else []
    num_labels = engine.model_config.hf_config.num_labels
    if "classify" in supported and num_labels != 1:
        raise EngineError(f"model '{model.model}' has {num_labels} labels; a reward model must have one")
    if not fitting or task not in {None, *fitting}:
        raise EngineError(
            f"model '{model.model}' cannot score{'' if task is None else f' by task {task!r}'}; "
            f"it supports: {', '.join(fitting or supported)}"
        )
    return task or fitting[0]


def _adapter_folder(model: Model) -> Path:
    assert model.adapter is not None
    if Path(model.adapter).is_dir():
        return Path(model.adapter)
    return Path(snapshot_download(model.adapter, revision=model.adapter_revision))


def _adapter_rank(model: Model) -> int:
    """Return the smallest rank supported by vLLM that is at least the adapter's."""
    try:
        rank = int(json.loads((_adapter_folder(model) / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"adapter '{model.adapter}' cannot be read: {error}") from error
    allowed: tuple[int, ...] = get_args(MaxLoRARanks)
    if rank > max(allowed):
        raise EngineError(f"adapter '{model.adapter}' has rank {rank}; allowed is at most {max(allowed)}")
    return min(value for value in allowed if value >= rank)


def _adapter_request(model: Model) -> LoRARequest | None:
    return LoRARequest("adapter", 1, str(_adapter_folder(model))) if model.adapter is not None else None


def _structured_params(structured: Structured) -> StructuredOutputsParams:
    return StructuredOutputsParams(
        json=structured.json_schema,
        regex=structured.regex,
        choice=list(structured.choice) if structured.choice is not None else None,
    )


def _fail(request: Request, reason: Reason, detail: str) -> Reply:
    return Reply(request.request_id, failure=Failure(reason, detail))


def _first_line(error: Exception) -> str:
    """Return the message of an error of vLLM or of its config validation, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))} {first['msg'].removeprefix('Value error, ')}".strip()
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0]
