"""Reading recorded responses of a model, with their expected languages, for evaluation."""

from collections import Counter
from collections.abc import Iterator, Sequence

from factory.engines.base import Failure
from factory.evaluation.confusion import Response
from factory.inputs.files import RawRow, find_value, read_file_rows
from factory.inputs.row import Row
from schemas.errors import InputError
from schemas.languages import find_language
from schemas.reasons import Reason


def read_responses(
    path: str, *, text: str, language: str, groups: Sequence[str] = (), rejected: Counter[str]
) -> Iterator[Response]:
    """Yield the responses in a file (Parquet, JSONL, CSV; globs allowed), in order.

    ``text``, ``language`` and ``groups`` name columns; dots reach into nested fields. A missing text is an empty
    response. Rows that are no valid responses are counted in ``rejected``, by reason.

    Raises:
        InputError: the file is missing or cannot be read, lacks a column, or has no valid response.
    """
    columns = [text, language, *groups]
    num_read, first = 0, None
    for raw in read_file_rows(path, columns):
        found = _read_response(raw, columns)
        if isinstance(found, Failure):
            rejected[found.reason.value] += 1
            first = first or f"{raw.where}: {found.detail}"
        else:
            num_read += 1
            yield found
    if not num_read:
        raise InputError(f"{path} has no valid response; first row: {first or 'none'}")


def _read_response(raw: RawRow, columns: list[str]) -> Response | Failure:
    if raw.value is None:
        assert raw.fault is not None
        return raw.fault
    try:
        text, language, *values = _find_values(raw.value, columns)
    except LookupError as error:
        return Failure(Reason.INVALID_ROW, str(error.args[0]))
    code = find_language(str(language))
    if code is None:
        return Failure(Reason.UNKNOWN_LANGUAGE, f"unknown language {language!r}")
    if not isinstance(text, str | None):
        return Failure(Reason.INVALID_ROW, f"'{columns[0]}' must be text, got {type(text).__name__} {str(text)[:40]!r}")
    return (tuple(map(str, values)), code, text or "")


def _find_values(row: Row, columns: list[str]) -> list[object]:
    return [find_value(row, column) for column in columns]
