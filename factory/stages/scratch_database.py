"""Scratch databases, in which stages keep data about all their rows on disk instead of in memory."""

import sqlite3


class _Scratch(sqlite3.Connection):
    """A connection that ends with whatever holds it, without the warning that Python gives from 3.13 on."""

    def __del__(self) -> None:
        self.close()


def open_scratch(*statements: str) -> sqlite3.Connection:
    """Run statements in a new temporary database and return it; SQLite deletes its file with the connection."""
    # One thread works on it, but the garbage collector may close it in another.
    scratch = sqlite3.connect("", factory=_Scratch, check_same_thread=False)
    for statement in ("PRAGMA journal_mode = OFF", *statements):
        scratch.execute(statement)
    return scratch
