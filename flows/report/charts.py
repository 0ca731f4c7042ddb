"""Charts as inline SVG: drawn by matplotlib, with text as text and the page's own colours."""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import polars as pl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

INK, MUTED, LINE, ACCENT, BAD = "#01fe01", "#01fe02", "#01fe03", "#01fe04", "#01fe05"
SERIES = tuple(f"#01fe1{number}" for number in range(8))
"""Colours of lines that stand side by side; the page has as many."""

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    ACCENT: "--accent",
    BAD: "--bad",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES)},
}
"""matplotlib draws in colours that nobody uses; on the page they become variables, which light and dark settle."""

STYLE: "dict[RcKeyType, Any]" = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
}

MIN_SCALE = 0.85
"""A chart is not shown smaller than this: on a phone it scrolls."""

MAX_POINTS = 300
"""A curve has no more points than this; steps between are left out."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with its title, which stands above it, and whether it takes the whole width."""

    title: str
    svg: Markup
    is_wide: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart of curves: its colour's number, points (step, value), and whether they are few and marked."""

    series: int
    points: Sequence[tuple[float, float]]
    is_marked: bool


def draw_steps(
    steps: pl.DataFrame, value: str, *, name: str, title: str, form: str = ",.2f", is_wide: bool = False
) -> Chart:
    """Return a staircase of one column over the steps that have it, with its interval where there is one.

    ``steps`` is as ``reports/steps.sql`` gives it. The mark of the n-th step has the id ``{name}-step-{n}``.
    """
    shown = steps.filter(pl.col(value).is_not_null())
    with matplotlib.rc_context(STYLE):
        width = max(60 + 62 * shown.height, 720 if is_wide else 380)
        figure, axes = _open(wide=width, high=260 if is_wide else 240)
        low, high = (
            shown[f"{value}_{end}"] if f"{value}_{end}" in shown.columns else shown[value] for end in ("low", "high")
        )
        kept: list[tuple[int, float]] = []
        marks = zip(shown[value], low, high, shown["is_kept"], strict=True)
        for at, (middle, bottom, top, is_kept) in enumerate(marks):
            colour = ACCENT if is_kept else BAD
            axes.plot([at, at], [bottom, top], color=colour, linewidth=5, alpha=0.3)
            (mark,) = axes.plot([at - 0.32, at + 0.32], [middle] * 2, color=colour, linewidth=3.5)
            mark.set_gid(f"step-{at}")
            if kept:
                axes.plot(
                    [kept[-1][0] + 0.32, at - 0.32], [kept[-1][1], middle], color=MUTED, linewidth=0.8, dashes=(2, 2)
                )
            axes.annotate(
                f"{middle:{form}}", (at, max(middle, top)), (0, 5), textcoords="offset points", ha="center", color=INK
            )
            kept += [(at, middle)] if is_kept else []
        labels = [
            step if is_kept else f"{step} (stopped)" for step, is_kept in shown.select("step", "is_kept").iter_rows()
        ]
        axes.set_xticks(range(shown.height), labels, rotation=28, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", length=0)
        axes.set_xlim(-0.6, max(shown.height, 4) - 0.4)
        axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
        axes.margins(y=0.18)
        if form.endswith("%"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        return Chart(title, _finish(figure, name, title), is_wide)


def draw_ridges(bins: pl.DataFrame, *, name: str, title: str) -> Chart:
    """Return the distributions of one measure, a ridge per teacher, with a tick at the median.

    ``bins`` is as ``reports/distributions.sql`` gives it, of one measure. The n-th ridge has the id ``{name}-ridge-{n}``.
    """
    teachers = bins["teacher"].unique().sort(descending=True).to_list()
    low, high = bins["low"][0], bins["high"][0]
    width = (high - low) / 40 or 1.0
    with matplotlib.rc_context(STYLE):
        figure, axes = _open(wide=380, high=40 + 44 * len(teachers))
        for at, teacher in enumerate(teachers):
            own = bins.filter(teacher=teacher)
            counts = dict(own.select("bin", "num").iter_rows())
            tallest = max(counts.values())
            edges = [low + number * width for number in range(41)]
            heights = [at + 0.85 * counts.get(number, 0) / tallest for number in range(40)]
            ridge = axes.stairs(heights, edges, baseline=at, fill=True, color=ACCENT, alpha=0.55)
            ridge.set_gid(f"ridge-{at}")
            middle = min(max(own["median"][0], low), high)
            axes.plot([middle] * 2, [at, at + 0.85], color=INK, linewidth=1.5)
        axes.set_yticks(range(len(teachers)), teachers, va="bottom")
        axes.set_ylim(0, len(teachers))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return Chart(title, _finish(figure, name, title))


def draw_curves(curves: Sequence[Curve], *, name: str, title: str) -> Chart:
    """Return curves over training steps."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _open(wide=340, high=210)
        for curve in curves:
            points = curve.points[:: -(-len(curve.points) // MAX_POINTS)]
            axes.plot(
                *zip(*points, strict=True),
                color=SERIES[curve.series % len(SERIES)],
                linewidth=1.4,
                marker="o" if curve.is_marked else None,
                markersize=4,
                linestyle=":" if curve.is_marked else "-",
            )
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        return Chart(title, _finish(figure, name, title))


def _open(*, wide: int, high: int) -> tuple[Figure, Axes]:
    """Return a figure of so many pixels, with its axes."""
    figure = Figure(figsize=(wide / 72, high / 72), layout="constrained")
    return figure, figure.add_subplot()


def _finish(figure: Figure, name: str, title: str) -> Markup:
    """Return the figure as an ``svg`` element whose ids begin with its name."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Names in scripts that matplotlib's own font lacks are measured roughly; the browser writes them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    size = f'<svg id="{name}" role="img" aria-label="{escape(title)}" style="min-width: {MIN_SCALE * width:.0f}px" viewBox="0 0 {width} {height}">'
    return Markup(size + svg[svg.index(">") + 1 :])
