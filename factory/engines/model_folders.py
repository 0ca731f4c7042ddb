"""Checks of a model before it is loaded: whether its folder contains a model, and whether that can do the task."""

import ast
import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from schemas.errors import EngineError
from schemas.recipe.models import Model
from schemas.toml.paths import is_path

WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")

OVERRIDES = frozenset({"hf_overrides", "convert"})
"""Engine arguments that change the kind of the model that its config describes."""


def check_model(model: Model, *, is_scoring: bool) -> None:
    """Check a local model folder for vLLM, cheaply; a hub id passes.

    Raises:
        EngineError: there is no such folder, it lacks a config, weights or a chat template, or the model cannot do the
            task.
    """
    check_adapter(model)
    if not is_path(model.model):
        return
    folder = Path(model.model)
    if not folder.is_dir():
        raise EngineError(f"there is no model folder '{folder}'")
    if not (folder / "config.json").is_file():
        raise EngineError(f"model folder '{folder}' has no config.json")
    if not any(_glob(folder, WEIGHT_PATTERNS)):
        raise EngineError(f"model folder '{folder}' has no weights; looked for {', '.join(WEIGHT_PATTERNS)}")
    if not OVERRIDES & set(model.engine_args):
        check_architecture(model.model, read_architectures(folder), is_scoring=is_scoring)
    if model.chat_template is None and model.engine_args.get("task") != "score" and not _has_template(folder):
        raise EngineError(f"the tokenizer of model '{folder}' has no chat template; set 'chat_template' to a file")


def check_adapter(model: Model) -> None:
    """Raise an EngineError if a model's adapter is a local folder without an adapter."""
    if (
        model.adapter is not None
        and is_path(model.adapter)
        and not (Path(model.adapter) / "adapter_config.json").exists()
    ):
        raise EngineError(f"adapter '{model.adapter}' cannot be read: there is no adapter_config.json")


def check_translator(model: Model) -> None:
    """Raise an EngineError if a translator has a setting that the transformers engine does not support."""
    for setting in ("quantization", "adapter"):
        if getattr(model, setting) is not None:
            raise EngineError(f"the transformers engine does not support '{setting}'; leave it out of [translation]")


def refuse_unknown_arguments(model: Model, known: Set[str]) -> None:
    """Raise an EngineError if a model's ``engine_args`` contain something that is not an argument of vLLM."""
    given = {*model.run.engine_args, *model.engine_args} - {"task"}
    if unknown := sorted(given - known):
        raise EngineError(f"engine_args of model '{model.model}' contains {unknown[0]!r}, which vLLM does not know")


def list_arguments() -> Set[str] | None:
    """Return the arguments of the installed vLLM, or None if there is none.

    They are read from its source, because importing it takes long.
    """
    tree = _parse_source("engine/arg_utils.py")
    if tree is None:
        return None
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "EngineArgs")
    fields = (node for found in classes for node in found.body if isinstance(node, ast.AnnAssign))
    return {field.target.id for field in fields if isinstance(field.target, ast.Name)}


_CHOICES = {
    "quantization": ("model_executor/layers/quantization/__init__.py", "QuantizationMethods"),
    "dtype": ("config/model.py", "ModelDType"),
}
"""Where the source of vLLM defines the allowed values of a setting, as a Literal."""


def refuse_unknown_choices(model: Model) -> None:
    """Raise an EngineError if the installed vLLM does not know a model's quantization or dtype.

    Quantizations are not checked if plugins of vLLM are installed, which may define their own.
    """
    extended = any(
        point.dist is None or not point.dist.name.startswith("vllm")
        for point in importlib.metadata.entry_points(group="vllm.general_plugins")
    )
    for setting, (file, name) in _CHOICES.items():
        given = model.engine_args.get(setting, getattr(model, setting))
        known = _list_choices(file, name)
        if isinstance(given, str) and known and given.lower() not in known and not extended:
            raise EngineError(f"'{setting}' is {given!r}, which vLLM does not know; allowed are {', '.join(known)}")


def _list_choices(file: str, name: str) -> list[str]:
    """Return the values of a Literal in the source of vLLM; empty if it is not found."""
    tree = _parse_source(file)
    for node in tree.body if tree is not None else ():
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            values = [found.value for found in ast.walk(node.value) if isinstance(found, ast.Constant)]
            return [value for value in values if isinstance(value, str)]
    return []


def _parse_source(file: str) -> ast.Module | None:
    """Return the syntax tree of a source file of the installed vLLM, or None if there is none."""
    found = importlib.util.find_spec("vllm")
    source = Path(found.origin).parent / file if found and found.origin else None
    return ast.parse(source.read_text(encoding="utf-8")) if source is not None and source.is_file() else None


def refuse_unknown_switches(model: Model, template: str) -> None:
    """Raise an EngineError if the chat template does not use one of the model's switches, which then has no effect."""
    for name in model.chat_template_kwargs:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise EngineError(
                f"the chat template of model '{model.model}' does not use '{name}' of 'chat_template_kwargs'"
            )


def check_architecture(name: str, architectures: Sequence[str], *, is_scoring: bool) -> None:
    """Raise an EngineError if a generator should score or a classifier should generate.

    Reward models whose architecture has another name than ForSequenceClassification pass.
    """
    generates = any(
        architecture.endswith(("ForCausalLM", "ForConditionalGeneration")) for architecture in architectures
    )
    classifies = any(
        architecture.endswith(("Classification", "RewardModel", "RewardModeling")) for architecture in architectures
    )
    if is_scoring and generates:
        raise EngineError(f"model '{name}' is a generator ({', '.join(architectures)}); a reward model is needed")
    if not is_scoring and classifies:
        raise EngineError(f"model '{name}' is a classifier ({', '.join(architectures)}); a generator is needed")


def read_architectures(folder: Path) -> list[str]:
    """Return the architectures in config.json; empty if it has none."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"config.json in model folder '{folder}' cannot be read: {error}") from error
    return list(config.get("architectures") or [])


def _has_template(folder: Path) -> bool:
    if any(_glob(folder, ("chat_template.*", "additional_chat_templates/*"))):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True  # another kind of tokenizer; loading it will show
    return bool(config.get("chat_template"))


def _glob(folder: Path, patterns: Iterable[str]) -> Iterable[Path]:
    return (path for pattern in patterns for path in folder.glob(pattern))
