"""Reading prompt sources: converts rows of many formats to conversations with a language and a row id."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import chain, islice

import polars as pl

from factory.conversations.formats import Layout, find_layout, find_optional, list_content_columns, read_conversation
from factory.engines.base import Failure, Message
from factory.inputs.files import RawRow, read_dataset_rows, read_file_columns, read_file_rows, refuse_absent
from factory.inputs.finding import find_files
from factory.inputs.hf_datasets import find_overlap, open_dataset
from factory.inputs.row import Row, RowError
from factory.inputs.text_faults import NO_UTF8, find_text_fault
from factory.stages.outputs import clean_detail
from schemas.errors import InputError
from schemas.ids import Json, content_id, file_digest
from schemas.languages import find_language
from schemas.reasons import Reason
from schemas.recipe.prompts import PromptSource
from schemas.toml.section import identify, list_columns

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
"""The dtype of a conversation."""

RAW_ROWS: dict[str, pl.DataType] = {
    "row": pl.String(),
    "source_row": pl.String(),
    "key": pl.String(),
    "language": pl.String(),
    "messages": MESSAGES,
    "prompt_id": pl.String(),
    "is_read": pl.Boolean(),
    "reason": pl.String(),
    "detail": pl.String(),
}
"""What ``read_source`` yields. ``row`` is the row's place, unique within the source; ``source_row`` its id or, where the
source has no id column, the place again; null where the id is null. ``key`` is the same as JSON: an id is a list of
texts, a place a text, so that no place is ever taken for an id. ``is_read`` is false of rows beyond the source's limit.
A row with a ``reason``
could not be read; its messages are null then, and ``prompt_id`` is null where there are no messages."""

_EXACT = float(2**53)
"""Below this every whole number has a float of its own, so that an id is still the one that it was."""

HOPELESS_ROWS = 1000
"""A source whose first rows, as many as this, are all malformed or not UTF-8 is refused as a whole."""


def read_source(source: PromptSource, *, beyond: int | None = 0, batch_rows: int = 1000) -> Iterator[pl.DataFrame]:
    """Yield a source's rows, in their order, in frames of ``RAW_ROWS`` with at most ``batch_rows`` rows.

    ``source.limit`` counts the rows that are read. After them come, in frames of their own, up to ``beyond`` more
    (None: all of them), which are not read as prompts but may be named by recorded answers. A conversation that ends with an
    assistant's turn loses that turn: it is the answer, not the prompt.

    Raises:
        InputError: the source is missing or cannot be read, lacks a column, or no row of its beginning has the right
            shape. A single bad row is yielded with its reason instead.
    """
    layout, raw = _open(source)
    rows = (_read_row(each, source, layout) for each in raw)
    yield from _make_frames(refuse_hopeless(islice(rows, source.limit), source.name), batch_rows, is_read=True)
    yield from _make_frames(islice(rows, beyond), batch_rows, is_read=False)


def _make_frames(rows: Iterator[Row], batch_rows: int, *, is_read: bool) -> Iterator[pl.DataFrame]:
    while batch := [row | {"is_read": is_read} for row in islice(rows, batch_rows)]:
        yield pl.DataFrame(batch, schema=RAW_ROWS, orient="row")


def identify_sources(sources: Sequence[PromptSource], settings: Json) -> str | None:
    """Return an id of the content of all sources and ``settings``, which determine the prompts that are made of them.

    None if a source is a Hugging Face dataset, whose rows may change unnoticed.

    Raises:
        InputError: a file is missing, cannot be read, or is of no known kind.
    """
    parts: list[Json] = [settings]
    for source in sources:
        if source.path is None:
            return None
        paths, base = find_files(source.path)
        try:
            files = [
                [path.suffix if base is None else path.relative_to(base).as_posix(), file_digest(path)]
                for path in paths
            ]
        except OSError as error:
            raise InputError(f"{source.path} cannot be read: {error}") from error
        parts.append([identify(source), files])
    return content_id("sources", parts)


def open_rows(source: PromptSource, labels: Sequence[str] = ()) -> Iterator[RawRow]:
    """Yield a source's rows unchanged, with the columns that it maps and, where they exist, ``labels``.

    Raises:
        InputError: the source is missing or cannot be read, or lacks a column.
    """
    return islice(_open(source, labels)[1], source.limit)


def make_prompt_id(language: str, messages: Sequence[Message]) -> str:
    """Return the id of a source prompt."""
    return content_id("prompt", [language, [{"role": turn["role"], "content": turn["content"]} for turn in messages]])


def _open(source: PromptSource, labels: Sequence[str] = ()) -> tuple[Layout, Iterator[RawRow]]:
    """Return the layout of a source's columns, and an iterator over all of its rows, ignoring its limit."""
    if source.path is not None:
        layout = _find_layout(source, partial(read_file_columns, source.path, list_content_columns()))
        return layout, _open_files(source.path, layout, list_columns(source.columns), labels)
    name = str(source.dataset)
    dataset = open_dataset(name, config=source.config, split=source.split, revision=source.revision)
    if overlap := find_overlap(dataset, source.split):
        raise InputError(f"split '{source.split}' of dataset '{name}' selects rows of '{overlap}' more than once")
    layout = _find_layout(source, lambda: dataset.column_names)
    needed = [*layout.needed, *labels, *list_columns(source.columns)]
    return layout, read_dataset_rows(dataset, name, needed, layout.optional, split=source.split)


