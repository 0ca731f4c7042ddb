"""Checks of what one recipe needs: its files, models, servers, keys and GPUs."""

import os
from collections.abc import Sequence
from pathlib import Path

import httpx
from huggingface_hub import constants, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from factory.engines.model_folders import WEIGHT_PATTERNS, check_model
from flows.doctor.finding import Finding, Findings, note, ok, problem, size
from flows.doctor.machine_checks import memory_bytes
from flows.doctor.recipe_trials import find_snapshot
from flows.held_out import make_contestant
from flows.lanes.gpus import Gpu
from flows.lanes.slots import find_slots
from flows.recipe_names import OTHER_COMMANDS, check_name, open_empty
from schemas.errors import FactoryError
from schemas.names import BASE
from schemas.recipe.curation import PairStrategy, Routing
from schemas.recipe.models import Model, NamedWriter, RewardModel, Translation
from schemas.recipe.recipe import Recipe
from schemas.toml.named import Named, find_named
from schemas.toml.paths import is_path
from warehouse.build.scope import Scope
from warehouse.build.user_sql import list_sql, try_file

SERVER_SECONDS = 3.0

ROLES = {"judge": "judge", "teachers": "teacher", "reward_models": "reward model"}
"""What a model is called by the tables that it is in, the inner one first."""

WEIGHTS_SHARE = 0.8
"""The share of a GPU's usable memory above which weights leave too little for the cache of a busy engine."""


def named_models(recipe: Recipe) -> list[tuple[str, Model]]:
    """Return every model of a recipe that is run or asked by an engine, after what to call it."""
    models = [(_call(named), model) for named in find_named(recipe) if (model := _find_model(named)) is not None]
    if recipe.policy:
        models.append(("policy base", make_contestant(recipe, BASE, recipe.policy.base)))
    return models


def _find_model(named: Named) -> Model | None:
    """Return the model that an engine opens by a name; None for what is named beside it, such as its template."""
    return named.section if isinstance(named.section, Model) and named.field == "model" else None


def _call(named: Named) -> str:
    match named.section:
        case Translation():
            return "translator"
        case NamedWriter() | RewardModel() as model:
            role = next(role for key, role in ROLES.items() if key in named.location)
            return f"{role} {model.name}"
    return named.label


def check_files(recipe: Recipe) -> Findings:
    """Check that all that a recipe names is on this machine, that first rows can be read, and that SQL can run.

    Models that an engine opens are for ``check_models``.
    """
    for named in find_named(recipe):
        is_opened = named.location == ("policy", "base") or _find_model(named) is not None
        if not is_opened and not isinstance(named.section, Routing | PairStrategy):
            yield _look_for(named)
    if sql := list_sql(recipe):
        with open_empty() as lake:
            scope = Scope.open(lake, None)
            yield from (_try_sql(scope, named) for named in sql)


def _try_sql(scope: Scope, named: Named) -> Finding:
    try:
        try_file(scope, named)
    except FactoryError as error:
        return problem(
            named.label, str(error), "correct the path, which is meant from the recipe's folder, or the SELECT"
        )
    return ok(named.label, named.name)


def _look_for(named: Named) -> Finding:
    try:
        has_rows = check_name(named)
    except FactoryError as error:
        if named.location[0] in OTHER_COMMANDS:
            return note(named.label, str(error), f"`factory {named.location[0]}` needs it; `factory run` does not")
        return problem(
            named.label, str(error), "correct the path or the columns; paths are meant from the recipe's folder"
        )
    return ok(named.label, named.name) if has_rows else note(named.label, f"{named.name} has no rows")


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
    elif not _is_hub_id(model.model):
        yield problem(name, f"no such folder as {model.model}, and no hub id has such a name", "correct the path")
    elif constants.HF_HUB_OFFLINE:
        found = (
            f"no such folder as {model.model}; as a hub id it has not been downloaded, and HF_HUB_OFFLINE forbids it"
        )
        yield problem(name, found, f"fetch it with `hf download {model.model}`, or unset HF_HUB_OFFLINE")
    else:
        found = f"no such folder as {model.model}; as a hub id it has not been downloaded: the first run does so"
        yield note(name, found, "if a folder is meant, correct the path; it begins with ./ or / or is there")


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


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
