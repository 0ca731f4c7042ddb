"""Searching merge weights with CMA-ES for the best score of the merged model, and measuring each parent's contribution.

Every evaluation is a line of a JSONL file. A search is deterministic: one that was stopped resumes by starting over,
and looks up the evaluations that are already there.
"""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TypeAlias

import numpy as np

from factory.merging.identity import identify_merge
from schemas.errors import InputError
from schemas.extras import require
from schemas.ids import content_id
from schemas.recipe.merging import MergeModel, MergeSettings

Fitness: TypeAlias = Callable[[Path], float]
"""Returns the score of the model in a folder; higher is better."""

Merge: TypeAlias = Callable[[MergeSettings, Path], object]
"""Merges into a folder, like ``factory.merging.merge.merge``."""

EVALUATIONS = "evaluations.jsonl"

MAX_SHARE = 0.8
"""The share of a single model at the start of a search from it; a softmax with share 1 could not change any more."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A merge and its score."""

    label: str
    weights: tuple[float, ...]
    fitness: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """A parent's contribution: the fitness of the whole merge minus that of the merge without the parent."""

    model: str
    weight: float
    fitness_without: float
    adds: float


class Evaluator:
    """Merges with given weights and scores the result; repeated weights are looked up."""

    def __init__(
        self, settings: MergeSettings, fitness: Fitness, folder: Path, *, fitness_name: str, merge: Merge
    ) -> None:
        """Open the evaluations in ``folder``; ``fitness_name`` identifies the fitness, such as its command.

        Raises:
            EngineError: a model is missing.
            InputError: the evaluations there belong to other models or settings, or to another fitness.
        """
        self.settings = settings
        self.evaluations: list[Evaluation] = []
        self._fitness = fitness
        self._merge = merge
        self._folder = folder
        self._file = folder / EVALUATIONS
        self._id = content_id("search", [identify_merge(settings), fitness_name])
        self._load()

    def _load(self) -> None:
        """Read earlier evaluations; an incomplete last line of a killed search is dropped."""
        if not self._file.exists():
            return
        text = self._file.read_text(encoding="utf-8")
        head, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
        try:
            begun = json.loads(head)["search"]
            rows = [json.loads(line) for line in lines]
            self.evaluations = [Evaluation(row["label"], tuple(row["weights"]), row["fitness"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{self._file}' is not a file of evaluations; choose another folder") from error
        if begun != self._id:
            differing = "other models, settings or another fitness"
            raise InputError(f"'{self._file}' contains the evaluations of {differing}; choose another folder")
        with self._file.open("r+", encoding="utf-8") as file:
            file.truncate(len(text[: text.rfind("\n") + 1].encode()))

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._file.exists():
            self._file.write_text(json.dumps({"search": self._id}) + "\n", encoding="utf-8")

    def evaluate(self, label: str, weights: Sequence[float]) -> float:
        """Return the fitness of the merge with these weights, one per model.

        Raises:
            InputError: the fitness is not a finite number.
        """
        wanted = tuple(float(weight) for weight in weights)
        for evaluation in self.evaluations:
            if evaluation.weights == wanted:
                return evaluation.fitness
        self._begin()
        candidate = self._folder / "candidate"
        shutil.rmtree(candidate, ignore_errors=True)
        self._merge(with_weights(self.settings, wanted), candidate)
        fitness = float(self._fitness(candidate))
        shutil.rmtree(candidate)
        if not math.isfinite(fitness):
            raise InputError(f"the fitness of the merge with weights {wanted} is {fitness}; it must be a finite number")
        self.evaluations.append(Evaluation(label, wanted, fitness))
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self.evaluations[-1])) + "\n")
        return fitness


