"""What a merge comes to; light, so that the callers of a child process can read it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge wrote, and what a person should know about it."""

    path: Path
    num_parameters: int
    num_bytes: int
    seconds: float
    notes: tuple[str, ...]


RESULT = TypeAdapter(MergeResult)
"""Writes a result as JSON, and reads it."""
