"""Sources of prompts, and the gates that a prompt must pass."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from schemas.languages import MIN_SCRIPT_SHARE
from schemas.toml.section import LATER, PLACE, DataName, Section, check_languages, resolve_path


class ConversationColumns(Section):
    """The columns of a conversation; dots reach into nested fields (``prompt.text``, ``turns.0``).

    ``messages`` is a whole conversation. ``prompt`` is a user's turn as text, optionally with the ``input`` that it is
    about (as in Alpaca) and the ``history`` of earlier questions and answers.
    """

    prompt: str | None = None
    input: Annotated[str | None, LATER] = None
    history: Annotated[str | None, LATER] = None
    messages: str | None = None
    system: str | None = None
    language: str | None = None


class PromptColumns(ConversationColumns):
    """The columns of a source. Without ``prompt`` and ``messages``, they are recognized by their usual names.

    Several columns may make up the ``id``; it is then the JSON list of their values as text.
    """

    id: str | tuple[str, ...] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if self.prompt is not None and self.messages is not None:
            raise ValueError("at most one of 'prompt' (single-turn text) and 'messages' (a conversation) is allowed")
        return self


class PromptSource(Section):
    """``[[prompts]]``: a file (Parquet, JSONL, CSV; globs allowed) or a Hugging Face dataset (hub id or local).

    ``split`` allows slices and sums: ``train[:10%]+test``.
    """

    name: str = Field(min_length=1)
    path: Annotated[Annotated[str, AfterValidator(resolve_path)] | None, PLACE] = None
    dataset: DataName | None = None
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: PromptColumns = PromptColumns()
    language: str | None = None
    limit: int | None = Field(default=None, gt=0)
    eval_percent: float = Field(default=5.0, ge=0, le=100)
    licence: str | None = None

    def limited_to(self, limit: int | None) -> Self:
        """Return the source with the smaller of its own limit and another one."""
        return self if limit is None else self.model_copy(update={"limit": min(limit, self.limit or limit)})

    @field_validator("language")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        return None if value is None else check_languages((value,))[0]

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("exactly one of 'path' (a file) and 'dataset' (a Hugging Face dataset) is needed")
        if self.path is not None and (self.config or self.revision or self.split != "train"):
            raise ValueError("'config', 'split' and 'revision' belong to 'dataset'; a file is always read whole")
        if (self.language is None) == (self.columns.language is None):
            raise ValueError("exactly one of 'language' (one for all rows) and 'columns.language' is needed")
        return self


class PromptGates(Section):
    """``[prompt_gates]``: what a prompt must pass. A similarity of 0 turns off the removal of near-duplicates.

    ``language`` switches ``min_language_score`` and ``min_script_share`` on or off. The latter is the minimum share of
    letters that must be in the language's script, not counting names, quotations and code.
    """

    language: bool = True
    min_language_score: float = Field(default=0.5, ge=0, le=1)
    min_script_share: Annotated[float, LATER] = Field(default=MIN_SCRIPT_SHARE, ge=0, le=1)
    near_duplicate_similarity: float = Field(default=0.9, ge=0, le=1)
    max_chars: int = Field(default=200_000, gt=0)
