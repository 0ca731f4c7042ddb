"""Checking whether a model will accept a run's requests, by trying its settings and chat template without an engine.

Templates are tried in a child process (``factory.engines.local.trial_child``), so that this process need not import
transformers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from factory.engines.base import Message
from factory.engines.model_folders import (
    check_adapter,
    check_translator,
    list_arguments,
    refuse_unknown_arguments,
    refuse_unknown_choices,
)
from factory.engines.open import Task, open_engine
from schemas.errors import EngineError
from schemas.recipe.models import Model

TRIAL_SECONDS = 600.0
"""The time limit of the child, most of which importing transformers may need on a busy machine."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A model, its task, and sample conversations by label, as the stage would send them.

    ``place`` is the folder of its tokenizer; None if that is not on this machine yet.
    """

    model: Model
    task: Task
    conversations: Mapping[str, Sequence[Message]]
    place: str | None


def find_setting_fault(trial: Trial) -> str | None:
    """Return why an engine would refuse a model's settings, whatever the requests; None if it would not."""
    model = trial.model
    try:
        match model.engine:
            case "openai" if model.run.api_key_env is None or os.environ.get(model.run.api_key_env):
                open_engine(model, trial.task)
            case "transformers":
                check_translator(model)
            case "vllm":
                check_adapter(model)
                if (known := list_arguments()) is not None:
                    refuse_unknown_arguments(model, known)
                refuse_unknown_choices(model)
    except EngineError as error:
        return str(error)
    return None


def find_template_faults(trials: Sequence[Trial]) -> list[str | None]:
    """Return, for each trial, how the model refuses a conversation; None if it accepts all or has no local tokenizer.

    Raises:
        EngineError: the trial failed, for example because transformers is not installed.
    """
    asked: list[dict[str, Any]] = [
        {
            "model": trial.model.model_dump(mode="json", include=set(Model.model_fields)),
            "task": trial.task,
            "place": trial.place,
            "conversations": {name: list(messages) for name, messages in trial.conversations.items()},
        }
        for trial in trials
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "factory.engines.local.trial_child"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=TRIAL_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"},
        )
        found: list[str | None] = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"no answer in {TRIAL_SECONDS:.0f} s") from error
    except (ValueError, LookupError) as error:
        line = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
        raise EngineError(line) from error
    return found
