"""Small text files beside the data, on a disk or on object storage."""

from pathlib import Path

import duckdb

from schemas.disk import whole_file
from warehouse.catalog.catalog import is_remote
from warehouse.statements import literal


def has_file(connection: duckdb.DuckDBPyConnection, folder: str, name: str) -> bool:
    """Return whether a file is in a folder."""
    if not is_remote(folder):
        return Path(folder, name).is_file()
    listed = f"{folder}/{name[:-1]}[{name[-1]}]"  # a name without a pattern is found without being looked for
    return bool(connection.execute(f"FROM glob({literal(listed)})").fetchall())


def read_file(connection: duckdb.DuckDBPyConnection, folder: str, name: str) -> str | None:
    """Return a file's text; none when it is not there."""
    if not has_file(connection, folder, name):
        return None
    if not is_remote(folder):
        return Path(folder, name).read_text(encoding="utf-8")
    return str(connection.execute(f"SELECT content FROM read_text({literal(f'{folder}/{name}')})").fetchall()[0][0])


def write_file(connection: duckdb.DuckDBPyConnection, folder: str, name: str, text: str) -> None:
    """Write a file, whole or not at all; over one that is there."""
    if not is_remote(folder):
        with whole_file(Path(folder, name)) as file:
            file.write(text.encode())
        return
    options = "FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '\x1f'"
    connection.execute(f"COPY (SELECT {literal(text.rstrip())}) TO {literal(f'{folder}/{name}')} ({options})")
