"""Checks of what one recipe needs: its files, models, servers, keys and GPUs."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
from huggingface_hub import constants, get_token

from factory.engines.folders import WEIGHT_PATTERNS, check_model
from factory.stages.recorded import open_recorded
from factory.stages.sources import read_source
from flows.findings import Finding, Findings, note, ok, problem, size
from flows.gpus import Gpu
from flows.machine_checks import memory_bytes
from flows.recipe_trials import NUM_TRIED_ROWS, find_snapshot
from flows.slots import find_slots
from schemas.errors import FactoryError
from schemas.models import Model, RewardModel
from schemas.paths import is_path
from schemas.recipe import Recipe
from warehouse.user_sql import read_select

SERVER_SECONDS = 3.0

WEIGHTS_SHARE = 0.8
"""The share of a GPU's usable memory above which weights leave too little for the cache of a busy engine."""


def named_models(recipe: Recipe) -> list[tuple[str, Model]]:
    """Return every model of a recipe that is run or asked, after what to call it."""
    models: list[tuple[str, Model]] = [(f"teacher {teacher.name}", teacher) for teacher in recipe.teachers]
    if recipe.translation:
        models.append(("translator", recipe.translation))
    models += [(f"reward model {model.name}", model) for model in recipe.reward_models]
    return [(name, model) for name, model in models if model.engine != "recorded"]


def check_files(recipe: Recipe) -> Findings:
    """Check that the files that a recipe names are there, and that their first rows can be read."""
    for source in recipe.prompts:
        if source.path is not None or Path(str(source.dataset)).exists():
            frames = read_source(source.model_copy(update={"limit": NUM_TRIED_ROWS}))
            yield _try_rows(f"prompts {source.name}", source.path or str(source.dataset), frames)
    for teacher in recipe.teachers:
        if teacher.recorded:
            yield _try_rows(f"answers {teacher.name}", teacher.recorded.path, open_recorded(teacher.recorded))
    for name, path in (("routing", recipe.routing.sql), *((f"pairs {pair.label}", pair.sql) for pair in recipe.pairs)):
        if path is not None:
            yield _try_sql(name, path)
    for name, model in named_models(recipe):
        if model.chat_template is not None:
            yield _find_file(f"template of {name}", model.chat_template)


def _try_sql(name: str, path: str) -> Finding:
    found = _find_file(name, path)
    if found.state == "ok":
        try:
            read_select(path)
        except FactoryError as error:
            return problem(name, str(error), "correct the file; one SELECT is needed")
    return found


def _find_file(name: str, path: str) -> Finding:
    if Path(path).is_file():
        return ok(name, path)
    return problem(name, f"no file at {path}", "correct the path; it is meant from the recipe's folder")


def _try_rows(name: str, path: str, rows: Iterator[object]) -> Finding:
    try:
        first = next(rows, None)
    except FactoryError as error:
        return problem(name, str(error), "correct the path or the columns; paths are meant from the recipe's folder")
    return note(name, f"{path} has no rows") if first is None else ok(name, path)


def check_models(recipe: Recipe) -> Findings:
    """Check that models are in their folders, in the hub's cache, or behind servers that answer."""
    needs_hub = False
    for name, model in named_models(recipe):
        if model.engine == "openai":
            yield from _check_servers(name, model)
        elif is_path(model.model):
            yield from _check_folder(name, model)
        else:
            needs_hub = True
            yield from _check_cache(name, model)
    sources = [source for source in recipe.prompts if source.dataset and not Path(source.dataset).exists()]
    if (needs_hub or sources) and not get_token():
        yield note("hub token", "none; gated models and datasets are refused", "set HF_TOKEN if you use any")
    if recipe.run.push_to_hub and not get_token():
        yield problem("hub token", f"none, and exports go to {recipe.run.push_to_hub}", "set HF_TOKEN")


def check_keys(recipe: Recipe) -> Findings:
    """Check that the environment holds the keys that a recipe names; never shows one."""
    for name, model in named_models(recipe):
        variable = model.run.api_key_env
        if variable and os.environ.get(variable):
            yield ok(f"key of {name}", f"{variable} is set")
        elif variable:
            yield problem(f"key of {name}", f"{variable} is not set", f"set the environment variable {variable}")


