"""Scratch databases: what a stage remembers of all its rows, on disk instead of in memory."""

import sqlite3


def open_scratch(*statements: str) -> sqlite3.Connection:
    """Return a database in a temporary file of its own, which SQLite removes with the connection."""
    scratch = sqlite3.connect("")
    for statement in ("PRAGMA journal_mode = OFF", *statements):
        scratch.execute(statement)
    return scratch
