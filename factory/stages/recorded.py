"""Recorded completions: answers that a team already has, joined to the prompts that they answer."""

from collections.abc import Iterable, Iterator
from itertools import islice

import polars as pl

from factory.engines.base import Failure
from factory.engines.text import split_reasoning
from factory.inputs.answers import Answer, read_answer
from factory.inputs.errors import RowError
from factory.inputs.formats import find_optional, join_texts
from factory.inputs.text import find_fault_within
from factory.stages.files import RawRow, read_file_rows, refuse_absent
from factory.stages.language_names import find_language
from factory.stages.measures import measure, measure_languages
from factory.stages.rows import Detect, Landed, Lane, Row, make_frame, make_rejection
from factory.stages.scratch import open_scratch
from factory.stages.sources import read_id, refuse_hopeless
from schemas.ids import content_id
from schemas.models import Recorded
from schemas.reasons import Reason
from schemas.section import list_columns

STAGE = "read"


class PromptIndex:
    """The prompts of a build by what recorded rows name them by, and how many answers each has got; on disk."""

    def __init__(self, recorded: Recorded, prompts: Iterable[pl.DataFrame]) -> None:
        """Index prompts with the columns prompt_id, language, source, source_row, parent_id and messages."""
        self._recorded = recorded
        self._index = open_scratch(
            "CREATE TABLE prompts (key TEXT, prompt_id TEXT, language TEXT, is_source INTEGER, "
            "PRIMARY KEY (key, prompt_id)) WITHOUT ROWID",
            "CREATE TABLE answers (prompt_id TEXT PRIMARY KEY, num INTEGER) WITHOUT ROWID",
        )
        for frame in prompts:
            self._index.executemany("INSERT INTO prompts VALUES (?, ?, ?, ?)", self._make_entries(frame))

    def find(self, key: str, language: str | None) -> tuple[str, str] | Failure:
        """Return the id and language of the one prompt that a key, and a language if given, name.

        Without a language a source prompt is meant, not its translations, which carry its row id too.
        """
        matches: list[tuple[str, str]] = self._index.execute(
            "SELECT prompt_id, language FROM prompts WHERE key = ? AND iif(?2 IS NULL, is_source, language = ?2)",
            [_text_key(key) if self._recorded.join == "prompt_text" else key, language],
        ).fetchall()
        if len(matches) == 1:
            return matches[0]
        named = f"{self._recorded.join} {key[:80]!r}" + (f" in {language}" if language else "")
        if not matches:
            return Failure(Reason.NO_SUCH_PROMPT, f"no prompt in scope has the {named}")
        return Failure(Reason.NO_SUCH_PROMPT, f"{len(matches)} prompts in scope have the {named}; it must name one")

    def count_answer(self, prompt_id: str) -> int:
        """Return how many answers a prompt had before this one."""
        sql = "INSERT INTO answers VALUES (?, 1) ON CONFLICT DO UPDATE SET num = num + 1 RETURNING num - 1"
        return int(self._index.execute(sql, [prompt_id]).fetchall()[0][0])

    def _make_entries(self, frame: pl.DataFrame) -> Iterator[tuple[str, str, str, bool]]:
        for row in frame.iter_rows(named=True):
            key = self._make_key(row)
            if key is not None:
                yield key, row["prompt_id"], row["language"], row["parent_id"] is None

    def _make_key(self, row: Row) -> str | None:
        if self._recorded.source not in {None, row["source"]}:
            return None
        if self._recorded.join == "source_row":
            source_row: str | None = row["source_row"]
            return source_row
        turns = [message["content"] for message in row["messages"] if message["role"] != "system"]
        return _text_key(turns[0]) if len(turns) == 1 else None


