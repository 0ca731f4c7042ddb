"""Turning raw rows into prompts; invalid ones, duplicates and those in the wrong language are rejected."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from factory.engines.base import Failure, Message
from factory.inputs.row import Row
from factory.stages.measures import measure_languages
from factory.stages.outputs import StageOutput, make_frame, make_rejection
from factory.stages.scratch_database import open_scratch
from factory.texts.langid import Detect
from schemas.ids import content_id
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.splits import choose_split

if TYPE_CHECKING:
    from factory.stages.duplicates import NearDuplicates

PROMPT_GATE_REASONS = frozenset({Reason.WRONG_LANGUAGE, Reason.WRONG_SCRIPT, Reason.NEAR_DUPLICATE, Reason.TOO_LONG})
"""Reasons that depend on thresholds of gates; their rejections have the stage ``prompt_gate``, all others ``read``."""


class SeenPrompts:
    """The prompts of a build so far, from all its sources, with which new rows are compared.

    Earlier prompts of the build are passed to ``remember`` before its sources are read. They take precedence over new
    rows, so that decisions persist when a source grows or is reordered. They are kept in temporary files, so that
    memory does not grow.
    """

    def __init__(self, gates: PromptGates) -> None:
        self._seen = open_scratch("CREATE TABLE seen (prompt_id TEXT PRIMARY KEY, is_read INTEGER) WITHOUT ROWID")
        self._near = _index_near(gates.near_duplicate_similarity)

    def remember(self, prompts: pl.DataFrame) -> None:
        """Add source prompts that the build already has; a frame with prompt_id, language and messages."""
        self._seen.executemany("INSERT OR IGNORE INTO seen VALUES (?, 0)", prompts.select("prompt_id").iter_rows())
        if self._near is not None:
            self._find_near(prompts.to_dicts())

    def find_duplicates(self, rows: Sequence[Row]) -> list[Failure | None]:
        """Add rows with the keys prompt_id, language and messages; return a failure for each duplicate, else None."""
        found: list[Failure | None] = []
        fresh = []
        for row in rows:
            prompt_id = row["prompt_id"]
            earlier = self._seen.execute("SELECT is_read FROM seen WHERE prompt_id = ?", [prompt_id]).fetchone()
            is_again = earlier == (1,)
            found.append(Failure(Reason.DUPLICATE, f"equals prompt {prompt_id}") if is_again else None)
            if not is_again:
                self._seen.execute("INSERT OR REPLACE INTO seen VALUES (?, 1)", [prompt_id])
            if earlier is None:
                fresh.append(len(found) - 1)
        for at, match in zip(fresh, self._find_near([rows[at] for at in fresh]), strict=True):
            if match is not None:
                found[at] = Failure(Reason.NEAR_DUPLICATE, f"similar to prompt {match[0]} (about {match[1]:.2f})")
        return found

    def _find_near(self, rows: Sequence[Row]) -> Sequence[tuple[str, float] | None]:
        if self._near is None:
            return [None] * len(rows)
        return self._near.add(
            [row["prompt_id"] for row in rows],
            [_spoken_by_user(row["messages"]) for row in rows],
            [row["language"] for row in rows],
            # A long system prompt shared by many prompts would make them all look alike.
            [row["messages"][0]["content"] if row["messages"][0]["role"] == "system" else "" for row in rows],
        )


def _index_near(similarity: float) -> "NearDuplicates | None":
    if not similarity:
        return None
    from factory.stages.duplicates import NearDuplicates  # with NumPy

    return NearDuplicates(similarity)


def build_prompts(
    raw: pl.DataFrame,
    *,
    source: PromptSource,
    gates: PromptGates,
    config_id: str,
    seen: SeenPrompts,
    detect: Detect | None,
) -> StageOutput:
    """Turn a frame of ``sources.RAW_ROWS`` into rows of ``prompts`` and ``rejections``, in order.

    Every raw row ends up in exactly one of them. A rejected row's id is ``content_id("source_row", [source, row])``.
    """
    rows = [_complete(row, source) for row in raw.to_dicts()]
    _set_reasons(rows, [_find_fault(row, gates) for row in rows])
    _measure(rows, detect)
    kept = [row for row in rows if row["reason"] is None]
    if gates.language and detect is not None:
        _set_reasons(kept, [_find_wrong_language(row, gates) for row in kept])
    # Duplicates are checked last, so that a rejection never refers to a prompt that was itself rejected.
    kept = [row for row in rows if row["reason"] is None]
    _set_reasons(kept, seen.find_duplicates(kept))
    return _partition(rows, source, config_id)


def make_text_id(text: str) -> str:
    """Return the id of the text of a single turn, ignoring outer white space."""
    return content_id("text", text.strip())


def list_rows(raw: pl.DataFrame, source: PromptSource, config_id: str) -> pl.DataFrame:
    """Return a row of ``source_rows`` for each row of ``sources.RAW_ROWS``, kept or not, in order."""
    rows = []
    for row in raw.to_dicts():
        turns = [message["content"] for message in row["messages"] or () if message["role"] != "system"]
        row |= {"config_id": config_id, "source": source.name}
        row["row_id"] = content_id("row", [source.name, row["row"], row["prompt_id"]])
        row["text_id"] = make_text_id(turns[0]) if len(turns) == 1 else None
        rows.append(row)
    return make_frame("source_rows", rows)


def _complete(row: Row, source: PromptSource) -> Row:
    row |= {"source": source.name, "detected_language": None, "language_score": None, "script_share": None}
    if row["prompt_id"] is not None:
        row |= {"root_id": row["prompt_id"], "split": choose_split(row["prompt_id"], source.eval_percent)}
    return row


def _find_fault(row: Row, gates: PromptGates) -> Failure | None:
    if row["reason"] is not None:
        return None
    messages = row["messages"]
    if not messages or not messages[-1]["content"].strip():
        return Failure(Reason.EMPTY_PROMPT, "no text to answer")
    if messages[-1]["role"] != "user":
        return Failure(Reason.INVALID_ROW, f"the last turn is the {messages[-1]['role']}'s; it must be the user's")
    if row["language"] not in LANGUAGES:
        return Failure(Reason.UNKNOWN_LANGUAGE, f"{row['language']!r}; known are {', '.join(LANGUAGES)}")
    num_chars = sum(len(message["content"]) for message in messages)
    if num_chars > gates.max_chars:
        return Failure(Reason.TOO_LONG, f"{num_chars} characters, allowed are {gates.max_chars}")
    return None


def _measure(rows: Iterable[Row], detect: Detect | None) -> None:
    kept = [row for row in rows if row["reason"] is None]
    texts = [(_spoken_by_user(row["messages"]), row["language"]) for row in kept]
    for row, measures in zip(kept, measure_languages(texts, detect), strict=True):
        row |= measures


def _find_wrong_language(row: Row, gates: PromptGates) -> Failure | None:
    """Return a failure if there is evidence of the wrong language; short texts and uncertain detections pass."""
    language, detected, score = row["language"], row["detected_language"], row["language_score"]
    if detected not in {None, LANGUAGES[language].detector_code} and score >= gates.min_language_score:
        return Failure(Reason.WRONG_LANGUAGE, f"detected {detected} with a score of {score:.2f}, declared {language}")
    share, least = row["script_share"], gates.min_script_share
    if share is not None and share < least:
        return Failure(
            Reason.WRONG_SCRIPT,
            f"{share:.0%} of the letters are in the script of {language}, at least {least:.0%} needed",
        )
    return None


def _spoken_by_user(messages: Sequence[Message]) -> str:
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def _set_reasons(rows: Iterable[Row], faults: Iterable[Failure | None]) -> None:
    for row, fault in zip(rows, faults, strict=True):
        if fault is not None:
            row |= {"reason": fault.reason.value, "detail": fault.detail}


def _partition(rows: Sequence[Row], source: PromptSource, config_id: str) -> StageOutput:
    prompts, rejections = [], []
    for row in rows:
        if row["reason"] is None:
            prompts.append(row)
            continue
        reason = Reason(row["reason"])
        rejections.append(
            make_rejection(
                content_id("source_row", [source.name, row["row"]]),
                "prompt_gate" if reason in PROMPT_GATE_REASONS else "read",
                Failure(reason, f"row {row['source_row'] or row['row']}: {row['detail']}"),
                config_id=config_id,
                language=row["language"] if row["language"] in LANGUAGES else None,
            )
        )
    return StageOutput(make_frame("prompts", prompts), make_frame("rejections", rejections))
