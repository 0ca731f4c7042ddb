"""A row as it was read, and what is wrong with one."""

from typing import Any, TypeAlias

from schemas.reasons import Reason

Row: TypeAlias = dict[str, Any]


class RowError(Exception):
    """A row that cannot be used, and why: it is to be rejected, not the file."""

    def __init__(self, detail: str, reason: Reason = Reason.INVALID_ROW) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail
