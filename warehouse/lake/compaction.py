"""Making a table's small files one, leaving deleted rows out of the new one, and removing what nothing needs any more."""

from datetime import UTC, datetime, timedelta

import duckdb

from warehouse.catalog.catalog import METADATA, Catalog
from warehouse.catalog.data_folder import DataFolder
from warehouse.statements import literal

_SMALL_FILE = 64 * 2**20
"""Bytes from which a file is left alone, so that the cost of a compaction goes with what is new."""

_TABLES = f"""
SELECT t.table_name FROM {METADATA}.ducklake_table AS t JOIN {METADATA}.{{files}} AS f USING (table_id)
WHERE t.end_snapshot IS NULL AND f.end_snapshot IS NULL GROUP BY ALL HAVING count(*) >= {{at_least}}
"""


def compact_tables(cursor: duckdb.DuckDBPyConnection) -> None:
    """Compact the tables that can become smaller: each takes its time, whether or not there is anything to do."""
    for table in _find_tables(cursor, "ducklake_delete_file", at_least=1):
        cursor.execute(f"CALL ducklake_rewrite_data_files('lake', {literal(table)}, delete_threshold => 0)")
    for table in _find_tables(cursor, "ducklake_data_file", at_least=2):
        cursor.execute(f"CALL ducklake_merge_adjacent_files('lake', {literal(table)}, max_file_size => {_SMALL_FILE})")


def _find_tables(cursor: duckdb.DuckDBPyConnection, files: str, *, at_least: int) -> list[str]:
    """Return the tables with so many files of a kind."""
    return [table for (table,) in cursor.execute(_TABLES.format(files=files, at_least=at_least)).fetchall()]


def clean_up(cursor: duckdb.DuckDBPyConnection, catalog: Catalog, keep: timedelta) -> None:
    """Remove files that no snapshot needs, from the day (UTC) after ``keep`` is over; none that another copy may need."""
    if not DataFolder(catalog, cursor).may_clean_up():
        return
    # On SQLite, DuckLake compares times as text in two notations, which is right for whole days only.
    day = (datetime.now(UTC) - keep).replace(hour=0, minute=0, second=0, microsecond=0)
    limit = literal((day - timedelta(microseconds=1)).isoformat())
    cursor.execute(f"CALL ducklake_cleanup_old_files('lake', older_than => {limit}::TIMESTAMPTZ)").fetchall()
