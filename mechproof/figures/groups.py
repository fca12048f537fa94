"""The figures of the chapter on composition: a network read in cosets and in irreps, its neurons, and all networks."""

from __future__ import annotations

from functools import lru_cache
from statistics import median

import pandas as pd
import torch
from matplotlib.ticker import NullFormatter

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..groups.coset_search import priced
from ..proof import names
from ..proof.bound import Bound, percent_lo, ratio_lo, share_lo, short
from ..proof.family import Model
from ..zoo import results
from .pieces import NOTE, choice, share_axis, trying

READINGS = {"cosets": plots.QK, "irreps": plots.OV, "singular": plots.EU}
LABELS = {"cosets": names.STRATEGIES["cosets"].label} | names.labels(names.BASES)
PRICES = (0.3, 0.1, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)
SHARES = (0, 0.07, 0.14, 0.17, 0.2, 0.24, 0.33, 0.6, 0.99)          # of the output's directions
COLLECTIONS = {"S4": "group-s4", "A5": "group-a5", "S5": "group-s5", "S5, weight decay": "group-s5-decay"}
PARTS = 20
AIMS = {"99%": "cosets", "95%": "cosets:parts=32,aim=95"}     # the proof that stops there
OF_A_KIND = 5                                                       # neurons shown with so many cells


def stored(collection: str) -> pd.DataFrame:
    """Bounds of all seeds of a collection, those of networks that do not ship as well."""
    rows = pd.DataFrame(results("groups")[collection])
    shares = [ratio_lo(correct, total) for correct, total in zip(rows.correct, rows.total)]
    return rows.assign(accuracy_lower_bound=shares)


@lru_cache(maxsize=1)
def proofs(model: Model) -> dict[str, list[tuple[Bound, str]]]:
    """Nine proofs a reading, from short to long, and what each was told."""
    G = model.sizes["d_vocab"]
    found: dict[str, list[tuple[Bound, str]]] = {reading: [] for reading in READINGS}
    for step, price in enumerate(PRICES):
        advice, rank = priced(model, PARTS, price), int(SHARES[step] * G)
        used = [len(advice[f"{side}_of"].unique()) for side in "xy"]
        bound = mp.check(model, f"cosets:parts={PARTS}", advice)
        found["cosets"].append((bound, f"{used[0]} partitions of x, {used[1]} of y"))
        for basis in names.BASES:
            found[basis].append((mp.prove(model, f"directions:rank={rank},basis={basis}"), f"{rank} of {G} directions"))
    return found


def readings(model: Model) -> Explorer:
    """Certified share against length, one network read in three ways."""
    found, brute = proofs(model), trying(model)
    lengths = [bound.flops for one in found.values() for bound, _ in one]

    def draw(figure, reading: str, budget: int):
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.71))
        axes.axvline(brute, color=plots.NOISE, linewidth=1, linestyle=":")
        axes.annotate("trying all pairs", (brute, 0.5), (-4, 0), rotation=90, ha="right", va="center", **NOTE)
        for name, one in found.items():
            strong = name == reading
            axes.plot([b.flops for b, _ in one], [b.accuracy_lower_bound for b, _ in one],
                      ".--" if name == "irreps" else ".-",
                      linewidth=2 if strong else 1, color=READINGS[name] if strong else plots.PALE,
                      label=LABELS[name], zorder=2 if strong else 1)
        bound, said = found[reading][budget - 1]
        choice(axes, bound.flops, bound.accuracy_lower_bound)
        axes.legend(loc="lower right", fontsize=8.5, handlelength=1.2)
        plots.flops_axis(axes, 0.7 * min(lengths), 9 * max([*lengths, brute]))
        share_axis(axes, "pairs certified")
        share = percent_lo(bound.correct, bound.total)
        against = (f"1/{brute / bound.flops:.1f} of trying" if bound.flops < brute
                   else f"{bound.flops / brute:.2f} times what trying takes")
        axes.set_title(f"{LABELS[reading]}: {share} certified, at {against}")
        return (f"{said}: {share} of {bound.total} pairs, {short(bound.flops)} operations",
                f"Lines of certified share against operations, one a reading. {LABELS[reading]}, {said}: {share} "
                f"certified at {against}.")

    return explore(draw, {"reading": "cosets", "budget": 5}, hint="Give each reading more. To certify 95% of all "
                   "pairs, cosets take less than an eighth of what irreps take, or singular vectors.",
                   height=3.7, reading={name: LABELS[name] for name in READINGS}, budget=range(1, len(PRICES) + 1))


