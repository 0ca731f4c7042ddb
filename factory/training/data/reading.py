"""Reading training rows, as conversations or texts, from an export, from files, or from a Hugging Face dataset."""

import json
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from factory.conversations import forms as conversations
from factory.conversations.formats import (
    Layout,
    Task,
    find_layout,
    find_optional,
    list_content_columns,
    read_conversation,
)
from factory.inputs.files import RawRow, read_dataset_rows, read_file_columns, read_file_rows, show_columns
from factory.inputs.finding import find_files, is_on_hub
from factory.inputs.folders import has_card_with_files
from factory.inputs.hf_datasets import is_saved_dataset, open_dataset
from factory.inputs.row import RowError
from factory.inputs.text_faults import find_fault_within
from schemas.errors import InputError
from schemas.languages import find_language
from schemas.names import suggest
from schemas.reasons import Reason
from schemas.recipe.training import TrainSettings

Messages: TypeAlias = conversations.Messages

_IDS = ("pair_id", "completion_id", "id", "row_id")


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row: a prompt and one answer (SFT) or two (chosen, rejected).

    ``prompt`` and ``answers`` are texts or conversations. A whole SFT conversation is in ``prompt``, without answers.
    ``tools`` are the definitions of the functions that it may call.
    """

    row: str
    language: str
    prompt: str | Messages
    answers: tuple[str | Messages, ...]
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that cannot be used, and why."""

    row: str
    language: str
    reason: Reason
    detail: str


def read_rows(
    settings: TrainSettings,
    data: str,
    split: str,
    *,
    may_be_empty: bool = False,
    others: Counter[str] | None = None,
) -> Iterator[TextRow | Rejected]:
    """Yield the rows of a data set, in order, that have the languages and strategies of the settings.

    If rows are selected, those with an empty column or an unknown language are rejected. Rows of other languages or
    strategies are skipped and counted in ``others``, by the name of the column.

    Raises:
        InputError: the data does not exist or lacks columns, or no row is selected and ``may_be_empty`` is false.
    """
    is_export = read_export_id(data) is not None
    if is_export:
        config = settings.dataset_config or ("preference" if settings.is_preference else "sft")
        data = _name_shards(Path(data), config, split)
    wanted = _Wanted(settings)
    layout, raw = _open(settings, data, split, wanted)
    for row in raw:
        if row.value is not None and (other := wanted.find_other(row.value)):
            if others is not None:
                others[other] += 1
            continue
        parsed = _parse(row, layout, wanted)
        yield _without_history(parsed) if is_export and isinstance(parsed, TextRow) else parsed
    if not may_be_empty:
        wanted.refuse_nothing(data)


def _open(settings: TrainSettings, data: str, split: str, wanted: "_Wanted") -> tuple[Layout, Iterator[RawRow]]:
    """Return the layout of the columns, and an iterator over the raw rows."""
    if is_files(settings.dataset_config, data, split):
        if split != "train" and data == settings.data:
            raise InputError(f"split '{split}' was given, but {data} has no splits: a file is always read whole")
        known = list_content_columns(settings.columns.named() if settings.columns else None)
        layout, others = _find_columns(settings, read_file_columns(data, known), data, wanted)
        return layout, read_file_rows(data, layout.needed, [*layout.optional, *others])
    config = settings.dataset_config
    revision = settings.revision if data == settings.data else settings.eval_revision
    dataset = open_dataset(data, config=config, split=split, revision=revision)
    layout, others = _find_columns(settings, dataset.column_names, f"dataset '{data}'", wanted)
    return layout, read_dataset_rows(dataset, data, layout.needed, [*layout.optional, *others], split=split)


def is_files(config: str | None, data: str, split: str) -> bool:
    """Whether data are files that this module reads: a file, a glob, or a folder with the shards of one table.

    Any other folder is loaded with the datasets library.
    """
    folder = Path(data)
    if not folder.is_dir():
        return not is_on_hub(data)
    if is_saved_dataset(folder) or has_card_with_files(folder) or config is not None or split != "train":
        return False
    try:
        return bool(find_files(data))
    except InputError:
        return False  # the datasets library can choose among several splits; ``open_dataset`` refuses several kinds


def _find_columns(settings: TrainSettings, names: list[str], where: str, wanted: "_Wanted") -> tuple[Layout, list[str]]:
    """Return the layout of the conversation, and the names of the id, language and strategy columns."""
    given = settings.columns.named() if settings.columns else {}
    task: Task = "preference" if settings.is_preference else "sft"
    for column, asked in wanted.asked.items():
        if column.partition(".")[0] not in names:
            raise InputError(f"{where} has no column '{column}' to select rows by ({', '.join(asked)})")
    if lacking := [
        column for column in given.values() if column.partition(".")[0] not in names and column not in names
    ]:
        raise InputError(
            f"{where} has no column '{lacking[0]}'{suggest(lacking[0], names)}; there are {show_columns(names)}"
        )
    layout = find_layout(names, given, task, where=where, form=settings.format)
    return layout, [wanted.id or next((name for name in _IDS if name in names), "id"), *wanted.columns.values()]


