"""A training data set in memory: examples, rejected rows, and the reference's log-probabilities."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from factory.training.data.examples import Example
from factory.training.data.reading import Rejected, has_eval_split, read_export_id, read_rows
from factory.training.data.templating import Templater
from schemas.disk import write_text
from schemas.errors import TrainingError
from schemas.recipe.training import TrainSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(slots=True)
class Dataset:
    """Examples in the order of their rows.

    ``reference`` [trained tokens] has the reference's log-probability of each trained token, example by example.
    ``num_others`` counts the rows of languages or strategies that the settings do not select.
    """

    examples: list[Example]
    rejected: list[Rejected]
    languages: list[str]
    reference: NDArray[np.float32] | None = None
    num_others: int = 0
    _lengths: list[int] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """The packed tokens of each example; cached, because every step needs them."""
        if not self._lengths:
            self._lengths = [example.num_packed for example in self.examples]
        return self._lengths

    @property
    def num_cut(self) -> int:
        return sum(example.is_cut for example in self.examples)

    def take(self, rows: Sequence[int]) -> list[Example]:
        return [self.examples[row] for row in rows]

    def take_reference(self, rows: Sequence[int]) -> Tensor | None:
        """Return the reference's log-probabilities of rows, [targets], in the order of the targets in a layout."""
        if self.reference is None:
            return None
        starts = self.starts()
        return torch.from_numpy(np.concatenate([self.reference[starts[row] : starts[row + 1]] for row in rows]))

    def starts(self) -> list[int]:
        """Return the offset of each example's tokens in ``reference``, and finally the total: [examples + 1]."""
        if not self._starts:
            self._starts = list(accumulate((sum(example.num_trained) for example in self.examples), initial=0))
        return self._starts

    def language_numbers(self, rows: Sequence[int], languages: Sequence[str]) -> Tensor:
        numbers = {language: number for number, language in enumerate(languages)}
        return torch.tensor([numbers[self.examples[row].language] for row in rows])

    def count_rejected(self) -> dict[str, int]:
        """Return the number of rejected rows by reason, sorted by reason."""
        return dict(sorted(Counter(str(row.reason) for row in self.rejected).items()))


def make_dataset(found: Iterable[Example | Rejected], where: str) -> Dataset:
    """Collect examples and rejected rows; ``where`` names the data in the error message.

    Raises:
        TrainingError: no row can be used.
    """
    dataset = _part(found)
    if not dataset.examples:
        rejected = dataset.rejected
        first = f"; first row: {rejected[0].reason}, {rejected[0].detail}" if rejected else ""
        raise TrainingError(f"no row of {where} can be used: {len(rejected)} were rejected{first}")
    return dataset


def _part(found: Iterable[Example | Rejected]) -> Dataset:
    examples: list[Example] = []
    rejected: list[Rejected] = []
    for row in found:
        (examples if isinstance(row, Example) else rejected).append(row)  # type: ignore[arg-type]
    return Dataset(examples, rejected, sorted({example.language for example in examples}))


def load_datasets(
    settings: TrainSettings, tokenizer: "PreTrainedTokenizerBase", eos_ids: Iterable[int]
) -> tuple[Dataset, Dataset | None]:
    """Read and tokenize the training data of a run and, if there is any, its evaluation data.

    The eval split of an export may turn out to have only rejected rows; that is not an error.

    Raises:
        InputError: the data cannot be read.
        TrainingError: no row can be used, or the model has no chat template.
    """
    templater = Templater(tokenizer, settings, eos_ids)
    others: Counter[str] = Counter()
    rows = read_rows(settings, settings.data, settings.split, others=others)
    train = make_dataset(templater.examples(rows), settings.data)
    train.num_others = others.total()
    if settings.eval_data is not None:
        split = "eval" if read_export_id(settings.eval_data) is not None else settings.split
        rows = read_rows(settings, settings.eval_data, split)
        return train, make_dataset(templater.examples(rows), settings.eval_data)
    if not has_eval_split(settings):
        return train, None
    return train, _part(templater.examples(read_rows(settings, settings.data, "eval", may_be_empty=True)))


def write_rejected(path: Path, datasets: dict[str, Dataset | None]) -> None:
    """Write all rejected rows as JSON lines: split, row, language, reason, detail."""
    lines = [
        json.dumps(
            {"split": split, "row": row.row, "language": row.language, "reason": row.reason, "detail": row.detail},
            ensure_ascii=False,
        )
        for split, dataset in datasets.items()
        for row in (dataset.rejected if dataset else ())
    ]
    write_text(path, "".join(line + "\n" for line in lines))
