"""Finding the prompt of a recorded answer by its key, among all rows of the sources."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import polars as pl

from factory.conversations.forms import Message
from factory.engines.base import Failure
from factory.inputs.row import Row
from factory.stages.prompts import make_text_id
from factory.stages.scratch_database import open_scratch
from factory.stages.sources import make_key, show_id
from schemas.ids import content_id
from schemas.languages import LANGUAGES
from schemas.reasons import Reason
from schemas.recipe.models import Recorded

_Named: TypeAlias = tuple[str, str, str | None, bool, str, str | None]
"""A key, its prompt's id and language (if known), whether that is the row's own prompt, its place, why it was dropped."""


class PromptIndex:
    """Maps the keys of recorded rows to prompts, and counts the answers of each prompt; on disk.

    A key refers to all rows that have it, whether they became prompts or were dropped. If these rows have different
    prompts, the key is ambiguous; an unreadable row counts as a different prompt. The same prompt in several rows is
    one.
    """

    def __init__(self, recorded: Recorded, rows: Iterable[pl.DataFrame], prompts: Iterable[pl.DataFrame]) -> None:
        """Index the rows of the sources and the prompts in scope.

        Args:
            recorded: how its rows are joined.
            rows: source, row, key, language, prompt_id and text_id as in ``source_rows``, and ``why`` a row was dropped
                (null: it was not, or the reason is unknown).
            prompts: prompt_id, language, parent_id, messages and is_kept of source prompts and of translations.
        """
        self.recorded = recorded
        self._translated: set[str] = set()
        self._numbered: set[str] = (
            set()
        )  # what precedes the numbers of rows without ids: nothing, or a file and a colon
        self._index = open_scratch(
            "CREATE TABLE named (key TEXT, prompt_id TEXT, language TEXT, is_own INTEGER, place TEXT, why TEXT, "
            "PRIMARY KEY (key, prompt_id)) WITHOUT ROWID",
            "CREATE TABLE kept (prompt_id TEXT PRIMARY KEY, origin_id TEXT, language TEXT, asked_id TEXT, shown TEXT) "
            "WITHOUT ROWID",
            "CREATE INDEX by_origin ON kept (origin_id, language)",
            "CREATE TABLE answers (prompt_id TEXT PRIMARY KEY, num INTEGER) WITHOUT ROWID",
        )
        for frame in rows:
            self._add_named(self._name_rows(frame.to_dicts()))
        for frame in prompts:
            self._add_prompts(frame.to_dicts())

    def find(self, key: Sequence[str], language: str | None) -> tuple[str, str] | Failure:
        """Return the id and language of the prompt that a key and, if given, a language refer to; else a failure.

        Without a language, the source prompt is meant and not its translations, which have the same key.
        """
        by_row = self.recorded.join == "source_row"
        named = f"{self.recorded.join} {show_id(key)[:80]!r}" + (f" in {language}" if language else "")
        found: list[tuple[str, str, str | None]] = self._index.execute(
            # A prompt has at most two rows, one by its id and one by its place, so among three rows are two prompts.
            "SELECT prompt_id, min(place), why FROM ("
            "SELECT prompt_id, place, why FROM named WHERE key IN (SELECT value FROM json_each(:keys)) "
            "AND iif(:language IS NULL, is_own, language IS NULL OR language = :language OR :any) LIMIT 3"
            ") GROUP BY prompt_id ORDER BY 2",
            {
                "keys": json.dumps(self._spell(key)),
                "language": language,
                "any": by_row and language in self._translated,
            },
        ).fetchall()
        if not found:
            return Failure(Reason.NO_SUCH_PROMPT, f"no prompt in scope has the {named}")
        prompt_id, place, why = found[0]
        if len(found) > 1:
            return Failure(
                Reason.AMBIGUOUS_KEY, f"several prompts have the {named}: that of {place}, that of {found[1][1]}"
            )
        column = "origin_id" if by_row and language else "prompt_id"
        sql = f"SELECT prompt_id, language FROM kept WHERE {column} = ? AND language = coalesce(?, language)"
        kept: tuple[str, str] | None = self._index.execute(sql, [prompt_id, language]).fetchone()
        if kept is not None:
            return kept
        detail = f"the prompt with the {named}, that of {place}, was dropped or is not in scope"
        return Failure(Reason.NO_SUCH_PROMPT, f"{detail}: {why}" if why else detail)

    def compare(self, prompt_id: str, asked: Sequence[Message]) -> Failure | None:
        """Return a failure if a prompt in scope differs from the turns ``asked``, ignoring outer white space."""
        sql = "SELECT asked_id, shown FROM kept WHERE prompt_id = ?"
        asked_id, shown = self._index.execute(sql, [prompt_id]).fetchall()[0]
        if asked_id == _make_asked_id(asked):
            return None
        detail = f"the row asks {_show(asked)}, but the prompt of its key asks {shown}"
        return Failure(Reason.OTHER_QUESTION, detail)

    def is_row_zero(self, key: Sequence[str]) -> bool:
        """Whether a key that is not the id of a row seems to be row 0 of a source without ids, which counts from 1."""
        if len(key) > 1 or not key[0].endswith("0") or key[0][:-1] not in self._numbered:
            return False
        return self._index.execute("SELECT 1 FROM named WHERE key = ?", [make_key(key)]).fetchone() is None

    def count_answer(self, prompt_id: str) -> int:
        """Count an answer to a prompt; return how many there were before."""
        sql = "INSERT INTO answers VALUES (?, 1) ON CONFLICT DO UPDATE SET num = num + 1 RETURNING num - 1"
        return int(self._index.execute(sql, [prompt_id]).fetchall()[0][0])

    def _spell(self, key: Sequence[str]) -> list[str]:
        """Return all possible meanings of a key: a text, or an id and (for a single value) the place of a row."""
        if self.recorded.join == "prompt_text":
            return [make_text_id(key[0])]
        return [make_key(key), *([make_key(key[0])] if len(key) == 1 else [])]

    def _name_rows(self, rows: Iterable[Row]) -> Iterator[_Named]:
        for row in rows:
            key = row["key" if self.recorded.join == "source_row" else "text_id"]
            if key is not None and self.recorded.source in {None, row["source"]}:
                if key == make_key(row["row"]):
                    self._numbered.add(row["row"].rstrip("0123456789"))
                place = f"row {row['row']} of {row['source']!r}"
                language = row["language"] if row["language"] in LANGUAGES else None
                yield key, row["prompt_id"] or place, language, True, place, row["why"]

    def _add_prompts(self, prompts: Sequence[Row]) -> None:
        kept = [
            (row["prompt_id"], row["parent_id"] or row["prompt_id"], row["language"], *_describe(row["messages"]))
            for row in prompts
            if row["is_kept"]
        ]
        self._index.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?, ?)", kept)
        translations = [row for row in prompts if row["parent_id"] is not None]
        self._translated.update(row["language"] for row in translations)
        if self.recorded.join == "prompt_text":
            self._add_named(self._name_translations(translations))

    def _name_translations(self, translations: Iterable[Row]) -> Iterator[_Named]:
        for row in translations:
            turns = [message["content"] for message in row["messages"] if message["role"] != "system"]
            if len(turns) == 1 and self.recorded.source in {None, row["source"]}:
                place = f"the translation {row['prompt_id']}"
                yield make_text_id(turns[0]), row["prompt_id"], row["language"], False, place, None

    def _add_named(self, named: Iterable[_Named]) -> None:
        self._index.executemany("INSERT OR IGNORE INTO named VALUES (?, ?, ?, ?, ?, ?)", named)


def _describe(messages: Sequence[Message]) -> tuple[str, str]:
    """Return an id by which a prompt's turns (without system turns) are compared, and a text that shows them."""
    turns = [message for message in messages if message["role"] != "system"]
    return _make_asked_id(turns), _show(turns)


def _make_asked_id(turns: Sequence[Message]) -> str:
    return content_id("asked", [[turn["role"], turn["content"].strip()] for turn in turns])


def _show(turns: Sequence[Message]) -> str:
    text = turns[0]["content"].strip() if turns else ""
    return f"{text[:60]!r} ({len(text)} characters, turn 1 of {len(turns)})"
