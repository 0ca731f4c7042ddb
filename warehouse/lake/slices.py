"""Slices: the views of a build can be read a part of its prompts at a time, so that memory does not follow its size.

A cursor looks at one slice, or at everything. The views are cut by the source prompts: with a prompt come its
translations, its completions and theirs, so that every row of a view is in one slice.
"""

import itertools
from collections.abc import Iterator

SLICE_PROMPTS = 25_000
"""Prompts that a slice is to have, translations included."""

MAX_SLICES = 64
"""For each slice a query reads its tables from the start, so that more of them would take too long."""

SLICE_SQL = """
CREATE OR REPLACE TEMP MACRO in_slice(id) AS
    getvariable('slice') IS NULL OR id >= getvariable('slice').start AND id < getvariable('slice').stop
"""
"""DuckDB macro: is an id in the slice that the cursor looks at? The planner sees two constants, or no condition."""

LOOK_AT_ALL = "RESET VARIABLE slice"

_LAST = chr(0x10FFFF)


def choose_num_slices(size: int, per_slice: int | None = None) -> int:
    """Return into how many slices a build of a size is cut: in prompts, or in what ``per_slice`` is given in."""
    most = SLICE_PROMPTS if per_slice is None else max(per_slice, 1)
    return max(1, min(MAX_SLICES, -(-size // most)))


def look_at_slices(num_slices: int) -> Iterator[str]:
    """Yield, slice by slice, the statement after which a cursor looks at it. Ids are evenly spread, being hashes."""
    bounds = ["", *(f"{256 * number // num_slices:02x}" for number in range(1, num_slices)), _LAST]
    for start, stop in itertools.pairwise(bounds):
        yield f"SET VARIABLE slice = {{'start': '{start}', 'stop': '{stop}'}}"
