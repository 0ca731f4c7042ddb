"""SQL files: one SELECT each, with ``$name`` where a value goes."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

SQL_FOLDER = Path(__file__).parent / "sql"


_MARKS = re.compile(r"'[^']*'|\"[^\"]*\"|--[^\n]*|(?P<mark>\?|\$\d+)")
"""What a value goes in place of; texts, quoted names and comments are passed over."""


class TableName(str):
    """The name of a table, to be written as it is."""

    __slots__ = ()


Value = str | int | float | bool | datetime | Sequence[str] | Mapping[str, str] | None


def read_sql(name: str, /, **values: Value) -> str:
    """Return the SELECT of ``sql/<name>.sql`` with its values written in as literals.

    Literals, since views take no parameters and since the optimizer plans better for values that it knows.

    Raises:
        KeyError: the file names a value that was not given.
    """
    text = (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    return re.sub(r"\$([a-z]\w*)", lambda match: to_literal(values[match[1]]), code)


def to_literal(value: Value) -> str:
    """Return a value as a DuckDB literal; a sequence becomes a list of strings, a mapping a map of them."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case TableName():
            return value
        case str():
            return literal(value)
        case datetime():
            return f"{literal(value.isoformat())}::TIMESTAMPTZ"
        case Mapping():
            entries = ", ".join(f"({literal(k)}, {literal(v)})" for k, v in value.items())
            return f"CAST(map_from_entries([{entries}]) AS MAP(VARCHAR, VARCHAR))"
        case _:
            return f"CAST([{', '.join(map(literal, value))}] AS VARCHAR[])"


def bind(sql: str, parameters: Sequence[Value]) -> str:
    """Return a statement with the values of its question marks, or of its $1, $2 and so on, written in as literals.

    DuckDB would take them apart from the statement, but loads pandas for that, which takes longer than most commands.
    """
    in_order = iter(parameters)

    def write(match: re.Match[str]) -> str:
        if match["mark"] is None:
            return match[0]
        return to_literal(next(in_order) if match["mark"] == "?" else parameters[int(match["mark"][1:]) - 1])

    return _MARKS.sub(write, sql) if parameters else sql


def literal(value: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"
