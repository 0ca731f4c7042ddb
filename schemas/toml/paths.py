"""What names mean in settings: a path, from the folder of the settings file, or a hub id."""

import glob
from pathlib import Path


def is_path(name: str) -> bool:
    """Whether the name of a model or data set has the form of a path, and not of a hub id."""
    return name.startswith((".", "/", "~"))


def complete_path(path: str, folder: Path | None) -> str:
    """Return a path in full where the folder that it is meant from is known."""
    expanded = Path(path).expanduser()
    return str(expanded if folder is None or expanded.is_absolute() else (folder / expanded).resolve())


def complete_name(name: str, folder: Path | None) -> str:
    """Return a path in full, and a hub id as it is: a path has the form of one or of a glob, or is there below the folder.

    No folder: the name was completed when it was read, and its form tells.
    """
    is_there = folder is not None and name != "" and (glob.has_magic(name) or (folder / name).exists())
    return complete_path(name, folder) if is_there or is_path(name) else name


def split_glob(pattern: str) -> tuple[Path, str]:
    """Return the folder above all that a glob names, and the glob below it; a path's last name is its glob.

    A folder of that very name comes before what its brackets would stand for.
    """
    parts = Path(pattern).parts
    magic = (at for at, part in enumerate(parts) if glob.has_magic(part) and not Path(*parts[: at + 1]).is_dir())
    plain = next(magic, len(parts) - 1)
    return Path(*parts[:plain]), str(Path(*parts[plain:]))
