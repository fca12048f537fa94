"""The figures of the background pages: length by operation, one input by paths, waves that meet, errors and radii."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import pi

import torch

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k.paths import Paths
from ..proof import cost, names, proving
from ..proof.bound import short
from ..proof.family import Model
from ..proof.rounding import Ball
from .max_of_k import NAMED_IDS
from .pieces import NOTE, answered, bars, best_but, choice

PRODUCTS = ("mm", "bmm", "mv", "dot")
KINDS = {"matrix products": plots.QK, "sums and products of entries": "#56B4E9", "comparisons, sorts": plots.EU,
         "exponentials": plots.OV, "lists and counts": plots.NOISE}
OFFERED = [names.SCORES[way].label for way in ("exact_EQKE+max_diff_exact", "svd", "max_diff_subproduct_recursive")]
OFFERED.append(names.STRATEGIES["cubic"].label)


def kind_of(operation: str) -> str:
    """Which of the kinds an operation or a charge is counted under."""
    if operation in PRODUCTS:
        return "matrix products"
    if operation in ("exp", "log", "cos", "sin"):
        return "exponentials"
    if operation in ("maximum", "minimum", "amax", "amin", "lt", "le", "gt", "ge", "eq", "ne", "sort", "searchsorted",
                     "cummax", "cummin", "where", "clamp_min", "clamp_max", "any", "all", "argmax"):
        return "comparisons, sorts"
    return "sums and products of entries" if operation in cost.POINTWISE | cost.REDUCTIONS else "lists and counts"


def by_kind(model: Model, id: str) -> dict[str, int]:
    """Operations of a proof's check, by kind."""
    preset, parameters = proving.parse_id(id, mp.strategies(model), None)
    advice, found = mp.search(model, id), dict.fromkeys(KINDS, 0)
    with cost.count() as counted:
        preset.check(model, advice, parameters)
    for operation, n in counted.by.items():
        found[kind_of(operation)] += n
    return found


def length_by_operation(model: Model, proof: str = "exact") -> Explorer:
    """What the checks of several proofs do, by kind of operation."""
    offered = {NAMED_IDS[label]: label for label in OFFERED}
    offered |= {id: names.STRATEGIES[id].label for id in ("separable", "exact")}

    spent = cache(lambda id: by_kind(model, id))
    most = max(max(spent(id).values()) for id in offered)

    def draw(figure, proof: str):
        axes = figure.add_axes((0.3, 0.17, 0.62, 0.68))
        found = spent(proof)
        bars(axes, found, map(short, found.values()), KINDS.values())
        axes.set_xlim(0, 1.15 * most)
        axes.xaxis.set_major_formatter(lambda x, _: plots.flops_label(x))
        axes.set_xlabel("operations")
        largest, total = max(found, key=lambda kind: found[kind]), sum(found.values())
        title = f"{offered[proof]}: {100 * found[largest] / total:.0f}% are {largest}"
        axes.set_title(title[0].upper() + title[1:])
        listed = ", ".join(f"{kind} {short(n)}" for kind, n in found.items())
        return f"{short(total)} operations in all", f"Bars of operations of the check of {offered[proof]}: {listed}."

    return explore(draw, {"proof": proof}, proof=offered, height=3.2,
                   hint="Go from exact QK to branch and bound: the matrix products stay nearly what they were. What "
                        "the exact count adds is sums and comparisons of entries. The cubic proof adds more of them.")


def by_paths(model: Model, tokens: str = "3 41 17 29") -> Explorer:
    """The lead of the right answer over the best wrong one, as a sum over paths."""
    paths, K = Paths(model), model.sizes["n_ctx"]
    offered = ("3 41 17 29", "3 41 40 29", "7 5 6 2", "41 41 41 41")
    inputs = {said: [int(token) for token in said.split()] for said in offered}

    def draw(figure, tokens: str):
        t = torch.tensor(inputs[tokens])
        q, m = int(t[-1]), int(t.max())
        alpha, logits = answered(paths, inputs[tokens])
        best = best_but(logits, m)
        lead = lambda x: x[..., m] - x[..., best]
        parts = {f"direct path of {q}": float(lead(paths.EU.mid[q]))}
        for p in range(K):
            name = f"attended {int(t[p])}, place {p} ({100 * float(alpha[p]):.1f}%)"
            parts[name] = float(alpha[p] * lead(paths.OV.mid[t[p]]))
        parts["positions"] = float(alpha @ lead(paths.PV.mid))
        total = sum(parts.values())
        axes = figure.add_axes((0.36, 0.17, 0.58, 0.68))
        colours = [plots.EU, *[plots.OV] * K, plots.NOISE]
        bars(axes, parts, map("{:+.2f}".format, parts.values()), colours)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlim(-6, 13)
        axes.set_xlabel(f"logit of {m} less that of {best}")
        axes.set_title(f"Together {total:+.2f}: the answer is {m if total > 0 else best}")
        listed = ", ".join(f"{name} {x:+.2f}" for name, x in parts.items())
        alt = f"Bars of contributions to the lead: {listed}; sum {total:+.3f}."
        return f"{tokens}: {m} leads {best} by {total:+.2f}", alt

    return explore(draw, {"tokens": tokens}, tokens=list(inputs), height=3.3,
                   hint="From the first input to the second one token moves next to the maximum, and takes attention "
                        "away from it. Then small numbers: where the network errs.")


