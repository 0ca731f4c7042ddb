"""Hugging Face datasets: found by name, split and slice, whether on the hub, in a folder, or saved to disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import InputError

UNNAMED_SPLIT = "train"
"""What the split of a saved dataset is called that does not say: what ``load_dataset`` calls that of plain data files."""


def open_dataset(name: str, *, config: str | None, split: str, revision: str | None) -> Any:
    """Return a ``datasets.Dataset``: the rows that a split (``train``), a slice (``train[:10%]``) or a sum of them names.

    Raises:
        InputError: the dataset, its configuration or its split is missing.
    """
    import datasets  # takes half a second, and only this kind of source needs it

    try:
        if not is_saved_dataset(Path(name)):
            return datasets.load_dataset(name, config, split=split, revision=revision)
        if revision is not None:
            raise ValueError(f"a dataset that was saved to disk has no revision {revision!r}")
        saved = datasets.load_from_disk(name)
        if not isinstance(saved, datasets.DatasetDict):
            saved = datasets.DatasetDict({str(saved.split or UNNAMED_SPLIT): saved})
        return _cut(_check_config(saved, config), split)
    except (datasets.exceptions.DatasetsError, OSError, ValueError, KeyError) as error:
        raise InputError(f"dataset '{name}' (split '{split}') cannot be loaded: {error}") from error


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was made by ``save_to_disk``."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def find_labels(features: Mapping[str, Any]) -> dict[str, Any]:
    """Return the features that hold class labels, at any depth, by column; all in the form that JSON has of them."""
    return {column: feature for column, feature in features.items() if "'ClassLabel'" in repr(feature)}


def name_labels(value: Any, feature: Any) -> Any:
    """Return a value with the names of its class labels in place of their numbers; no label (-1) is null.

    A number that no name belongs to stays what it is.
    """
    match value, feature:
        case int(), {"_type": "ClassLabel", "names": names}:
            return names[value] if 0 <= value < len(names) else None if value == -1 else value
        case list(), {"_type": "Sequence" | "List" | "LargeList", "feature": inner}:
            return [name_labels(item, inner) for item in value]
        case dict(), {"_type": "Sequence", "feature": dict() as inner}:  # how older releases say a list of records
            return {key: [name_labels(item, inner.get(key)) for item in items] for key, items in value.items()}
        case list(), [inner]:
            return [name_labels(item, inner) for item in value]
        case dict(), dict():
            return {key: name_labels(item, feature.get(key)) for key, item in value.items()}
    return value


def _check_config(saved: Any, config: str | None) -> Any:
    """Refuse another configuration than the one that was saved."""
    found = {str(part.info.config_name) for part in saved.values() if part.info.config_name}
    if config is not None and found != {config}:
        there = f"holds {', '.join(sorted(found))}" if found else "names none"
        raise ValueError(f"there is no configuration '{config}'; this dataset, saved to disk, {there}")
    return saved


def _cut(saved: Any, split: str) -> Any:
    """Return the rows of saved splits that ``split`` names, in the language of ``datasets.ReadInstruction``."""
    import datasets

    if split in saved:
        return saved[split]
    spec = "+".join(saved) if split == "all" else split
    try:
        parts = datasets.ReadInstruction.from_spec(spec).to_absolute({key: len(part) for key, part in saved.items()})
    except ValueError as error:
        raise ValueError(f"{error}; the splits are {', '.join(saved)}") from error
    cut = [saved[part.splitname].select(range(part.from_, part.to)) for part in parts if part.from_ < part.to]
    if not cut:
        raise ValueError("it names no row")
    return datasets.concatenate_datasets(cut)