def largest(model: Model) -> tuple[dict, list[int]]:
    """Advice, and some neurons: of each number of cells from two on the largest, which vote for anything."""
    advice, w = priced(model, PARTS, 0.003), model.tensors
    size = w["W_U"].norm(dim=1) * (w["W_L"].square().sum(0) + w["W_R"].square().sum(0)).sqrt()
    cells, kinds = advice["y_cells"].amax(1)[advice["y_of"]] + 1, {}
    for i in size.argsort(descending=True).tolist():
        if size[i] > 0 and cells[i] > 1:
            kinds.setdefault(int(cells[i]), []).append(i)
    return advice, [i for n in sorted(kinds) for i in kinds[n][:OF_A_KIND]]


def neurons(model: Model) -> Explorer:
    """What single neurons read of x and of y, and what they vote for."""
    (advice, order), w = largest(model), model.tensors
    limit = max(float(w[name][:, order].abs().max()) for name in ("W_L", "W_R"))
    votes = float(w["W_U"][order].abs().max())

    def draw(figure, neuron: int):
        i = order[neuron - 1]
        told = []
        for at, (side, name, colour) in enumerate((("x", "W_L", plots.QK), ("y", "W_R", plots.OV))):
            axes = figure.add_axes((0.08 + 0.32 * at, 0.17, 0.25, 0.66))
            cell, value = advice[f"{side}_cells"][advice[f"{side}_of"][i]], w[name][:, i]
            rank = torch.stack([value[cell == c].mean() for c in cell.unique()]).argsort().argsort()
            plots.dots(axes, rank[cell], value, 16, colour, 0.5)
            axes.set_ylim(-1.1 * limit, 1.1 * limit)
            axes.set_xticks([])
            axes.set_xlabel(f"cosets of {side}")
            axes.set_title(f"reads {side} by {len(rank)} cosets", fontsize=9.5)
            told.append(len(rank))
        axes = figure.add_axes((0.74, 0.17, 0.24, 0.66))
        ordered = w["W_U"][i].sort().values
        plots.dots(axes, range(len(ordered)), ordered, 12, plots.EU, 0.7)
        axes.set_ylim(-1.1 * votes, 1.1 * votes)
        axes.set_xticks([])
        axes.set_xlabel("products z, in order")
        strong = int((ordered * ordered.sum().sign() > ordered.abs().max() / 2).sum())
        axes.set_title(f"votes strongly on {strong}", fontsize=9.5)
        headline = (f"neuron {neuron}: {told[0]} cells of x, {told[1]} of y; strong votes on {strong} of "
                    f"{len(ordered)} products")
        return headline, f"Three panels of dots: weights by coset of x, by coset of y, and votes in order. {headline}."

    return explore(draw, {"neuron": min(3, len(order))}, hint="Neurons come by the number of their cosets of y, the "
                   "largest few of each. In most the dots of a coset lie on one line. Two cosets tell the sign, 5 "
                   "where a point goes.", height=3.3, neuron=range(1, len(order) + 1))


def over_models() -> Explorer:
    """All networks of a collection: certified share against the share of trying's operations."""
    found = {name: stored(collection) for name, collection in COLLECTIONS.items()}
    brute = {name: bounds[bounds.strategy == "brute_force"].set_index("model").flops for name, bounds in found.items()}

    def draw(figure, group: str, aim: str):
        axes, bounds, mid = figure.add_axes((0.11, 0.16, 0.86, 0.71)), found[group], {}
        for strategy, colour in (("cosets", plots.QK), ("directions", plots.OV)):
            mine = bounds[bounds.strategy == (AIMS[aim] if strategy == "cosets" else strategy)]
            ratio = [flops / brute[group][model] for model, flops in zip(mine.model, mine.flops)]
            plots.dots(axes, ratio, mine.accuracy_lower_bound, 14, colour, 0.5)
            plots.name_points(axes, ratio, mine.accuracy_lower_bound, mine.model)
            mid[strategy] = median(ratio), median(mine.accuracy_lower_bound)
            place = ((0, -16), "center") if strategy == "cosets" else ((-12, 12), "right")
            axes.annotate(names.STRATEGIES[strategy].label, mid[strategy], place[0], ha=place[1], color=colour, **NOTE)
        axes.axvline(1 / 3, color=plots.NOISE, linewidth=1, linestyle=":")
        axes.axhline(0.95, color=plots.NOISE, linewidth=1, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlim(1 / 25, 2.5)
        axes.set_xticks([1 / 20, 1 / 10, 1 / 5, 1 / 2, 1, 2], ["1/20", "1/10", "1/5", "1/2", "1", "2"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("length of the proof, over that of trying")
        share_axis(axes, "pairs certified")
        mine = bounds[bounds.strategy == AIMS[aim]]
        good = int((mine.accuracy_lower_bound >= 0.95).sum())
        axes.set_title(f"{good} of {len(mine)} networks certified to 95% or more, median length 1/"
                       f"{1 / mid['cosets'][0]:.1f}")
        return (f"{group}: {good} of {len(mine)} at 95% or more",
                f"Scatter of certified share against length over that of trying, all of "
                f"{COLLECTIONS[group]}. By cosets {good} of {len(mine)} networks at 95 percent or more, median "
                f"1/{1 / mid['cosets'][0]:.1f}.")

    return explore(draw, {"group": "S5"}, hint="Dotted: 95%, and a third of trying, the published mark for S5. Then "
                   "take the networks of S5 that weight decay alone has trained.", height=3.7,
                   group=[*COLLECTIONS], aim=[*AIMS])


def what_it_comes_to() -> pd.DataFrame:
    """By collection: networks, accuracy, certified shares and lengths of both proofs against trying."""
    rows = []
    passed = lambda share, ratio, least: f"{int(((share >= 0.95) & (ratio >= least)).sum())} of {len(share)}"
    for name, collection in COLLECTIONS.items():
        bounds = stored(collection)
        by = {id: mine.set_index("model") for id, mine in bounds.groupby("strategy")}
        brute, mine = by["brute_force"], by["cosets"]
        share, ratio, aimed = mine.accuracy_lower_bound, brute.flops / mine.flops, by[AIMS["95%"]]
        rows.append({"network": name, "networks": len(mine),
                     "accuracy, median": f"{share_lo(median(brute.accuracy_lower_bound))}%",
                     "certified, median": f"{share_lo(median(share))}%", "certified, least": f"{share_lo(min(share))}%",
                     "95% at 1/4 of trying": passed(share, ratio, 4),
                     "95% at 1/10 of trying": passed(share, ratio, 10),
                     "95% at 1/10, aiming at 95%": passed(aimed.accuracy_lower_bound, brute.flops / aimed.flops, 10),
                     "trying, median": short(median(brute.flops)), "coset by coset, median": short(median(mine.flops)),
                     "directions, median": f"{share_lo(median(by['directions'].accuracy_lower_bound))}% at "
                                           f"{short(median(by['directions'].flops))}"})
    return pd.DataFrame(rows).set_index("network").T
