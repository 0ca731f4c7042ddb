"""Flags and weights of rows and turns: as values in JSON and Parquet, or as text in CSV."""

from factory.inputs.row import RowError

_WORDS = {"true": 1.0, "false": 0.0}


def read_flag(value: object, place: str) -> bool:
    """Return the value of a flag that is given as true or false, as 1 or 0, or as the text of one of these.

    Raises:
        RowError: it is something else.
    """
    number = _read_number(value)
    if number is None and isinstance(value, str):
        number = _WORDS.get(value.strip().lower())
    if number is None or number not in (0, 1):
        raise RowError(f"{place} must be true or false, or 1 or 0, got {value!r:.40}")
    return bool(number)


def read_weight(value: object, place: str) -> int:
    """Return a weight that is given as a number or as text: 1 (trained) or 0 (not trained).

    Raises:
        RowError: it is neither 1 nor 0.
    """
    number = _read_number(value)
    if number is None or number not in (0, 1):
        raise RowError(f"{place} must be 0 or 1, got {value!r:.40}")
    return int(number)


def _read_number(value: object) -> float | None:
    """Return the number that a value or its text stands for, or None."""
    if not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
