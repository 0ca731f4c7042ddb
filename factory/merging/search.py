"""Choosing weights: CMA-ES over what the merged model scores, and what each parent adds.

Every evaluation is a line of a JSONL file. A search that was stopped goes on by asking the same questions again: those
that were answered are looked up.
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
"""Returns how good the model in a folder is; higher is better."""

Merge: TypeAlias = Callable[[MergeSettings, Path], object]
"""Merges into a folder, as ``factory.merging.merge.merge`` does."""

EVALUATIONS = "evaluations.jsonl"

MAX_SHARE = 0.8
"""A search that starts from a single begins with this share of it: at 1 there is no way back."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One merge that was scored."""

    label: str
    weights: tuple[float, ...]
    fitness: float


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one parent adds: the fitness of the whole merge less that of the merge without it."""

    model: str
    weight: float
    fitness_without: float
    adds: float


class Evaluator:
    """Merges with given weights and scores the result, once for each weights."""

    def __init__(
        self, settings: MergeSettings, fitness: Fitness, folder: Path, *, fitness_name: str, merge: Merge
    ) -> None:
        """Open the evaluations in ``folder``; ``fitness_name`` tells this fitness from others, such as its command.

        Raises:
            EngineError: a model is missing.
            InputError: they are those of other models or settings, or of another fitness.
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
        """Read what was evaluated; a last line that a killed search wrote by half is dropped."""
        if not self._file.exists():
            return
        text = self._file.read_text(encoding="utf-8")
        head, *lines = text[: text.rfind("\n") + 1].splitlines() or [""]
        try:
            begun = json.loads(head)["search"]
            rows = [json.loads(line) for line in lines]
            self.evaluations = [Evaluation(row["label"], tuple(row["weights"]), row["fitness"]) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"'{self._file}' is not a file of evaluations; name another folder") from error
        if begun != self._id:
            differing = "other models, settings or another fitness"
            raise InputError(f"'{self._file}' holds the evaluations of {differing}; name another folder")
        with self._file.open("r+", encoding="utf-8") as file:
            file.truncate(len(text[: text.rfind("\n") + 1].encode()))

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._file.exists():
            self._file.write_text(json.dumps({"search": self._id}) + "\n", encoding="utf-8")

    def evaluate(self, label: str, weights: Sequence[float]) -> float:
        """Return the fitness of the merge with these weights."""
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
    """Return the best weights that were found, with one weight for each model.

    The singles and the uniform merge come first, then CMA-ES (Hansen, arXiv 1604.00772; population ``4 + 3 ln N``) from
    the best of them, over logits: the models share the weight that the settings' weights sum to by a softmax. It ends
    after ``num_evaluations`` in all, or when CMA-ES has converged. The same call goes on where an earlier one stopped.
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
    import cma  # and with it matplotlib: a second that a plain merge need not wait

    draws = np.random.RandomState(seed)  # the library's own seed would be that of the whole process
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
    """Return what each parent adds to the merge (positive) or costs it (negative), in the models' order.

    Raises:
        InputError: there is one model alone.
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
    """Return the settings with one weight for each model; a weight of zero leaves a model out, patterns included."""
    models = tuple(
        model.model_copy(update={"weight": weight} if weight else {"weight": 0.0, "patterns": {}})
        for model, weight in zip(settings.models, weights, strict=True)
    )
    return settings.model_copy(update={"models": models})


def _mean_weight(model: MergeModel) -> float:
    """Return a model's weight, or the mean of its gradient."""
    return float(np.mean(model.weight))


def command_fitness(command: str) -> Fitness:
    """Return a fitness that runs a shell command, whose last printed line is the number.

    ``{model}`` in the command becomes the merged model's folder; without it the folder is the last argument.
    """

    def run(folder: Path) -> float:
        place = quote(str(folder))
        line = command.replace("{model}", place) if "{model}" in command else f"{command} {place}"
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"the fitness command ended with {done.returncode}: {reason}")
        last = (done.stdout.strip().splitlines() or [""])[-1]
        try:
            return float(last)
        except ValueError as error:
            raise InputError(f"the fitness command's last line is {last[:80]!r} and should be a number") from error

    return run
