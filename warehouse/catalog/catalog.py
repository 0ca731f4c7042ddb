"""Attaching the catalog: where it lies, which extensions it needs, which credentials it uses."""

import contextlib
import importlib.resources
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import duckdb

from schemas.errors import WarehouseError
from schemas.names import TABLES
from schemas.recipe.settings import WarehouseSettings
from warehouse.statements import literal

METADATA = "__ducklake_metadata_lake"
"""The database of DuckLake's own tables beside the attached ``lake``."""

_SQLITE = b"SQLite format 3\0"

_WITHOUT_ROWS = f"""
SELECT table_id FROM {METADATA}.ducklake_table
WHERE end_snapshot IS NULL AND table_id NOT IN (SELECT table_id FROM {METADATA}.ducklake_table_stats)
"""

_NOTE_EMPTY = (
    f"""
    INSERT INTO {METADATA}.ducklake_table_column_stats (table_id, column_id, contains_null, contains_nan)
    SELECT table_id, column_id, false, CASE WHEN column_type IN ('float32', 'float64') THEN false END
    FROM {METADATA}.ducklake_column AS columns
    WHERE end_snapshot IS NULL AND table_id IN ({_WITHOUT_ROWS}) AND column_id NOT IN (
        SELECT parent_column FROM {METADATA}.ducklake_column AS fields
        WHERE fields.table_id = columns.table_id AND parent_column IS NOT NULL
    )
    """,
    f"""
    INSERT INTO {METADATA}.ducklake_table_stats (table_id, record_count, next_row_id, file_size_bytes)
    SELECT table_id, 0, 0, 0 FROM ({_WITHOUT_ROWS})
    """,
)
"""Of lists and structs DuckLake keeps what it knows by their innermost fields."""

