"""Which files a path, folder or glob names, and whether they are those of before."""

import glob
import os
import re
from itertools import chain
from pathlib import Path
from typing import TypeAlias

from factory.inputs.folders import has_card_with_files, list_data_files, refuse_several, refuse_several_kinds
from factory.inputs.hf_datasets import find_folder_files, is_saved_dataset
from factory.inputs.opening import ALLOWED, find_kind
from schemas.errors import InputError
from schemas.toml.paths import is_path, split_glob

Stamp: TypeAlias = tuple[str, int, int, int]
"""A file's path, inode, size in bytes, and modification time in nanoseconds."""

_SPLIT = re.compile(r"(?:^|[^a-z])(train|test|eval|validation|valid|val|dev)(?![a-z])")


def is_on_hub(data: str) -> bool:
    """Whether a name is a hub data set: no file or folder of that name exists, and it does not look like a path."""
    return not (is_path(data) or find_kind(Path(data)) or glob.has_magic(data) or Path(data).exists())


def find_files(pattern: str) -> tuple[list[Path], Path | None]:
    """Return the files that a path, folder or glob matches, sorted, and their common folder (None for a single path).

    An existing file or folder whose name contains brackets is taken literally, not as a glob. For a folder with a data
    set card, the files that the card names are returned in the card's order; without a card, all readable files.

    Raises:
        InputError: nothing matches, a file is of an unknown kind, or a folder contains more than the shards of one table.
    """
    if Path(pattern).is_file():
        paths, base = [Path(pattern)], None
    elif Path(pattern).is_dir():
        base = Path(pattern)
        paths = _find_shards(base)
    else:
        base, below = split_glob(pattern)
        paths = sorted(path for path in base.glob(below) if path.is_file())
    if not paths:
        raise InputError(f"no file at {pattern}")
    for path in paths:
        if find_kind(path) is None:
            raise InputError(f"{path} is of a kind that cannot be read; allowed are {ALLOWED}")
    return paths, base


def _find_shards(folder: Path) -> list[Path]:
    if is_saved_dataset(folder):
        raise InputError(f"{folder} is a data set saved to disk, not a folder of files; give it as a data set")
    if has_card_with_files(folder):
        return _list_by_card(folder)
    paths = list_data_files(folder)
    if not paths:
        raise InputError(f"no file in {folder} can be read; allowed are {ALLOWED}")
    names = [path.relative_to(folder).as_posix().lower() for path in paths]
    refuse_several_kinds(folder, paths)
    refuse_several(folder, "the splits", {match[1] for name in names if (match := _SPLIT.search(name))})
    return paths


def _list_by_card(folder: Path) -> list[Path]:
    found = find_folder_files(folder)
    refuse_several(folder, "the splits", set(found.splits))
    if found.options:
        raise InputError(
            f"the card of the data set in {folder} sets options for reading its files ({', '.join(found.options)}); "
            "give it as a data set, or name the files by a glob"
        )
    return list(chain(*found.splits.values()))


def stamp_files(pattern: str) -> list[Stamp]:
    """Return a stamp of each file that a path or glob matches; writing to a file changes its stamp.

    Raises:
        InputError: nothing matches, or a file is of an unknown kind or cannot be opened.
    """
    try:
        return [stamp(path) for path in find_files(pattern)[0]]
    except OSError as error:
        raise InputError(f"{pattern} cannot be read: {error}") from error


def stamp(path: Path) -> Stamp:
    """Return a file's stamp.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:  # network file systems may cache the times of a file until it is opened
        found = os.fstat(file.fileno())
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
