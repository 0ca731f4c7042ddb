"""What the user sees in a terminal: lines on standard error, tables, intervals."""

import sys
from collections.abc import Callable
from typing import TypeAlias

import polars as pl
from rich.table import Table

Say: TypeAlias = Callable[[str], None]
"""Tells the user a line."""


def say_line(line: str) -> None:
    """Tell the user."""
    print(line, file=sys.stderr, flush=True)


def choose_say(*, quiet: bool) -> Say:
    """Return what tells the user, or, if quiet was asked for, nobody."""
    return (lambda _: None) if quiet else say_line


def make_table(frame: pl.DataFrame, title: str) -> Table:
    """Return a frame as a table: numbers to the right, with thousands separated and three digits after the point."""
    table = Table(title=title, title_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name.replace("_", " "), justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*map(_show, row))
    return table


def show_interval(rate: float | None, low: float | None, high: float | None) -> str:
    """Return a share with its interval, in percent; nothing where there is none."""
    return "" if rate is None or low is None or high is None else f"{rate:.1%} ({100 * low:.0f}–{100 * high:.0f})"


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case _:
            return str(value)