def read_recorded(
    recorded: Recorded,
    prompts: Iterable[pl.DataFrame],
    lane: Lane,
    *,
    detect: Detect | None,
    config_id: str,
    reasoning: tuple[str, str] | None = None,
    batch_rows: int = 2000,
) -> Iterator[Landed]:
    """Yield recorded rows as completions (origin "recorded") and rejections; every row is in one of the two.

    ``prompts`` are those in scope. Several answers to a prompt are its samples 0, 1, ... in the order of the file, and
    their ids follow from ``lane.settings_id``, prompt and sample. With ``join = "prompt_text"`` the key must be the
    text of a single-turn prompt, white space at its ends aside. ``reasoning`` are the tags around the thinking that
    stands before an answer.

    Raises:
        InputError: the file is missing or cannot be read, lacks a column, or none of its rows has the right shape.
    """
    index = PromptIndex(recorded, prompts)
    rows = refuse_hopeless(
        (_read_row(raw, recorded, index) for raw in open_recorded(recorded)),
        recorded.path,
    )
    while batch := list(islice(rows, batch_rows)):
        kept = [row for row in batch if row["reason"] is None]
        for row in kept:
            row |= _split_text(row["text"], reasoning) if row["reasoning"] is None else {}
            row |= _make_completion(row, lane, index.count_answer(row["prompt_id"]))
        for row, measures in zip(
            kept, measure_languages([(row["text"], row["language"]) for row in kept], detect), strict=True
        ):
            row |= measures
        dropped = [_make_rejection(row, lane, config_id) for row in batch if row["reason"] is not None]
        yield Landed(make_frame("completions", kept), make_frame("rejections", dropped))


def open_recorded(recorded: Recorded) -> Iterator[RawRow]:
    """Yield recorded rows as they lie there.

    Raises:
        InputError: the file is missing or cannot be read, or lacks a column.
    """
    columns = recorded.columns
    needed = [column for column in (columns.text, columns.messages) if column is not None]
    others = [column for column in list_columns(columns) if column not in needed]
    refuse_absent(recorded.path, needed, others)
    yield from read_file_rows(recorded.path, needed, others)


def _read_row(raw: RawRow, recorded: Recorded, index: PromptIndex) -> Row:
    row: Row = {"row": raw.row, "reason": None, "detail": None, "language": None}
    found = raw.fault
    if raw.value is not None:
        try:
            found = _join(raw.value, recorded, index, row)
        except LookupError as error:
            found = Failure(Reason.INVALID_ROW, str(error.args[0]))
        except RowError as error:
            found = Failure(error.reason, error.detail)
    if found is not None:
        row |= {"reason": found.reason.value, "detail": f"{raw.where}: {found.detail}"}
    return row


def _join(value: Row, recorded: Recorded, index: PromptIndex, row: Row) -> Failure | None:
    columns = recorded.columns
    answer = read_answer(value, columns.text, columns.messages)
    key = _read_key(value, recorded, answer)
    named = find_optional(value, columns.language)
    language = find_language(str(named or ""))
    if key is None:
        return Failure(Reason.NO_SUCH_PROMPT, "the row names no prompt")
    fault = find_fault_within([key, answer.text, answer.reasoning])
    if fault is not None:
        return fault
    if columns.language is not None and language is None:
        said = "the row names no language" if named is None else repr(named)
        return Failure(Reason.UNKNOWN_LANGUAGE, said)
    found = index.find(key, language)
    if isinstance(found, Failure):
        return found
    row |= {"prompt_id": found[0], "language": found[1], "text": answer.text, "reasoning": answer.reasoning}
    return None


def _read_key(value: Row, recorded: Recorded, answer: Answer) -> str | None:
    """Return what names the prompt: a row's id, or the text that is asked; of several parts those that there are."""
    key = recorded.columns.key
    if key is None:
        return answer.asked
    if recorded.join == "source_row" or isinstance(key, str):
        return read_id(value, key)
    parts = [read_id(value, column) for column in key]
    return join_texts(part for part in parts if part is not None) or None


def _split_text(text: str, tags: tuple[str, str] | None) -> Row:
    if tags is None:
        return {}
    answer, reasoning, is_whole = split_reasoning(text, tags, is_thinking=False)
    return {"text": answer, "reasoning": reasoning} | ({} if is_whole else {"finish_reason": "length"})


def _make_completion(row: Row, lane: Lane, sample_index: int) -> Row:
    return {
        "completion_id": content_id("completion", [lane.settings_id, row["prompt_id"], sample_index]),
        "settings_id": lane.settings_id,
        "model": lane.model,
        "model_fingerprint": lane.model_fingerprint,
        "origin": "recorded",
        "round": 0,
        "sample_index": sample_index,
        "num_prompt_tokens": 0,
        "num_completion_tokens": 0,
        **measure(row["text"]),
    }


def _make_rejection(row: Row, lane: Lane, config_id: str) -> Row:
    return make_rejection(
        content_id("recorded_row", [lane.settings_id, row["row"]]),
        STAGE,
        Failure(Reason(row["reason"]), row["detail"]),
        config_id=config_id,
        settings_id=lane.settings_id,
        language=row["language"],
        model=lane.model,
    )


def _text_key(text: str) -> str:
    return content_id("text", text.strip())
