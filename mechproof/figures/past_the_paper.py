"""The figures and explorers of the chapter past the paper: bound against length, where ours and the paper's meet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import mean, median, stdev

import pandas as pd
import torch
from matplotlib.ticker import LogLocator

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k.paths import paths_of
from ..max_of_k.terms import Groups, Separable
from ..max_of_k.tiers import TABLES, exactly
from ..proof import cost
from ..proof.bound import Bound, digits_lo, percent_lo, share_lo, short, short_int
from ..proof.family import Model, parse_id
from ..proof.names import STRATEGIES, labels
from ..zoo import tables
from .max_of_k import Survey
from .pieces import NOTE, in_a_sentence, missing, missing_axis, proofs, trying

RANKS = (0, 2, 4, 8, 12, 16, 20, 24, 32)
OURS = labels(STRATEGIES, ("separable-small", "separable-grouped", "separable", "exact", "monte_carlo", "compact-gram",
                           "compact-spectral", "compact-frobenius"))
# where the names of our proofs stand beside their points
BESIDE = {"separable-small": (-7, -3, "right"), "separable-grouped": (7, -8, "left"), "separable": (-8, 0, "right"),
          "exact": (8, -12, "left"), "monte_carlo": (-8, 8, "left"), "compact-gram": (4, -29, "left"),
          "compact-spectral": (7, -4, "left"), "compact-frobenius": (7, -2, "left")}
NOTICED = 0.01          # of what a copy of the maximum adds
COLOURS = {"separable": plots.OV, "exact": plots.TRUTH, "monte_carlo": plots.EU, "compact": plots.QK}


def is_short(model: Model) -> bool:
    """Whether sequences are short enough to be listed; for longer ones every proof takes a second or more,
    and fewer are drawn."""
    return model.sizes["d_vocab"] ** model.sizes["n_ctx"] <= 2**32


class Proofs:
    """Our proofs of one model, each made once."""

    def __init__(self, model: Model):
        self.model, self.papers = model, Survey(model)
        listed = {s.id: s for s in mp.strategies(model)}
        self.ids = [id for id in OURS if id in listed and (is_short(model) or id.startswith(("separable", "monte")))]
        self.ranked = {id for id in self.ids if "qk_rank" in listed[id].parameters and id.startswith("compact")}
        self.bound = lru_cache(maxsize=None)(
            lambda id, rank=None: mp.prove(model, id, rank if id in self.ranked else None))

    def ranks(self, id: str) -> list[int]:
        return [r for r in RANKS if r <= min(self.model.sizes["d_model"],
                                             self.model.sizes["d_head"])] if id in self.ranked else []


def colour(id: str) -> str:
    return next(c for name, c in COLOURS.items() if id.startswith(name))


def frontier(proved: Proofs, strategy: str, rank: int) -> Explorer:
    """The paper's strategies and ours on one axis, movable by strategy and rank: the picture that opens the chapter."""
    papers, model = [b for b in proved.papers.everything()], proved.model
    ours = [proved.bound(id) for id in proved.ids]
    paths = {id: [proved.bound(id, r) for r in proved.ranks(id)] for id in proved.ids}
    flops = [b.flops for b in [*papers, *ours, *(b for path in paths.values() for b in path)]]
    low, high = min(flops) / 1.4, max(flops) * 1.4
    truth = 1 - proved.papers.truth

    def draw(figure, strategy: str, rank: int):
        path = paths[strategy]
        bound = proved.bound(strategy, rank if path else None)
        axes = proofs(figure, papers, path, bound, missing, truth)
        proved.papers.name_points(axes, missing)
        plots.flops_axis(axes, low, high)
        missing_axis(axes, truth / 2)
        known = f"{proved.papers.truth_label} accuracy {proved.papers.truth_said}"
        axes.annotate(known, (high, truth), (-4, 4), ha="right", **NOTE)
        plots.name_points(axes, *zip(*map(missing, ours)), [OURS[id] for id in proved.ids])
        for id, mine in sorted(zip(proved.ids, ours), key=lambda pair: pair[0] != strategy):   # the chosen one first
            x, y, side = BESIDE[id]
            axes.plot(*missing(mine), "D", color=colour(id), markersize=6, alpha=0.75)
            axes.annotate(OURS[id], missing(mine), (x, y), ha=side, color=colour(id), **NOTE)
        best = max(papers, key=lambda b: b.correct)
        axes.annotate("the best of Gross et al.\nbut brute force", missing(best), (8, -8), color="#666666", **NOTE)
        name = OURS[strategy] + (f", rank {rank}" if path else "")
        axes.set_title(f"{name.capitalize()}: {percent_lo(bound.correct, bound.total)}; Gross et al. at "
                       f"best {percent_lo(best.correct, best.total)}")
        in_a_sentence(axes, f"Grey: proofs of Gross et al. Diamonds: ours. The choice: {STRATEGIES[strategy].says}")
        alt = (f"Scatter of certified share against proof length for {model.name}. {name}: {bound}. The paper's best "
               f"short of brute force: {best}. The truth is {proved.papers.truth_said}.")
        return settled(bound, trying(model)) if strategy == "exact" else repr(bound), alt

    ranks = proved.ranks(next(iter(sorted(proved.ranked)))) if proved.ranked else [rank]
    strategy = strategy if strategy in proved.ids else "separable"
    start = {"strategy": strategy, "rank": min(ranks, key=lambda r: abs(r - rank))}
    return explore(draw, start, lambda strategy, rank: () if proved.ranks(strategy) else ("rank",),
                   "Go from few buckets to branch and bound: the proof grows by a few million operations and becomes "
                   "exact. Then choose a compact one and move its rank: with fewer than 10 (norms of rows), 17 (no "
                   "products) or 22 directions more than a hundredth stays open, and the proof grows too, since it "
                   "lists more; with none it claims nothing. (Its diamond has a rank of its own for each table; the "
                   "slider gives all three the same.)", height=4.3,
                   fine={"rank": range(ranks[-1] + 1)} if proved.ranked else None,
                   strategy={id: OURS[id] for id in proved.ids}, rank=ranks)


