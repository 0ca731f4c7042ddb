"""Metrics: sums by language during a step, then logged as JSON lines and to TensorBoard."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from factory.training.curves import METRICS_FILE, read_metrics
from factory.training.model.losses import Rows
from factory.training.processes import World
from schemas.disk import write_text


class Tally:
    """Weighted sums of the rows' metrics by language: [languages, fields + 1]; the last column sums the weights."""

    def __init__(self, languages: Sequence[str], fields: Sequence[str], device: torch.device) -> None:
        self._languages, self._fields = languages, fields
        self._sums = torch.zeros(len(languages), len(fields) + 1, dtype=torch.float64, device=device)

    def add(self, rows: Rows, languages: Tensor, *, are_sums: bool) -> None:
        """Add rows; ``languages`` [R] are their languages' numbers.

        ``are_sums`` says that values are already sums over the rows' weights; otherwise they are means.
        """
        weights = rows.weights.double()[:, None]
        values = rows.values.double() if are_sums else rows.values.double() * weights
        self._sums.index_add_(0, languages.to(self._sums.device), torch.cat([values, weights], 1))

    def means(self, world: World) -> dict[str, Any]:
        """Return the means over all rows of all processes, by field, and under ``languages`` those by language."""
        sums = world.sum(self._sums.clone()).cpu()
        named = [
            (language, row) for language, row in zip(self._languages, sums, strict=True) if language and row[-1] > 0
        ]
        means = self._divide(sums.sum(0))
        return means | ({"languages": {language: self._divide(row) for language, row in named}} if named else {})

    def _divide(self, sums: Tensor) -> dict[str, float]:
        return dict(zip(self._fields, (sums[:-1] / sums[-1]).tolist(), strict=True))


class MetricLog:
    """Logs the metrics of a run. When a run resumes, lines after the checkpoint's step are dropped."""

    def __init__(self, output: Path, *, after_step: int, tensorboard: bool, writes: bool) -> None:
        self._file: Any = None
        self._board: Any = None
        if not writes:
            return
        lines = [line for line in read_metrics(output) if after_step and line["step"] <= after_step]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(output / METRICS_FILE, text)
        self._file = (output / METRICS_FILE).open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=after_step + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, split: str, step: int, metrics: dict[str, object]) -> None:
        """Log the metrics of a split ("train" or "eval") after a step."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "split": split} | metrics, ensure_ascii=False) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in _flatten(metrics):
                self._board.add_scalar(f"{split}/{name}", value, step)


def _flatten(metrics: dict[str, object]) -> list[tuple[str, float]]:
    """Return scalars with their names; those of a language are named ``name/language``."""
    flat = [(name, float(value)) for name, value in metrics.items() if isinstance(value, int | float)]
    by_language = metrics.get("languages")
    for language, values in by_language.items() if isinstance(by_language, dict) else ():
        flat += [(f"{name}/{language}", float(value)) for name, value in values.items()]
    return flat
