"""Scratch databases, in which stages keep data about all their rows on disk instead of in memory."""

import sqlite3


def open_scratch(*statements: str) -> sqlite3.Connection:
    """Run statements in a new temporary database and return it; SQLite deletes its file with the connection."""
    scratch = sqlite3.connect("")
    for statement in ("PRAGMA journal_mode = OFF", *statements):
        scratch.execute(statement)
    return scratch