def check_fit(recipe: Recipe, gpus: Sequence[Gpu]) -> Findings:
    """Check that every model fits onto the slots, by number of GPUs and, where its weights are here, by memory."""
    slots = find_slots(recipe.run.slots)
    numbers = [number for slot in slots for number in slot]
    if not gpus:
        if numbers:
            yield problem("slots", f"GPU {_join(numbers)} are named; there is no GPU", "leave run.slots out")
        if most := max((wanted for wanted in _wanted_gpus(recipe).values() if wanted > 1), default=0):
            yield note("fit", f"models ask for up to {most} GPUs; there is none", "expect them to be slow on the CPU")
        yield from _check_memory(recipe, memory_bytes(), "memory", share=False)
        return
    if strange := [number for number in numbers if number >= len(gpus)]:
        to_do = f"name GPUs from 0 to {len(gpus) - 1} in run.slots"
        yield problem("slots", f"GPU {_join(strange)} are named; there are {len(gpus)} GPUs", to_do)
    for name, wanted in _wanted_gpus(recipe).items():
        if wanted > len(numbers):
            to_do = f"let run.gpus x run.replicas be at most {len(numbers)}"
            yield problem(f"fit of {name}", f"asks for {wanted} GPUs at once; the slots hold {len(numbers)}", to_do)
    yield from _check_memory(recipe, min(gpu.memory for gpu in gpus), "GPU memory", share=True)


def _check_folder(name: str, model: Model) -> Findings:
    folder = Path(model.model)
    try:
        if model.engine == "vllm":
            check_model(model, is_scoring=isinstance(model, RewardModel))
        elif not (folder / "config.json").is_file() or not _weights(folder):
            raise FactoryError(f"there is no model with config.json and weights at '{folder}'")
    except FactoryError as error:
        yield problem(name, str(error), "correct the path, or fetch the model")
    else:
        yield ok(name, f"{folder}, {size(_weights(folder))}")


def _check_cache(name: str, model: Model) -> Findings:
    snapshot = find_snapshot(model)
    if snapshot and _weights(snapshot):
        yield ok(name, f"{model.model}, {size(_weights(snapshot))} in the hub's cache")
    elif constants.HF_HUB_OFFLINE:
        found = (
            f"no such folder as {model.model}; as a hub id it has not been downloaded, and HF_HUB_OFFLINE forbids it"
        )
        yield problem(name, found, f"fetch it with `hf download {model.model}`, or unset HF_HUB_OFFLINE")
    else:
        found = f"no such folder as {model.model}; as a hub id it has not been downloaded: the first run does so"
        yield note(name, found, "if a folder is meant, correct the path; it begins with ./ or / or is there")


def _check_servers(name: str, model: Model) -> Findings:
    key = os.environ.get(model.run.api_key_env or "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for url in model.run.urls:
        try:
            status = httpx.get(f"{url.rstrip('/')}/models", headers=headers, timeout=SERVER_SECONDS).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            yield problem(
                name, f"{url} does not answer ({type(error).__name__})", "start the server, or correct run.urls"
            )
            continue
        if status in {401, 403}:
            yield problem(
                name, f"{url} refuses the key", "set the right key in the variable that run.api_key_env names"
            )
        else:
            yield ok(name, f"{url} answers")


def _check_memory(recipe: Recipe, memory: int, what: str, *, share: bool) -> Findings:
    """Compare the weights that are here with the memory that they are to lie in; quantised ones may take less."""
    for name, model in named_models(recipe):
        folder = Path(model.model) if is_path(model.model) else find_snapshot(model)
        if model.engine == "openai" or model.quantization or folder is None:
            continue
        room = memory * model.run.gpu_memory_utilization * model.run.gpus if share else memory
        weights = _weights(folder)
        found = f"weights of {size(weights)} in {size(room)} of {what}"
        if weights > room:
            yield problem(f"fit of {name}", found, "raise run.gpus, quantise, or take a smaller model")
        elif weights > WEIGHTS_SHARE * room:
            yield note(f"fit of {name}", found, "little is left for requests in flight; raise run.gpus")


def _wanted_gpus(recipe: Recipe) -> dict[str, int]:
    """Return how many GPUs each model holds at once."""
    return {name: model.num_gpus for name, model in named_models(recipe) if model.num_gpus}


def _weights(folder: Path) -> int:
    """Return the bytes of a folder's weights, of the best format that it has."""
    for pattern in WEIGHT_PATTERNS:
        if files := list(folder.glob(pattern)):
            return sum(file.stat().st_size for file in files)
    return 0


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
