"""Every table and view of a warehouse with its columns."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from schemas.reasons import TRANSIENT_REASONS, Reason
from schemas.recipe.settings import WarehouseSettings
from schemas.tables import KEYS, TABLES
from warehouse.build.scope import VIEWS, Scope
from warehouse.lake.lake import Lake
from warehouse.statements import SQL_FOLDER

_INTRO = """\
# Tables and views

A warehouse has these tables, in the schema `lake`, and views over one of its builds: the latest, or the one that `--build`
names. `factory sql` reads both by their names alone. This page is made of the code.

Facts (prompts, completions, rewards, verdicts, checkpoints, usage) are shared by all builds of a warehouse and never
change. Rows that a build's settings decide (rejections, selections, pairs) carry its `config_id`.
"""


def write_tables_page() -> str:
    """Return the page as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        settings = WarehouseSettings(catalog=f"{folder}/catalog.sqlite", data=f"{folder}/data")
        with Lake.open(settings) as lake, Scope.open(lake, None) as scope:
            parts = [_INTRO, "## Tables\n", *_describe_tables(lake), "## Views\n", *_describe_views(scope)]
    return "\n".join([*parts, *_list_reasons()])


def _describe_tables(lake: Lake) -> Iterator[str]:
    for name, schema in TABLES.items():
        yield f"### {name} {{ #{name} }}\n"
        yield " ".join((schema.__doc__ or "").split()).replace("``", "`") + "\n"
        yield "| column | type | |"
        yield "| --- | --- | --- |"
        kinds: dict[str, str] = dict(lake.rows(f"SELECT column_name, column_type FROM (DESCRIBE lake.{name})"))
        for column, declared in schema.columns().items():
            notes = ["key"] if column in KEYS[name] else []
            notes += ["may be null"] if declared.nullable else []
            yield f"| `{column}` | {_show_kind(kinds[column])} | {', '.join(notes)} |"
        yield ""


def _describe_views(scope: Scope) -> Iterator[str]:
    for name in VIEWS:
        purpose, grain = _read_header(name)
        yield f"### {name} {{ #{name} }}\n"
        if purpose:
            yield f"{purpose[0].upper()}{purpose[1:]} *{grain}*\n"
        yield "| column | type |"
        yield "| --- | --- |"
        for column, kind in scope.rows(f"SELECT column_name, column_type FROM (DESCRIBE {name})"):
            yield f"| `{column}` | {_show_kind(str(kind))} |"
        yield ""


def _list_reasons() -> Iterator[str]:
    yield "## Reasons of rejections { #reasons }\n"
    yield "`rejections.reason` is one of these. The next run sends requests again that failed by one in *italics*.\n"
    yield ", ".join(f"*{each}*" if each in TRANSIENT_REASONS else f"`{each}`" for each in Reason) + "."


def _read_header(view: str) -> tuple[str, str]:
    """Return what a view's file says of its purpose and its grain; nothing of one that is made of another."""
    file = "rewards/single" if view == "build_rewards" else f"views/{view}"
    path = Path(str(SQL_FOLDER)) / f"{file}.sql"
    if not path.exists():
        return "", ""
    lines = path.read_text(encoding="utf-8").splitlines()
    header = " ".join(line.removeprefix("--").strip() for line in lines if line.startswith("--"))
    purpose, _, grain = header.removeprefix("Purpose: ").partition(" Grain: ")
    return purpose, f"{grain[0].upper()}{grain[1:]}" if grain else ""


def _show_kind(kind: str) -> str:
    return f"`{kind}`"
