"""What a person sees of a build at its end, and of a warehouse at any time."""

import polars as pl
from rich.console import Console
from rich.table import Table

from flows.execution import BuildSummary
from schemas.settings import WarehouseSettings
from warehouse.build_views import latest_build, use_build
from warehouse.lake import Lake
from warehouse.statements import read_sql


def print_summary(summary: BuildSummary) -> None:
    """Print the bookkeeping of a run and what to do next."""
    console = Console()
    console.print(make_table(summary.counts, f"build {summary.name} · {summary.config_id}"))
    sent = f"{summary.num_sent:,} requests sent" if summary.num_sent else "nothing was left to send"
    console.print(f"build: {sent}; {summary.seconds:,.1f} s; snapshot {summary.snapshot}")
    if summary.export_path:
        console.print(f"shards: {summary.export_path}", soft_wrap=True)
    if summary.policy:
        title = "policy: held-out games against the base"
        console.print(make_table(summary.policy.table(), title))
        console.print(f"policy: {summary.policy.kept.model}", soft_wrap=True)


def print_status(settings: WarehouseSettings, name: str | None) -> None:
    """Print the builds of a warehouse, and of one of them the bookkeeping, the rejections and what it cost."""
    console = Console()
    with Lake.open(settings, read_only=True) as lake:
        config_id = latest_build(lake, name)
        if config_id is None:
            console.print("no build has run on this warehouse yet")
            return
        use_build(lake, config_id)
        console.print(make_table(lake.query(read_sql("reports/builds")), "builds"))
        for view, title in (
            ("stages", f"stages of {name or config_id}"),
            ("rejections_by_reason", "rejections by reason"),
            ("usage_by_stage", "cost by stage and model"),
        ):
            console.print(make_table(lake.query(f"FROM {view}"), title))


def make_table(frame: pl.DataFrame, title: str) -> Table:
    """Return a frame as a table: numbers to the right, with thousands separated and three digits after the point."""
    table = Table(title=title, title_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name.replace("_", " "), justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*map(_show, row))
    return table


def show_interval(rate: float | None, low: float | None, high: float | None) -> str:
    """Return a share with its interval, in percent; nothing where there is none."""
    return "" if rate is None or low is None or high is None else f"{rate:.1%} ({100 * low:.0f}–{100 * high:.0f})"


def _show(value: object) -> str:
    match value:
        case None:
            return ""
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case _:
            return str(value)