def settled(bound: Bound, brute: float) -> str:
    """What an exact proof says, and what it would take otherwise."""
    return (f"Exactly {short_int(bound.correct)} of {short_int(bound.total)} inputs are right: proved in "
            f"{short(bound.flops)} operations, where trying them takes {short(brute)}")


def resolution(model: Model) -> Explorer:
    """The separable proof by groups of wrong tokens, buckets of keys, and how queries are taken."""
    groups, buckets = ((1, 2, 4, 6, 8, 12), (3, 4, 5, 6, 8, 12)) if is_short(model) else ((2, 6, 12), (4, 6, 8))
    queries = ("grouped", "each")
    bounds = {(g, b, q): mp.prove(model, f"separable:groups={g},buckets={b},query={q}") for g in groups
              for b in buckets for q in queries}
    survey, offered = Survey(model), groups
    truth = 1 - survey.truth
    flops, shares = zip(*map(missing, bounds.values()))

    def draw(figure, groups: int, buckets: int, queries: str):
        chosen, line = bounds[groups, buckets, queries], [bounds[g, buckets, queries] for g in offered]
        axes = proofs(figure, bounds.values(), line, chosen, missing, truth)
        plots.flops_axis(axes, min(flops) / 1.2, max(flops) * 1.2)
        axes.xaxis.set_major_locator(LogLocator(10, (1, 1.5, 2, 3, 4, 5, 7)))
        missing_axis(axes, truth / 2)
        axes.annotate(f"{survey.truth_label} accuracy {survey.truth_said}", (max(flops) * 1.2, truth), (-4, 4),
                      ha="right", **NOTE)
        axes.set_ylim(max(shares) * 1.5, truth / 2)
        axes.set_title(f"{groups} group{'s' * (groups > 1)} of wrong tokens, {buckets} buckets: "
                       f"{percent_lo(chosen.correct, chosen.total)} certified")
        axes.annotate("the line: these buckets, every number of groups",
                      (max(flops), max(shares)), (0, 0), ha="right", color="#666666", **NOTE)
        return repr(chosen), (f"Scatter of certified share against length. {groups} groups, {buckets} buckets, "
                              f"queries {queries}: {chosen}.")

    return explore(draw, {"groups": 6, "buckets": 6, "queries": "grouped"}, lambda **_: (),
                   "At three buckets go from one group to twelve; then back to one group, and to four buckets: one "
                   "bucket brings more than eleven groups. The last step is to take queries singly.", height=3.8,
                   groups=groups, buckets=buckets, queries={"grouped": "in buckets", "each": "singly"})


def terms_of(model: Model) -> Explorer:
    """What each token adds to the sum, for the hardest kinds of wrong token."""
    proof = Separable(exactly(paths_of(model)).centred(), Groups(4), model.sizes["d_vocab"])
    v, lay = model.sizes["d_vocab"], proof.lay
    # with wrong tokens of every kind
    maxima = [round(v * share) for share in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)]
    wrong = {0: "m + 1", 1: "m - 1", 2: "all other smaller", 3: "all other larger"}
    stage = proof.each()

    def draw(figure, maximum: int, wrong_token: int):
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.7))
        row = lay.pair(torch.tensor([maximum]), torch.tensor([maximum // 2]))
        f = stage.cells(row, torch.tensor([wrong_token])).f.mid[0, 0, : maximum + 1]
        gain, share = float(f[0]), f / f[0].abs()
        taking, worst = int((share < -NOTICED).sum()), 100 * max(0.0, -float(share.amin()))
        axes.bar(maximum - torch.arange(maximum + 1), share.clamp(-1.6, 1.2), width=0.9,
                 color=[plots.OV if x >= 0 else plots.NOISE for x in f.tolist()])
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlim(-1, v)
        axes.set_ylim(-1.6, 1.2)
        axes.set_xlabel(f"token in the first position (query {maximum // 2})")
        axes.set_ylabel(f"its term (copy of the maximum: {'1' if gain > 0 else '-1'})")
        axes.set_title(f"Maximum {maximum}: the worst token takes {worst:.3g}% of what a copy of it adds")
        said = f"tokens that take away more than {NOTICED:.0%} of that: {taking} of {maximum + 1}"
        return (f"A copy of the maximum adds {gain:.3g}; {said}",
                f"Bars of the first position's term for maximum {maximum}, query {maximum // 2}, wrong tokens "
                f"{wrong[wrong_token]}: a copy of the maximum adds {gain:.4g}, the worst token takes away {worst:.3g}% "
                f"of that; {said}.")

    return explore(draw, {"maximum": maxima[2], "wrong_token": 1},
                   hint="Choose all other smaller, and raise the maximum: at 13 the worst token takes away more than a "
                        "copy of the maximum adds, at 22 less than half of that, at 58 about a tenth.",
                   height=3.4, maximum=maxima, wrong_token=wrong)


def steps(model: Model) -> pd.DataFrame:
    """What every step of the exact proof decides, and what it costs; nothing for sequences that are too long for it."""
    from ..max_of_k.exact import BUCKETS, GROUPS, Steps
    if not is_short(model):
        return pd.DataFrame({"step": ["(only for K up to 5)"]})
    with cost.count() as counted:
        circuits = exactly(paths_of(model))
        rows, last = [("the five tables", None, None, counted.flops)], counted.flops
        proof = Separable(circuits.centred(), Groups(GROUPS), BUCKETS)
        names = ("groups, queries in buckets", "single wrong tokens", "single queries")
        for name, (_, begun, book, _) in zip(names, Steps(proof).taken()):
            rows.append((name, begun, len(book.r), counted.flops - last))
            last = counted.flops
    whole = mp.prove(model, "exact")
    rows.append(("single sequences", None, whole.total - whole.correct, whole.flops - last))
    table = pd.DataFrame(rows, columns=["step", "cells", "left open", "operations"]).set_index("step")
    table = table.map(lambda n: "" if pd.isna(n) else f"{int(n):,}".replace(",", " "))
    # nothing is open any more
    table.loc["single sequences", "left open"] += " proved wrong"
    return table


def averages(bounds: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread of bound and operations over all models of a sweep's table: ours, and the paper's cubic proof."""
    rows = []
    for id in [id for id in (*OURS, "cubic") if id in set(bounds.strategy)]:
        mine = bounds[bounds.strategy == id]
        share, flops = mine.accuracy_lower_bound, mine.flops
        rows.append({"proof": STRATEGIES[id].label + directions(id),
                     "certified, mean": digits_lo(100 * mean(share), 2) + "%",
                     "s.d.": f"{100 * stdev(share):.2f}", "worst model": digits_lo(100 * min(share), 1) + "%",
                     "operations, median": short(median(flops)), "most": short(max(flops))})
    return pd.DataFrame(rows).set_index("proof")


def directions(id: str) -> str:
    """How many directions a compact proof takes out of each table where nothing else is said."""
    ranks = {name: parse_id(id, mp.strategies(mp.load("max-of-4/0")))[1].get(f"{name}_rank") for name in TABLES}
    return f" ({', '.join(f'{r}' for r in ranks.values())})" if any(ranks.values()) else ""


def every_model(bounds: pd.DataFrame) -> plots.Picture:
    """All models, all of our proofs and the paper's best, bound against length."""
    with plots.house():
        figure = plots.new_figure(3.9)
        axes = figure.add_axes((0.11, 0.15, 0.86, 0.74))
        listed = [id for id in (*OURS, "cubic") if id in set(bounds.strategy)]
        flops = bounds.flops[bounds.strategy.isin(listed)]
        plots.flops_axis(axes, min(flops) / 1.2, max(flops) * 1.2)
        missing_axis(axes, 1e-4)
        axes.set_ylim(0.4, 1e-4)
        words, medians = [], {}
        for id, marker in zip(listed, "os^DvPX<p"):
            mine = bounds[bounds.strategy == id]
            x, y = mine.flops, (1 - mine.accuracy_lower_bound).clip(lower=1e-5)
            c = plots.NOISE if id == "cubic" else colour(id)
            plots.dots(axes, x, y, 5, c, 0.25)
            axes.plot(median(x), median(y), marker, color=c, markersize=9, markeredgecolor="white", linestyle="none",
                      label=OURS.get(id, "the paper's cubic"), zorder=3)
            medians[id] = 1 - median(y)
            words.append(f"{OURS.get(id, id)}: median {digits_lo(100 * (1 - median(y)), 2)} percent at "
                         f"{short(median(x))} operations")
        axes.legend(loc="lower left", ncol=3, fontsize=8.5)
        worst, cubic = min(share for id, share in medians.items() if id != "cubic"), medians["cubic"]
        axes.set_title(f"Medians of {bounds.model.nunique()} models: ours from {digits_lo(100 * worst, 1)}%, "
                       f"the paper's best {digits_lo(100 * cubic, 1)}%")
        return plots.Picture(figure, "Scatter of certified share against length over all Max-of-4 models. "
                             + "; ".join(words) + ".")


LARGER = {"max-of-4": "separable", "max-of-5": "separable:groups=12,buckets=12",
          "max-of-10": "separable:groups=12,buckets=12", "max-of-20": "separable:groups=12,buckets=12",
          "max-of-4-v128": "separable:groups=24,buckets=16", "max-of-4-v256": "separable:groups=24,buckets=16"}


def larger() -> pd.DataFrame:
    """Longer sequences and larger vocabularies, query by query: means of shares, medians of operations and seconds."""
    rows = []
    for collection, strategy in LARGER.items():
        bounds, sizes = tables.shipped(collection), mp.load(f"{collection}/0").sizes
        mine = bounds[bounds.strategy == strategy]
        rows.append({"inputs": f"{sizes['d_vocab']}^{sizes['n_ctx']}", "models": len(mine),
                     "certified": digits_lo(100 * mean(mine.accuracy_lower_bound), 2) + "%",
                     "accuracy": f"{share_lo(mean(mine.truth))}%",
                     "largest gap": f"{100 * max(mine.truth - mine.accuracy_lower_bound):.2f}",
                     "operations": short(median(mine.flops)), "seconds": f"{median(mine.seconds):.2g}"})
    return pd.DataFrame(rows).set_index("inputs")


def without_moving_the_mean(model: Model, settings: Sequence[tuple[int, int, bool]]
                            = ((1, 9, False), (6, 8, False), (8, 9, True))) -> pd.DataFrame:
    """The same proofs with and without moving the direct path's mean into the votes."""
    from ..max_of_k.separable import count, refine
    circuits, total = exactly(paths_of(model)), model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    rows = []
    for groups, buckets, each in settings:
        both = [Separable(c, Groups(groups), buckets) for c in (circuits, circuits.centred())]
        found = [count(proof.lay, each, *refine(proof, each))[0] for proof in both]
        rows.append({"groups": groups, "buckets": buckets, "queries": "each" if each else "grouped",
                     "as they are": percent_lo(found[0], total), "mean moved": percent_lo(found[1], total)})
    return pd.DataFrame(rows)
