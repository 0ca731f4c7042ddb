"""Creating the engine for a model of a recipe. Importing this module imports no heavy package."""

import threading
from typing import Literal, assert_never

from factory.engines.base import Engine
from factory.engines.fingerprint import resolve_commit
from factory.engines.model_folders import check_model
from factory.engines.supervision.supervisor import ChildEngine, ChildModel
from schemas.errors import EngineError
from schemas.extras import require
from schemas.recipe.models import Model
from schemas.toml.paths import is_path

MAX_IN_FLIGHT = 2048
"""Twice the batch of vLLM on a large GPU (1024 sequences), so that a reply always finds the next request waiting."""

PACKAGES = {"vllm": ("torch", "transformers", "vllm"), "transformers": ("torch", "transformers")}
"""The optional packages that each engine needs."""

Task = Literal["generate", "score", "translate"]


def open_engine(
    model: Model, task: Task, *, devices: tuple[int, ...] = (), stop: threading.Event | None = None
) -> Engine:
    """Return the engine for a model: a supervised child process (vllm, transformers) or servers (openai).

    ``task`` is what requests will ask for: to continue a conversation, to score one, or to translate. Nothing is
    started before the first request. ``devices`` are the GPUs of the model's slot.

    Raises:
        EngineError: the model's folder is missing or incomplete, or the model cannot do the task.
        MissingPackageError: the engine is not installed.
    """
    require(PACKAGES.get(model.engine, ()))
    model = _pin(model)
    match model.engine:
        case "openai":
            from factory.engines.openai.engine import OpenAIEngine

            return OpenAIEngine(model, task, stop=stop)
        case "vllm":
            check_model(model, is_scoring=task == "score")
            core = "factory.engines.local.vllm:open_core"
            settings = model.model_dump(mode="json") | {"task": task}
        case "transformers":
            core = "factory.engines.local.translator:open_core"
            settings = model.model_dump(mode="json")
        case "recorded":
            raise EngineError("a recorded teacher has no engine; its completions are read from a file")
        case _:
            assert_never(model.engine)
    return ChildEngine(
        ChildModel(core, settings, f"model '{model.model}'", devices),
        max_in_flight=model.run.max_in_flight or MAX_IN_FLIGHT,
        stall_seconds=model.run.timeout_seconds,
        stop=stop,
    )


def _pin(model: Model) -> Model:
    """Return a hub model with its revisions resolved to commits, the same as in its fingerprint."""
    if model.engine not in {"vllm", "transformers"}:
        return model
    pinned = {}
    if not is_path(model.model):
        pinned["revision"] = resolve_commit(model.model, model.revision)
    if model.adapter is not None and not is_path(model.adapter):
        pinned["adapter_revision"] = resolve_commit(model.adapter, model.adapter_revision, "adapter_config.json")
    return model.model_copy(update=pinned)
