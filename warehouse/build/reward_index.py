"""The reward index: rewards beside what their completions are, without the texts, for queries of many rows.

It is made of facts, which never change, in the order in which the rewards came: of the rows of ``rewards`` up to the
last one that is indexed, it lacks none. A view that reads it that far and joins the rest is right at every moment.
"""

import duckdb

from schemas.errors import WarehouseError
from warehouse.lake.cursors import count_changed
from warehouse.lake.lake import Lake

WORTH_INDEXING = 100_000
"""Rewards beyond the index from which it is extended: fewer are joined in a moment."""

_CHUNK = 2_000_000
"""Rewards that are indexed at a time, so that memory does not follow their number."""

_LARGE_ROW_GROUPS = "CALL lake.set_option('parquet_row_group_size', 65536, table_name => 'reward_index')"
"""Rows without texts are small, and are read by the million."""

_COUNTS = "SELECT (SELECT count(*) FROM rewards), (SELECT count(*) FROM reward_index), (SELECT max(rowid) FROM rewards)"

_LAST = "SELECT max(reward_row) FROM reward_index"

_SELECT = """
SELECT rewards.*, completions.* EXCLUDE (completion_id, text, reasoning)
FROM completions
JOIN (SELECT *, rowid AS reward_row FROM rewards WHERE rowid BETWEEN {first} AND {last}) AS rewards
    ON rewards.completion_id = completions.completion_id
ORDER BY prompt_id
"""

_CHECK = """
SELECT
    (SELECT count(*) FROM temp.chunk) = (SELECT count(*) FROM rewards WHERE rowid BETWEEN {first} AND {last})
    AND NOT EXISTS (FROM reward_index WHERE reward_row >= {first})
"""
"""Do the rows to be added lack nothing, and has nobody else added them meanwhile?"""


def find_indexed(lake: Lake) -> int | None:
    """Return the last row of ``rewards`` that is indexed; none where nothing is, as at snapshots of older versions."""
    try:
        found = lake.value(_LAST)
    except WarehouseError:
        return None
    return None if found is None else int(found)


def index_rewards(lake: Lake) -> int:
    """Index the rewards that have come since this was last done, if it pays; return how many were indexed.

    It ends before rewards whose completions are not there, so that what is indexed lacks nothing.
    """
    ((num_rewards, num_indexed, last),) = lake.rows(_COUNTS)
    if num_rewards - num_indexed < WORTH_INDEXING:
        return 0
    indexed = find_indexed(lake)
    if indexed is None:
        lake.transact(lambda cursor: cursor.execute(_LARGE_ROW_GROUPS))
    num_added = 0
    for first in range(0 if indexed is None else indexed + 1, last + 1, _CHUNK):
        num = _index_rows(lake, first, min(first + _CHUNK - 1, last))
        if num is None:
            break
        num_added += num
    return num_added


def _index_rows(lake: Lake, first: int, last: int) -> int | None:
    """Index the rewards of some row ids; return how many, or none if a completion is missing or they were indexed meanwhile."""

    def select(cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE chunk AS {_SELECT.format(first=first, last=last)}")

    def change(cursor: duckdb.DuckDBPyConnection) -> int | None:
        (is_whole,) = cursor.execute(_CHECK.format(first=first, last=last)).fetchall()[0]
        num = count_changed(cursor, "INSERT INTO reward_index BY NAME FROM temp.chunk") if is_whole else None
        cursor.execute("DROP TABLE temp.chunk")
        return num

    return lake.transact(change, before=select)
