"""What a person sees of a build at its end, and of a warehouse at any time."""

from typing import TYPE_CHECKING

from rich.console import Console

from flows.terminal import make_table
from schemas.recipe.settings import WarehouseSettings
from warehouse.build.scope import Scope, latest_build
from warehouse.lake.lake import Lake
from warehouse.statements import read_sql

if TYPE_CHECKING:
    from flows.recipe_run import RecipeSummary


def print_summary(summary: "RecipeSummary") -> None:
    """Print the bookkeeping of a run and what to do next."""
    console = Console()
    console.print(make_table(summary.counts, f"build {summary.name} · {summary.config_id}"))
    if summary.num_sent:
        sent = f"{summary.num_sent:,} rows sent"
    else:
        sent = "nothing was sent" if summary.counts["num_pending"].sum() else "nothing was left to send"
    console.print(f"build: {sent}; {summary.seconds:,.1f} s; snapshot {summary.snapshot}")
    if summary.export_path:
        console.print(f"shards: {summary.export_path}", soft_wrap=True)
    if summary.policy:
        title = "policy: held-out games against the base"
        console.print(make_table(summary.policy.table(), title))
        console.print(f"policy: {summary.policy.kept.model}", soft_wrap=True)
        console.print(f"build and policy: {summary.total_seconds:,.1f} s")


def print_status(settings: WarehouseSettings, name: str | None) -> None:
    """Print the builds of a warehouse, and of one of them the bookkeeping, the rejections and what it cost."""
    console = Console()
    with Lake.open(settings, read_only=True) as lake:
        config_id = latest_build(lake, name)
        if config_id is None:
            console.print("no build has run on this warehouse yet")
            return
        scope = Scope.open(lake, config_id)
        console.print(make_table(scope.query(read_sql("reports/builds")), "builds"))
        for view, title in (
            ("stages", f"stages of {name or config_id}"),
            ("rejections_by_reason", "rejections by reason"),
            ("usage_by_stage", "cost by stage and model"),
        ):
            console.print(make_table(scope.query(f"FROM {view}", joined_as_written=True), title))
