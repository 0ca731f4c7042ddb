"""The result of a merge. This module does not import torch, so that callers of a child process can use it."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What a merge wrote, with notes for the user."""

    path: Path
    num_parameters: int
    num_bytes: int
    seconds: float
    notes: tuple[str, ...]


RESULT = TypeAdapter(MergeResult)
"""Writes a result as JSON, and reads it."""
