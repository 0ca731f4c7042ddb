"""Recorded completions: answers that a team already has, joined with their prompts."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import polars as pl

from factory.conversations.answers import Answer, read_answer
from factory.conversations.formats import find_optional, join_texts
from factory.engines.base import Failure
from factory.engines.reply_text import split_reasoning
from factory.inputs.files import RawRow, read_file_rows, refuse_absent
from factory.inputs.row import Row, RowError
from factory.inputs.text_faults import find_fault_within, find_text_fault
from factory.stages.measures import measure, measure_languages
from factory.stages.outputs import Provenance, StageOutput, make_frame, make_rejection
from factory.stages.prompt_index import PromptIndex
from factory.stages.sources import read_id, refuse_hopeless
from factory.texts.langid import Detect
from schemas.errors import InputError
from schemas.ids import content_id
from schemas.languages import find_language
from schemas.reasons import Reason
from schemas.recipe.models import Recorded
from schemas.toml.section import list_columns

STAGE, REJOIN_STAGE = "read", "join"
"""The stages of rejections: of rows that cannot be joined, and of stored answers that no row supports any more."""


@dataclass(frozen=True, slots=True)
class LandedAnswers(StageOutput):
    """Recorded rows that are ready for the warehouse.

    ``unjoined`` explains, by text, why a stored answer may no longer be among ``rows``: these are rejections whose row
    id is ``make_answer_id`` of the text of a rejected row.
    """

    unjoined: pl.DataFrame


@dataclass(slots=True)
class Tally:
    """Counts how many rows of a recorded file could be joined, and why the others could not."""

    num_joined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, landed: StageOutput) -> None:
        """Add rows that ``read_recorded`` has yielded."""
        self.num_joined += landed.rows.height
        for reason, detail in landed.rejections.select("reason", "detail").iter_rows():
            self.reasons[reason] += 1
            self.examples.setdefault(reason, detail)

    @property
    def num_rejected(self) -> int:
        """How many rows could not be joined."""
        return self.reasons.total()

    @property
    def is_poor(self) -> bool:
        """Whether fewer than a tenth of the rows could be joined, usually because the columns are mapped wrongly."""
        return 9 * self.num_joined < self.num_rejected

    def describe(self) -> str:
        """Return one line with the number of joined rows, and the most frequent reason of the others."""
        ((reason, number),) = self.reasons.most_common(1)
        num_rows = self.num_joined + self.num_rejected
        return (
            f"only {self.num_joined:,} of {num_rows:,} recorded answers could be joined to a prompt; {number:,} are "
            f"{reason}, such as {self.examples[reason]}"
        )


@dataclass(frozen=True, slots=True)
class Declared:
    """A recipe's settings for recorded answers: the prompts' languages (None: any), and the tags of their thinking."""

    languages: Collection[str] | None = None
    reasoning: tuple[str, str] | None = None


def read_recorded(
    index: PromptIndex,
    lane: Provenance,
    declared: Declared = Declared(),
    *,
    detect: Detect | None,
    config_id: str,
    batch_rows: int = 2000,
) -> Iterator[LandedAnswers]:
    """Yield recorded rows as completions (origin "recorded") or rejections.

    Several answers to a prompt are its samples 0, 1, ... in the order of the file, and their ids are derived from
    ``lane.settings_id``, prompt and sample. With ``join = "prompt_text"``, the key must be the text of a single-turn
    prompt, ignoring outer white space. A conversation before the answer must equal the prompt, ignoring system turns.
    Answers to prompts in languages that are not declared are rejected.

    Raises:
        InputError: the file is missing or cannot be read, lacks a column, none of its rows has the right shape, or one
            names row 0 of a source whose rows are counted from 1.
    """
    recorded = index.recorded
    rows = refuse_hopeless(
        (_read_row(raw, index, declared.languages) for raw in open_recorded(recorded)),
        recorded.path,
    )
    while batch := list(islice(rows, batch_rows)):
        for row in batch:
            row |= (
                _split_text(row["text"], declared.reasoning)
                if row["text"] is not None and row["reasoning"] is None
                else {}
            )
        kept = [row for row in batch if row["reason"] is None]
        for row in kept:
            row |= _make_completion(row, lane, index.count_answer(row["prompt_id"]))
        for row, measures in zip(
            kept, measure_languages([(row["text"], row["language"]) for row in kept], detect), strict=True
        ):
            row |= measures
        dropped = [row for row in batch if row["reason"] is not None]
        yield LandedAnswers(
            make_frame("completions", kept),
            make_frame("rejections", [_make_rejection(row, lane, config_id) for row in dropped]),
            make_frame("rejections", _explain_by_text(dropped, lane, config_id)),
        )


def open_recorded(recorded: Recorded) -> Iterator[RawRow]:
    """Yield recorded rows unchanged.

    Raises:
        InputError: the file is missing or cannot be read, or lacks a column.
    """
    columns = recorded.columns
    needed = [column for column in (columns.text, columns.messages) if column is not None]
    others = [column for column in list_columns(columns) if column not in needed]
    refuse_absent(recorded.path, needed, others)
    yield from read_file_rows(recorded.path, needed, others)


def _read_row(raw: RawRow, index: PromptIndex, languages: Collection[str] | None) -> Row:
    row: Row = dict.fromkeys(("reason", "detail", "language", "text", "reasoning")) | {"row": raw.row}
    found = raw.fault
    if raw.value is not None:
        _refuse_row_zero(raw.value, raw.where, index)
        try:
            found = _join(raw.value, index, row) or _find_other_language(row["language"], languages)
        except LookupError as error:
            found = Failure(Reason.INVALID_ROW, str(error.args[0]))
        except RowError as error:
            found = Failure(error.reason, error.detail)
    if found is not None:
        row |= {"reason": found.reason.value, "detail": f"{raw.where}: {found.detail}"}
    return row


def _refuse_row_zero(value: Row, where: str, index: PromptIndex) -> None:
    """Refuse a file that counts rows from 0, whose answers would all be joined to the prompt before their own."""
    key = index.recorded.columns.key
    named = None if key is None or index.recorded.join == "prompt_text" else read_id(value, key)
    if named is not None and index.is_row_zero(named):
        raise InputError(
            f"{where} of the recorded answers has the key {named[0]!r}; the rows of a source without ids are counted from 1"
        )


def _join(value: Row, index: PromptIndex, row: Row) -> Failure | None:
    columns = index.recorded.columns
    answer = read_answer(value, columns.text, columns.messages)
    row |= {"text": answer.text, "reasoning": answer.reasoning}
    key = _read_key(value, index.recorded, answer)
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
    row |= {"prompt_id": found[0], "language": found[1]}
    return index.compare(found[0], answer.asked) if answer.asked else None


def _find_other_language(language: str, languages: Collection[str] | None) -> Failure | None:
    if languages is None or language in languages:
        return None
    return Failure(
        Reason.OTHER_LANGUAGE, f"it answers a prompt in {language}; the teacher's languages are {', '.join(languages)}"
    )


def _read_key(value: Row, recorded: Recorded, answer: Answer) -> list[str] | None:
    """Return the parts of the key of the prompt: a row's id, or the text of the question; None if it is missing."""
    key = recorded.columns.key
    if key is None:
        return [answer.asked[0]["content"]] if [turn["role"] for turn in answer.asked] == ["user"] else None
    if recorded.join == "source_row" or isinstance(key, str):
        return read_id(value, key)
    parts = [part for column in key for part in read_id(value, column) or ()]
    return [join_texts(parts)] if parts else None


