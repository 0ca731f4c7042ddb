"""Which statements the SQL shell runs, and what it says about the others."""

import json
import re

import duckdb

from schemas.errors import WarehouseError

ALLOWED = (
    "SELECT",
    "WITH",
    "FROM",
    "VALUES",
    "TABLE",
    "PIVOT",
    "UNPIVOT",
    "DESCRIBE",
    "DESC",
    "SHOW",
    "SUMMARIZE",
    "EXPLAIN",
)
"""The words that a statement may begin with."""

_CREATE = duckdb.StatementType.CREATE

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LEADING = re.compile(rf"(?:\s|{_COMMENT.pattern}|\()*", re.DOTALL)
_EXPLAIN = re.compile(r"EXPLAIN\b\s*(?:ANALYZE\b\s*)?(?:\([^)]*\)\s*)?", re.IGNORECASE)

_EFFECTS = re.compile(
    r"\b((?:postgres|sqlite)_\w+|query|query_table|ducklake_(?!snapshots\b|current_snapshot\b|table_|list_files\b)\w+)"
    r'"?\s*\(',
    re.IGNORECASE,
)
"""Functions that write or run SQL of another database, or that hide a query in a text."""


def check_query(sql: str) -> str:
    """Return the one statement that ``sql`` holds, without its semicolon, if it only reads.

    Raises:
        WarehouseError: it does not parse, is none or several statements, or could change something.
    """
    with duckdb.connect(config={"errors_as_json": True}) as parser:
        try:
            statements = parser.extract_statements(sql)
        except duckdb.Error as error:
            raise explain_query(str(error), sql) from None
    if not statements:
        raise WarehouseError("the SQL shell was given no statement")
    # DuckDB turns a PIVOT into several statements, whose texts are empty.
    *helpers, last = statements
    if helpers and any(part.query or part.type != _CREATE for part in helpers):
        raise WarehouseError("the SQL shell runs one statement at a time; several were given")
    text, code = _split(sql)
    word = (re.match(r"\w*", _skip_space(code)) or [""])[0].upper()
    if word == "EXPLAIN":
        check_query(_EXPLAIN.sub("", _skip_space(code), count=1))
    elif word not in ALLOWED or last.type != duckdb.StatementType.SELECT:
        shown = word if word not in ALLOWED else last.type.name
        raise WarehouseError(f"the SQL shell only reads: {shown} is refused; allowed are {', '.join(ALLOWED)}")
    if match := _EFFECTS.search(code):
        raise WarehouseError(f"the SQL shell only reads: the function {match[1]} is refused")
    return text


def is_explain(sql: str) -> bool:
    """Return whether a checked statement is an EXPLAIN."""
    return _skip_space(sql)[:7].upper() == "EXPLAIN"


def explain_query(message: str, sql: str, *, offset: int = 0) -> WarehouseError:
    """Return one sentence for a message of DuckDB that holds an error as JSON; other messages are passed on.

    ``offset`` is how many bytes were put before ``sql`` when it ran. Line and column count characters, from 1.
    """
    if (start := message.find('{"exception_type"')) < 0:
        return WarehouseError(message)
    try:
        fields, _ = json.JSONDecoder().raw_decode(message[start:])
        kind, text = fields["exception_type"], fields["exception_message"]
    except (ValueError, KeyError, TypeError):
        return WarehouseError(message)
    text = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    if "position" not in fields:
        return WarehouseError(f"{kind} error: {text}")
    before = sql.encode()[: max(0, int(fields["position"]) - offset)].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return WarehouseError(f"line {line}, column {column}: {text}")


def _split(sql: str) -> tuple[str, str]:
    """Return a statement up to its semicolon, and the same with empty strings and without comments."""
    data, code = sql.encode(), bytearray()
    tokens = duckdb.tokenize(sql)
    end = next((at for at, _ in tokens if data[at : at + 1] == b";"), len(data))
    edges = [at for at, _ in tokens if at < end] + [end]
    for (start, kind), stop in zip(tokens, edges[1:], strict=False):
        code += b"'' " if kind == duckdb.token_type.string_const else data[start:stop]
    return data[:end].decode(), _COMMENT.sub(" ", code.decode())


def _skip_space(sql: str) -> str:
    match = _LEADING.match(sql)
    return sql[match.end() :] if match else sql
