"""The list of all rows of a build's or an evaluation's sources, which recorded answers are joined by."""

from collections.abc import Iterable, Iterator

import polars as pl

from factory.stages.prompts import list_rows
from flows.identity import Lane
from schemas.errors import InputError
from schemas.recipe.models import Teacher
from schemas.recipe.prompts import PromptSource
from warehouse.build.source_rows import all_rows
from warehouse.lake.lake import Lake
from warehouse.lake.staging import Derived, Frames
from warehouse.statements import to_literal


def list_while_read(
    frames: Iterable[pl.DataFrame], source: PromptSource, config_id: str, listed: Frames
) -> Iterator[pl.DataFrame]:
    """List each of a source's rows, as rows of ``source_rows``, and pass on those up to its limit.

    ``frames`` are what ``read_source`` yields of the source, ``config_id`` says whose rows they are.
    """
    for raw in frames:
        listed.add(list_rows(raw, source, config_id))
        if raw["is_read"].all():
            yield raw


def count_beyond(*, has_recorded: bool) -> int | None:
    """Return how many rows beyond a source's limit to list: all (None) where recorded answers may name them.

    Otherwise one, which tells that there are more.
    """
    return None if has_recorded else 1


def derive_source_rows(config_id: str, listed: Frames) -> Derived:
    """Return what the table of source rows shall hold of a build, or of an evaluation, that has read these rows."""
    return Derived(f"config_id = {to_literal(config_id)}", all_rows(config_id, listed.select))


def is_recorded(lane: Lane) -> bool:
    """Whether a lane's answers are read from a file."""
    return isinstance(lane.model, Teacher) and lane.model.recorded is not None


def check_listed(lake: Lake, build_id: str) -> None:
    """Refuse a build whose sources have rows that are not listed: recorded answers might be joined to the wrong prompt.

    Raises:
        InputError: so it is; says what to do.
    """
    found = lake.query(
        """
        SELECT
            (SELECT count(*) FROM source_rows WHERE config_id = $1) AS num_rows,
            (SELECT count(*) FROM source_rows WHERE config_id = $1 AND NOT is_read) AS num_beyond,
            list_contains(
                (SELECT any_value(recipe) FROM builds WHERE config_id = $1)::JSON ->> '$.teachers[*].engine', 'recorded'
            ) AS has_recorded
        """,
        [build_id],
    ).row(0, named=True)
    if not found["num_rows"]:
        raise InputError(
            f"the warehouse does not know the rows of the sources of build {build_id}, which recorded answers are joined "
            "by: run its recipe again (factory run --until read), or name [evaluation.prompts]"
        )
    if found["num_beyond"] and not found["has_recorded"]:
        raise InputError(
            f"build {build_id} knows its sources up to a limit only, so recorded answers might be those of rows beyond it: "
            "name [evaluation.prompts], or raise the limit"
        )
