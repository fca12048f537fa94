"""Pieces that several pages' figures are made of: proofs by length, bars, strips, the choice, the truth, scales."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

import mechproof as mp

from ..explorable import plots
from ..max_of_k.paths import Paths
from ..proof.bound import Bound, short
from ..proof.family import InputError, Model
from ..zoo import tables

NOTE = {"textcoords": "offset points", "fontsize": 8.5}                  # of words beside a point
# and of words on lines or bars
ON_WHITE = NOTE | {"bbox": {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1}}

Point = tuple[float, float]
T = TypeVar("T")


def truth_line(axes: Axes, y: float) -> None:
    """Where the accuracy itself is."""
    axes.axhline(y, color=plots.TRUTH, linestyle="--", linewidth=1)


def choice(axes: Axes, x: float | Sequence[float], y: float | Sequence[float], size: float = 12) -> None:
    """The point that the controls are at."""
    axes.plot(x, y, "o", color=plots.CHOICE, markersize=size, markeredgecolor="black", zorder=4)


def proofs(figure: Figure, cloud: Iterable[T], path: Sequence[T], chosen: T, at: Callable[[T], Point],
           truth: float) -> Axes:
    """Certified share against length, each proof where `at` says: all pale, a path that a control walks, the choice."""
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.71))
    plots.dots(axes, *zip(*map(at, cloud)), 20, plots.PALE)
    truth_line(axes, truth)
    axes.plot([at(b)[0] for b in path], [at(b)[1] for b in path], color=plots.QK, linewidth=1.3, marker=".")
    choice(axes, *at(chosen))
    return axes


def bars(axes: Axes, lengths: Mapping[str, float], texts: Iterable[str], colours: Iterable[str]) -> None:
    """One bar a name, the first on top, each with its number at its end."""
    for i, (x, text, colour) in enumerate(zip(lengths.values(), texts, colours)):
        axes.barh(i, x, color=colour, height=0.62)
        axes.annotate(text, (max(x, 0), i), (4, -3), **NOTE)
    axes.set_yticks(range(len(lengths)), list(lengths))
    axes.invert_yaxis()
    axes.grid(axis="x")
    axes.grid(False, axis="y")


def strips(axes: Axes, columns: Mapping[str, Sequence[float]], said: Callable[[float], str] = "{:.1f}".format,
           names: Sequence[str] = ()) -> dict[str, float]:
    """All points pale and the median strong, one strip a column, each point with its name if it has one;
    returns the medians."""
    mid = {name: median(values) for name, values in columns.items()}
    for i, (name, values) in enumerate(columns.items()):
        values = list(values)
        spread = [i + 0.6 * (j / max(len(values) - 1, 1) - 0.5) for j in range(len(values))]
        order = sorted(range(len(values)), key=lambda at: values[at])
        plots.dots(axes, spread, [values[at] for at in order], 8, plots.NOISE, 0.5)
        plots.name_points(axes, spread, sorted(values), [names[at] for at in order if names])
        axes.plot([i - 0.34, i + 0.34], [mid[name]] * 2, color=plots.QK, linewidth=3)
        axes.annotate(said(mid[name]), (i, mid[name]), (0, 5), ha="center", zorder=5, **ON_WHITE)
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_xlim(-0.6, len(columns) - 0.2)
    return mid


def missing_axis(axes: Axes, low: float) -> None:
    """Certified shares on a scale of what is not certified, so that 99 and 99.9 percent are apart."""
    axes.set_yscale("log")
    axes.set_ylim(1.4, low)
    axes.yaxis.set_major_locator(FixedLocator([1, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0005]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * (1 - x):g}%"))
    axes.set_ylabel("certified (log of what is missing)")


def share_axis(axes: Axes, label: str = "inputs certified") -> None:
    """Certified shares as they are."""
    axes.set_ylim(-0.03, 1.09)
    plots.percent_axis(axes.yaxis, label)


def point(bound: Bound) -> Point:
    """Where a proof stands on that scale."""
    return bound.flops, bound.accuracy_lower_bound


def missing(bound: Bound) -> Point:
    """Where it stands on the scale of what is not certified."""
    return bound.flops, max(1 - bound.accuracy_lower_bound, 1e-6)


def trying(model: Model) -> float:
    """Operations of trying every input: as counted, of a model whose table ships, else as predicted."""
    try:
        bounds = tables.shipped(model.name.split("/")[0])
        return float(bounds[(bounds.model == model.name) & (bounds.strategy == "brute_force")].flops.iloc[0])
    except (InputError, IndexError):
        return float(next(s.cost for s in mp.strategies(model) if s.id == "brute_force"))


def against_trying(axes: Axes, flops: float, brute: float, every: str) -> None:
    """Two bars of operations: a proof's, and those of trying `every` ... one by one."""
    colours = [plots.CHOICE, plots.PALE]
    axes.barh([0, 1], [flops, brute], color=colours, edgecolor=colours, height=0.6)
    axes.set_xlim(0, 1.5 * brute)
    axes.set_yticks([0, 1], ["this proof", every])
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.grid(False)
    for i, cost in enumerate((flops, brute)):
        axes.annotate(short(cost), (cost, i), (4, -3), **NOTE)
    axes.set_title(f"Operations: 1/{brute / flops:.0f}", fontsize=9.5)


def in_a_sentence(axes: Axes, says: str) -> None:
    """What the chosen thing is, at the foot of the figure, which is made room for."""
    axes.set_position((0.11, 0.24, 0.86, 0.63))
    axes.figure.text(0.11, 0.015, textwrap.fill(says, 105), color="#666666", fontsize=8.5)


def answered(paths: Paths, tokens: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What the network makes of one input: attention to each position, and the logits, [p] and [x]."""
    t, q = torch.as_tensor(tokens), int(tokens[-1])
    alpha = (paths.A.mid[q, t] + paths.B.mid[q]).softmax(0)
    return alpha, paths.EU.mid[q] + alpha @ (paths.OV.mid[t] + paths.PV.mid)


def best_but(logits: Tensor, answer: int) -> int:
    """The largest of the others."""
    return int(logits.scatter(0, torch.tensor(answer), -torch.inf).argmax())
