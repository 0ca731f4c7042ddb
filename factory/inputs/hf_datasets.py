"""Hugging Face datasets, by name, split and slice: on the hub, in a folder, or saved to disk."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, combinations, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from factory.inputs.folders import has_card_with_files, list_data_files, read_card, refuse_several_kinds
from schemas.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_COMMIT = re.compile(r"[0-9a-f]{40}")

_MANY_ROWS = 10**15
"""A stand-in for an unknown number of rows, so large that every absolute slice is inside it."""

_NO_OPTIONS = {"config_name", "data_files", "data_dir", "default", "description", "version"}
"""The fields of a configuration in a card that do not change how its files are read."""

UNNAMED_SPLIT = "train"
"""The split of a saved dataset that does not name one; ``load_dataset`` uses this name for plain data files too."""


def open_dataset(name: str, *, config: str | None, split: str, revision: str | None) -> "Dataset":
    """Return the rows of a split (``train``), a slice (``train[:10%]``), or a sum of them, as a ``datasets.Dataset``.

    ``name`` is a hub id, a folder of data files, or a folder made by ``save_to_disk``. ``info.splits`` of the result
    describes the whole splits, even if only slices are returned.

    Raises:
        InputError: the dataset, its configuration or its split is missing, or a folder has files of several kinds.
    """
    import datasets  # takes half a second, and only this kind of source needs it

    folder = Path(name)
    _refuse_mixture(folder)
    with _loading(f"dataset '{name}' (split '{split}')"):
        if not is_saved_dataset(folder):
            return datasets.load_dataset(name, config, split=split, revision=revision)
        if revision is not None:
            raise ValueError(f"revision {revision!r} was given, but a dataset that was saved to disk has no revisions")
        saved = datasets.load_from_disk(name)
        if not isinstance(saved, datasets.DatasetDict):
            saved = datasets.DatasetDict({str(saved.split or UNNAMED_SPLIT): saved})
        return _cut(_check_config(saved, config), split)


class Part(Protocol):
    """A slice of a split, as in ``datasets.ReadInstruction``: rows ``from_`` (from 0) up to but excluding ``to``."""

    splitname: str
    from_: int
    to: int


@dataclass(frozen=True, slots=True)
class FolderFiles:
    """The files of a data set in a folder, by split, in reading order.

    ``options`` are the card's settings for reading them, such as a separator; ``features`` are its column types.
    """

    folder: Path
    splits: dict[str, list[Path]]
    options: dict[str, Any]
    features: list[Any]

    def of(self, split: str) -> list[Path]:
        """Return the files of all splits that ``split`` mentions; slices are ignored.

        Raises:
            InputError: there is no such split.
        """
        with _loading(f"dataset '{self.folder}' (split '{split}')"):
            sizes = dict.fromkeys(self.splits, _MANY_ROWS)
            named = dict.fromkeys(part.splitname for part in _cut_splits(sizes, split))
        return [path for name in named for path in self.splits[name]]


def find_folder_files(folder: Path, config: str | None = None) -> FolderFiles:
    """Return the files that ``open_dataset`` reads from a folder, by its card or, without one, by the files' names.

    Raises:
        InputError: there are no files, files of several kinds or files outside the folder; or the card lacks the
            configuration, or has several and none is named.
    """
    import datasets

    _refuse_mixture(folder)
    with _loading(f"dataset '{folder}'"):
        builder = datasets.load_dataset_builder(str(folder), config)
    whole, splits = folder.resolve(), {}
    for split, named in (builder.config.data_files or {}).items():
        paths = [path if "://" in path else os.path.normpath(path) for path in named]
        if outside := [path for path in paths if not Path(path).is_relative_to(whole)]:
            raise InputError(f"the card of the data set in {folder} names {outside[0]}, which is outside that folder")
        splits[str(split)] = [folder / Path(path).relative_to(whole) for path in paths]
    said, types = (read_card(folder, field, builder.config.name) for field in ("configs", "dataset_info"))
    options = {key: value for entry in said for key, value in entry.items() if key not in _NO_OPTIONS}
    return FolderFiles(folder, splits, options, [entry["features"] for entry in types if "features" in entry])


def _refuse_mixture(folder: Path) -> None:
    if folder.is_dir() and not is_saved_dataset(folder) and not has_card_with_files(folder):
        refuse_several_kinds(folder, list_data_files(folder))


@contextmanager
def _loading(what: str) -> Iterator[None]:
    import datasets

    try:
        yield
    except (datasets.exceptions.DatasetsError, OSError, ValueError, KeyError, yaml.YAMLError) as error:
        said, _, _ = str(error).partition("Example of usage")
        said, _, _ = said.partition(" with any supported extension")
        raise InputError(f"{what} cannot be loaded: {' '.join(said.split())}") from error


def number_rows(dataset: "Dataset", split: str) -> Iterator[str]:
    """Yield the names of a dataset's rows, in order: their numbers in the whole split, counted from 1.

    The split's name comes first (``test:1``) if ``split`` mentions several.
    """
    parts = _find_parts(dataset, split)
    if sum(part.to - part.from_ for part in parts) != len(dataset):
        return map(str, count(1))  # the dataset does not record which splits it was cut from
    is_one = len({part.splitname for part in parts}) == 1
    return chain.from_iterable(
        (str(at) if is_one else f"{part.splitname}:{at}" for at in range(part.from_ + 1, part.to + 1)) for part in parts
    )


def find_overlap(dataset: "Dataset", split: str) -> str | None:
    """Return the name of a split from which ``split`` selects rows more than once, or None."""
    pairs = combinations(_find_parts(dataset, split), 2)
    return next(
        (a.splitname for a, b in pairs if a.splitname == b.splitname and a.from_ < b.to and b.from_ < a.to), None
    )


def _find_parts(dataset: "Dataset", split: str) -> "list[Part]":
    """Return the non-empty slices of whole splits that ``split`` selects; empty if the sizes of splits are unknown."""
    sizes = {name: info.num_examples for name, info in (dataset.info.splits or {}).items()}
    return _cut_splits(sizes, split) if sizes else []


def _cut_splits(sizes: Mapping[str, int], split: str) -> "list[Part]":
    import datasets

    spec = "+".join(sizes) if split == "all" and split not in sizes else split
    parts = datasets.ReadInstruction.from_spec(spec).to_absolute(dict(sizes))
    return [part for part in parts if part.from_ < part.to]


def resolve_revision(name: str, revision: str | None, config: str | None = None) -> str:
    """Return the commit that a revision of a hub data set refers to now (None: its main branch).

    If the hub cannot be reached, this is the commit that was loaded last, because ``open_dataset`` then loads it too.

    Raises:
        InputError: there is no such data set or revision, or the hub cannot be reached and nothing is cached.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    import httpx
    from huggingface_hub import HfApi  # takes a fifth of a second, and only this kind of source needs it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return str(HfApi().dataset_info(name, revision=revision).sha)
    except (OfflineModeIsEnabled, httpx.TransportError) as error:
        cached = _find_cached_commit(name, config)
        if cached is None:
            raise InputError(
                f"dataset '{name}' is not in the local cache of datasets, and the hub cannot be reached"
            ) from error
        return cached
    except (HfHubHTTPError, HFValidationError) as error:
        wanted = "" if revision is None else f" at revision '{revision}'"
        line = str(error).strip().partition("\n")[0]
        raise InputError(
            f"'{name}'{wanted} is neither an existing file or folder nor a data set that the hub provides: {line}"
        ) from error


