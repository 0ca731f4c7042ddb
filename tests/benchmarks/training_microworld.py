"""Does training on the factory's exports make better models? SFT, then DPO, on the microworld, whose truth is known.

    factory demo --folder build/demo
    python -m tests.benchmarks.training_microworld build/demo/exports/microworld/v0001-...

For each seed the base policy is trained on the arbitrage rows, and the result on the pairs of one strategy whose margin
is at least ``--margin`` (what ``min_margin`` of a recipe would have left). Shown are the mean true quality of greedy
answers to the export's held-out prompts, and the held-out preference accuracy before and after DPO.
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

from factory.microworld.models import complete
from factory.microworld.truth import quality
from factory.microworld.world import MODELS
from factory.training.metrics import read_metrics
from factory.training.trainer import train
from schemas.training import TrainRun, TrainSettings


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed: mean true quality of the three models, and the accuracy of DPO before its first and after its last step."""

    base: float
    sft: float
    dpo: float
    accuracy_before: float
    accuracy_after: float


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
    base = MODELS / "base"
    quality_of_base = measure_quality(base, prompts)
    run = TrainRun(device="cpu", checkpoint_every=None, tensorboard=False, plot=False, cache=str(folder))
    for seed in range(seeds):
        sft = train(
            TrainSettings(
                model=str(base),
                data=str(export),
                objective="sft",
                learning_rate=5e-4,
                batch_rows=32,
                epochs=2,
                seed=seed,
                run=run,
            ),
            folder / f"sft-{seed}",
            quiet=True,
        )
        dpo = train(
            TrainSettings(
                model=str(sft.model),
                data=str(pairs),
                eval_data=str(held_out),
                objective="dpo",
                beta=0.1,
                nll_weight=0.2,
                learning_rate=5e-4,
                batch_rows=32,
                epochs=2,
                seed=seed,
                run=run,
            ),
            folder / f"dpo-{seed}",
            quiet=True,
        )
        accuracies = [line["accuracy"] for line in read_metrics(folder / f"dpo-{seed}") if line["split"] == "eval"]
        yield Outcome(
            quality_of_base,
            measure_quality(sft.model, prompts),
            measure_quality(dpo.model, prompts),
            accuracies[0],
            accuracies[-1],
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
            print(
                f"seed {seed}: true quality base {outcome.base:.3f}, SFT {outcome.sft:.3f}, DPO {outcome.dpo:.3f}; "
                f"held-out preference accuracy {outcome.accuracy_before:.3f} before DPO's first step, "
                f"{outcome.accuracy_after:.3f} after its last",
                flush=True,
            )


if __name__ == "__main__":
    main()
