"""How answers are curated: gates, rewards, routing, preference pairs and the export."""

from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from schemas.languages import MIN_SCRIPT_SHARE
from schemas.toml.section import LATER, FilePath, Names, Section, check_languages


class Gates(Section):
    """``[gates]``: what a completion must pass before it is scored.

    ``language`` and its thresholds mean the same as in ``[prompt_gates]``.
    """

    language: bool = True
    min_language_score: float = Field(default=0.3, ge=0, le=1)
    min_script_share: Annotated[float, LATER] = Field(default=MIN_SCRIPT_SHARE, ge=0, le=1)
    truncated: bool = True
    stray_reasoning: Annotated[bool, LATER] = True
    min_chars: int = Field(default=1, ge=0)
    max_chars: int = Field(default=100_000, gt=0)
    max_repetition: float = Field(default=0.5, ge=0, le=1)
    refusal_patterns: Names = ()


class Rewards(Section):
    """``[rewards]``: how the scores of several reward models are combined, within each prompt."""

    combine: Literal["mean_rank", "mean_zscore"] = "mean_rank"


class Routing(Section):
    """``[routing]``: which completion becomes the SFT row of a prompt. ``sql`` is the path of a user's own SELECT."""

    method: Literal["reward", "fixed", "random", "sql"] = "reward"
    teachers: dict[str, str] = Field(default_factory=dict)
    seed: int = 0
    sql: FilePath | None = None

    @model_validator(mode="after")
    def _fits_method(self) -> Self:
        if (self.method == "sql") != (self.sql is not None):
            raise ValueError("method = 'sql' and a path in 'sql' go together")
        if (self.method == "fixed") != bool(self.teachers):
            raise ValueError("method = 'fixed' and a table 'teachers' of language = teacher go together")
        check_languages(tuple(self.teachers))
        return self


class PairStrategy(Section):
    """``[[pairs]]``: one strategy for making preference pairs, with its guards.

    ``against_reward`` lets the strategy choose a completion with the lower reward; the audit then counts such pairs
    instead of failing.
    """

    strategy: Literal[
        "best_vs_worst", "in_language_vs_translated", "best_vs_mean_minus_2sd", "strong_vs_weak", "sql"
    ] = "best_vs_worst"
    name: str = ""
    sql: FilePath | None = None
    strong: str | None = None
    weak: str | None = None
    min_margin: float = Field(default=0.0, ge=0)
    ties: Literal["drop", "keep"] = "drop"
    max_length_ratio: float | None = Field(default=None, gt=1)
    pairs_per_prompt: int = Field(default=1, gt=0)
    against_reward: bool = False

    @model_validator(mode="after")
    def _fits_strategy(self) -> Self:
        if (self.strategy == "sql") != (self.sql is not None):
            raise ValueError("strategy = 'sql' and a path in 'sql' go together")
        if (self.strategy == "strong_vs_weak") != (self.strong is not None and self.weak is not None):
            raise ValueError("strategy = 'strong_vs_weak' and the teachers 'strong' and 'weak' go together")
        if self.strategy == "sql" and not self.name:
            raise ValueError("a pair strategy of your own needs a 'name'")
        if self.name != self.strategy and self.name in get_args(type(self).model_fields["strategy"].annotation):
            raise ValueError(f"'name' = {self.name!r} is the name of a different strategy; choose another name")
        return self

    @property
    def label(self) -> str:
        """The strategy's name in the tables."""
        return self.name or self.strategy


Format = Literal["parquet", "jsonl"]


def _arrange(formats: tuple[Format, ...]) -> tuple[Format, ...]:
    """Return formats in the order in which they are declared, which ids have always had; each once."""
    return tuple(form for form in get_args(Format) if form in formats)


class Export(Section):
    """``[export]``: what is written for training."""

    sft: bool = True
    preference: bool = True
    formats: Annotated[tuple[Format, ...], AfterValidator(_arrange)] = ("parquet",)
    max_shard_mb: float = Field(default=256.0, gt=0)