class _Wanted:
    """Selects rows by language and strategy, and counts what there was.

    ``columns`` are the names of the language and strategy columns, ``id`` that of the id column. ``asked`` maps columns
    to the selected values; columns without a selection are left out.
    """

    def __init__(self, settings: TrainSettings) -> None:
        named = settings.columns
        self.id = named and named.id
        self.columns = {
            "language": (named and named.language) or "language",
            "strategy": (named and named.strategy) or "strategy",
        }
        asked = {
            self.columns["language"]: set(map(name_language, settings.languages)),
            self.columns["strategy"]: set(settings.strategies),
        }
        self.asked = {column: names for column, names in asked.items() if names}
        self._found = {column: Counter[str]() for column in self.asked}

    def find_other(self, value: dict[str, object]) -> str | None:
        """Return the first column whose value in the row is valid but not selected; None if the row is selected."""
        found: list[str] = []
        for column, names in self.asked.items():
            name = self._name(column, find_optional(value, column))
            self._found[column][name or "none"] += 1
            if name not in names and self._is_known(column, name):
                found.append(column)
        return found[0] if found else None

    def refuse_unknown(self, value: dict[str, object]) -> None:
        """Raise a RowError if a row has no valid value in a column by which rows are selected."""
        for column, names in self.asked.items():
            given = find_optional(value, column)
            name = self._name(column, given)
            if name in names or self._is_known(column, name):
                continue
            is_language = column == self.columns["language"]
            fault = "is empty" if not name else f"is {given!r:.60}, which is not a known language"
            asked = f"{'languages' if is_language else 'strategies'} = {sorted(names)}"
            reason = Reason.UNKNOWN_LANGUAGE if is_language else Reason.INVALID_ROW
            raise RowError(f"'{column}' {fault}; rows are selected by {asked}", reason)

    def _name(self, column: str, given: object) -> str:
        return name_language(given) if column == self.columns["language"] else "" if given is None else str(given)

    def _is_known(self, column: str, name: str) -> bool:
        return find_language(name) is not None if column == self.columns["language"] else bool(name)

    def refuse_nothing(self, where: str) -> None:
        """Warn of selected languages and strategies that no row had.

        Raises:
            InputError: no selected value of a column occurred; the message lists the values that did.
        """
        for column, names in self.asked.items():
            counts = self._found[column]
            lacking = names - counts.keys()
            if not counts or not lacking:
                continue
            there = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(20))
            sentence = f"no row of {where} has the {column} {' or '.join(sorted(lacking))}; there are {there}"
            if lacking == names:
                raise InputError(sentence)
            warnings.warn(sentence, stacklevel=2)


def name_language(name: object) -> str:
    """Return the code of a language, the name itself if the language is unknown, or "" for None."""
    text = "" if name is None else str(name)
    return find_language(text) or text


def read_export_id(data: str) -> str | None:
    """Return the id of an export of this project; None for other data, even if it has a manifest of its own."""
    try:
        found = json.loads((Path(data) / "manifest.json").read_bytes())
    except (OSError, ValueError):
        return None
    return found.get("export_id") if isinstance(found, dict) else None


def has_eval_split(settings: TrainSettings) -> bool:
    """Whether the training data is an export with an eval split."""
    if read_export_id(settings.data) is None:
        return False
    config = settings.dataset_config or ("preference" if settings.is_preference else "sft")
    return any((Path(settings.data) / config).glob("eval-*"))


def _name_shards(folder: Path, config: str, split: str) -> str:
    """Return a glob for the shards of one split of an export."""
    for suffix in (".parquet", ".jsonl"):
        if any((folder / config).glob(f"{split}-*{suffix}")):
            return str(folder / config / f"{split}-*{suffix}")
    raise InputError(f"export {folder} has no shards of split '{split}' in '{config}'")


def _without_history(row: TextRow) -> TextRow:
    """Return the row with weight 0 for all turns but the last of its conversation.

    In an export only the last turn is an answer that was gated, scored and routed. The earlier turns are its prompt;
    they may be translations, or marked as untrained in their source.
    """
    if row.answers or isinstance(row.prompt, str):
        return row
    return replace(row, prompt=[*({**message, "weight": 0} for message in row.prompt[:-1]), row.prompt[-1]])


def _parse(raw: RawRow, layout: Layout, wanted: _Wanted) -> TextRow | Rejected:
    if raw.value is None:
        assert raw.fault is not None
        return Rejected(raw.where, "", raw.fault.reason, raw.fault.detail)
    value = raw.value
    named = (find_optional(value, column) for column in ((wanted.id,) if wanted.id else _IDS))
    name = next((str(found) for found in named if found is not None), raw.where)
    language = name_language(find_optional(value, wanted.columns["language"]))
    try:
        wanted.refuse_unknown(value)
        found = read_conversation(value, layout)
    except LookupError as error:
        return Rejected(name, language, Reason.INVALID_ROW, f"{raw.where}: {error.args[0]}")
    except RowError as error:
        return Rejected(name, language, error.reason, f"{raw.where}: {error.detail}")
    fault = find_fault_within([found.prompt, found.answers, found.tools])
    if fault is not None:
        return Rejected(name, language, fault.reason, f"{raw.where}: {fault.detail}")
    return TextRow(name, language, found.prompt, found.answers, found.tools)
