"""How and where a build is executed; not part of its identity."""

from typing import Literal

from pydantic import Field, field_validator

from schemas.toml.section import Section, refuse_password


class WarehouseSettings(Section):
    """``[warehouse]``: where the lake is. ``catalog`` is a SQLite path or a postgres:// URL; ``data`` may be s3://.

    ``memory`` ("4GB") is how much DuckDB may use before it spills to disk (default: most of the machine's). The
    password of a Postgres catalog comes from PGPASSWORD, never from the recipe.
    """

    catalog: str = "lake/catalog.sqlite"
    data: str = "lake/data"
    memory: str | None = Field(default=None, pattern=r"^\d+(\.\d+)? ?[MGT]i?B$")

    @field_validator("catalog", "data")
    @classmethod
    def _has_no_password(cls, value: str) -> str:
        return refuse_password(value)


class RunSettings(Section):
    """``[run]``: how the build is executed. ``slots`` are lists of GPU numbers (default: one slot per visible GPU)."""

    slots: tuple[tuple[int, ...], ...] = ()
    commit_rows: int = Field(default=1000, gt=0)
    commit_seconds: float = Field(default=5.0, gt=0)
    exports: str = "exports"
    models: str = "models"
    push_to_hub: str | None = None
    overlap: Literal["skip", "wait"] = "skip"