def _split_text(text: str, tags: tuple[str, str] | None) -> Row:
    if tags is None:
        return {}
    answer, reasoning, is_whole = split_reasoning(text, tags, is_thinking=False)
    return {"text": answer, "reasoning": reasoning} | ({} if is_whole else {"finish_reason": "length"})


def _make_completion(row: Row, lane: Provenance, sample_index: int) -> Row:
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


def _make_rejection(row: Row, lane: Provenance, config_id: str) -> Row:
    return make_rejection(
        content_id("recorded_row", [lane.settings_id, row["row"]]),
        STAGE,
        Failure(Reason(row["reason"]), row["detail"]),
        config_id=config_id,
        lane=lane,
        language=row["language"],
    )


def make_answer_id(text: str) -> str:
    """Return the id of an answer's text; the same as in ``sql/recorded/unjoined.sql``."""
    return content_id("answer", [text])


def _explain_by_text(dropped: Sequence[Row], lane: Provenance, config_id: str) -> list[Row]:
    """Return rejections for stored answers with the same text as a dropped row; the first one for equal texts."""
    first = {
        row["text"]: row for row in reversed(dropped) if row["text"] is not None and not find_text_fault(row["text"])
    }
    return [
        make_rejection(
            make_answer_id(text),
            REJOIN_STAGE,
            Failure(Reason(row["reason"]), f"no row joins this answer any more; {row['detail']}"),
            config_id=config_id,
            lane=lane,
        )
        for text, row in first.items()
    ]
