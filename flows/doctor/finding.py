"""What a check-up finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: ok; a note, which hinders nothing; or a problem, with what to do about it."""

    check: str
    state: Literal["ok", "note", "problem"]
    found: str
    to_do: str = ""


Findings = Iterator[Finding]


def size(num_bytes: float) -> str:
    """Return a number of bytes for a person."""
    return f"{num_bytes / GIB:,.1f} GiB" if num_bytes >= GIB else f"{num_bytes / 2**20:,.1f} MiB"


def ok(check: str, found: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(check, "ok", found)


def note(check: str, found: str, to_do: str = "") -> Finding:
    """Return a finding that is good to know."""
    return Finding(check, "note", found, to_do)


def problem(check: str, found: str, to_do: str) -> Finding:
    """Return a finding that would make a build fail."""
    return Finding(check, "problem", found, to_do)
