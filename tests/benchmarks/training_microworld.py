"""Does training on the factory's exports make better models? SFT, then DPO, on the microworld, whose truth is known.

    factory demo --folder build/demo
    python -m tests.benchmarks.training_microworld build/demo/exports/microworld/v0001-...

For each seed the base policy is trained on the arbitrage rows (SFT), on the pairs of one strategy whose margin is at
least ``--margin``, which is what ``min_margin`` of a recipe would have left (DPO), and on both, one after the other.
Shown are the mean true quality of greedy answers to the export's held-out prompts, and the preference accuracy on
held-out pairs, which is 0.5 before the first step.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl

from factory.microworld.chat_models import complete
from factory.microworld.questions import MODELS
from factory.microworld.truth import quality
from factory.training.trainer import train
from schemas.recipe.training import TrainRun, TrainSettings

SFT = {"learning_rate": 5e-4, "epochs": 2}
DPO = {"learning_rate": 2e-4, "epochs": 2, "beta": 0.1}
DPO_AFTER_SFT = {"learning_rate": 5e-5, "epochs": 1, "beta": 1.0}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed: mean true quality by model, and the held-out preference accuracy after DPO by the model it began from."""

    quality: dict[str, float]
    accuracy: dict[str, float]


def measure_quality(model: Path, prompts: list[tuple[str, str]]) -> float:
    """Return the mean true quality of greedy answers to (language, prompt)."""
    answers = complete(model, [prompt for _, prompt in prompts])
    graded = [quality(prompt, language, answer) for (language, prompt), answer in zip(prompts, answers, strict=True)]
    return statistics.fmean(grade for grade in graded if grade is not None)


def find_prompts(export: Path) -> list[tuple[str, str]]:
    """Return the held-out prompts that are questions of the world, as (language, prompt)."""
    rows = pl.read_parquet(export / "sft" / "eval-*.parquet")
    texts = rows.select("language", pl.col("messages").list.first().struct.field("content")).rows()
    return [(language, text) for language, text in texts if quality(text, language, "") is not None]


def choose_pairs(export: Path, folder: Path, strategy: str, margin: float) -> tuple[Path, Path]:
    """Write the pairs of one strategy with a clear margin; return the files for training and for evaluation."""
    files = []
    for split in ("train", "eval"):
        rows = pl.read_parquet(export / "preference" / f"{split}-*.parquet")
        files.append(folder / f"pairs-{split}.parquet")
        rows.filter((pl.col("strategy") == strategy) & (pl.col("margin") >= margin)).write_parquet(files[-1])
    return files[0], files[1]


def train_seeds(export: Path, folder: Path, seeds: int, strategy: str, margin: float) -> Iterator[Outcome]:
    """Yield what each seed gave."""
    pairs, held_out = choose_pairs(export, folder, strategy, margin)
    prompts = find_prompts(export)
    run = TrainRun(device="cpu", checkpoint_every=None, tensorboard=False, plot=False, cache=str(folder))
    base = MODELS / "base"
    quality_of_base = measure_quality(base, prompts)
    for seed in range(seeds):
        common = {"batch_rows": 32, "seed": seed, "run": run}
        preference = common | {"data": str(pairs), "eval_data": str(held_out), "objective": "dpo", "nll_weight": 0.2}
        runs = {
            "SFT": common | {"model": str(base), "data": str(export), "objective": "sft"} | SFT,
            "DPO": preference | {"model": str(base)} | DPO,
            "SFT+DPO": preference | {"model": str(folder / f"SFT-{seed}" / "model")} | DPO_AFTER_SFT,
        }
        results = {
            name: train(TrainSettings.model_validate(values), folder / f"{name}-{seed}", quiet=True)
            for name, values in runs.items()
        }
        yield Outcome(
            {"base": quality_of_base}
            | {name: measure_quality(result.model, prompts) for name, result in results.items()},
            {name: results[name].eval_metrics["accuracy"] for name in ("DPO", "SFT+DPO")},
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the microworld's base policy on an export.")
    parser.add_argument("export", type=Path, help="an export of the microworld, as `factory demo` makes it")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--strategy", default="best_vs_worst")
    parser.add_argument("--margin", type=float, default=1.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seed, outcome in enumerate(
            train_seeds(arguments.export, Path(folder), arguments.seeds, arguments.strategy, arguments.margin)
        ):
            qualities = ", ".join(f"{name} {value:.3f}" for name, value in outcome.quality.items())
            accuracies = ", ".join(f"{name} {value:.3f}" for name, value in outcome.accuracy.items())
            print(f"seed {seed}: true quality {qualities}; held-out preference accuracy {accuracies}", flush=True)


if __name__ == "__main__":
    main()
