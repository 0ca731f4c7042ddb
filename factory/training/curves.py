"""Reading and plotting the metrics of a training run."""

import json
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "curves.png"

SHOWN = ("loss", "accuracy", "margin", "kl", "chosen_logp", "rejected_logp", "learning_rate", "grad_norm")
"""The metrics that are plotted, if a run has them."""


def read_metrics(output: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics in order, without an incomplete last line; empty if there is no file."""
    try:
        lines = (output / METRICS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def plot_curves(output: Path) -> None:
    """Plot the metrics of training and evaluation into ``CURVES_FILE``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    lines = read_metrics(output)
    names = [name for name in SHOWN if any(line.get(name) for line in lines)]
    figure = Figure(figsize=(4.5 * min(4, len(names)), 3.2 * -(-len(names) // 4)), layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(-(-len(names) // 4), min(4, len(names)), number, title=name, xlabel="step")
        for split, style in (("train", "-"), ("eval", "o-")):
            points = [(line["step"], line[name]) for line in lines if line["split"] == split and name in line]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=split, linewidth=1, markersize=3)
        axes.legend(frameon=False)
    if names:
        figure.savefig(output / CURVES_FILE, dpi=120)
