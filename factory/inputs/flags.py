"""Flags and weights beside what is said: as JSON and Parquet hold them, and as the text that CSV has of them."""

from factory.inputs.row import RowError

_WORDS = {"true": 1.0, "false": 0.0}


def read_flag(value: object, place: str) -> bool:
    """Return what a flag says: true or false, 1 or 0, or the text of one of them.

    Raises:
        RowError: it is none of these.
    """
    number = _read_number(value)
    if number is None and isinstance(value, str):
        number = _WORDS.get(value.strip().lower())
    if number is None or number not in (0, 1):
        raise RowError(f"{place} must be true or false, or 1 or 0, got {value!r:.40}")
    return bool(number)


def read_weight(value: object, place: str) -> int:
    """Return a weight, which is a number or its text: 1 (trained) or 0 (not trained).

    Raises:
        RowError: it is neither.
    """
    number = _read_number(value)
    if number is None or number not in (0, 1):
        raise RowError(f"{place} must be 0 or 1, got {value!r:.40}")
    return int(number)


def _read_number(value: object) -> float | None:
    """Return a number, or that of a text; none where there is none."""
    if not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
