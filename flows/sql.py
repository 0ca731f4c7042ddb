"""Queries of people: one from the command line or a pipe, or many, one after the other."""

import sys
from pathlib import Path
from typing import cast, get_args

from schemas.errors import FactoryError
from schemas.names import suggest
from schemas.recipe.settings import WarehouseSettings
from warehouse.shell.output import Form
from warehouse.shell.shell import open_for_reading, run_query, run_shell


def answer(
    settings: WarehouseSettings,
    query: str | None,
    output_format: str,
    output: Path | None,
    *,
    build: str | None,
    as_of: int | None,
) -> None:
    """Answer one query, from the argument or from a pipe, or many interactively, about tables and views of one build."""
    form = parse_form(output_format)
    if query == "-" or (query is None and not sys.stdin.isatty()):
        query = sys.stdin.read()
    with open_for_reading(settings, as_of=as_of, build=build) as lake:
        if query is None:
            run_shell(lake, form, sys.stdout)
        else:
            run_query(lake, query, form, output or sys.stdout)


def parse_form(name: str) -> Form:
    """Return the output format of a name.

    Raises:
        FactoryError: there is none of that name.
    """
    if name in get_args(Form):
        return cast("Form", name)
    forms = get_args(Form)
    raise FactoryError(f"there is no output format {name!r}{suggest(name, forms)}; allowed are {', '.join(forms)}")
