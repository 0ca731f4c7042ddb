"""The gradient of one step, and evaluation: both run micro-batches and return a loss with its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from factory.training.data.batches import cut_micro_batches
from factory.training.data.dataset import Dataset
from factory.training.model.losses import PREFERENCE_FIELDS, SFT_FIELDS, Rows, preference_rows, sft_rows
from factory.training.model.model import Policy
from factory.training.processes import World
from factory.training.run.metrics import Tally
from schemas.recipe.training import TrainSettings

WORST_ROWS = 5
"""How many rows are named in an error message when a step fails."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a step or an evaluation: means over its rows, and the losses of this process's rows.

    ``grad_norm`` is the gradient's norm before clipping (0 in an evaluation).
    """

    metrics: dict[str, Any]
    grad_norm: float
    losses: list[tuple[str, float]]
    num_tokens: int

    @property
    def loss(self) -> float:
        return float(self.metrics["loss"])

    def worst_rows(self, world: World) -> list[str]:
        """Return the rows of all processes whose loss is not finite or, if there are none, those with the highest."""
        losses = [entry for there in world.gather(self.losses) for entry in there]
        broken = [row for row, loss in losses if not abs(loss) < float("inf")]
        by_loss = [row for row, _ in sorted(losses, key=lambda entry: -entry[1])]
        return (broken or by_loss)[:WORST_ROWS]


class Stepper:
    """Runs steps of one policy on one data set."""

    def __init__(self, policy: Policy, settings: TrainSettings, world: World) -> None:
        self._policy, self._settings, self._world = policy, settings, world

    def accumulate(self, dataset: Dataset, rows: Sequence[int]) -> StepResult:
        """Add the gradient of the mean loss over ``rows`` to the parameters' gradients, and clip it.

        Each row's loss is divided by a number that is known before the step, so that neither the cut into micro-batches
        nor the number of processes changes the result.
        """
        self._policy.train()
        normalizer = self._normalizer(dataset, rows)
        tally = self._tally(dataset)
        losses: list[tuple[list[int], Tensor]] = []
        for batch in self._micro_batches(dataset, rows):
            found = self._compute(dataset, batch or [rows[0]])
            # With FSDP all processes must run the same number of passes, so an empty micro-batch runs one row with
            # factor 0. FSDP averages gradients over processes, which the factor ``size`` turns into a sum.
            share = self._world.size / normalizer if batch else 0.0
            (found.losses.sum() * share).backward()
            if batch:
                self._count(tally, dataset, batch, found)
                losses.append((batch, found.losses.detach()))
        norm = torch.nn.utils.clip_grad_norm_(self._policy.trained_parameters(), self._settings.max_grad_norm)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return self._conclude(dataset, rows, tally, losses, float(norm))

    @torch.no_grad()
    def evaluate(self, dataset: Dataset) -> StepResult:
        """Return the mean loss and metrics over a whole data set."""
        self._policy.eval()
        tally, rows = self._tally(dataset), range(len(dataset.examples))
        losses: list[tuple[list[int], Tensor]] = []
        for batch in self._micro_batches(dataset, rows):
            found = self._compute(dataset, batch or [0])
            if batch:
                self._count(tally, dataset, batch, found)
                losses.append((batch, found.losses))
        return self._conclude(dataset, rows, tally, losses, 0.0)

    def _conclude(
        self,
        dataset: Dataset,
        rows: Sequence[int],
        tally: Tally,
        losses: Sequence[tuple[list[int], Tensor]],
        grad_norm: float,
    ) -> StepResult:
        by_row = [
            (dataset.examples[row].row, loss)
            for batch, values in losses
            for row, loss in zip(batch, values.tolist(), strict=True)
        ]
        num_tokens = sum(dataset.examples[row].num_tokens for row in rows)
        return StepResult(tally.means(self._world), grad_norm, by_row, num_tokens)

    def _micro_batches(self, dataset: Dataset, rows: Sequence[int]) -> list[list[int]]:
        batches = cut_micro_batches(rows, dataset.lengths, self._settings.run.micro_batch_tokens, self._world.size)
        return batches[self._world.rank :: self._world.size]

    def _compute(self, dataset: Dataset, batch: Sequence[int]) -> Rows:
        layout = self._policy.pack(dataset.take(batch), self._world.device)
        logps = self._policy(layout)
        if not self._settings.is_preference:
            return sft_rows(logps, layout.sides, len(batch))
        reference = dataset.take_reference(batch)
        reference = None if reference is None else reference.to(logps.device)
        return preference_rows(self._settings, logps, reference, layout.sides, len(batch))

    def _normalizer(self, dataset: Dataset, rows: Sequence[int]) -> int:
        if self._settings.is_preference:
            return len(rows)
        return sum(sum(dataset.examples[row].num_trained) for row in rows)

    def _tally(self, dataset: Dataset) -> Tally:
        fields = PREFERENCE_FIELDS if self._settings.is_preference else SFT_FIELDS
        return Tally(dataset.languages, fields, self._world.device)

    def _count(self, tally: Tally, dataset: Dataset, batch: Sequence[int], found: Rows) -> None:
        languages = dataset.language_numbers(batch, dataset.languages)
        tally.add(found, languages, are_sums=not self._settings.is_preference)
