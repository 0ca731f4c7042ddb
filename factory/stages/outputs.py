"""What the stages have in common: who answers, what has landed, and how rows become frames of a table."""

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
    """One model with its settings: what the rows that it makes carry. ``model`` is its name in the tables."""

    settings_id: str
    model: str
    model_fingerprint: str


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Rows that are ready for the warehouse: ``rows`` for the stage's table, ``rejections`` for that of rejections."""

    rows: pl.DataFrame
    rejections: pl.DataFrame


def gather(landed: Iterable[StageOutput], *, commit_rows: int = 5_000, commit_mb: float = 4) -> Iterator[StageOutput]:
    """Join what has landed into fewer and larger commits, of about so many rows or megabytes, in the same order."""
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
    """A model stage: plans the requests of pending rows, takes the replies in any order, hands out finished rows.

    Only rows in flight are held in memory. ``requests`` may run in another thread than ``add`` and ``take``. ``take``
    is called once more after the last reply, for rows that needed none.
    """

    def requests(self, pending: Iterable[pl.DataFrame]) -> Iterator[Request]:
        """Yield the requests of all pending rows, lazily."""
        ...

    def add(self, reply: Reply) -> int:
        """Take a reply; return how many rows it finished (0 or 1)."""
        ...

    def take(self) -> StageOutput:
        """Return the rows finished since the last call, each once."""
        ...


def make_frame(table: str, rows: Iterable[Mapping[str, object]]) -> pl.DataFrame:
    """Return rows as a frame of a table: what else a row holds is left out, a column that it lacks is null."""
    from schemas.tables import TABLES  # takes half a second, and who only reads does not need it

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
    """Return one row of ``rejections``; ``lane`` is that of the model whose answer was rejected, if one had answered."""
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
    """Return a reply's failure, or the reason why its text cannot be stored."""
    if reply.failure is not None:
        return reply.failure
    if reply.text is None:
        return Failure(Reason.INVALID_REPLY, "the reply has no text")
    fault = find_text_fault(reply.text) or find_text_fault(reply.reasoning or "")
    return None if fault is None else Failure(Reason.INVALID_REPLY, f"the reply has {fault.detail}")


def find_thinking(reply: Reply, text: str, tags: tuple[str, str] | None, source: str = "") -> Failure | None:
    """Return why a reply's ``text`` is not an answer but thinking; ``tags`` and ``source`` as for ``find_stray_reasoning``.

    ``sql/gates/completions.sql`` says the same of stored answers.
    """
    if (mark := find_stray_reasoning(text, tags, source)) is not None:
        return Failure(Reason.STRAY_REASONING, f"thinks aloud: {mark}")
    if reply.reasoning and not text.strip() and reply.finish_reason == "length":
        return Failure(Reason.STRAY_REASONING, "the thinking was cut off or never closed")
    return None


def clean_detail(detail: str) -> str:
    """Return a failure's detail in a form that any table can hold, shortened to 1,000 characters."""
    return detail.replace("\0", "\\0").encode(errors="backslashreplace").decode()[:1000]