def search_weights(
    evaluator: Evaluator,
    *,
    num_evaluations: int = 100,
    sigma: float = 1.0,
    seed: int = 0,
    progress: Callable[[Evaluation], None] | None = None,
) -> Evaluation:
    """Return the best evaluation, with one weight per model.

    Each single model and the uniform merge are evaluated first. CMA-ES (Hansen, arXiv 1604.00772; population ``4 + 3 ln
    N``) then starts from the best of them. It searches logits, whose softmax distributes the sum of the settings'
    weights over the models. It ends after ``num_evaluations`` in total, or when CMA-ES has converged. The same call
    resumes a search that was stopped.
    """
    require(("cma",))
    settings = evaluator.settings
    size = len(settings.models)
    total = sum(map(_mean_weight, settings.models)) or float(size)
    shares = {"uniform": np.full(size, 1 / size)} | {f"single {at}": np.eye(size)[at] for at in range(size) if size > 1}
    asked: list[Evaluation] = []

    def evaluate(label: str, share: np.ndarray) -> float:
        weights = tuple(float(value) for value in share * total)
        asked.append(Evaluation(label, weights, evaluator.evaluate(label, weights)))
        if progress is not None:
            progress(asked[-1])
        return asked[-1].fitness

    scores = {label: evaluate(label, share) for label, share in shares.items()}
    start = shares[max(scores, key=lambda label: scores[label])]
    if size > 1:
        soft = np.clip(start, (1 - MAX_SHARE) / (size - 1), MAX_SHARE)
        _evolve(evaluate, np.log(soft) - np.log(soft).mean(), sigma, seed, num_evaluations - len(shares))
    return max(asked, key=lambda evaluation: evaluation.fitness)


def _evolve(
    evaluate: Callable[[str, np.ndarray], float], start: np.ndarray, sigma: float, seed: int, budget: int
) -> None:
    import cma  # imports matplotlib, which takes a second and is not needed for plain merges

    draws = np.random.RandomState(seed)  # cma's own seed option would seed NumPy's global generator
    options = {"randn": draws.randn, "seed": math.nan, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(start, sigma, options)
    generation = 0
    while budget > 0 and not strategy.stop():
        logits = strategy.ask()
        scores = []
        for number, point in enumerate(logits[:budget]):
            share = np.exp(point - point.max())
            scores.append(evaluate(f"generation {generation}.{number}", share / share.sum()))
        budget -= len(scores)
        if len(scores) < len(logits):
            return
        strategy.tell(logits, [-score for score in scores])
        generation += 1


def leave_one_out(evaluator: Evaluator) -> list[Contribution]:
    """Return each parent's contribution to the merge's fitness (negative: it is harmful), in the models' order.

    Raises:
        InputError: there is only one model.
    """
    settings = evaluator.settings
    if len(settings.models) < 2:
        raise InputError("leaving one out needs at least two models")
    weights = [_mean_weight(model) for model in settings.models]
    whole = evaluator.evaluate("all", weights)
    table = []
    for at, model in enumerate(settings.models):
        name = model.name or model.adapter or model.model
        without = evaluator.evaluate(f"without {name}", [*weights[:at], 0.0, *weights[at + 1 :]])
        table.append(Contribution(name, weights[at], without, whole - without))
    return table


def with_weights(settings: MergeSettings, weights: Sequence[float]) -> MergeSettings:
    """Return settings with one weight per model; a model with weight zero, and its patterns, are left out."""
    models = tuple(
        model.model_copy(update={"weight": weight} if weight else {"weight": 0.0, "patterns": {}})
        for model, weight in zip(settings.models, weights, strict=True)
    )
    return settings.model_copy(update={"models": models})


def _mean_weight(model: MergeModel) -> float:
    """Return a model's weight, or the mean of its gradient."""
    return float(np.mean(model.weight))


def command_fitness(command: str) -> Fitness:
    """Return a fitness that runs a shell command and reads the number from the last line that it prints.

    ``{model}`` in the command is replaced by the merged model's folder; without it, the folder is appended.
    """

    def run(folder: Path) -> float:
        place = quote(str(folder))
        line = command.replace("{model}", place) if "{model}" in command else f"{command} {place}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it printed no error"])[-1]
            raise InputError(f"the fitness command exited with status {done.returncode}: {reason}")
        last = (done.stdout.strip().splitlines() or [""])[-1]
        try:
            return float(last)
        except ValueError as error:
            raise InputError(f"the fitness command's last line is {last[:80]!r}, but must be a number") from error

    return run
