"""Folders of data files, and the data set cards in them."""

from pathlib import Path

import yaml

from factory.inputs.opening import find_kind
from schemas.errors import InputError

_NO_ROWS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "manifest.json"}
"""Metadata files that have the ending of a data file."""


def list_data_files(folder: Path) -> list[Path]:
    """Return the data files below a folder, sorted, without metadata and names that begin with a dot or ``_``."""
    found = sorted(path for path in folder.rglob("*") if find_kind(path) and path.is_file())
    return [
        path
        for path in found
        if path.name not in _NO_ROWS and not any(part[0] in "._" for part in path.relative_to(folder).parts)
    ]


def refuse_several_kinds(folder: Path, paths: list[Path]) -> None:
    """Refuse a folder with files of several kinds, because ``datasets`` would silently read only those of one kind.

    Raises:
        InputError: there are several; the message names them.
    """
    refuse_several(folder, "files of the kinds", {str(find_kind(path)) for path in paths})


def refuse_several(folder: Path, what: str, found: set[str]) -> None:
    """Refuse a folder if more than one of something was found in it; ``what`` names it in the plural.

    Raises:
        InputError: there are several; the message names them.
    """
    if len(found) > 1:
        raise InputError(f"{folder} contains {what} {' and '.join(sorted(found))}; choose files by a glob")


def has_card_with_files(folder: Path) -> bool:
    """Whether a folder has a data set card that says which files belong to it.

    Raises:
        InputError: the card cannot be read.
    """
    return bool(read_card(folder, "configs"))


def read_card(folder: Path, field: str, config: str | None = None) -> list[dict[str, object]]:
    """Return the entries of ``configs`` or ``dataset_info`` in a folder's data set card, of one or all configurations.

    Raises:
        InputError: the card cannot be read.
    """
    from huggingface_hub import metadata_load  # takes a fifth of a second, and few runs read a folder

    card, beside = folder / "README.md", folder / ".huggingface.yaml"
    try:
        found = (metadata_load(card) if card.is_file() else None) or {}
        found |= (yaml.safe_load(beside.read_bytes()) if beside.is_file() else None) or {}
        said = found.get(field) or []
        entries = [dict(entry) for entry in ([said] if isinstance(said, dict) else said)]
    except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
        line = " ".join(str(error).split())
        raise InputError(f"the card of the data set in {folder} cannot be read: {line}") from error
    return [entry for entry in entries if config in (None, entry.get("config_name", "default"))]
