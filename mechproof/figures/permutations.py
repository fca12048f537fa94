"""The figures of the chapter on permutations: the circuit by hand, lengths, margins, and a penalty that helps."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from statistics import median

import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter
from torch import Tensor

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..permutations import brute_force, by_hand, family, model
from ..proof.bound import digits_lo, share_lo, short, short_int
from ..proof.names import STRATEGIES
from ..zoo import results
from .pieces import NOTE

WAYS = {"cells": plots.OV, "rivals": plots.QK}
POINTS = range(3, 13)
LIMIT = 6.5                                                              # logits, of an axis of margins
SPEED = 4e10                                                             # operations a second, assumed of trying

NUMBERS = {"even": (0.0, 1.0, 2.0, 3.0), "uneven": (0.0, 0.5, 2.0, 3.0)}
SHOWN = {"identity": (0, 1, 2, 3), "swap": (1, 0, 2, 3), "turn": (1, 2, 3, 0), "flip": (3, 2, 1, 0)}
CANDIDATES = {"the right one": (0, 1, 2, 3), "first two swapped": (1, 0, 2, 3), "middle two swapped": (0, 2, 1, 3),
              "last two swapped": (0, 1, 3, 2), "turned": (1, 2, 3, 0)}


def grid(axes: Axes, lit: Float[Tensor, "q j"], z: Int[Tensor, " q"]) -> None:
    """Every neuron by its position and answer, as strong as it fires; those that z runs into are framed."""
    axes.imshow(lit, cmap="Blues", vmin=0, vmax=4)
    for i, row in enumerate(lit.tolist()):
        for j, value in enumerate(row):
            axes.text(j, i, f"{value:g}", ha="center", va="center", color="white" if value > 2 else "black")
    for q, j in enumerate(z.tolist()):
        axes.add_patch(Rectangle((j - 0.42, q - 0.42), 0.84, 0.84, fill=False, edgecolor=plots.CHOICE, linewidth=3))
    axes.set_xticks(range(4))
    axes.set_yticks(range(4))
    axes.set_xlabel("answer j")
    axes.set_ylabel("position q")
    axes.grid(False)


def circuit() -> Explorer:
    """Choose x, y and a candidate z of four points: which neurons it runs into, and what that costs it."""
    every = model.every(4)

    def draw(figure, x: str, y: str, candidate: str, numbers: str):
        a, (p, q) = torch.tensor(NUMBERS[numbers]), (torch.tensor(SHOWN[name]) for name in (x, y))
        right = p[q]
        z = right[list(CANDIDATES[candidate])]
        lit = (a[p.argsort()] - a[q][:, None]).relu()                    # [position, answer]
        costs = lit[torch.arange(4), every].sum(1)
        cost, gap = float(lit[torch.arange(4), z].sum()), by_hand.gap(a)
        axes = figure.add_axes((0.07, 0.13, 0.4, 0.72))
        grid(axes, lit, z)
        side = figure.add_axes((0.56, 0.16, 0.41, 0.69))
        order = costs.argsort(stable=True)
        mine = [int(k) for k in order].index(int((every == z).all(1).nonzero()))
        side.vlines(range(24), 0, costs[order], color=plots.PALE, linewidth=5)
        side.vlines(mine, 0, max(cost, 0.06), color=plots.CHOICE, linewidth=5)
        side.axhline(gap, color=plots.TRUTH, linestyle="--", linewidth=1)
        side.set_ylim(0, 6.5)
        side.set_xticks([])
        side.set_xlabel("the 24 candidates; dashed: the smallest gap")
        side.set_ylabel("what each costs")
        said = [" ".join(map(str, found.tolist())) for found in (z, right)]
        axes.set_title(f"z = {said[0]} costs {cost:g}; xy = {said[1]} costs 0, any other {gap:g} or more", loc="left")
        return (f"z costs {cost:g}", f"Grid of 16 neurons, position by answer, for x {x} and y {y}; z marks four, "
                f"which add up to {cost:g}. Beside it bars of all 24 candidates' costs: one 0, others {gap:g} or more.")

    return explore(draw, {"x": "turn", "y": "swap", "candidate": "middle two swapped", "numbers": "even"},
                   hint="Only the right z meets no lit neuron; every other one runs into some, and pays. With uneven "
                   "numbers a wrong answer comes close: the margin is the smallest gap between two of the numbers.",
                   height=3.6, x=[*SHOWN], y=[*SHOWN], candidate=[*CANDIDATES], numbers=[*NUMBERS])


def long_time(seconds: float) -> str:
    """Seconds in a unit that suits."""
    for unit, size in (("years", 3.156e7), ("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.1g} seconds"


def lengths() -> Explorer:
    """Operations against the number of points: trying, and the two proofs."""
    sizes = {K: {"K": K, "d_mlp": 6 * K * K} for K in POINTS}
    tried = {K: brute_force.operations(size) for K, size in sizes.items()}
    proofs = {K: family.operations(size) for K, size in sizes.items()}

    def draw(figure, points: int):
        axes = figure.add_axes((0.1, 0.15, 0.69, 0.72))
        lines = {"inputs": ([factorial(K) ** 2 for K in POINTS], plots.NOISE, ":"),
                 "brute_force": ([*tried.values()], plots.TRUTH, "--"),
                 **{name: ([proofs[K][name] for K in POINTS], colour, "-") for name, colour in WAYS.items()}}
        for name, (values, colour, style) in lines.items():
            axes.plot(POINTS, values, style, color=colour, linewidth=2)
            label = STRATEGIES[name].label if name in STRATEGIES else "number of inputs"
            axes.annotate(label, (POINTS[-1], values[-1]), (6, -3), color=colour, annotation_clip=False, **NOTE)
            axes.plot(points, values[points - POINTS[0]], "o", color=plots.CHOICE, markeredgecolor="black", zorder=4)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0e}".replace("e+0", "e").replace("e+", "e")))
        axes.set_xlim(POINTS[0] - 0.3, POINTS[-1] + 0.1)
        axes.set_xlabel("points K")
        axes.set_ylabel("operations")
        inputs, work = short_int(factorial(points) ** 2), short(tried[points])
        cells, rivals = (short(proofs[points][name]) for name in WAYS)
        axes.set_title(f"K = {points}: {inputs} inputs, a proof of {rivals} operations")
        return (f"trying takes {work} operations, {long_time(tried[points] / SPEED)}; the proofs {cells} and {rivals}",
                f"Lines over K from 3 to 12, logarithmic. At K = {points}: {inputs} inputs, {work} operations to try "
                f"them, {cells} and {rivals} for the proofs.")

    return explore(draw, {"points": 10}, hint="Trying grows like (K!)^2, the proofs like powers of K. At K = 3 one "
                   f"of them is longer than trying. Times assume {SPEED:.0e} operations a second.", height=3.7,
                   points=POINTS)


def spots(axes: Axes, found: Sequence[dict], name: str, colour: str) -> None:
    """A network a place: its margin, the certified one, and a line between; what lies below the axis at its edge."""
    low = -LIMIT
    for i, row in enumerate(found):
        margin = row[name]["margin"]
        shown = max(margin, low)
        axes.plot([i, i], [shown, row["margin"]], color=plots.PALE, linewidth=1.5, zorder=0)
        axes.plot(i, shown, "o" if margin > low else "v", color=colour, markersize=6)
    axes.plot(range(len(found)), [row["margin"] for row in found], "_", color=plots.TRUTH, markersize=9,
              markeredgewidth=1.6)
    axes.axhline(0, color=plots.TRUTH, linewidth=0.8)
    axes.set_ylim(low - 0.4, LIMIT)
    axes.set_ylabel("margin (logits)")


def margins() -> Explorer:
    """Every shipped network: its least margin and what the proof certifies of it."""
    found = sorted(results("permutations")["models"], key=lambda row: (row["K"], row["seed"]))

    def draw(figure, proof: str):
        axes = figure.add_axes((0.08, 0.15, 0.9, 0.72))
        spots(axes, found, proof, WAYS[proof])
        starts = {K: [row["K"] for row in found].index(K) for K in dict.fromkeys(row["K"] for row in found)}
        for K, start in starts.items():
            axes.axvline(start - 0.5, color=plots.PALE, linewidth=0.6)
            axes.annotate(f"K = {K}" if not start else str(K), (start - 0.3, LIMIT), (0, -10), **NOTE)
        axes.set_xticks([])
        axes.set_xlabel("networks by number of points, five seeds each (of 12 points one)")
        whole = sum(row[proof]["correct"] == row["total"] for row in found)
        axes.set_title(f"{STRATEGIES[proof].label}: {whole} of {len(found)} networks certified on every input")
        return (f"{whole} of {len(found)} certified whole",
                f"For each of {len(found)} networks a dash at its least margin (all inputs up to K = 6, else "
                f"{found[-1]['inputs']} random ones) and a dot at the margin that {STRATEGIES[proof].label} certifies; "
                f"{whole} dots lie above zero.")

    return explore(draw, {"proof": "rivals"}, hint="A dash is the least margin that was seen: over all inputs up to 6 "
                   "points, over a sample from 7 on. A dot below zero is a proof that fails; whether the network does, "
                   "a sample cannot tell.", height=3.6, proof={name: STRATEGIES[name].label for name in WAYS})


def penalty() -> Explorer:
    """Networks of four points by the penalty on their weights: true and certified margins."""
    note = results("permutations")
    by = pd.DataFrame([{"l1": row["l1"], "true": row["margin"], "certified": row["rivals"]["margin"],
                        "share": row["rivals"]["correct"] / row["total"], "alive": row["alive"]}
                       for row in note["penalties"]]).groupby("l1")
    strengths = sorted(by.groups)

    def draw(figure, penalty: int):
        axes, l1 = figure.add_axes((0.09, 0.16, 0.88, 0.71)), strengths[penalty]
        here = by.get_group(l1)
        for column, colour, name in (("true", plots.TRUTH, "least margin of any input"),
                                     ("certified", plots.QK, "certified margin")):
            for strength, group in by:
                plots.dots(axes, [strength] * len(group), group[column].clip(-LIMIT), 14, colour, 0.4)
            axes.plot(strengths, [median(by.get_group(s)[column].clip(-LIMIT)) for s in strengths], color=colour,
                      linestyle="--" if column == "true" else "-", linewidth=2, label=name)
        axes.axvline(l1, color=plots.CHOICE, linewidth=6, alpha=0.35, zorder=0)
        axes.axhline(0, color=plots.TRUTH, linewidth=0.8)
        axes.legend(loc="lower center", fontsize=8.5)
        axes.set_xscale("log")
        axes.set_ylim(-LIMIT - 0.4, LIMIT + 2)
        axes.set_xlabel("penalty on the sum of absolute weights")
        axes.set_ylabel("margin (logits)")
        whole, n = int((here.share == 1).sum()), len(here)
        axes.set_title(f"Penalty {l1:g}: {whole} of {n} networks certified on every input")
        true, known = (digits_lo(median(here[name]), 2) for name in ("true", "certified"))
        return (f"margin {true}, certified {known}; {int(median(here.alive))} neurons alive",
                f"Margins of networks of 4 points over the strength of the penalty, {n} seeds each. At {l1:g}: median "
                f"least margin {true}, median certified {known}; {whole} of {n} certified whole.")

    start = min(range(len(strengths)), key=lambda i: abs(strengths[i] - note["recipe_l1"]))
    return explore(draw, {"penalty": start}, hint="Weak, and the networks are right but no proof reaches all inputs; "
                   "strong, and their margin goes; at the right end no neuron is left. What lies below the axis stands "
                   "at its edge.", height=3.6, penalty={i: f"{s:g}" for i, s in enumerate(strengths)})


def what_it_comes_to() -> pd.DataFrame:
    """Both proofs by number of points: certified share, mean and least over the seeds, and operations."""
    rows, found = [], pd.DataFrame(results("permutations")["models"])
    for K, group in found.groupby("K"):
        row = {"points": K, "networks": len(group), "inputs": short_int(factorial(K) ** 2)}
        for name in WAYS:
            shares = [bound["correct"] / total for bound, total in zip(group[name], group.total)]
            row |= {f"{STRATEGIES[name].label}, whole": sum(share == 1 for share in shares),
                    f"{STRATEGIES[name].label}, median": f"{share_lo(median(shares), 2)}%",
                    f"{STRATEGIES[name].label}, operations": short(group[name].iloc[0]["flops"])}
        rows.append(row | {"trying": short(brute_force.operations({"K": K, "d_mlp": int(group.n.iloc[0])}))})
    return pd.DataFrame(rows).set_index("points").T
