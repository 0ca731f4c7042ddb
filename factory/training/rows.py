"""Training rows as they are read: conversations or texts, from an export, from files, or from a Hugging Face dataset."""

import glob
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory.inputs.opening import find_kind
from factory.stages.files import RawRow, read_dataset_columns, read_dataset_rows, read_file_columns, read_file_rows
from schemas.errors import InputError
from schemas.paths import split_glob
from schemas.reasons import Reason
from schemas.training import TrainSettings

Messages = list[dict[str, Any]]
"""A conversation. Each message has ``role`` (system, user, assistant, tool) and ``content`` (text; "" where an assistant
only calls tools) and, where the row has them, ``reasoning_content``, ``tool_calls`` (OpenAI's form, ``arguments`` as a
dictionary), ``tool_call_id``, ``name`` and ``weight`` (0: not trained)."""

_IDS = ("pair_id", "completion_id", "id", "row_id")
_FORMS = {
    False: (("messages",), ("prompt", "completion")),
    True: (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
}
"""The columns that rows may have, for SFT and for preference training, the first that fits being taken."""


@dataclass(frozen=True, slots=True)
class TextRow:
    """One row: what is asked, and one answer (SFT) or two (chosen, rejected).

    ``prompt`` and ``answers`` are texts, or conversations. A conversation of SFT is in ``prompt`` as a whole. ``tools``
    are the definitions of the functions that it may call.
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


def read_rows(settings: TrainSettings, data: str, split: str) -> Iterator[TextRow | Rejected]:
    """Yield the rows of a data set, in its order.

    Raises:
        InputError: there is no such data, or it lacks the columns.
    """
    manifest = Path(data) / "manifest.json"
    if manifest.is_file():
        config = settings.dataset_config or ("preference" if settings.is_preference else "sft")
        data = _find_shards(Path(data), config, split)
    if find_kind(Path(data)) or glob.has_magic(data):
        if split != "train" and data == settings.data:
            raise InputError(f"split '{split}' is asked for, and {data} has none: of a file all rows are read")
        form, columns = _choose_columns(read_file_columns(data), data, settings)
        raw = read_file_rows(data, columns)
    else:
        config_name = settings.dataset_config
        names = read_dataset_columns(data, config=config_name, split=split)
        form, columns = _choose_columns(names, f"dataset '{data}'", settings)
        raw = read_dataset_rows(data, columns, config=config_name, split=split, revision=None)
    for row in raw:
        if row.value is None or _is_wanted(row.value, settings):
            yield _parse(row, form)


def _is_wanted(value: Mapping[str, Any], settings: TrainSettings) -> bool:
    """Whether a row is of the languages and strategies asked for."""
    asked = {"language": settings.languages, "strategy": settings.strategies}
    return all(value.get(column) in names for column, names in asked.items() if names)


def read_export_id(data: str) -> str | None:
    """Return the id of an export of this project; None for other data."""
    manifest = Path(data) / "manifest.json"
    return json.loads(manifest.read_bytes())["export_id"] if manifest.is_file() else None


def has_eval_split(settings: TrainSettings) -> bool:
    """Whether the training data is an export with an eval split that is not empty."""
    if not (Path(settings.data) / "manifest.json").is_file():
        return False
    config = settings.dataset_config or ("preference" if settings.is_preference else "sft")
    return any((Path(settings.data) / config).glob("eval-*"))


def find_files(pattern: str) -> list[Path]:
    """Return the files that a path or a glob names, in the order of their names."""
    if Path(pattern).is_file():
        return [Path(pattern)]
    base, below = split_glob(pattern)
    return sorted(found for found in base.glob(below) if found.is_file())


def _find_shards(folder: Path, config: str, split: str) -> str:
    for suffix in (".parquet", ".jsonl"):
        if any((folder / config).glob(f"{split}-*{suffix}")):
            return str(folder / config / f"{split}-*{suffix}")
    raise InputError(f"export {folder} has no shards of split '{split}' in '{config}'")


def _choose_columns(names: list[str], where: str, settings: TrainSettings) -> tuple[tuple[str, ...], list[str]]:
    """Return the form of the rows, and all columns to read."""
    for column, asked in (("language", settings.languages), ("strategy", settings.strategies)):
        if asked and column not in names:
            raise InputError(f"{where} has no column '{column}', by which rows were to be chosen ({', '.join(asked)})")
    filters = ["strategy"] if settings.strategies else []
    for form in _FORMS[settings.is_preference]:
        if set(form) <= set(names):
            extra = [name for name in ("language", next((name for name in _IDS if name in names), "")) if name in names]
            return form, [*form, *extra, *filters]
    allowed = " or ".join(" + ".join(form) for form in _FORMS[settings.is_preference])
    what = "preference training" if settings.is_preference else "SFT"
    raise InputError(f"{where} has the columns {', '.join(names) or 'none'}; {what} needs {allowed}")


def _parse(raw: RawRow, form: tuple[str, ...]) -> TextRow | Rejected:
    if raw.value is None:
        assert raw.fault is not None
        return Rejected(raw.where, "", raw.fault.reason, raw.fault.detail)
    value = raw.value
    name = next((str(value[column]) for column in _IDS if value.get(column) is not None), raw.where)
    language = str(value.get("language") or "")
    try:
        parts = [_check(value.get(column), column) for column in form]
        prompt, answers = _split(parts, form)
    except ValueError as error:
        return Rejected(name, language, Reason.INVALID_ROW, str(error))
    return TextRow(name, language, prompt, answers)


def _check(value: Any, column: str) -> str | Messages:
    """Return a text as it is, and a conversation as messages of plain texts."""
    if isinstance(value, str) and column != "messages":
        return value
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"'{column}' must be {'' if column == 'messages' else 'a text or '}a conversation, got {value!r:.60}"
        )
    for message in value:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"'{column}' must have messages with a role and a content, got {message!r:.60}")
    return [{"role": message["role"], "content": message["content"]} for message in value]


def _split(parts: list[str | Messages], form: tuple[str, ...]) -> tuple[str | Messages, tuple[str | Messages, ...]]:
    if form == ("messages",):
        return parts[0], ()
    if form == ("chosen", "rejected"):
        chosen, rejected = parts
        if isinstance(chosen, str) or isinstance(rejected, str):
            raise ValueError("without a column 'prompt', 'chosen' and 'rejected' must be whole conversations")
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        if not shared:
            raise ValueError("'chosen' and 'rejected' do not begin with the same message, so there is no prompt")
        parts = [chosen[:shared], chosen[shared:], rejected[shared:]]
    prompt, *answers = parts
    if isinstance(prompt, str) and not all(isinstance(answer, str) for answer in answers):
        raise ValueError("'prompt' is a text, so the answers must be texts too")
    if isinstance(prompt, list):
        answers = [
            [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer for answer in answers
        ]
    for answer in answers:
        if isinstance(answer, list) and [message["role"] for message in answer] != ["assistant"]:
            raise ValueError(f"an answer must be one message of the assistant, got {answer!r:.60}")
    return prompt, tuple(answers)
