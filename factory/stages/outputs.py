"""What all stages share: the model behind rows, finished rows and rejections, and the ``Stage`` protocol."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from factory.engines.base import Failure, Reply, Request
from factory.engines.reply_text import find_stray_reasoning
from factory.inputs.row import Row
from factory.inputs.text_faults import find_text_fault
from schemas.reasons import Reason


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model and settings that a stage's rows are attributed to. ``model`` is its name in the tables."""

    settings_id: str
    model: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Finished rows: ``rows`` for the stage's table, ``rejections`` for the table of that name."""

    rows: pl.DataFrame
    rejections: pl.DataFrame


def gather(landed: Iterable[StageOutput], *, commit_rows: int = 5_000, commit_mb: float = 4) -> Iterator[StageOutput]:
    """Join outputs into larger ones of about ``commit_rows`` rows or ``commit_mb`` megabytes, in the same order."""
    waiting: list[StageOutput] = []
    num_rows, num_mb = 0, 0.0
    for part in landed:
        waiting.append(part)
        num_rows += part.rows.height + part.rejections.height
        num_mb += part.rows.estimated_size("mb")
        if num_rows >= commit_rows or num_mb >= commit_mb:
            yield _join(waiting)
            waiting, num_rows, num_mb = [], 0, 0.0
    if waiting:
        yield _join(waiting)


def _join(parts: Sequence[StageOutput]) -> StageOutput:
    return StageOutput(pl.concat([part.rows for part in parts]), pl.concat([part.rejections for part in parts]))


class Stage(Protocol):
    """A model stage: plans requests for pending rows, accepts replies in any order, and returns finished rows.

    Only rows in flight are kept in memory. ``requests`` may run in a different thread from ``add`` and ``take``.
    ``take`` is called once more after the last reply, for rows that needed no request.
    """

    def requests(self, pending: Iterable[pl.DataFrame]) -> Iterator[Request]:
        """Yield the requests of all pending rows, lazily."""
        ...

    def add(self, reply: Reply) -> int:
        """Accept a reply; return how many rows it finished (0 or 1)."""
        ...

    def take(self) -> StageOutput:
        """Return the rows finished since the last call, each once."""
        ...


def make_frame(table: str, rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Return rows as a frame with a table's columns; other keys of rows are ignored, missing ones become null."""
    from schemas.tables import TABLES  # takes half a second, and readers do not need it

    return pl.DataFrame(list(rows), schema=TABLES[table].create_empty().schema, orient="row")


def make_rejection(
    row_id: str,
    stage: str,
    failure: Failure,
    *,
    config_id: str = "",
    lane: Provenance | None = None,
    language: str | None = None,
) -> Row:
    """Return a row of ``rejections``; ``lane`` is that of the model whose answer was rejected, if there was one."""
    return {
        "config_id": config_id,
        "row_id": row_id,
        "stage": stage,
        "settings_id": "" if lane is None else lane.settings_id,
        "reason": failure.reason.value,
        "detail": clean_detail(failure.detail),
        "language": language,
        "model": None if lane is None else lane.model,
    }


def find_reply_fault(reply: Reply) -> Failure | None:
    """Return a reply's failure, or why its text cannot be stored, or None."""
    if reply.failure is not None:
        return reply.failure
    if reply.text is None:
        return Failure(Reason.INVALID_REPLY, "the reply has no text")
    fault = find_text_fault(reply.text) or find_text_fault(reply.reasoning or "")
    return None if fault is None else Failure(Reason.INVALID_REPLY, f"the reply has {fault.detail}")


def find_thinking(reply: Reply, text: str, tags: tuple[str, str] | None, source: str = "") -> Failure | None:
    """Return a failure if a reply's ``text`` contains thinking, else None.

    ``tags`` and ``source`` are those of ``find_stray_reasoning``. ``sql/gates/completions.sql`` applies the same rule
    to stored answers.
    """
    if (mark := find_stray_reasoning(text, tags, source)) is not None:
        return Failure(Reason.STRAY_REASONING, f"thinks aloud: {mark}")
    if reply.reasoning and not text.strip() and reply.finish_reason == "length":
        return Failure(Reason.STRAY_REASONING, "the thinking was cut off or never closed")
    return None


def clean_detail(detail: str) -> str:
    """Return a failure's detail in a form that any table can store, shortened to 1,000 characters."""
    return detail.replace("\0", "\\0").encode(errors="backslashreplace").decode()[:1000]
