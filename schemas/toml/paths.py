"""How names in settings are resolved: as a path relative to the settings file's folder, or as a hub id."""

import glob
from pathlib import Path


def is_path(name: str) -> bool:
    """Whether the name of a model or data set looks like a path rather than a hub id."""
    return name.startswith((".", "/", "~"))


def complete_path(path: str, folder: Path | None) -> str:
    """Return an absolute path, if ``folder``, which it is relative to, is known; ``~`` is expanded either way."""
    expanded = Path(path).expanduser()
    return str(expanded if folder is None or expanded.is_absolute() else (folder / expanded).resolve())


def complete_name(name: str, folder: Path | None) -> str:
    """Return an absolute path, or a hub id unchanged.

    A name is a path if it looks like one, is a glob, or exists below ``folder``. Without a folder only its form counts,
    since a name from a file was completed when the file was read; what is written in Python is relative to the working
    directory.
    """
    is_there = folder is not None and name != "" and (glob.has_magic(name) or (folder / name).exists())
    return complete_path(name, folder or Path.cwd()) if is_there or is_path(name) else name


def split_glob(pattern: str) -> tuple[Path, str]:
    """Split a glob into the folder that contains all its matches and the pattern below it.

    A plain path is split before its last name. An existing folder whose name contains brackets is taken literally.
    """
    parts = Path(pattern).parts
    magic = (at for at, part in enumerate(parts) if glob.has_magic(part) and not Path(*parts[: at + 1]).is_dir())
    plain = next(magic, len(parts) - 1)
    return Path(*parts[:plain]), str(Path(*parts[plain:]))
