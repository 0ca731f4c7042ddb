"""SQL of the user's own: routers and pair strategies, one SELECT in a file that the recipe names; refusal patterns."""

import contextlib
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import duckdb

from schemas.disk import read_text
from schemas.errors import RecipeError, WarehouseError
from schemas.recipe.curation import PairStrategy, Routing
from schemas.recipe.recipe import Recipe
from schemas.toml.named import Named, find_named
from warehouse.build.scope import Scope
from warehouse.lake.staging import stage
from warehouse.statements import TableName, literal, read_sql

_ROUTED = ("prompt_id", "completion_id")
_PAIRED = ("prompt_id", "chosen_id", "rejected_id")
"""What a router and a pair strategy must return."""

_DUCKDB_SAYS = re.compile(r"(?P<said>\w+ Error: .*?)(?: LINE (?P<line>\d+): .*)?$", re.DOTALL)
"""DuckDB's message without the statement that was made of the user's."""


def check_sql(recipe: Recipe) -> None:
    """Check what can be checked without a row, before anything is spent on making rows.

    Raises:
        RecipeError: an SQL file is not exactly one SELECT, or a refusal pattern is not a regular expression of RE2.
    """
    for named in list_sql(recipe):
        with _placed(recipe, named):
            read_select(named.name)
    for pattern in recipe.gates.refusal_patterns:
        check_pattern(pattern)


def try_sql(scope: Scope, recipe: Recipe) -> None:
    """Check a recipe's SQL files against the views of the build, which need no rows for that.

    Raises:
        RecipeError: a file names what is not there, or does not return the columns that it must.
    """
    for named in list_sql(recipe):
        with _placed(recipe, named):
            try_file(scope, named)


def list_sql(recipe: Recipe) -> list[Named]:
    """Return the SQL files that a recipe names: its router, and pair strategies of the build and of its policy's rounds."""
    return [named for named in find_named(recipe) if isinstance(named.section, Routing | PairStrategy)]


def try_file(scope: Scope, named: Named) -> None:
    """Check one of the files that ``list_sql`` returns against the views of the build.

    Raises:
        RecipeError: it is not one SELECT, names what is not there, or does not return the columns that it must.
    """
    with _open_view(scope, named.name, _ROUTED if isinstance(named.section, Routing) else _PAIRED):
        pass


@contextlib.contextmanager
def _placed(recipe: Recipe, named: Named) -> Iterator[None]:
    """Say where the recipe names the file that is refused."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"{recipe.place(named)}: {error}") from None


def check_pattern(pattern: str) -> None:
    """Raise a RecipeError if a refusal pattern is not a regular expression of RE2."""
    with duckdb.connect() as connection:
        try:
            connection.execute(f"SELECT regexp_matches('', {literal(pattern)})")
        except duckdb.Error as error:
            shown = " ".join(str(error).split())
            raise RecipeError(
                f"gates.refusal_patterns: {pattern!r} is not a regular expression of RE2: {shown}"
            ) from None


@contextlib.contextmanager
def stage_selections(scope: Scope, path: str) -> Iterator[TableName]:
    """Run a user's router; yield the table of its ``prompt_id`` and ``completion_id``.

    Raises:
        RecipeError: the file is not one SELECT of these columns, or a row of it is not a candidate of its prompt.
    """
    with _stage_file(scope, path, _ROUTED) as rows:
        _refuse(scope, path, "routes/user_faults", rows)
        yield rows


@contextlib.contextmanager
def stage_proposals(scope: Scope, path: str) -> Iterator[TableName]:
    """Run a user's pair strategy; yield the table of its proposals, as the shipped strategies give them.

    Raises:
        RecipeError: the file is not one SELECT of ``prompt_id``, ``chosen_id`` and ``rejected_id``, or a row of it is
            no pair of candidates of its prompt, or chooses a translated completion.
    """
    with _stage_file(scope, path, _PAIRED) as rows:
        _refuse(scope, path, "pairs/user_faults", rows)
        with stage(scope, read_sql("pairs/user", proposals=rows)) as proposals:
            yield proposals


def read_select(path: str) -> str:
    """Return the text of a file that holds exactly one SELECT.

    Raises:
        RecipeError: it cannot be read, or holds anything else.
    """
    try:
        text = read_text(Path(path))
        with duckdb.connect() as connection:
            kinds = [statement.type for statement in connection.extract_statements(text)]
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise RecipeError(f"the SQL file {path} cannot be read: {said}") from None
    except duckdb.Error as error:
        raise RecipeError(f"the SQL file {path} is not SQL: {' '.join(str(error).split())}") from None
    if kinds != [duckdb.StatementType.SELECT]:
        found = ", ".join(kind.name for kind in kinds) or "nothing"
        raise RecipeError(f"the SQL file {path} must hold exactly one SELECT, but holds {found}")
    return text


@contextlib.contextmanager
def _stage_file(scope: Scope, path: str, columns: tuple[str, ...]) -> Iterator[TableName]:
    ids = ", ".join(f"{column}::VARCHAR AS {column}" for column in columns)
    with _open_view(scope, path, columns) as view, contextlib.ExitStack() as stack:
        try:
            rows = stack.enter_context(stage(scope, f"SELECT DISTINCT {ids} FROM {view}"))
        except WarehouseError as error:
            raise _cannot_run(path, error) from None
        yield rows


@contextlib.contextmanager
def _open_view(scope: Scope, path: str, columns: tuple[str, ...]) -> Iterator[str]:
    """Make a view of a user's file, which must return some columns; yield its name."""
    text, view = read_select(path), f"user_{uuid.uuid4().hex}"
    try:
        scope.add_views({view: text})
    except WarehouseError as error:
        raise _cannot_run(path, error) from None
    try:
        given = scope.query(f"DESCRIBE {view}")["column_name"].to_list()
        if not set(columns) <= {name.lower() for name in given}:
            raise RecipeError(
                f"the SELECT of {path} must return the columns {', '.join(columns)}; it returns {', '.join(given)}"
            )
        yield view
    except WarehouseError as error:
        raise _cannot_run(path, error) from None
    finally:
        scope.drop_view(view)


def _cannot_run(path: str, error: WarehouseError) -> RecipeError:
    found = _DUCKDB_SAYS.search(str(error))
    said = str(error) if found is None else f"line {found['line']}: {found['said']}" if found["line"] else found["said"]
    return RecipeError(f"the SELECT of {path} cannot be run: {said}")


def _refuse(scope: Scope, path: str, check: str, rows: TableName) -> None:
    """Raise on the first row that a check finds."""
    found = scope.query(f"FROM ({read_sql(check, rows=rows)}) LIMIT 1")
    if not found.is_empty():
        prompt_id, fault = found.row(0)
        raise RecipeError(f"the SELECT of {path} returns a row for prompt {prompt_id or 'NULL'} whose {fault}")
