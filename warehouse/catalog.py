"""Attaching the catalog: where it lies, which extensions it needs, and what its errors mean."""

import importlib.resources
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb

from schemas.errors import WarehouseError
from schemas.recipe import WarehouseSettings

POSTGRES_SCHEMES = ("postgres", "postgresql")


@dataclass(frozen=True, slots=True)
class Catalog:
    """Where a warehouse lies. ``password`` is kept out of every text that is shown."""

    address: str
    shown: str
    data: str
    sqlite: Path | None
    password: str | None = None

    @property
    def is_postgres(self) -> bool:
        return self.sqlite is None

    @property
    def on_s3(self) -> bool:
        return "://" in self.data


def find_catalog(settings: WarehouseSettings) -> Catalog:
    """Return the place of a warehouse's catalog and data.

    Raises:
        WarehouseError: the catalog is neither a path nor a postgres:// URL.
    """
    data = settings.data if "://" in settings.data else str(Path(settings.data).expanduser().resolve())
    parts = urlsplit(settings.catalog)
    if parts.scheme in POSTGRES_SCHEMES:
        fields = {
            "host": parts.hostname,
            "port": parts.port and str(parts.port),
            "user": parts.username and unquote(parts.username),
            "dbname": unquote(parts.path.lstrip("/")),
            **dict(item.partition("=")[::2] for item in parts.query.split("&") if item),
        }
        address = " ".join(f"{key}={_quote(value)}" for key, value in fields.items() if value)
        password = unquote(parts.password) if parts.password else os.environ.get("PGPASSWORD")
        shown = f"postgres://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
        return Catalog(address, shown, data, None, password)
    if "://" in settings.catalog:
        raise WarehouseError(
            f"the catalog {settings.catalog.partition('@')[2] or settings.catalog!r} is neither a path of a SQLite file "
            "nor a postgres:// URL"
        )
    path = Path(settings.catalog).expanduser().resolve()
    return Catalog(str(path), str(path), data, path)


def load_extensions(connection: duckdb.DuckDBPyConnection, catalog: Catalog) -> None:
    """Load the extensions that a catalog needs, from their Python packages."""
    names = ["ducklake", "postgres_scanner" if catalog.is_postgres else "sqlite_scanner"]
    for name in [*names, *(["httpfs"] if catalog.on_s3 else [])]:
        folder = importlib.resources.files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
        connection.load_extension(str(folder / f"{name}.duckdb_extension"))


def attach(connection: duckdb.DuckDBPyConnection, catalog: Catalog, *, read_only: bool, as_of: int | None) -> None:
    """Attach a catalog as ``lake``."""
    options = [f"DATA_PATH {literal(catalog.data)}", "DATA_INLINING_ROW_LIMIT 0"]
    if catalog.on_s3:
        connection.execute(_s3_secret())
    if catalog.is_postgres:
        if catalog.password is not None:
            connection.execute(f"CREATE SECRET catalog (TYPE postgres, PASSWORD {literal(catalog.password)})")
            options.append("META_SECRET catalog")
        address = f"ducklake:postgres:{catalog.address}"
    else:
        address = f"ducklake:sqlite:{catalog.address}"
    if as_of is not None:
        options.append(f"SNAPSHOT_VERSION {as_of:d}")
    elif read_only:
        options.append("READ_ONLY")
    if read_only or as_of is not None:
        options.append("CREATE_IF_NOT_EXISTS false")
    connection.execute(f"ATTACH {literal(address)} AS lake ({', '.join(options)})")


def explain(error: duckdb.Error, catalog: Catalog) -> WarehouseError:
    """Turn an error of DuckDB into one sentence that names the warehouse and never its password."""
    text = " ".join(str(error).split())
    if catalog.password:
        text = text.replace(catalog.password, "***")
    text = re.sub(r"password=('[^']*'|\S+)", "password=***", text)
    return WarehouseError(f"the warehouse {catalog.shown}: {text}")


def literal(value: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _s3_secret() -> str:
    fields = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
        "REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    parts = [f"{key} {literal(value)}" for key, value in fields.items() if value]
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        url = urlsplit(endpoint)
        parts += [f"ENDPOINT {literal(url.netloc)}", "URL_STYLE 'path'", f"USE_SSL {url.scheme == 'https'}"]
    return f"CREATE SECRET data ({', '.join(['TYPE s3', *parts])})"


def _quote(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
