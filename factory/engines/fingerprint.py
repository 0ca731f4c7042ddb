"""The identity of a model, from the content of its files or its commit on the hub; never from a path, URL or GPU."""

import contextlib
import json
import os
import time
from hashlib import sha256
from pathlib import Path

from schemas.disk import whole_file
from schemas.errors import EngineError
from schemas.ids import Json, content_id, file_digest, folder_digest
from schemas.recipe.models import Model
from schemas.toml.paths import is_path

SETTLED_SECONDS = 2.0
"""The digest of a folder that changed more recently is not cached: a further change might not alter its times."""


def fingerprint_model(model: Model) -> str:
    """Return the identity of a model: its weights, adapter, dtype and quantization.

    A local folder is identified by the digest of its files, a hub id by its name and the commit that its revision
    refers to now, and a model on a remote server by its name and the revision in the recipe.

    Raises:
        EngineError: the folder is missing, or the hub cannot be reached and nothing is cached.
    """
    if model.engine == "openai":
        weights: Json = ["server", model.model, model.revision]
        adapter: Json = None if model.adapter is None else [model.adapter, model.adapter_revision]
    else:
        weights = _identify(model.model, model.revision, "config.json")
        adapter = model.adapter and _identify(model.adapter, model.adapter_revision, "adapter_config.json")
    return content_id(
        "model", {"weights": weights, "adapter": adapter, "dtype": model.dtype, "quantization": model.quantization}
    )


def template_digest(model: Model) -> str | None:
    """Return the digest of the recipe's chat template, or None; the model's own is covered by its fingerprint."""
    if model.chat_template is None:
        return None
    path = Path(model.chat_template)
    if not path.is_file():
        raise EngineError(f"there is no chat template '{path}'")
    return file_digest(path)


def resolve_commit(name: str, revision: str | None, file: str = "config.json") -> str:
    """Return the commit that a revision of a hub repository refers to, from the hub or, if that fails, its cache."""
    from huggingface_hub import hf_hub_download  # takes a fifth of a second, and only names on the hub need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(hf_hub_download(name, file, revision=revision)).parent.name
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OfflineModeIsEnabled) as error:
        raise _explain_missing(name, revision, error) from error


def _explain_missing(name: str, revision: str | None, error: Exception) -> EngineError:
    """Return the error for a name without a path's form that the hub's client does not find."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(name).is_dir():
        here = f"for the folder of that name here write ./{name}, or in a file its path from the file's own folder"
        return EngineError(f"'{name}' is taken as an id of the hub, where it is not found; {here}")
    if isinstance(error, LocalEntryNotFoundError):
        return EngineError(
            f"there is no folder '{name}', and as a hub id it is not in the cache and the hub cannot be reached"
        )
    wanted = "" if revision is None else f" at revision '{revision}'"
    line = str(error).strip().partition("\n")[0]
    return EngineError(f"'{name}'{wanted} is neither a local folder nor a model on the hub: {line}")


def _identify(name: str, revision: str | None, file: str) -> Json:
    if not is_path(name):
        return ["hub", name, resolve_commit(name, revision, file)]
    folder = Path(name)
    if not folder.is_dir():
        raise EngineError(f"there is no model folder '{folder}'")
    return ["folder", remembered_digest(folder)]


def remembered_digest(folder: Path) -> str:
    """Return a folder's digest; it is cached until a name, size or modification time in the folder changes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files]
    state = [[path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns] for path, stat in stats]
    memory = _cache_folder() / f"{sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        remembered = json.loads(memory.read_text(encoding="utf-8"))
        if remembered["state"] == state:
            return str(remembered["digest"])
    digest = folder_digest(folder)
    if all(time.time() - stat.st_mtime > SETTLED_SECONDS for _, stat in stats):
        _remember(memory, {"state": state, "digest": digest})
    return digest


def _remember(memory: Path, entry: dict[str, object]) -> None:
    """Write a cache entry atomically; a failure is ignored, because it only costs time."""
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(memory) as file:
            file.write(json.dumps(entry).encode())


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "expanse-factory" / "folder-digests"
