"""The wire format of OpenAI-compatible servers: building requests and parsing replies, as pure functions.

Generation uses the chat completions API; sampling settings that only servers such as vLLM know are sent only if they
differ from their defaults. Scoring uses vLLM's own API, because OpenAI has none.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from factory.engines.base import Failure, Message, Reply, Request
from factory.engines.reply_text import mend_text, split_reasoning
from schemas.errors import EngineError
from schemas.reasons import Reason
from schemas.recipe.models import Model, Structured, Teacher, Writer

ScoringTask = Literal["classify", "reward", "score"]
"""vLLM's tasks for reward models, as in the vLLM engine; chosen by ``engine_args.task``.

``classify``: a sequence classifier with one label. ``reward``: a model that returns a value per token, of which the
last is used. ``score``: a cross-encoder, on the last prompt and the completion.
"""

SCORING_PATHS: dict[ScoringTask, str] = {"classify": "/classify", "reward": "/pooling", "score": "/score"}

_TOO_LONG = re.compile(
    r"context.?(?:length|size|window)|maximum.{0,20}length|longer than|too many (?:input )?tokens|prompt is too long",
    re.IGNORECASE,
)
_MAX_DETAIL_CHARS = 300


class InvalidReplyError(Exception):
    """A reply of the server that does not conform to the API."""


def make_chat_body(model: Writer, request: Request) -> dict[str, object]:
    """Return the body of a chat completions request; ``engine_args`` are added as further fields."""
    sampling = model.sampling
    optional = {
        "top_k": sampling.top_k,
        "min_p": sampling.min_p or None,
        "repetition_penalty": sampling.repetition_penalty if sampling.repetition_penalty != 1 else None,
        "stop": list(sampling.stop) or None,
        "seed": request.seed if request.seed is not None else sampling.seed,
        **_structured_fields(model.structured if isinstance(model, Teacher) else None),
    }
    return {
        "model": model.model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        **{name: value for name, value in optional.items() if value is not None},
        **_template_fields(model),
        **model.engine_args,
    }


def _template_fields(model: Model) -> dict[str, object]:
    """Return the switches of the chat template, which the server applies."""
    return {"chat_template_kwargs": model.chat_template_kwargs} if model.chat_template_kwargs else {}


def _structured_fields(structured: Structured | None) -> dict[str, object]:
    if structured is None:
        return {}
    if structured.json_schema is not None:
        schema = {"name": "completion", "schema": structured.json_schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if structured.regex is not None:
        return {"structured_outputs": {"regex": structured.regex}}
    return {"structured_outputs": {"choice": list(structured.choice or ())}}


def read_completion(request: Request, data: Any, model: Writer) -> Reply:
    """Return the completion in a chat completions response.

    Raises:
        InvalidReplyError: the response does not hold one.
    """
    try:
        choice = data["choices"][0]
        message = choice["message"]
        text, finish_reason = message["content"] or "", choice.get("finish_reason")
        reasoning = message.get("reasoning") or message.get("reasoning_content")
        num_prompt_tokens, num_completion_tokens = _read_usage(data)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InvalidReplyError(f"the reply is not a chat completion: {_shorten(json.dumps(data))}") from error
    if finish_reason == "content_filter" or message.get("refusal"):
        refusal = message.get("refusal") or "the server's content filter stopped the completion"
        return Reply(request.request_id, failure=Failure(Reason.REFUSED_BY_ENGINE, _shorten(str(refusal))))
    if not isinstance(text, str) or not isinstance(reasoning, str | None) or not isinstance(finish_reason, str | None):
        raise InvalidReplyError(f"the completion is not text: {_shorten(json.dumps(message))}")
    if finish_reason == "abort":
        raise InvalidReplyError("the server aborted the completion")
    if model.reasoning is not None and reasoning is None:
        text, reasoning, is_whole = split_reasoning(text, model.reasoning, is_thinking=False)
        finish_reason = finish_reason if is_whole else "length"
    return Reply(
        request.request_id,
        text=mend_text(text),
        reasoning=None if reasoning is None else mend_text(reasoning),
        finish_reason=finish_reason,
        num_prompt_tokens=num_prompt_tokens,
        num_completion_tokens=num_completion_tokens,
    )


def scoring_tasks(model: Model) -> tuple[ScoringTask, ...]:
    """Return the tasks to try on a server, in order.

    Raises:
        EngineError: the recipe names a task that does not exist.
    """
    task = model.engine_args.get("task")
    if task is None:
        return ("classify", "reward")
    if task not in get_args(ScoringTask):
        raise EngineError(f"engine_args.task is {task!r}; allowed are {', '.join(get_args(ScoringTask))}")
    return (task,)


def make_score_body(model: Model, request: Request, task: ScoringTask) -> dict[str, object]:
    """Return the body of a scoring request for the raw score, before any activation."""
    further = {name: value for name, value in model.engine_args.items() if name != "task"}
    body: dict[str, Any] = {"model": model.model, "use_activation": False, **further}
    if task == "score":
        return body | {"text_1": request.messages[-2]["content"], "text_2": request.messages[-1]["content"]}
    body |= _template_fields(model)
    return body | {"messages": list(request.messages)} | ({"task": "token_classify"} if task == "reward" else {})


def make_probe_body(model: Model, task: ScoringTask) -> dict[str, object]:
    """Return a body that a server rejects if and only if it knows ``use_activation``."""
    text = Message(role="user", content="?")
    return make_score_body(model, Request("probe", (text, text)), task) | {"use_activation": "?"}


def read_score(request: Request, data: Any, task: ScoringTask) -> Reply:
    """Return the raw score in a scoring response.

    Raises:
        InvalidReplyError: the response does not hold one.
        EngineError: the model has several scores for a text.
    """
    try:
        first = data["data"][0]
        values = first["probs"] if task == "classify" else [first["score"]] if task == "score" else first["data"]
        if task == "reward" and isinstance(values[-1], list):
            values = values[-1]
        num_values, score = len(values), float(values[-1])
        num_prompt_tokens, _ = _read_usage(data)
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InvalidReplyError(f"the reply is not a score: {_shorten(json.dumps(data))}") from error
    if task == "classify" and num_values != 1:
        raise EngineError(f"the reward model has {num_values} labels; a raw score needs a model with one")
    if not math.isfinite(score):
        raise InvalidReplyError(f"the score is {score}")
    return Reply(request.request_id, score=score, num_prompt_tokens=num_prompt_tokens)


def find_fault(request: Request) -> Failure | None:
    """Return why a request cannot be sent, or None."""
    if not (request.messages and request.messages[-1]["content"].strip()):
        return Failure(Reason.EMPTY_PROMPT, "the last message is empty")
    try:
        for message in request.messages:
            message["content"].encode()
    except UnicodeEncodeError as error:
        return Failure(Reason.INVALID_TEXT, f"the prompt is not valid Unicode: {error.reason}")
    return None


def read_refusal(status: int, message: str) -> Failure:
    """Return the failure of a request that the server has rejected with a 4xx status."""
    reason = Reason.PROMPT_TOO_LONG if _TOO_LONG.search(message) else Reason.REFUSED_BY_ENGINE
    return Failure(reason, f"the server answers {status}: {message}")


def read_error_message(body: bytes) -> str:
    """Return the message of an error response as one short line, from OpenAI's or FastAPI's format or plain text."""
    text = body.decode("utf-8", errors="replace")
    try:
        data = json.loads(text)
    except ValueError:
        return _shorten(text)
    if isinstance(data, Mapping):
        error = data.get("error", data)
        message = (error.get("message") or error.get("detail")) if isinstance(error, Mapping) else error
        text = message if isinstance(message, str) else text
    return _shorten(text)


def _read_usage(data: Mapping[str, Any]) -> tuple[int, int]:
    """Return the numbers of prompt and completion tokens; 0 if the server does not report them."""
    usage = data.get("usage") or {}
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_DETAIL_CHARS else line[:_MAX_DETAIL_CHARS] + " ..."
