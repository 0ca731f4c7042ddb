"""Queries over views that have texts, rewritten so that no text is read before it is known which rows are asked for.

DuckDB would carry the texts of all candidates through joins and sorts to throw away all but five. Whatever is not plainly
one of the two forms that are rewritten runs as it was written.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from schemas.errors import WarehouseError
from warehouse.build.scope import Scope
from warehouse.statements import literal

NARROW = {"candidates": "candidates_without_text", "scored_completions": "scored_without_text"}
"""Views that have texts, each with the view of the same rows without them."""

OF_PROMPTS = ("root_id", "split")
"""What ``candidates`` knows from the prompts. Every completion has its prompt: who asks for neither needs no join."""

TEXTS = ("text", "reasoning")
"""The columns that the narrow views lack."""

MAX_FETCHED = 100
"""Of how many rows the texts are fetched by id; a query of more runs as it is."""

Node = dict[str, Any]
"""A part of a statement, as DuckDB's ``json_serialize_sql`` gives it."""

_COLUMN: Node = {"class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0}

_FOUND = ("completion_id", "prompt_id", "teacher", "reward")
"""What a row is known by, and what of it is in no table of facts."""


def leave_texts_for_last(scope: Scope, sql: str) -> str:
    """Return a query of the same rows: of narrow views if no text is asked for, of the rows found if these are few."""
    if not any(name in sql for name in NARROW):
        return sql
    node = _read(scope, sql)
    if node is None:
        return sql
    try:
        if _names_no_text(node):
            _take_narrow(node)
        elif not _find_few(scope, node):
            return sql
        light = _write(scope, node)
        return light if _describe(scope, light) == _describe(scope, sql) else sql
    except WarehouseError:  # it needs a text after all
        return sql


def _names_no_text(node: Node) -> bool:
    """Return whether a query names every column that it reads, and no text, nor a whole row."""
    parts = list(_walk(node))
    rows = {name for part in parts if "table_name" in part for name in (part["table_name"], part["alias"])} | set(TEXTS)
    return not any(
        part.get("class") in ("STAR", "POSITIONAL_REFERENCE")
        or part.get("type") in ("SHOW_REF", "PIVOT")
        or rows & {*part.get("column_names", [])[-1:], *part.get("using_columns", [])}
        or part.get("ref_type", "REGULAR") == "NATURAL"
        or part.get("column_name_alias")
        or any(entry["key"] in NARROW for entry in part.get("cte_map", {"map": []})["map"])
        for part in parts
    )


def _take_narrow(node: Node) -> None:
    """Have a query read narrow views."""
    parts = list(_walk(node))
    needs_prompts = any(name in OF_PROMPTS for part in parts for name in part.get("column_names", ()))
    for part in parts:
        if part.get("type") == "BASE_TABLE" and not part["schema_name"] and part["table_name"] in NARROW:
            part["alias"] = part["alias"] or part["table_name"]
            part["table_name"] = NARROW[part["table_name"]] if needs_prompts else NARROW["scored_completions"]


def _find_few(scope: Scope, node: Node) -> bool:
    """Find the rows of a query and have it read only these; return whether they are few, and it is of a form for that."""
    if not _maps_rows(scope, node):
        return False
    ids = json.loads(json.dumps(node)) | {"select_list": [_COLUMN | {"column_names": [name]} for name in _FOUND]}
    limit = next((part["limit"] for part in node["modifiers"] if part["type"] == "LIMIT_MODIFIER"), None)
    if limit is None:
        ids["modifiers"] = []
    _take_narrow(ids)
    found = scope.rows(f"FROM ({_write(scope, ids)}) LIMIT {MAX_FETCHED + 1}")
    if len(found) > MAX_FETCHED:
        return False
    table = node["from_table"]
    rows = _read(scope, _select_rows(scope, table["table_name"], found))
    assert rows is not None
    node["from_table"] = rows["from_table"] | {"alias": table["alias"] or table["table_name"]}
    node["where_clause"] = None
    node["modifiers"] = [part for part in node["modifiers"] if part["type"] == "ORDER_MODIFIER"]
    return True


def _select_rows(scope: Scope, view: str, found: Sequence[Sequence[object]]) -> str:
    """Return the SELECT of a view's rows of which it is known what no single table tells."""
    rows = ", ".join(f"({', '.join(literal(str(value)) for value in row)})" for row in found)
    # A scan tests each row for what is in a list, but for IN (...) whole row groups only.
    completions, prompts = (f"[{', '.join(literal(str(row[place])) for row in found)}]::VARCHAR[]" for place in (0, 1))
    origins = dict.fromkeys(_FOUND, "found") | dict.fromkeys(OF_PROMPTS, "prompts")
    columns = [name for name, _ in _describe(scope, f"FROM {view}")]
    return f"""
        SELECT * FROM (
            SELECT {", ".join(f"{origins.get(column, 'completions')}.{column}" for column in columns)}
            FROM (FROM completions WHERE list_contains({completions}, completion_id)) AS completions
            JOIN (
                SELECT completion_id, prompt_id, teacher, reward::DOUBLE AS reward
                FROM (VALUES {rows or "(NULL, NULL, NULL, NULL)"}) AS found({", ".join(_FOUND)})
            ) AS found ON found.completion_id = completions.completion_id
            JOIN (FROM split_prompts WHERE list_contains({prompts}, prompt_id)) AS prompts
                ON prompts.prompt_id = completions.prompt_id
        ) AS found"""


def _maps_rows(scope: Scope, node: Node) -> bool:
    """Return whether a query shows rows of one view, a part or some of the first, in an order of columns of that view."""
    if node["type"] != "SELECT_NODE" or node["from_table"]["type"] != "BASE_TABLE":
        return False
    table, modifiers = node["from_table"], {part["type"]: part for part in node["modifiers"]}
    limit = (modifiers.get("LIMIT_MODIFIER", {}).get("limit") or {}).get("value", {}).get("value")
    aliases = {part["alias"] for part in node["select_list"]} - {""}
    orders = [order["expression"] for order in modifiers.get("ORDER_MODIFIER", {"orders": []})["orders"]]
    return (
        table["table_name"] in NARROW
        and not any(table[name] for name in ("schema_name", "column_name_alias", "sample", "at_clause"))
        and not any(node[name] for name in ("group_expressions", "having", "qualify", "sample"))
        and not node["cte_map"]["map"]
        and node["aggregate_handling"] == "STANDARD_HANDLING"
        and set(modifiers) <= {"ORDER_MODIFIER", "LIMIT_MODIFIER"}
        and (
            isinstance(limit, int) and limit <= MAX_FETCHED
            if "LIMIT_MODIFIER" in modifiers
            else node["where_clause"] is not None
        )
        and all(order["class"] == "COLUMN_REF" and not aliases & {*order["column_names"]} for order in orders)
        and _names_no_text({"where": node["where_clause"], "orders": orders, "table": table})
        and _is_of_rows(scope, [node["select_list"], node["where_clause"]])
    )


def _is_of_rows(scope: Scope, parts: object) -> bool:
    """Return whether expressions look at one row at a time, and find the same whenever they do."""
    nodes = list(_walk(parts))
    if any(part.get("class") in ("WINDOW", "SUBQUERY", "LAMBDA") for part in nodes):
        return False
    names = {part["function_name"] for part in nodes if "function_name" in part}
    others = """
        SELECT count(*) FROM duckdb_functions()
        WHERE list_contains(?, function_name) AND (function_type <> 'scalar' OR stability <> 'CONSISTENT')"""
    return not names or scope.value(others, [sorted(names)]) == 0


def _walk(part: object) -> Iterator[Node]:
    """Yield every node of a statement."""
    if isinstance(part, dict):
        yield part
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from _walk(child)


def _read(scope: Scope, sql: str) -> Node | None:
    """Return the one statement of a query; none if it is of a kind that DuckDB does not give as JSON."""
    statement = json.loads(scope.value("SELECT json_serialize_sql(?)", [sql]))
    return None if statement["error"] else statement["statements"][0]["node"]


def _write(scope: Scope, node: Node) -> str:
    statement = json.dumps({"error": False, "statements": [{"node": node}]})
    return str(scope.value("SELECT json_deserialize_sql(?::JSON)", [statement]))


def _describe(scope: Scope, sql: str) -> list[tuple[str, str]]:
    return [(name, kind) for name, kind, *_ in scope.rows(f"DESCRIBE SELECT * FROM (\n{sql}\n)")]
