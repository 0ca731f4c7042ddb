"""Prefect's settings, of the environment and of its profiles: which server they name, and what is wrong with them."""

import contextlib
import io
import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import ValidationError

from schemas.errors import FactoryError

_OURS = frozenset(
    {"PREFECT_HOME", "PREFECT_PROFILES_PATH", "PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_ANALYTICS_ENABLED"}
)
"""Variables that name no server; this program sets them itself."""

_SHARED = (Path(".env"), Path("pyproject.toml"))
"""Files in which there may be settings of Prefect among others."""


def calm_prefect() -> None:
    """Silence Prefect's own logging and analytics; call it before Prefect is imported."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def has_settings() -> bool:
    """Whether there may be settings of the user's own, as far as can be told without Prefect, which takes over a second to load."""
    if any(name.startswith("PREFECT_") and name not in _OURS for name in os.environ):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    return any(path.exists() for path in (profiles, Path("prefect.toml"))) or any(map(_speaks_of_prefect, _SHARED))


def _speaks_of_prefect(path: Path) -> bool:
    try:
        return b"prefect" in path.read_bytes().lower()
    except FileNotFoundError:
        return False
    except OSError:
        return True


def find_url() -> str | None:
    """Load Prefect and return the URL of the server that the environment or the active profile names, if any.

    Whatever else imports Prefect may only be imported after this: it reads its settings when it is imported.

    Raises:
        FactoryError: a setting has a value that Prefect does not allow; the value is not shown, it may be a secret.
    """
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where Prefect would say it too, with the value
            from prefect.settings import PREFECT_API_URL

        return PREFECT_API_URL.value() or None
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join([error.title, *map(str, first["loc"])])
        raise FactoryError(
            f"Prefect's settings cannot be used: {place}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except OSError as error:
        raise FactoryError(f"Prefect's settings cannot be used: {error}") from error
    except ValueError as error:  # which is what a profile file that is not TOML raises
        raise FactoryError(
            f"Prefect's settings cannot be used: its profiles: {' '.join(str(error).split())}"
        ) from error


def show_url(url: str) -> str:
    """Return a server's URL as it may be shown: without a user and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
