"""Writing a recipe to start from."""

from importlib.resources import files
from pathlib import Path

from schemas.errors import FactoryError
from schemas.names import suggest


def write_recipe(path: Path, template: str) -> None:
    """Copy a shipped recipe to ``path``; what it names by a path of its own folder keeps being found.

    Raises:
        FactoryError: there is no such template, or there is a file at ``path`` already.
    """
    shipped = Path(str(files("flows") / "recipes"))
    templates = sorted(file.stem for file in shipped.glob("*.toml"))
    if template not in templates:
        raise FactoryError(
            f"there is no template {template!r}{suggest(template, templates)}; allowed are {', '.join(templates)}"
        )
    if path.exists():
        raise FactoryError(f"there is a file {path} already; it is left as it is, name another path")
    text = (shipped / f"{template}.toml").read_text(encoding="utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace('"../../', f'"{shipped.parent.parent.as_posix()}/'), encoding="utf-8")
    except OSError as error:
        raise FactoryError(f"{path} cannot be written: {error.strerror}") from error
