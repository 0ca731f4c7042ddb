"""Where a run and its children keep what they write besides its results: a home that can be written.

Prefect, vLLM, torch, the Hugging Face libraries, matplotlib and others write below HOME, and ask for the user's name.
On a machine where there is no such home or name, as in many a container, the environment is made to offer them. That is
done once, before any of them is loaded; children inherit it.
"""

import os
import pwd
import tempfile
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import FactoryError

WRITTEN = {
    "XDG_CACHE_HOME": ".cache",
    "XDG_CONFIG_HOME": ".config",
    "XDG_DATA_HOME": ".local/share",
    "PREFECT_HOME": ".prefect",
    "TRITON_CACHE_DIR": ".triton/cache",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
    "NUMBA_CACHE_DIR": ".cache/numba",
    "MPLCONFIGDIR": ".config/matplotlib",
}
"""What is written below a home, by the variable that names another place for it."""

READ = {
    "HF_HUB_CACHE": ".cache/huggingface/hub",
    "HF_TOKEN_PATH": ".cache/huggingface/token",
    "PREFECT_PROFILES_PATH": ".prefect/profiles.toml",
}
"""What is read where it lies, if it is there, in a home that cannot be written."""


@dataclass(frozen=True, slots=True)
class Substitute:
    """The folder that stands in for a home, or for parts of it, and why it does."""

    folder: Path
    fault: str


def provide_home() -> Substitute | None:
    """Have the environment name a home that can be written, and a user; return what stands in for it, if anything does.

    Raises:
        FactoryError: there is no folder for temporary files, or the current one is gone.
    """
    _check_folders()
    if not _has_name():
        os.environ["LOGNAME"] = str(os.getuid())  # what getpass.getuser() returns
    home = _find_home()
    if home is None or not os.access(home / ".", os.F_OK):
        fault = "HOME is not set, and the user has none" if home is None else f"HOME ({home}) is not a folder"
        substitute = Substitute(_make_folder(), fault)
        os.environ["HOME"] = str(substitute.folder)
        _point_to(substitute.folder, WRITTEN)
        return substitute
    os.environ["HOME"] = str(home)
    closed = {variable: place for variable, place in WRITTEN.items() if not _can_write(home / place)}
    if not closed:
        return None
    substitute = Substitute(_make_folder(), f"{', '.join(closed.values())} in HOME ({home}) cannot be written")
    _point_to(home, {variable: place for variable, place in READ.items() if os.access(home / place, os.R_OK)})
    _point_to(substitute.folder, closed)
    return substitute


def _point_to(folder: Path, places: dict[str, str]) -> None:
    """Name places in a folder; what the user has set stays."""
    for variable, place in places.items():
        os.environ.setdefault(variable, str(folder / place))


def _check_folders() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise FactoryError("the current folder is gone; change to one that is there") from error
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise FactoryError("no folder for temporary files can be written; name one in TMPDIR") from error


def _has_name() -> bool:
    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return True
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def _find_home() -> Path | None:
    try:
        return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return None


def _can_write(place: Path) -> bool:
    """Whether a place can be written, or made where it is not there."""
    existing = next(above for above in (place, *place.parents) if os.access(above, os.F_OK))
    return os.access(existing, os.W_OK | os.X_OK)


def _make_folder() -> Path:
    """Return a folder of this user's own among the temporary files, the same at every run, so that caches are of use."""
    folder = Path(tempfile.gettempdir()) / f"factory-home-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    stat = folder.lstat()
    if stat.st_uid == os.getuid() and not stat.st_mode & 0o077 and not folder.is_symlink():
        return folder
    return Path(tempfile.mkdtemp(prefix="factory-home-"))  # somebody else has made the other
