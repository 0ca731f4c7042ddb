"""Tables and figure of the study: means over seeds with 95% intervals, as Markdown, and the staircase as SVG.

    python -m tests.benchmarks.study_report build/study [--figure staircase.svg]

Intervals are those of Student's t over the seeds. A difference is taken seed by seed, so what a seed adds to both arms
cancels out.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev

import polars as pl

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t at 97.5%, by degrees of freedom."""

OWN = {"routing": ("1 sft", "reward-based"), "pairs": ("2 offline", "best_vs_worst"), "merging": ("1 sft", "linear")}
"""Of each part the step of the staircase that is one of its arms, and what it is called there."""


def read_results(folder: Path) -> pl.DataFrame:
    """Return one row per part, arm, seed and figure."""
    rows = []
    for path in sorted(folder.glob("seed-*/results/*/*.json")):
        part, seed = path.parent.name, int(path.parents[2].name.removeprefix("seed-"))
        for figure, value in json.loads(path.read_text()).items():
            rows.append({"part": part, "arm": path.stem, "seed": seed, "figure": figure, "value": float(value)})
    found = pl.DataFrame(rows)
    own = [
        found.filter(part="staircase", arm=arm).with_columns(pl.lit(part).alias("part"), pl.lit(name).alias("arm"))
        for part, (arm, name) in OWN.items()
    ]
    return pl.concat([found, *own])


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Return a mean and the half width of its 95% interval; zero where there is one value only."""
    numbers = list(values)
    if len(numbers) < 2:
        return fmean(numbers), 0.0
    return fmean(numbers), T_95[len(numbers) - 1] * stdev(numbers) / len(numbers) ** 0.5


def make_table(results: pl.DataFrame, part: str, against: str) -> list[str]:
    """Return a part as a Markdown table, the best arm first, each with its difference from one of them."""
    quality = results.filter(part=part, figure="quality")
    reference = dict(quality.filter(arm=against).select("seed", "value").rows())
    lines = [f"| {part} | true quality | less {against} | seeds |", "| --- | --- | --- | --- |"]
    arms = {name: dict(rows.select("seed", "value").rows()) for (name,), rows in quality.group_by("arm")}
    for name, values in sorted(arms.items(), key=lambda arm: -fmean(arm[1].values())):
        difference = (values[seed] - reference[seed] for seed in values if seed in reference)
        gap = "" if name == against else "{:+.3f} ± {:.3f}".format(*interval(difference))
        lines.append(f"| {name} | {'{:.3f} ± {:.3f}'.format(*interval(values.values()))} | {gap} | {len(values)} |")
    return lines


def make_staircase(results: pl.DataFrame) -> list[str]:
    """Return the steps in order, each with its gain over the one before it, as a Markdown table."""
    found = results.filter(pl.col("part") == "staircase")
    lines = ["| step | true quality | gain | win rate against the base | stopped |", "| --- | --- | --- | --- | --- |"]
    before: dict[int, float] = {}
    for arm in list_steps(results):
        figures = {
            name: dict(rows.select("seed", "value").rows())
            for (name,), rows in found.filter(arm=arm).group_by("figure")
        }
        quality, kept = figures["quality"], figures.get("is_kept", {})
        gains = [quality[seed] - before[seed] for seed in quality if seed in before]
        gain = "{:+.3f} ± {:.3f}".format(*interval(gains)) if gains else ""
        won = "{:.1%} ± {:.1%}".format(*interval(figures["win_rate"].values())) if "win_rate" in figures else ""
        stopped = sum(1 for value in kept.values() if not value)
        lines.append(
            f"| {arm.partition(' ')[2] if arm[0].isdigit() else arm} | {'{:.3f} ± {:.3f}'.format(*interval(quality.values()))} "
            f"| {gain} | {won} | {f'{stopped} of {len(quality)}' if stopped else ''} |"
        )
        before |= quality
    return lines


def list_steps(results: pl.DataFrame) -> list[str]:
    """Return the arms of the staircase in order, a step's unmerged models before their merge."""
    arms = results.filter(pl.col("part") == "staircase")["arm"].unique().to_list()
    steps = sorted(arm for arm in arms if arm[0].isdigit())
    unmerged = {arm.removesuffix(" unmerged"): arm for arm in arms if arm.endswith(" unmerged")}
    return [name for step in steps for name in (unmerged.get(step.partition(" ")[2]), step) if name]


def draw_staircase(results: pl.DataFrame, path: Path) -> None:
    """Draw the steps: every seed as a thin line, the mean with its interval."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "study"
    from matplotlib.figure import Figure

    steps = [step for step in list_steps(results) if step[0].isdigit()]
    quality = results.filter(part="staircase", figure="quality").filter(pl.col("arm").is_in(steps))
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.add_subplot(ylabel="true quality")
    for _, rows in quality.group_by("seed"):
        found = dict(rows.select("arm", "value").rows())
        axes.plot([found.get(step, float("nan")) for step in steps], color="0.75", linewidth=0.8)
    means = [interval(quality.filter(arm=step)["value"]) for step in steps]
    axes.errorbar(
        range(len(steps)),
        [mean for mean, _ in means],
        [half for _, half in means],
        fmt="o-",
        color="#1f6f8b",
        capsize=3,
    )
    axes.set_xticks(range(len(steps)), [step.partition(" ")[2].replace("_", " ") for step in steps])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def print_report(folder: Path, figure: Path | None = None) -> None:
    """Print the tables, and draw the staircase where asked."""
    results = read_results(folder)
    print("\n".join([*make_staircase(results), ""]))
    for part, against in (("routing", "random"), ("pairs", "best_vs_worst"), ("merging", "linear")):
        print("\n".join([*make_table(results, part, against), ""]))
    if figure is not None:
        draw_staircase(results, figure)


def main() -> None:
    """Print what the study has found so far."""
    parser = argparse.ArgumentParser(description="Tables and figure of the study.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/study"))
    parser.add_argument("--figure", type=Path, help="draw the staircase into this SVG file")
    arguments = parser.parse_args()
    print_report(arguments.folder, arguments.figure)


if __name__ == "__main__":
    main()
