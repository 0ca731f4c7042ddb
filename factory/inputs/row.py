"""A row of a source, and the error for one that cannot be used."""

from typing import Any, TypeAlias

from schemas.reasons import Reason

Row: TypeAlias = dict[str, Any]


class RowError(Exception):
    """A row that cannot be used. The row is rejected with ``reason`` and ``detail``; the rest of the file is read."""

    def __init__(self, detail: str, reason: Reason = Reason.INVALID_ROW) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail
