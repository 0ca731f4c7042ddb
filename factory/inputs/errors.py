"""What is wrong with one row."""

from schemas.reasons import Reason


class RowError(Exception):
    """A row that cannot be used, and why: it is to be rejected, not the file."""

    def __init__(self, detail: str, reason: Reason = Reason.INVALID_ROW) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail
