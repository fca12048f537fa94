"""The figures of the page on several heads: what each head votes, a split between two, and what proofs come to."""

from __future__ import annotations

from statistics import mean, median

import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.ticker import FixedLocator, LogLocator
from torch import Tensor

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k.exact import BUCKETS
from ..max_of_k.heads import Heads, advise, sampled_leads
from ..proof.bound import digits_lo, share_lo, short
from ..proof.family import Model
from ..proof.names import STRATEGIES
from ..zoo import tables
from .pieces import NOTE, missing_axis

COLOURS = (plots.QK, plots.OV, plots.EU, plots.NOISE)
SEVERAL = {"2": "max-of-4-h2", "4": "max-of-4-h4"}
COLLECTIONS = {"1": "max-of-4"} | SEVERAL
PROOFS = {"separable": plots.OV, "exact": plots.TRUTH, "brute_force": plots.NOISE}
MAXIMA, WRONG = (5, 10, 20, 40, 60), {-1: "m - 1", 1: "m + 1", -2: "m - 2"}
STEPS = range(-8, 9, 2)


def runner_up(model: Model) -> Float[Tensor, "h m"]:
    """Each head's mean lead over the strongest wrong token, over random sequences of each maximum."""
    found = []
    for m in range(model.sizes["d_vocab"]):
        leads = sampled_leads(model, m)                                                          # [h, s, x]
        total = leads.sum(0)
        total[:, m] = torch.inf
        found.append(leads.gather(2, total.argmin(1)[None, :, None].expand(len(leads), -1, 1)).mean((1, 2)))
    return torch.stack(found, 1)


def who_votes(seeds: int = 5) -> Explorer:
    """What each head adds to the lead, by the maximum."""
    leads = {(heads, seed): runner_up(mp.load(f"{collection}/{seed}")) for heads, collection in SEVERAL.items()
             for seed in range(seeds)}
    low, high = (min(float(x.amin()) for x in leads.values()), max(float(x.sum(0).amax()) for x in leads.values()))

    def draw(figure, heads: str, network: int):
        axes, found = figure.add_axes((0.1, 0.16, 0.87, 0.71)), leads[heads, network]
        maxima, total = range(found.shape[1]), found.sum(0)
        for h, line in enumerate(found):
            axes.plot(maxima, line, color=COLOURS[h], linewidth=1.3, label=f"head {h + 1}")
        axes.plot(maxima, total, color="black", linewidth=2, label="together")
        axes.legend(loc="lower right", ncol=len(found) + 1, fontsize=8.5)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlim(0, maxima[-1])
        axes.set_ylim(low - 1, high + 1)
        axes.set_xlabel("maximum m of the sequence")
        axes.set_ylabel("mean lead of m (logits)")
        behind, both = [int((line < 0).sum()) for line in found], int((total < 0).sum())
        axes.set_title(f"Alone behind for {', '.join(map(str, behind))} of {len(total)} maxima; together for {both}")
        said = ", ".join(f"head {h + 1} for {n}" for h, n in enumerate(behind))
        return (f"{heads} heads, network {network}: behind alone: {said}; together for {both}",
                f"Lines of the mean lead over the strongest wrong token, by maximum, one a head and their sum, of "
                f"{SEVERAL[heads]}/{network}. Below zero: {said}; together for {both} of {len(total)} maxima.")

    return explore(draw, {"heads": "2"}, hint="Another network shares the work in another way. From maximum 10 "
                   "on, where one head falls behind, others make up for it, and which one falls behind changes from "
                   "maximum to maximum. At maxima 0 to 4 nobody does.",
                   height=3.6, heads=[*SEVERAL], network=range(seeds))


def split(model: Model, maximum: int = 20) -> Explorer:
    """Sequences by what each of two heads gives, and the corner that a split certifies."""
    leads, searched = {m: sampled_leads(model, m) for m in MAXIMA}, -advise(model)["split"][0]

    def draw(figure, maximum: int, wrong_token: int, split: int):
        axes = figure.add_axes((0.1, 0.15, 0.87, 0.72))
        m, x = maximum, maximum + wrong_token
        one, two = leads[m][0, :, x], leads[m][1, :, x]
        low, high = min(STEPS) - 1, max(max(STEPS), float(leads[m][..., x].amax())) + 1
        inside, right, best = (one > split) & (two > -split), one + two > 0, float(searched[m, x])
        axes.fill_between([split, high], -split, high, color=plots.QK, alpha=0.12, linewidth=0, label="certified")
        axes.plot([low, -low], [-low, low], color=plots.TRUTH, linestyle="--", linewidth=1, label="leads add up to 0")
        plots.dots(axes, one[~inside], two[~inside], 14, plots.NOISE)
        plots.dots(axes, one[inside], two[inside], 14, plots.QK)
        axes.plot(best, -best, "o", color="white", markersize=8, markeredgecolor="black", zorder=3,
                  label="the split that the proof takes")
        axes.plot(split, -split, "o", color=plots.CHOICE, markersize=10, markeredgecolor="black", zorder=4,
                  label="this split")
        axes.legend(loc="lower left", fontsize=8.5)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_xlabel("lead that head 1 gives, with half the direct path (logits)")
        axes.set_ylabel("lead that head 2 gives")
        n, k, r = len(one), int(inside.sum()), int(right.sum())
        axes.set_title(f"This split certifies {k} of {n} sequences; against {WRONG[wrong_token]} {r} are right")
        return (f"maximum {m} against {x}: {k} of {n} certified, {r} right",
                f"Scatter of {n} random sequences of maximum {m} by the lead over token {x} that each of two heads "
                f"gives. A corner at {split}, {-split} certifies {k}; {r} lie above the line of leads whose sum is 0.")

    start = {"maximum": min(MAXIMA, key=lambda m: abs(m - maximum)), "wrong_token": -1, "split": 4}
    return explore(draw, start, hint="Move the split: the corner slides along the dashed line. Every position of it is "
                   "sound. At small maxima few are useful; at 60 against m - 1 all are.",
                   height=3.9, maximum=MAXIMA, wrong_token=WRONG, split=STEPS)


def steps(model: Model) -> pd.DataFrame:
    """What the first two steps of the proof decide."""
    proof, rows = Heads.of(model, advise(model)["split"], BUCKETS), []
    for name, (_, begun, book, _) in zip(("buckets of queries", "single queries"), proof.taken()):
        rows.append({"step": name, "cells": begun, "left open": len(book.r)})
    return pd.DataFrame(rows).set_index("step")


def lengths() -> Explorer:
    """All models of so many heads: certified share against length, of three proofs."""
    found = {heads: tables.shipped(collection) for heads, collection in COLLECTIONS.items()}
    high = 2 * max(float(bounds.flops[bounds.strategy == "brute_force"].max()) for bounds in found.values())

    def draw(figure, heads: str):
        axes, bounds = figure.add_axes((0.11, 0.16, 0.86, 0.71)), found[heads]
        plots.flops_axis(axes, 5e5, high)
        # nearly five decades
        axes.xaxis.set_major_locator(LogLocator(10))
        missing_axis(axes, 5e-5)
        axes.yaxis.set_major_locator(FixedLocator([0.01, 0.005, 0.001, 0.0005, 0.0001]))
        axes.set_ylim(0.02, 5e-5)
        middle = {}
        for id, colour in PROOFS.items():
            mine = bounds[bounds.strategy == id]
            x, y = mine.flops, (1 - mine.accuracy_lower_bound).clip(lower=6e-5)
            plots.dots(axes, x, y, 10, colour, 0.35)
            axes.plot(median(x), median(y), "D", color=colour, markersize=8, markeredgecolor="white")
            side = (8, -3, "left") if id == "exact" else (-8, -3, "right")
            axes.annotate(STRATEGIES[id].label, (median(x), median(y)), side[:2], ha=side[2], **NOTE)
            middle[id] = median(x), 1 - median(y)
        (short_one, share), (whole, _) = middle["separable"], middle["brute_force"]
        axes.set_title(f"{bounds.model.nunique()} models, medians: {digits_lo(100 * share, 2)}% certified, "
                       f"in 1/{int(whole / short_one)} of the operations")
        said = "; ".join(f"{STRATEGIES[id].label}: median {digits_lo(100 * y, 3)} percent at {short(x)} operations"
                         for id, (x, y) in middle.items())
        return (f"{heads} head{'s' * (heads != '1')}: {short(short_one)} operations against {short(whole)}",
                f"Scatter of certified share against length over all models of {COLLECTIONS[heads]}. {said}.")

    return explore(draw, {"heads": "2"}, hint="One head: the proofs of the page before. With two heads and with four, "
                   "trying takes longer, and the length of the proof grows faster than that.",
                   height=3.7, heads=[*COLLECTIONS])


def what_it_comes_to() -> pd.DataFrame:
    """The separable proof, the exact count and trying, by number of heads, over all models; operations are medians."""
    rows, middle = [], lambda x: short(median(x)) if len(x) else ""
    for heads, collection in (COLLECTIONS | {"2, K = 10": "max-of-10-h2"}).items():
        bounds = tables.shipped(collection)
        bounds = bounds[bounds.error.isna()]
        by = {id: bounds[bounds.strategy == id] for id in PROOFS}
        mine, count = by["separable"], by["exact"]
        agree = f"{int((count.correct == count.right).sum())} of {len(count)}" if len(count) else ""
        rows.append({"heads": heads, "models": len(mine),
                     "certified, mean": digits_lo(100 * mean(mine.accuracy_lower_bound), 3) + "%",
                     "least": digits_lo(100 * min(mine.accuracy_lower_bound), 3) + "%",
                     "accuracy, mean": f"{share_lo(mean(mine.truth), 3)}%", "counted exactly": agree,
                     **{STRATEGIES[id].label: middle(rows_of.flops) for id, rows_of in by.items()}})
    return pd.DataFrame(rows).set_index("heads").T
