"""What the sections of a recipe have in common: strict fields, paths, and the checks that several of them need."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationInfo
from pydantic_core import PydanticCustomError

from schemas.languages import LANGUAGES
from schemas.paths import complete_name, complete_path


class Section(BaseModel):
    """A table of a settings file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def check_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    """Return language codes as they are; refuse unknown and repeated ones with a ``ValueError``."""
    unknown = [code for code in codes if code not in LANGUAGES]
    if unknown:
        raise ValueError(f"unknown language {', '.join(map(repr, unknown))}; allowed are {', '.join(LANGUAGES)}")
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"language {', '.join(map(repr, repeated))} is named twice")
    return codes


def refuse_password(value: str) -> str:
    """Return a URL or path as it is; refuse one that holds a password."""
    if "://" in value and urlsplit(value).password is not None:
        raise PydanticCustomError(
            "password", "the URL holds a password; leave it out, secrets come from the environment"
        )
    return value


def resolve_path(path: str, info: ValidationInfo) -> str:
    """Return a path in full where the settings file's folder is known."""
    return complete_path(path, _folder(info))


def resolve_name(name: str, info: ValidationInfo) -> str:
    """Return the path of a model or data set in full where the settings file's folder is known, and a hub id as it is."""
    return complete_name(name, _folder(info))


def _folder(info: ValidationInfo) -> Path | None:
    folder: Path | None = (info.context or {}).get("folder")
    return folder


def list_columns(columns: BaseModel) -> list[str]:
    """Return every column that a table of columns names."""
    named = [[value] if isinstance(value, str) else value for _, value in columns if value is not None]
    return [column for names in named for column in names]
