"""SQL over the warehouse, read-only: one query for the command line, or a prompt that takes one after the other."""

import contextlib
import io
import sqlite3
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TextIO

from schemas.disk import whole_file
from schemas.errors import WarehouseError
from schemas.recipe.settings import WarehouseSettings
from warehouse.build.scope import VIEWS, Scope, latest_build
from warehouse.catalog.catalog import find_catalog
from warehouse.lake.lake import Lake
from warehouse.shell.check import check_query, explain_query, is_explain
from warehouse.shell.output import Columns, Form, print_csv, print_json, print_table, write_parquet
from warehouse.shell.texts_last import leave_texts_for_last
from warehouse.statements import SQL_FOLDER, literal

HISTORY = Path("~/.factory_sql_history")

_HELP = """\
One statement that reads, over as many lines as you like, ended by a semicolon.
.tables         the tables
.views          the views over the build
.schema NAME    the columns of a table or view
.quit           leave (so does Ctrl-D)"""


@contextlib.contextmanager
def open_for_reading(
    settings: WarehouseSettings, *, as_of: int | None = None, build: str | None = None
) -> Iterator[Scope]:
    """Open a warehouse for queries that other people wrote: nothing can be changed, no file outside it can be read.

    The views speak of ``build`` (see ``latest_build``; none: the latest). From here on DuckDB itself refuses every
    other file and address, and every change of its settings.
    """
    with Lake.open(settings, read_only=True, as_of=as_of) as lake:
        scope = Scope.open(lake, latest_build(lake, build))
        data = find_catalog(settings).data.rstrip("/") + "/"
        for setting in (
            f"allowed_directories = [{literal(data)}]",
            "enable_external_access = false",
            "errors_as_json = true",
            "disabled_optimizers = 'build_side_probe_side'",  # views are written with the larger side on the left
            "lock_configuration = true",
        ):
            lake.rows(f"SET GLOBAL {setting}")
        yield scope


def run_query(scope: Scope, sql: str, form: Form, out: TextIO | Path, *, max_rows: int = 200) -> int:
    """Run one statement that reads and print its rows; return how many were printed.

    Args:
        scope: from ``open_for_reading``.
        sql: a single SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN.
        form: ``table`` prints ``max_rows`` rows at most; the others stream all of them.
        out: where to print. A file appears under its name when it is whole. Parquet goes to ``out.buffer``.
        max_rows: what a table holds at most.

    Raises:
        WarehouseError: the statement is refused, or fails; the message says where.
    """
    text = check_query(sql)
    if isinstance(out, Path):
        return _write_file(scope, text, form, out, max_rows)
    if form == "parquet" and (out.isatty() or not hasattr(out, "buffer")):
        raise WarehouseError("Parquet is binary: give a file to write to, or send the output to another program")
    if is_explain(text):
        return _explain(scope, text, out)
    columns = _describe(scope, text)
    text = leave_texts_for_last(scope, text)
    if form == "parquet":
        return _write_parquet(scope, text, columns, out)
    lines = _stream_lines(scope, text)
    with contextlib.closing(lines):
        if form == "table":
            return print_table(columns, lines, out, max_rows=max_rows)
        return print_json(lines, out) if form == "json" else print_csv(columns, lines, out)


def run_shell(
    scope: Scope, form: Form, out: TextIO, *, read_line: Callable[[str], str] = input, max_rows: int = 200
) -> None:
    """Read statements and dot-commands until ``.quit`` or the end of the input; a failed one does not end the shell."""
    print('Type ".help" for help.', file=out)
    waiting = ""
    with _history(read_line is input):
        while True:
            try:
                line = read_line("    ...> " if waiting else "factory> ")
                if not waiting and line.strip().startswith("."):
                    if not _run_command(scope, line.split(), out):
                        return
                    continue
                waiting = f"{waiting}{line}\n".lstrip()
                if sqlite3.complete_statement(waiting):
                    statement, waiting = waiting, ""
                    run_query(scope, statement, form, out, max_rows=max_rows)
            except WarehouseError as error:
                print(f"error: {error}", file=out)
            except KeyboardInterrupt:
                waiting = ""
                print(file=out)
            except EOFError:
                print(file=out)
                return