def waves_that_meet(p: int = 113, waves: int = 1) -> Explorer:
    """Cosines of several keys over Z_p that all are high at one number."""
    g = torch.Generator().manual_seed(0)
    keys = (torch.randperm((p - 1) // 2, generator=g) + 1)[:8].tolist()
    c = torch.arange(p)

    def draw(figure, waves: int, answer: int):
        axes = figure.add_axes((0.1, 0.17, 0.87, 0.68))
        each = torch.stack([(2 * pi * (k * (c - answer) % p).double() / p).cos() for k in keys[:waves]])
        total = each.mean(0)
        axes.plot(c, total, color=plots.QK, linewidth=1.2, marker=".", markersize=4)
        choice(axes, answer, 1.0, size=9)
        rival = total.scatter(0, torch.tensor(answer), -torch.inf)
        axes.plot(int(rival.argmax()), float(rival.max()), "s", color=plots.OV, markersize=7)
        at = int(rival.argmax()), float(rival.max())
        axes.annotate(f"nearest rival: {at[0]}", at, (6, 4), **NOTE)
        axes.set_ylim(-1.1, 1.25)
        axes.set_xlabel("number modulo p")
        axes.set_ylabel("mean of the waves")
        axes.set_title(f"{waves} wave{'s' * (waves > 1)}: the nearest rival reaches {100 * float(rival.max()):.1f}%")
        used = ", ".join(map(str, keys[:waves]))
        return f"keys {used} meet at {answer}", (f"Mean of {waves} cosines over {p} numbers, 1 at {answer}; the next "
                                                 f"highest is {float(rival.max()):.3f} at {int(rival.argmax())}.")

    answers = [0, round(0.35 * p), round(0.68 * p)]
    return explore(draw, {"waves": waves}, waves=list(range(1, 9)), answer=answers, height=3.3,
                   hint="One wave has rivals that it can hardly be told from. Add waves one by one. Then move the "
                        "answer: nothing but the place changes.")


@cache
def off_by(kind: str, n: int) -> tuple[list[float], float]:
    """How far sums of n numbers in 20 orders are from the exact one, and the radius that a ball gives."""
    g = torch.Generator().manual_seed(n)
    x = torch.randn(n, generator=g, dtype=torch.float64)
    x = x.abs() if kind == "same sign" else torch.cat([x[: n // 2], -x[: n // 2]]) if kind == "cancelling" else x
    exact = sum(map(Fraction, x.tolist()), Fraction(0))
    orders = [x[torch.randperm(n, generator=g)].tolist() for _ in range(20)]
    off = []
    for order in orders:
        total = 0.0
        for value in order:
            total += value
        off.append(abs(float(Fraction(total) - exact)))
    return off, float(Ball(x).sum(0).rad)


def errors_and_radii(numbers: str = "mixed signs") -> Explorer:
    """Sums of numbers in several orders: how far off they are, and how far a ball allows them to be."""
    sizes = [10, 100, 1000, 10_000]

    def draw(figure, numbers: str):
        axes = figure.add_axes((0.12, 0.17, 0.85, 0.68))
        axes.set_xscale("log")
        axes.set_yscale("log")
        worst: list[float] = []
        for n in sizes:
            off, radius = off_by(numbers, n)
            axes.plot([n] * len(off), [max(x, 1e-18) for x in off], "o", color=plots.NOISE, markersize=4, alpha=0.6)
            axes.plot(n, radius, "D", color=plots.QK, markersize=7)
            worst.append(radius / max(*off, 1e-18))
        off, radius = off_by(numbers, sizes[-1])
        beside = (("radius", radius, 4, plots.QK), ("20 orders, each a point", max(off), -12, "#555555"))
        for said, y, dy, colour in beside:
            axes.annotate(said, (sizes[-1], y), (-8, dy), ha="right", color=colour, **NOTE)
        axes.set_ylim(1e-18, 1e-7)
        axes.set_xlabel("how many numbers are added")
        axes.set_ylabel("distance from the exact sum")
        axes.set_title(f"The radius is {short(min(worst))} to {short(max(worst))} times the largest error seen")
        said = {n: (max(off_by(numbers, n)[0]), off_by(numbers, n)[1]) for n in sizes}
        listed = "; ".join(f"{n} numbers: largest error {off:.2g}, radius {r:.2g}" for n, (off, r) in said.items())
        beyond = sum(x > off_by(numbers, n)[1] for n in sizes for x in off_by(numbers, n)[0])
        head = f"{numbers}: {beyond} of {20 * len(sizes)} sums lie outside of their radius"
        return head, f"Errors of sums in 20 orders and the radius. {listed}."

    return explore(draw, {"numbers": numbers}, numbers=["mixed signs", "same sign", "cancelling"], height=3.4,
                   hint="Go to cancelling: the sum is nearly nothing, the errors stay what they were. A radius is "
                        "absolute, so that it does not mind.")