_CHECKED: set[str] = set()
"""The extensions that this process has loaded, with their signatures checked. Once loaded, a library is not read again."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Where a warehouse lies.

    ``address`` is what libpq or SQLite opens, without a password; ``shown`` is its short form for messages; ``data`` is
    an absolute folder or an ``s3://`` prefix; ``sqlite`` is the catalog's file, none for Postgres.
    """

    address: str
    shown: str
    data: str
    sqlite: Path | None

    @property
    def data_folder(self) -> Path | None:
        """The local folder of the data files; none on object storage."""
        return None if is_remote(self.data) else Path(self.data)

    def redact(self, text: str) -> str:
        """Return a message as one line without any secret of the environment."""
        for name in ("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            if secret := os.environ.get(name):
                text = text.replace(secret, "***")
        return " ".join(re.sub(r"(?i)(password|secret)=('[^']*'|\S+)", r"\1=***", text).split())


def find_catalog(settings: WarehouseSettings) -> Catalog:
    """Return the place of a warehouse's catalog and data.

    Raises:
        WarehouseError: the catalog is neither a path nor a postgres:// URL.
    """
    data = settings.data if is_remote(settings.data) else str(Path(settings.data).expanduser().resolve())
    if not is_remote(settings.catalog):
        path = Path(settings.catalog).expanduser().resolve()
        return Catalog(str(path), str(path), data, path)
    parts = urlsplit(settings.catalog)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise WarehouseError(
            f"the catalog is a {parts.scheme}:// URL; allowed are the path of a SQLite file and postgres://"
        )
    fields = {
        "host": parts.hostname,
        "port": parts.port and str(parts.port),
        "user": parts.username and unquote(parts.username),
        "dbname": unquote(parts.path.lstrip("/")),
        **dict(item.partition("=")[::2] for item in unquote(parts.query).split("&") if item),
    }
    address = " ".join(f"{key}={_quote_libpq(value)}" for key, value in fields.items() if value)
    port = f":{parts.port}" if parts.port else ""
    return Catalog(address, f"postgres://{parts.hostname or ''}{port}{parts.path}", data, None)


def check_folders(catalog: Catalog) -> None:
    """Make sure that no file lies where a folder of the warehouse must be.

    Raises:
        WarehouseError: one does.
    """
    for folder in filter(None, (catalog.sqlite and catalog.sqlite.parent, catalog.data_folder)):
        if found := next((place for place in (folder, *folder.parents) if place.is_file()), None):
            raise WarehouseError(f"the warehouse needs the folder {folder}, and {found} is a file; name another folder")


def is_read_only(catalog: Catalog) -> bool:
    """Whether a catalog's file lies on a file system that is mounted for reading only."""
    return catalog.sqlite is not None and bool(os.statvfs(catalog.sqlite).f_flag & os.ST_RDONLY)


def copy_file(catalog: Catalog, folder: Path) -> Catalog:
    """Return a catalog that is read from a copy in ``folder``: SQLite makes files beside what it reads.

    Who may write there on another mount may be at it: the copy is made again until nothing has changed meanwhile.

    Raises:
        WarehouseError: it cannot be copied.
    """
    assert catalog.sqlite is not None
    files = [catalog.sqlite, catalog.sqlite.with_name(catalog.sqlite.name + "-wal")]
    try:
        before = None
        while before != (now := [(file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]):
            before = now
            for file in files:
                (folder / file.name).unlink(missing_ok=True)
                if file.exists():
                    shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise WarehouseError(
            f"warehouse {catalog.shown}: its file system is read-only, and its catalog cannot be copied to {folder}: "
            f"{error.strerror}; name another folder in TMPDIR"
        ) from None
    return replace(catalog, address=str(folder / catalog.sqlite.name))


def make_file(path: Path) -> None:
    """Make an empty catalog, with the rights that the umask says: SQLite would keep the user's group from writing.

    Raises:
        WarehouseError: it cannot be made.
    """
    try:
        path.touch()
    except OSError as error:
        raise _unwritable(error) from None


def make_folders(catalog: Catalog) -> None:
    """Make the folders of the tables, with the rights that the umask says: DuckDB's are closed to the user's group.

    Raises:
        WarehouseError: they cannot be made.
    """
    if folder := catalog.data_folder:
        try:
            for name in ("schema_version", *TABLES):
                (folder / "main" / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(error) from None


def connect(catalog: Catalog, config: Mapping[str, str | bool]) -> duckdb.DuckDBPyConnection:
    """Return a connection with the extensions that a catalog needs, loaded from their Python packages.

    DuckDB checks the signature of each once per process, which takes longer than everything else that opens a warehouse.
    With the extension for object storage goes the secret that it needs.
    """
    names = ["ducklake", "sqlite_scanner" if catalog.sqlite else "postgres_scanner"]
    paths = {_extension_path(name) for name in [*names, *([] if catalog.data_folder else ["httpfs"])]}
    connection = duckdb.connect(config={**config, "allow_unsigned_extensions": paths <= _CHECKED})
    try:
        for path in sorted(paths):
            connection.load_extension(path)
        _CHECKED.update(paths)
        connection.execute("SET allow_unsigned_extensions = false")  # for good: it cannot be set to true again
        if not catalog.data_folder:
            connection.execute(_s3_secret())
    except BaseException:
        connection.close()
        raise
    return connection


def attach(connection: duckdb.DuckDBPyConnection, catalog: Catalog, *, read_only: bool, as_of: int | None) -> None:
    """Attach a catalog as ``lake``; when writing, make it where there is none.

    The data lies where the settings say, which is not where it lay when the catalog was made, if it has been moved since.
    Small inserts become Parquet files, never rows of the catalog: that is cheaper on SQLite, keeps text out of the
    catalog, and compaction merges the files. SQLite writes ahead, so that a reader never blocks a writer; the password
    of Postgres is read by libpq from PGPASSWORD.

    Raises:
        WarehouseError: the file is a SQLite database of something else.
    """
    options = [f"DATA_PATH {literal(catalog.data)}", "OVERRIDE_DATA_PATH true", "DATA_INLINING_ROW_LIMIT 0"]
    if catalog.sqlite is None:
        address = f"ducklake:postgres:{catalog.address}"
    else:
        address = f"ducklake:sqlite:{catalog.address}"
        options.append("META_BUSY_TIMEOUT 10000")
        if not read_only:
            options.append("META_JOURNAL_MODE 'WAL'")
        _refuse_other_database(connection, Path(catalog.address))
    if as_of is not None:
        options.append(f"SNAPSHOT_VERSION {as_of:d}")
    if read_only:
        options += ["READ_ONLY", "CREATE_IF_NOT_EXISTS false"]
    connection.execute(f"ATTACH {literal(address)} AS lake ({', '.join(options)})")


def note_empty_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the tables that have never had a row statistics that say so, as DuckLake writes them for those that have.

    It asks its catalog again for each statistic that is not there, a dozen times whenever an empty table is looked at.
    """
    with connection.cursor() as cursor:
        for statement in ("BEGIN", *_NOTE_EMPTY, "COMMIT"):
            cursor.execute(statement)


def read_lake_id(connection: duckdb.DuckDBPyConnection) -> str:
    """Return the id of the attached lake: DuckLake drew it for its first schema, and every copy of the catalog has it."""
    return str(
        connection.execute(f"SELECT schema_uuid FROM {METADATA}.ducklake_schema WHERE schema_id = 0").fetchall()[0][0]
    )


def count_bytes(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the size of the attached lake's data."""
    sql = f"SELECT coalesce(sum(file_size_bytes), 0) FROM {METADATA}.ducklake_data_file WHERE end_snapshot IS NULL"
    return int(connection.execute(sql).fetchall()[0][0])


def find_lake_id(connection: duckdb.DuckDBPyConnection, path: Path) -> str | None:
    """Return the id of the lake whose catalog a file is; none for any other file, and for one that cannot be read."""
    try:
        with path.open("rb") as file:
            if file.read(len(_SQLITE)) != _SQLITE:
                return None
        with _probed(connection, path):
            return str(
                connection.execute("SELECT schema_uuid FROM probe.ducklake_schema WHERE schema_id = 0").fetchall()[0][0]
            )
    except (OSError, duckdb.Error, IndexError):
        return None


def is_remote(place: str) -> bool:
    """Whether a place is the URL of a server, and not a path."""
    return "://" in place


def _refuse_other_database(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    if not path.exists():
        return
    with _probed(connection, path):
        found = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'probe'").fetchall()
    names = sorted(name for (name,) in found)
    if names and "ducklake_metadata" not in names:
        raise WarehouseError(
            f"the catalog {path} is a SQLite database of something else, with the tables {', '.join(names[:5])}; "
            "name another file"
        )


def _unwritable(error: OSError) -> WarehouseError:
    return WarehouseError(f"the warehouse cannot be written: {error.strerror} ({error.filename})")


@contextlib.contextmanager
def _probed(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[None]:
    """Attach a SQLite file as ``probe``.

    Through DuckDB's own SQLite: a second SQLite library in a process would drop the first one's file locks.
    """
    connection.execute(
        f"ATTACH IF NOT EXISTS {literal(str(path))} AS probe (TYPE sqlite, READ_ONLY, BUSY_TIMEOUT 10000)"
    )
    try:
        yield
    finally:
        connection.execute("DETACH probe")


def _s3_secret() -> str:
    fields = {
        "KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID"),
        "SECRET": os.environ.get("AWS_SECRET_ACCESS_KEY"),
        "SESSION_TOKEN": os.environ.get("AWS_SESSION_TOKEN"),
        "REGION": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
    }
    parts = ["TYPE s3", *(f"{key} {literal(value)}" for key, value in fields.items() if value)]
    if endpoint := os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        url = urlsplit(endpoint)
        parts += [f"ENDPOINT {literal(url.netloc)}", "URL_STYLE 'path'", f"USE_SSL {url.scheme == 'https'}"]
    return f"CREATE OR REPLACE SECRET data ({', '.join(parts)})"


def _extension_path(name: str) -> str:
    folder = importlib.resources.files(f"duckdb_extension_{name}") / "extensions" / f"v{duckdb.__version__}"
    return str(folder / f"{name}.duckdb_extension")


def _quote_libpq(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
