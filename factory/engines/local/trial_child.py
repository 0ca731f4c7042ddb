"""The child process of ``factory.engines.local.trial``: reads trials as JSON, writes a fault or null for each."""

import json
import sys
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import logging

from factory.engines.local.limits import find_limit_fault
from factory.engines.local.rendering import Renderer, RenderingError, read_template
from factory.engines.model_folders import refuse_unknown_switches
from schemas.errors import EngineError
from schemas.recipe.models import Model


def find_fault(trial: dict[str, Any]) -> str | None:
    """Return how a model refuses its settings or one of its conversations, or None."""
    model = Model.model_validate(trial["model"])
    if (fault := find_limit_fault(model, trial["place"])) is not None:
        return fault
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model.engine_args.get("tokenizer", trial["place"]), trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError, ImportError) as error:
        return f"its tokenizer cannot be loaded: {str(error).strip().partition(chr(10))[0]}"
    try:
        template = read_template(model, tokenizer)
        refuse_unknown_switches(model, template)
    except EngineError as error:
        return str(error)
    renderer = Renderer(tokenizer, template, model.chat_template_kwargs)
    limit = model.run.max_model_len
    for name, messages in trial["conversations"].items():
        try:
            num_tokens = len(renderer.encode(renderer.render(messages, opens=trial["task"] != "score")))
        except RenderingError as error:
            return f"{name}: {error}"
        if limit is not None and num_tokens >= limit:
            return f"{name}: it has {num_tokens} tokens, but 'run.max_model_len' allows {limit} including the answer"
    return None


if __name__ == "__main__":
    logging.set_verbosity_error()
    print(json.dumps([find_fault(trial) for trial in json.load(sys.stdin)]))
