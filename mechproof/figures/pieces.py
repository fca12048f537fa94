"""Pieces that several pages' figures are made of: what is chosen, the truth, notes, and a scale for shares near one."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..explorable import plots
from ..proof.bound import Bound

NOTE = {"textcoords": "offset points", "fontsize": 8.5}                  # of words beside a point


def truth_line(axes: Axes, y: float) -> None:
    """Where the accuracy itself is."""
    axes.axhline(y, color=plots.TRUTH, linestyle="--", linewidth=1)


def choice(axes: Axes, x: float | Sequence[float], y: float | Sequence[float], size: float = 12) -> None:
    """The point that the controls are at."""
    axes.plot(x, y, "o", color=plots.CHOICE, markersize=size, markeredgecolor="black")


def missing_axis(axes: Axes, low: float) -> None:
    """Certified shares on a scale of what is not certified, so that 99 and 99.9 percent are apart."""
    axes.set_yscale("log")
    axes.set_ylim(1.4, low)
    axes.yaxis.set_major_locator(FixedLocator([0.9, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0005]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * (1 - x):g}%"))
    axes.set_ylabel("inputs certified (log of the rest)")


def missing(bound: Bound) -> float:
    return max(1 - bound.accuracy_lower_bound, 1e-6)
