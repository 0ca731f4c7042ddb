"""The schema's version, and the statements that bring an older warehouse up to it."""

import duckdb

from schemas.errors import WarehouseError

Migration = tuple[str, ...]

SMALL_ROW_GROUPS = "CALL lake.set_option('parquet_row_group_size', 4096)"
"""Whoever reads or writes Parquet holds a row group of every thread in memory; rows of text are large."""

MIGRATIONS: tuple[Migration, ...] = (
    ('CREATE TABLE "reads" ("config_id" VARCHAR NOT NULL, "sources_id" VARCHAR NOT NULL)',),
    (
        'ALTER TABLE "prompts" ADD COLUMN "script_share" DOUBLE',
        'ALTER TABLE "completions" ADD COLUMN "script_share" DOUBLE',
    ),
    (
        'CREATE TABLE "source_rows" ("config_id" VARCHAR NOT NULL, "row_id" VARCHAR NOT NULL, "source" VARCHAR NOT NULL, '
        '"row" VARCHAR NOT NULL, "key" VARCHAR, "language" VARCHAR, "prompt_id" VARCHAR, "text_id" VARCHAR, '
        '"is_read" BOOLEAN NOT NULL)',
        'DELETE FROM "reads"',  # so that every build lists the rows of its sources when it is run again
    ),
    ('ALTER TABLE "usage" ADD COLUMN "num_rows" BIGINT',),
    (
        'CREATE TABLE "reward_index" ("completion_id" VARCHAR NOT NULL, "reward_fingerprint" VARCHAR NOT NULL, '
        '"reward" DOUBLE NOT NULL, "reward_row" BIGINT NOT NULL, "prompt_id" VARCHAR NOT NULL, "language" VARCHAR NOT NULL, '
        '"model" VARCHAR NOT NULL, "model_fingerprint" VARCHAR NOT NULL, "settings_id" VARCHAR NOT NULL, '
        '"origin" VARCHAR NOT NULL, "translator" VARCHAR, "parent_id" VARCHAR, "round" INTEGER NOT NULL, '
        '"sample_index" INTEGER NOT NULL, "finish_reason" VARCHAR, "num_prompt_tokens" BIGINT NOT NULL, '
        '"num_completion_tokens" BIGINT NOT NULL, "num_chars" BIGINT NOT NULL, "repetition" DOUBLE NOT NULL, '
        '"detected_language" VARCHAR, "language_score" DOUBLE, "script_share" DOUBLE)',
    ),
)
"""Migration n, from 0, is the statements that make version n + 2 of version n + 1. Only ever append to this."""


def schema_version() -> int:
    """Return the version of the tables that this program reads and writes."""
    return 1 + len(MIGRATIONS)


def read_version(cursor: duckdb.DuckDBPyConnection) -> int | None:
    """Return the version of the warehouse's tables; none when it has no tables yet.

    Raises:
        WarehouseError: the catalog holds tables, but no version: it is not a warehouse of this factory.
    """
    try:
        row = cursor.execute("SELECT max(version) FROM schema_version").fetchone()
    except duckdb.CatalogException:
        row = None
    if row is not None and row[0] is not None:
        return int(row[0])
    rows = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake'").fetchall()
    if not rows:
        return None
    raise WarehouseError(
        f"the catalog holds the tables {', '.join(sorted(name for (name,) in rows))} but no schema version: it is a "
        "DuckLake of something else; name another catalog"
    )


def check(version: int | None, *, is_past: bool) -> None:
    """Refuse tables that this factory cannot read. Older ones it can bring up to date; a past snapshot it reads as it was.

    Raises:
        WarehouseError: there are no tables yet, or they are of a newer version.
    """
    known = schema_version()
    if version is None:
        raise WarehouseError("there are no tables yet" + (" at that snapshot" if is_past else "; a build makes them"))
    if version > known:
        raise WarehouseError(
            f"the warehouse has schema version {version}, and this factory knows versions up to {known}: use a newer one"
        )


def migrate(cursor: duckdb.DuckDBPyConnection) -> None:
    """Make the tables, or bring older ones up to date; within the caller's transaction."""
    version = read_version(cursor)
    if version is None:
        from warehouse.lake.ddl import create_statements  # with the schemas, which older tables have already

        statements = [SMALL_ROW_GROUPS, "CREATE TABLE schema_version (version INTEGER NOT NULL)", *create_statements()]
    else:
        check(version, is_past=True)
        statements = [statement for migration in MIGRATIONS[version - 1 :] for statement in migration]
    for statement in statements:
        cursor.execute(statement)
    if version != schema_version():
        cursor.execute(f"INSERT INTO schema_version VALUES ({schema_version():d})")
