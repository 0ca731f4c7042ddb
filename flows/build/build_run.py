"""One run of a build: what its stages share, and what it did."""

from dataclasses import dataclass

import polars as pl

from flows.build.source_rows import is_recorded
from flows.identity import Build, Lane
from flows.lanes.context import RunContext
from warehouse.build.scope import Scope
from warehouse.lake.lake import Lake


@dataclass(frozen=True, slots=True)
class BuildRun:
    """One run of a build. ``limit`` is how many prompts of each source it reads at most."""

    context: RunContext
    build: Build
    scope: Scope
    limit: int | None = None

    @property
    def lake(self) -> Lake:
        return self.context.lake

    @property
    def recorded(self) -> list[Lane]:
        """The teachers whose completions a team already has."""
        return [lane for lane in self.build.teachers if is_recorded(lane)]


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What a run of a build did. ``num_sent`` counts the rows that models were asked about in this run."""

    name: str
    config_id: str
    snapshot: int
    num_sent: int
    counts: pl.DataFrame
    export_path: str | None
    seconds: float
    limit: int | None = None