def _find_cached_commit(name: str, config: str | None) -> str | None:
    """Return the commit of a data set that was loaded last; the cache has a folder per configuration and commit."""
    import datasets

    home, _, own = name.rpartition("/")
    folder = f"{home}___{datasets.naming.camelcase_to_snakecase(own)}" if home else own
    cached = Path(datasets.config.HF_DATASETS_CACHE).glob(f"{folder}/{config or '*'}/*/*/dataset_info.json")
    found = [path.parent for path in cached if _COMMIT.fullmatch(path.parent.name)]
    return max(found, key=lambda path: path.stat().st_mtime).name if found else None


def is_saved_dataset(folder: Path) -> bool:
    """Whether a folder was made by ``save_to_disk``."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def find_labels(features: Mapping[str, object]) -> dict[str, object]:
    """Return the features that contain class labels at any depth, by column, in the JSON form of features."""
    return {column: feature for column, feature in features.items() if "'ClassLabel'" in repr(feature)}


def name_labels(value: object, feature: object) -> object:
    """Return a value with class labels replaced by their names; a missing label (-1) becomes None.

    Numbers without a name are kept.
    """
    match value, feature:
        case int(), {"_type": "ClassLabel", "names": names}:
            return names[value] if 0 <= value < len(names) else None if value == -1 else value
        case list(), {"_type": "Sequence" | "List" | "LargeList", "feature": inner}:
            return [name_labels(item, inner) for item in value]
        case dict(), {"_type": "Sequence", "feature": dict() as inner}:  # older releases store a list of records so
            return {key: [name_labels(item, inner.get(key)) for item in items] for key, items in value.items()}
        case list(), [inner]:
            return [name_labels(item, inner) for item in value]
        case dict(), dict():
            return {key: name_labels(item, feature.get(key)) for key, item in value.items()}
    return value


def _check_config(saved: "DatasetDict", config: str | None) -> "DatasetDict":
    """Return ``saved``; raise ``ValueError`` if ``config`` is not the configuration that was saved."""
    found = {str(part.info.config_name) for part in saved.values() if part.info.config_name}
    if config is not None and found != {config}:
        there = f"has {', '.join(sorted(found))}" if found else "names none"
        raise ValueError(f"there is no configuration '{config}'; this dataset, saved to disk, {there}")
    return saved


def _cut(saved: "DatasetDict", split: str) -> "Dataset":
    """Return the rows of saved splits that ``split`` selects, in the syntax of ``datasets.ReadInstruction``."""
    import datasets

    sizes = {str(name): len(part) for name, part in saved.items()}
    try:
        parts = _cut_splits(sizes, split)
    except ValueError as error:
        raise ValueError(f"{error}; the splits are {', '.join(sizes)}") from error
    if split in saved:
        cut = saved[split]
    elif parts:
        cut = datasets.concatenate_datasets(
            [saved[part.splitname].select(range(part.from_, part.to)) for part in parts]
        )
    else:
        raise ValueError("it selects no rows")
    # Saved parts of a larger data set still record the sizes of the original splits.
    cut.info.splits = datasets.SplitDict()
    for name, size in sizes.items():
        cut.info.splits.add(datasets.SplitInfo(name, num_examples=size))
    return cut
