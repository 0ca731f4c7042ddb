"""Lines for the user, on standard error."""

import sys
from collections.abc import Callable
from typing import TypeAlias

Say: TypeAlias = Callable[[str], None]
"""Tells the user a line."""


def say_line(line: str) -> None:
    """Tell the user."""
    print(line, file=sys.stderr, flush=True)


def choose_say(*, quiet: bool) -> Say:
    """Return what tells the user, or, if quiet was asked for, nobody."""
    return (lambda _: None) if quiet else say_line
