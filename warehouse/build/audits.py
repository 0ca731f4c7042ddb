"""Audits: SELECTs of offending rows. None means that the build is sound."""

from dataclasses import dataclass

import polars as pl

from schemas.errors import AuditError
from warehouse.build.scope import Scope
from warehouse.statements import SQL_FOLDER, TableName, read_sql

NUM_SHOWN = 3
"""How many offending rows of an audit an error names."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What one audit found: the number of offending rows, and the first of them."""

    name: str
    num_rows: int
    examples: tuple[str, ...]


def audit_build(scope: Scope, counts: pl.DataFrame | None = None) -> list[Audit]:
    """Run every audit of ``sql/audits`` over a build; ``counts`` are those of its stages, if they are known."""
    counts = scope.count_each_stage() if counts is None else counts
    stages = ", ".join(map(str, counts.iter_rows()))
    counted = TableName(f"(VALUES {stages}) AS stages(stage, num_in, num_out, num_rejected, num_pending)")
    selects = {
        path.stem: read_sql(f"audits/{path.stem}", config_id=scope.config_id, stages=counted)
        for path in sorted((SQL_FOLDER / "audits").glob("*.sql"))
    }
    return [_run(scope, name, select) for name, select in selects.items()]


def run_audits(scope: Scope, counts: pl.DataFrame | None = None) -> list[Audit]:
    """Run every audit over a build that has ended; see ``audit_build``.

    Raises:
        AuditError: there are offending rows; says how many of which kind, and names the first.
    """
    audits = audit_build(scope, counts)
    hits = [f"{hit.name}: {hit.num_rows} ({'; '.join(hit.examples)})" for hit in audits if hit.num_rows]
    if hits:
        raise AuditError(f"build {scope.config_id} fails {len(hits)} of {len(audits)} audits: {', '.join(hits)}")
    return audits


def _run(scope: Scope, name: str, select: str) -> Audit:
    found = scope.query(
        f"WITH found AS MATERIALIZED ({select}) "
        f"SELECT *, (SELECT count(*) FROM found) AS num_rows FROM found ORDER BY ALL LIMIT {NUM_SHOWN}"
    )
    examples = tuple(f"{row}: {detail}" for row, detail, _ in found.iter_rows())
    return Audit(name, int(found["num_rows"][0]) if found.height else 0, examples)