def _find_layout(source: PromptSource, list_names: Callable[[], list[str]]) -> Layout:
    """Return the layout of a source's columns, from its settings or the columns' names."""
    given = {part: column for part, column in source.columns if column is not None and part not in {"language", "id"}}
    is_told = source.columns.messages is not None or source.columns.prompt not in {None, "instruction"}
    names = [] if is_told else list_names()
    return find_layout(names, given, "prompts", where=f"the source '{source.name}'")


def _open_files(path: str, layout: Layout, named: Sequence[str], labels: Sequence[str]) -> Iterator[RawRow]:
    needed = [*layout.needed, *labels]
    others = [column for column in named if column not in needed]
    refuse_absent(path, needed, others)
    return read_file_rows(path, needed, list(dict.fromkeys([*layout.optional, *others])))


def refuse_hopeless(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Pass rows on, but refuse the source if all of its first rows are malformed or not UTF-8.

    Raises:
        InputError: with the detail of the first row.
    """
    bad: list[Row] = []
    for row in rows:
        bad.append(row)
        is_no_utf8 = row["reason"] == Reason.INVALID_TEXT and f": {NO_UTF8}: " in row["detail"]
        if row["reason"] != Reason.INVALID_ROW and not is_no_utf8:
            break
        if len(bad) == HOPELESS_ROWS:
            raise InputError(f"no row of '{name}' can be read; first row: {bad[0]['detail']}")
    else:
        if bad:
            raise InputError(f"no row of '{name}' can be read; first row: {bad[0]['detail']}")
    yield from chain(bad, rows)


def read_id(value: Row, columns: str | Sequence[str]) -> list[str] | None:
    """Return a row's id: the values of its columns as text; None if one of them is missing, null or empty.

    Whole numbers are the same id in all types that represent them exactly: 1, 1.0 and "1" are equal, "01" is different.
    """
    parts = [_id_text(find_optional(value, column)) for column in ([columns] if isinstance(columns, str) else columns)]
    return None if None in parts else [part for part in parts if part is not None]


def show_id(parts: Sequence[str]) -> str:
    """Return an id in a form for people: a single value, or the JSON list of several."""
    return parts[0] if len(parts) == 1 else json.dumps(list(parts), ensure_ascii=False)


def make_key(named: str | Sequence[str]) -> str:
    """Return the key of a row, as JSON: a list for its id, or a text for its place if the source has no ids."""
    return json.dumps(named if isinstance(named, str) else list(named), ensure_ascii=False)


def _id_text(value: object) -> str | None:
    if isinstance(value, float | Decimal):
        if math.isnan(value):
            return None
        if -_EXACT < value < _EXACT and value == int(value):
            return str(int(value))
    return None if value is None or value == "" else str(value)


def _read_row(raw: RawRow, source: PromptSource, layout: Layout) -> Row:
    row: Row = {"row": raw.row, "source_row": raw.row, "key": make_key(raw.row), "language": source.language}
    row |= {"messages": None} if source.columns.id is None else {"messages": None, "source_row": None, "key": None}
    fault = raw.fault
    if raw.value is not None:
        row |= _map_columns(raw.value, source)  # first, because a row without a valid prompt still has an id
        try:
            row["messages"] = _read_prompt(raw.value, layout)
            fault = _find_fault(row)
        except LookupError as error:
            fault = Failure(Reason.INVALID_ROW, str(error.args[0]))
        except RowError as error:
            reason = Reason.EMPTY_PROMPT if error.reason is Reason.EMPTY else error.reason
            fault = Failure(reason, error.detail)
    if fault is None:
        prompt_id = make_prompt_id(row["language"], row["messages"]) if row["messages"] else None
        return row | {"prompt_id": prompt_id, "reason": None, "detail": None}
    row |= {name: None for name in ("source_row", "key", "language") if find_text_fault(row[name] or "")}
    detail = clean_detail(f"{raw.where}: {fault.detail}")
    return row | {"messages": None, "reason": fault.reason.value, "detail": detail}


def _map_columns(value: Row, source: PromptSource) -> Row:
    columns = source.columns
    mapped: Row = {}
    if columns.id is not None and (parts := read_id(value, columns.id)) is not None:
        mapped |= {"source_row": show_id(parts), "key": make_key(parts)}
    if columns.language is not None:
        mapped["language"] = _read_language(find_optional(value, columns.language))
    return mapped


def _read_language(value: object) -> str:
    """Return the code of a language, or the value itself if the language is unknown."""
    name = "" if value is None else str(value)
    return find_language(name) or name


def _read_prompt(value: Row, layout: Layout) -> list[Message]:
    """Return the prompt: a conversation without an answer at its end.

    Raises:
        RowError: it contains something other than the roles and texts that a prompt may have.
    """
    found = read_conversation(value, layout)
    assert isinstance(found.prompt, list)
    if found.tools or any(turn["role"] == "tool" or "tool_calls" in turn for turn in found.prompt):
        raise RowError("the conversation uses tools, which prompts cannot have")
    turns = list(found.prompt)
    while turns and turns[-1]["role"] == "assistant":
        turns.pop()
    messages = []
    for at, turn in enumerate(turns):
        if turn["role"] == "system" and at > 0:
            raise RowError(f"turn {at} has the role 'system'; allowed are system (first only), user, assistant")
        if others := turn.keys() - {"role", "content", "weight"}:
            raise RowError(f"turn {at} has '{min(others)}', which prompts cannot have")
        messages.append(Message(role=turn["role"], content=turn["content"]))
    return messages


def _find_fault(row: Row) -> Failure | None:
    texts = [row["source_row"] or "", row["language"], *(message["content"] for message in row["messages"])]
    return next((fault for text in texts if (fault := find_text_fault(text))), None)