def _run_command(scope: Scope, words: list[str], out: TextIO) -> bool:
    """Run a dot-command; return whether to go on."""
    from schemas.tables import TABLES  # takes half a second, and a query does not need it

    match words:
        case [".quit" | ".exit"]:
            return False
        case [".help"]:
            print(_HELP, file=out)
        case [".tables"]:
            for name, schema in TABLES.items():
                print(f"{name:<18} {(schema.__doc__ or '').strip().splitlines()[0]}", file=out)
        case [".views"]:
            for name in VIEWS:
                print(f"{name:<18} {_purpose(name)}", file=out)
        case [".schema", name] if name in TABLES or name in VIEWS:
            run_query(scope, f"SELECT column_name, column_type FROM (DESCRIBE {name})", "table", out)
        case [".schema", *_]:
            raise WarehouseError(f".schema needs a table or view: {', '.join((*TABLES, *VIEWS))}")
        case _:
            raise WarehouseError(f"there is no command {words[0]}; .help names them")
    return True


def _purpose(view: str) -> str:
    """Return what the header of a view's file says it is for."""
    path = SQL_FOLDER / "views" / f"{view}.sql"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    header = " ".join(line.removeprefix("--").strip() for line in lines if line.startswith("--"))
    return header.removeprefix("Purpose: ").partition(" Grain:")[0]


@contextlib.contextmanager
def _history(is_interactive: bool) -> Iterator[None]:
    """Give the prompt line editing and a history that is kept from one time to the next."""
    if not is_interactive or not sys.stdin.isatty():
        yield
        return
    import readline  # changes what input() does, so only where someone types

    path = HISTORY.expanduser()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        readline.set_history_length(10_000)
        with contextlib.suppress(OSError):
            readline.write_history_file(path)


def _describe(scope: Scope, sql: str) -> Columns:
    before = "DESCRIBE SELECT * FROM (\n"
    with _located(sql, before):
        try:
            described = scope.rows(f"{before}{sql}\n)")
        except WarehouseError:  # now its message can suggest any of the views
            scope.make_views_for(*VIEWS)
            described = scope.rows(f"{before}{sql}\n)")
    return {name: kind for name, kind, *_ in described}


def _stream_lines(scope: Scope, sql: str) -> Generator[str, None, None]:
    """Yield each row as a line of JSON, made by DuckDB, which knows every type of its own."""
    before = "SELECT to_json(made)::VARCHAR AS line FROM (\n"
    with _located(sql, before):
        for (line,) in scope.stream_rows(f"{before}{sql}\n) AS made"):
            yield line


def _explain(scope: Scope, sql: str, out: TextIO) -> int:
    with _located(sql, ""):
        plans = [plan for _, plan in scope.rows(sql)]
    print(*plans, sep="\n", file=out)
    return len(plans)


def _write_parquet(scope: Scope, sql: str, columns: Columns, out: TextIO) -> int:
    odd = [f"{name} ({kind})" for name, kind in columns.items() if "INTERVAL" in kind]
    if odd:
        raise WarehouseError(f"Parquet has no place for {', '.join(odd)}; cast it to VARCHAR")
    before = "SELECT * FROM (\n"
    with _located(sql, before):
        empty = scope.query(f"{before}{sql}\n) LIMIT 0")
        return write_parquet(empty, scope.stream(f"{before}{sql}\n)"), out.buffer)


def _write_file(scope: Scope, sql: str, form: Form, path: Path, max_rows: int) -> int:
    try:
        with whole_file(path) as file:
            out = io.TextIOWrapper(file, encoding="utf-8", newline="")
            num_rows = run_query(scope, sql, form, out, max_rows=max_rows)
            out.detach()
    except OSError as error:
        raise WarehouseError(f"{path} cannot be written: {error}") from error
    return num_rows


@contextlib.contextmanager
def _located(sql: str, before: str) -> Iterator[None]:
    """Say where in the user's own statement an error is, which ran with ``before`` in front."""
    try:
        yield
    except WarehouseError as error:
        raise explain_query(str(error), sql, offset=len(before.encode())) from None
