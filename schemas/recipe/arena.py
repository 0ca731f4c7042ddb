"""The ``[arena]`` table: English prompts of a benchmark, to be translated into a data set such as m-ArenaHard."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.recipe.models import RewardModel, Teacher, Translation
from schemas.recipe.prompts import PromptGates, PromptSource
from schemas.recipe.recipe import Recipe

Layout = Literal["m-ArenaHard", "m-ArenaHard-v2.0"]

LAYOUTS: dict[Layout, tuple[str, ...]] = {
    "m-ArenaHard": ("question_id", "category", "cluster", "prompt"),
    "m-ArenaHard-v2.0": ("question_id", "category", "subcategory", "prompt", "language"),
}
"""The columns of the released data sets, in their order."""


class ArenaRecipe(Recipe):
    """A recipe that only reads and translates prompts, all of which are held out.

    ``layout`` names the released data set whose columns are written. ``labels`` maps its columns that describe a
    prompt, such as the category, to the source's columns; by default they have the same names.
    """

    prompts: tuple[PromptSource, ...] = Field(min_length=1, max_length=1)
    prompt_gates: PromptGates = PromptGates(language=False, near_duplicate_similarity=0, max_chars=1_000_000)
    translation: Translation
    teachers: tuple[Teacher, ...] = Field(default=(), max_length=0)
    reward_models: tuple[RewardModel, ...] = Field(default=(), max_length=0)
    layout: Layout = "m-ArenaHard"
    labels: dict[str, str] = Field(default_factory=dict)

    @property
    def source(self) -> PromptSource:
        """The only source of prompts."""
        return self.prompts[0]

    @property
    def label_columns(self) -> dict[str, str]:
        """The source's column for each label of the layout."""
        labels = [name for name in LAYOUTS[self.layout] if name not in {"question_id", "prompt", "language"}]
        return {name: self.labels.get(name, name) for name in labels}

    @model_validator(mode="after")
    def _fits_layout(self) -> Self:
        columns = self.source.columns
        if columns.prompt is None or columns.id is None or columns.system is not None:
            raise ValueError("prompts are single texts with an id: 'columns' needs 'prompt' and 'id', without 'system'")
        strange = sorted(self.labels.keys() - self.label_columns.keys())
        if strange:
            raise ValueError(
                f"{self.layout} has no {', '.join(strange)}; its labels are {', '.join(self.label_columns)}"
            )
        if not self.translation.prompts:
            raise ValueError("'translation.prompts' is false, so nothing would be translated")
        return self
