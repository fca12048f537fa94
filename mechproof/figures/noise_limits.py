"""The figures and explorers of the noise chapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil
from statistics import mean, stdev

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k.paths import Paths
from ..noise import ablation, compounding, mlp, residual, surrogate
from ..proof import names
from ..proof.bound import Bound, percent_lo, share_lo, short
from ..proof.family import Model
from ..proof.names import labels
from ..proof.product_bounds import RUNGS
from .pieces import NOTE, choice, in_a_sentence, missing_axis, proofs, truth_line

LABELS, NULLS, PEELS = map(labels, (names.RUNGS, names.NULLS, names.PEELS))
RANKS = (0, 1, 2, 4, 8, 16, 32)
DRAWS = 6                                                                # of noise, where one would be luck


class Survey:
    """One model's proofs, peels and noise, each made once."""

    def __init__(self, model: Model, noise_seed: int):
        self.model, self.seed = model, noise_seed
        self.bound = lru_cache(maxsize=None)(lambda rung, rank: residual.certify(model, rung, "QK", rank))
        self.scores = lru_cache(maxsize=None)(lambda rung, rank: residual.scores_flops(model, rung, "QK", rank))
        self.split = lru_cache(maxsize=None)(lambda rank, peel="QK": residual.residual(model, peel, rank))
        self.as_noise = lru_cache(maxsize=None)(self._as_noise)
        self.draws = lru_cache(maxsize=None)(self._draws)
        self.right = lru_cache(maxsize=None)(lambda: mp.prove(model, "exact"))
        self.known = lru_cache(maxsize=None)(lambda: mp.prove(model, "separable"))
        self.ranks = [r for r in RANKS if r <= min(model.sizes["d_model"], model.sizes["d_head"])]
        self.some_ranks = self.ranks[1:-1]                               # something is peeled, and something is left

    def _draws(self, null: str, peel: str, rank: int) -> torch.Tensor:
        draws = surrogate.NULLS[null](self.split(rank, peel).numbers, 400, surrogate.generator_of(self.seed))
        return surrogate.largest(draws)

    def _as_noise(self, rank: int) -> float:
        """Share certified with turned factors in place of the rest, multiplied out: the mean of DRAWS draws."""
        some = (ablation.redrawn(self.split(rank), "haar", self.seed + i) for i in range(DRAWS))
        return mean(ablation.certified(self.model, split, "exact") for split in some)

    def missing(self, rung: str, rank: int) -> float:
        return max(1 - self.bound(rung, rank).accuracy_lower_bound, 1e-6)

    @property
    def truth(self) -> float:
        return 1 - self.right().accuracy_lower_bound


def nearest(values: Sequence[int], rank: int) -> int:
    return min(values, key=lambda r: abs(r - rank))


def drop_off(survey: Survey, strategy: str, rank: int) -> Explorer:
    """Certified share against what is spent on the scores, movable by rung and rank:
    the picture that opens the chapter."""
    place = lambda step: (survey.scores(*step), survey.missing(*step))
    points = [(rung, r) for rung in RUNGS for r in survey.ranks]
    low, high = (f(survey.scores(*step) for step in points) for f in (min, max))

    def draw(figure, strategy: str, rank: int):
        path = [(strategy, r) for r in survey.ranks]
        axes = proofs(figure, points, path, (strategy, rank), place, survey.truth)
        in_a_sentence(axes, names.RUNGS[strategy].says)
        plots.name_points(axes, *zip(*map(place, points)), (f"{LABELS[rung]}, rank {r}" for rung, r in points))
        plots.flops_axis(axes, low / 1.3, high * 1.3, "operations spent on the scores (FLOP)")
        missing_axis(axes, survey.truth / 2)
        bound = survey.bound(strategy, rank)
        share = percent_lo(bound.correct, bound.total)
        axes.set_title(f"{LABELS[strategy].capitalize()}, {rank} direction{'s' * (rank != 1)} peeled: {share}")
        axes.annotate(f"exact accuracy {share_lo(1 - survey.truth)}%", (high, survey.truth), (-4, 4),
                      ha="right", **NOTE)
        best = survey.bound("exact", rank)
        alt = (f"Scatter of certified share against operations on the scores for {survey.model.name}. "
               f"{LABELS[strategy]} at rank {rank}: {bound}, "
               f"{short(survey.scores(strategy, rank))} of them on the scores. With everything multiplied out: {best}.")
        return f"{bound} · {short(survey.scores(strategy, rank))} of them on the scores", alt

    return explore(draw, {"strategy": strategy, "rank": nearest(survey.ranks, rank)}, height=4.3, strategy=LABELS,
                   rank=survey.ranks, fine={"rank": range(survey.ranks[-1] + 1)},
                   hint="At one direction, go down the list: the steps know less and less of the rest, and allow it "
                        "more, until nothing is left of the bound. Then raise the rank: two of the last rungs come "
                        "back step by step, Frobenius norms only when most directions are peeled.")


def ladder(survey: Survey, rank: int) -> pd.DataFrame:
    """Every rung of this model at one rank: its bound on a row difference, how loose,
    what it costs and what it buys."""
    split = survey.split(rank)
    truth = float(surrogate.ranges([split.noise[None]]).mean())
    rows = []
    for rung, bound in RUNGS.items():
        found, proved = float(bound(split.rest).mid.mean()), survey.bound(rung, rank)
        rows.append({"rung": LABELS[rung], "mean bound": f"{found:.3g}", "looseness": f"{found / truth:.3g}",
                     "on the scores": short(survey.scores(rung, rank)), "whole proof": short(proved.flops),
                     "certified": percent_lo(proved.correct, proved.total)})
    return pd.DataFrame(rows).set_index("rung")


def numbered(axes: Axes, x: Sequence[float], y: Sequence[float], color: str) -> None:
    """One numbered point a rung, and which rung has which number."""
    axes.plot(x, y, "o", color=color, markersize=6)
    for i, point in enumerate(zip(x, y), 1):
        axes.annotate(str(i), point, (8, 5), zorder=5, **NOTE)
    number_legend(axes, LABELS.values(), loc="lower left")


def number_legend(axes: Axes, entries: Iterable[str], **place) -> None:
    """What the numbers beside points stand for."""
    lines = [f"{i}  {entry}" for i, entry in enumerate(entries, 1)]
    axes.legend([Line2D([], [], linestyle="none") for _ in lines], lines, handlelength=0, handletextpad=0, **place)


def slack_curve(survey: Survey, rank: int) -> Explorer:
    """Certified share when every difference of two scores may be off by as much, with the rungs marked on the curve."""
    grid = [round(0.05 * 1.3**i, 2) for i in range(24)]
    certified = [ablation.under_slack(survey.model, slack) for slack in grid]
    curve = [max(1 - share, 1e-6) for share in certified]
    ranks = survey.some_ranks
    size = {(rung, r): float(RUNGS[rung](survey.split(r).rest).mid.mean()) for rung in RUNGS for r in ranks}

    def draw(figure, slack: int, rank: int):
        axes, off, share = figure.add_axes((0.11, 0.16, 0.86, 0.72)), grid[slack], share_lo(certified[slack], 3)
        axes.set_xscale("log")
        axes.set_xlim(0.01, 3000)
        axes.set_xticks([0.01, 0.1, 1, 10, 100, 1000], ["0.01", "0.1", "1", "10", "100", "1000"])
        missing_axis(axes, survey.truth / 2)
        axes.plot(grid, curve, color=plots.NOISE, linewidth=2.5)
        truth_line(axes, survey.truth)
        numbered(axes, [size[rung, rank] for rung in RUNGS], [survey.missing(rung, rank) for rung in RUNGS], plots.QK)
        choice(axes, off, curve[slack])
        axes.set_xlabel("slack (log scale); points: mean slack of a rung")
        zero = [rung for rung in RUNGS if survey.bound(rung, rank).correct == 0]
        axes.set_title(f"{rank} direction{'s' * (rank != 1)} peeled: {len(zero)} of {len(RUNGS)} rungs certify nothing")
        listed = "; ".join(f"{LABELS[rung]}: {size[rung, rank]:.3g}, "
                           f"{share_lo(survey.bound(rung, rank).accuracy_lower_bound, 3)} percent" for rung in RUNGS)
        return f"off by {off:g}: {share}% certified", (
            f"Curve of certified share by slack; at {off:g} {share} percent. Rungs marked: {listed}.")

    return explore(draw, {"slack": 12, "rank": nearest(ranks, rank)}, height=3.8,
                   slack={i: f"{grid[i]:g}" for i in range(0, 24, 2)}, rank=ranks,
                   hint="Move the slack: the curve does not know of rungs. A rung that lets no query be off by more "
                        "than 16 lands within a point of it: what it certifies is decided by how far it lets the "
                        "scores be off.")


def against_noise(survey: Survey, rank: int) -> Explorer:
    """The largest row difference beside that of random factors, by null, peel and rank."""
    ranks = [r for r in (1, 2, 4, 8) if r in survey.ranks]

    def draw(figure, null: str, peel: str, rank: int):
        axes = figure.add_axes((0.1, 0.17, 0.87, 0.69))
        draws = survey.draws(null, peel, rank)
        found = surrogate.compared(float(surrogate.largest(survey.split(rank, peel).numbers)), draws)
        real = found.real
        axes.hist(draws.tolist(), bins=40, color=plots.NOISE, alpha=0.75)
        axes.axvline(real, color=plots.QK, linewidth=2.5)
        axes.set_xlim(0, 1.15 * max(real, float(draws.max())))
        axes.set_xlabel("largest difference within a row of what is left of the scores")
        axes.set_ylabel("random draws")
        side = "worse" if found.z > 0 else "better"
        axes.set_title(f"{abs(found.z):.1f} standard deviations {side} than {NULLS[null]}")
        axes.annotate("trained", (real, axes.get_ylim()[1]), (4, -12), color=plots.QK, **NOTE)
        return str(found), (f"Histogram of {len(draws)} draws ({NULLS[null]}; peel {PEELS[peel]}; rank {rank}) "
                            f"for {survey.model.name}; {found}.")

    return explore(draw, {"null": "haar", "peel": "QK", "rank": nearest(ranks, rank)}, height=3.2, null=NULLS,
                   peel=PEELS, rank=ranks,
                   hint="Change only the way of peeling, from both sides to the query side alone: the same residual, "
                        "now better than random, since the random factors keep what was not peeled. "
                        "Then raise the rank.")


def replaced(survey: Survey, rank: int) -> Explorer:
    """Ablations of the rest side by side with what a proof must assume of it."""
    ranks = survey.some_ranks
    found = {r: ablation.ablated(survey.model, survey.split(r), "haar", survey.seed) for r in ranks}
    proofs = {f"pessimal: {LABELS[rung]}": rung for rung in ("exact", "gram", "per_dimension", "norms", "spectral")}

    def draw(figure, rank: int):
        axes = figure.add_axes((0.34, 0.16, 0.61, 0.72))
        shares = {kind: a.correct / a.total for kind, a in found[rank].items()}
        shares |= {name: survey.bound(rung, rank).accuracy_lower_bound for name, rung in proofs.items()}
        names = list(shares)[::-1]
        lost = [max(1 - shares[name], 1e-6) for name in names]
        colours = [plots.OV if name.startswith("pess") else plots.TRUTH if name == "itself" else plots.NOISE
                   for name in names]
        axes.hlines(range(len(names)), 1e-4, lost, color=plots.PALE, linewidth=1)
        axes.scatter(lost, range(len(names)), s=60, c=colours, zorder=3)
        for y, (x, name) in enumerate(zip(lost, names)):
            axes.annotate(f"{share_lo(shares[name], 3)}%", (x, y), (8, -3), **NOTE)
        axes.set_yticks(range(len(names)), names)
        axes.set_xscale("log")
        axes.set_xlim(1e-4, 6)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%" if x <= 1 else ""))
        axes.grid(False, axis="y")
        axes.set_xlabel("inputs wrong, or not certified (log scale)")
        moved = max(abs(shares[kind] - shares["itself"]) for kind in found[rank] if kind != "itself")
        moved = ceil(1e6 * moved) / 1e6                                  # at most: rounded up
        axes.set_title(f"Replacing it moves at most {100 * moved:.4f} points")
        listed = ", ".join(f"{name} {share_lo(share, 3)} percent" for name, share in shares.items())
        worst = shares["itself"] - shares[f"pessimal: {LABELS['spectral']}"]
        head = (f"replaced: at most {100 * moved:.4f} points moved · assumed the worst, of the rungs shown: up to "
                f"{100 * worst:.2g}")
        return head, f"Accuracy by what replaces the rest, rank {rank}: {listed}."

    return explore(draw, {"rank": nearest(ranks, rank)}, height=3.9, rank=ranks,
                   hint="Zero, mean, another query's row, noise: the network does not care. "
                        "The lower rows are the same residual in the eyes of proofs that know less and less of it.")


def three_things(survey: Survey, rank: int) -> Explorer:
    """Where the points go that are not certified: the kind of proof, structure, and the rung."""
    ranks = survey.some_ranks

    names = {"the model's errors": plots.TRUTH, "kind of proof: scores known": plots.QK,
             "kind of proof: the rest at its worst, were it noise": "#56B4E9", "structure: it is not noise": plots.EU,
             "the rung": plots.OV}

    def draw(figure, strategy: str, rank: int):
        axes = figure.add_axes((0.06, 0.58, 0.9, 0.28))
        steps = [1.0, 1 - survey.truth, survey.known().accuracy_lower_bound, survey.as_noise(rank),
                 survey.bound("exact", rank).accuracy_lower_bound, survey.bound(strategy, rank).accuracy_lower_bound]
        lost = dict(zip(names, (100 * (a - b) for a, b in zip(steps, steps[1:]))))
        left = 0.0
        for name, points in lost.items():
            axes.barh(0, max(points, 0), left=left, color=names[name], height=0.8, label=f"{name}: {points:.3f}")
            left += max(points, 0)
        axes.legend(loc="upper left", bbox_to_anchor=(-0.01, -0.5))
        axes.set_yticks([])
        axes.set_xlim(0, 1.02 * max(left, 1))
        axes.grid(axis="x")
        axes.set_xlabel("points of accuracy not certified, one beside the other")
        axes.set_title(f"{LABELS[strategy].capitalize()}: {sum(lost.values()):.3g} points not certified")
        listed = ", ".join(f"{name} {points:.4f}" for name, points in lost.items())
        return (f"the largest part: {max(lost, key=lost.get)}",
                f"Bars of points lost, {LABELS[strategy]}, rank {rank}: {listed}.")

    return explore(draw, {"strategy": "gram", "rank": nearest(ranks, rank)}, height=3.3, strategy=LABELS, rank=ranks,
                   hint="With everything multiplied out the rung costs nothing. Go down the list: its part grows, "
                        "until next to it nothing else can be seen.")


def band(survey: Survey, strategy: str) -> Explorer:
    """By rank: what is certified of the network with noise, of the network itself, and by a shorter proof;
    the band lies between."""
    ranks = survey.ranks[1:]
    noisy, real = [max(1 - survey.as_noise(r), 1e-6) for r in ranks], [survey.missing("exact", r) for r in ranks]

    def draw(figure, strategy: str):
        axes = figure.add_axes((0.11, 0.16, 0.86, 0.71))
        missing_axis(axes, survey.truth / 2)
        proof = [survey.missing(strategy, r) for r in ranks]
        x = range(len(ranks))
        axes.fill_between(x, proof, noisy, color=plots.PALE, alpha=0.6, linewidth=0)
        axes.plot(x, noisy, "s--", color=plots.NOISE)
        axes.plot(x, real, ".-", color=plots.QK)
        axes.plot(x, proof, "o-", color=plots.OV)
        truth_line(axes, survey.truth)
        ends = ((noisy, plots.NOISE, "noise, multiplied out", 10), (real, plots.QK, "trained, multiplied out", -12),
                (proof, plots.OV, "this proof", 8 if proof[0] > 0.9 else -14))
        for line, colour, label, dy in ends:
            axes.annotate(label, (0, line[0]), (8, dy), color=colour, **NOTE)
        axes.set_xticks(list(x), [str(r) for r in ranks])
        axes.set_xlabel("directions peeled (fewer: a more compact hypothesis)")
        wide = [r for r, p, n in zip(ranks, proof, noisy) if p > 10 * n]
        title = f"At {len(wide)} of {len(ranks)} ranks this proof leaves ten times as much open as noise would"
        axes.set_title(title)
        shares = {r: (survey.as_noise(r), *(survey.bound(rung, r).accuracy_lower_bound
                                            for rung in ("exact", strategy))) for r in ranks}
        listed = "; ".join(f"rank {r}: " + ", ".join(share_lo(x, 3) for x in line) for r, line in shares.items())
        return title, f"Three lines of certified percent by rank (noise, trained, {LABELS[strategy]}): {listed}."

    proofs = {rung: label for rung, label in LABELS.items() if rung != "exact"}
    return explore(draw, {"strategy": strategy if strategy in proofs else "norms"}, height=3.7, strategy=proofs,
                   hint="The band is where the rest may as well be noise and the proof cannot say so. "
                        "With norms of rows it is narrowest; down the list it fills the picture.")


def times(x: float) -> str:
    """A factor for people: 1.8, 27.2, 2.02 k."""
    return f"{x:.3g}" if x < 1000 else short(x) if x >= 1e5 else f"{x / 1000:.3g} k"


def compounded(noise_seed: int) -> Explorer:
    """Each rung over the truth for products of random factors, by depth and width, measured and reckoned."""
    def draw(figure, depth: int, width: int):
        axes = figure.add_axes((0.37, 0.16, 0.58, 0.71))
        found, law = compounding.measured(depth, width, noise_seed), compounding.reckoned(depth, width)
        names = list(RUNGS)[::-1]
        axes.set_xscale("log")
        axes.set_xlim(0.7, 1e12)
        axes.barh(range(len(names)), [found[n] for n in names], left=0, color=plots.NOISE, alpha=0.6, height=0.62)
        axes.plot([law[n] for n in names], range(len(names)), "|", color=plots.OV, markersize=16, markeredgewidth=2.5)
        for y, name in enumerate(names):
            axes.annotate(times(found[name]), (max(found[name], law[name]), y), (8, -3), **NOTE)
        axes.set_yticks(range(len(names)), [LABELS[n] for n in names])
        axes.set_xticks([10.0**k for k in range(0, 11, 2)], ["1", "100", "10k", "1M", "100M", "10G"])
        axes.grid(False, axis="y")
        axes.set_xlabel("bound over the true row difference (log scale); line: reckoned")
        axes.set_title(f"{depth} factors of width {width}: from {times(found['gram'])} to {times(max(found.values()))} "
                       "times")
        listed = "; ".join(f"{LABELS[name]}: {found[name]:.3g} ({law[name]:.3g})" for name in RUNGS)
        head = " · ".join(f"{LABELS[name]} {times(found[name])}" for name in ("gram", "operator", "recursive"))
        return head, f"Bars of each rung over the truth, measured and in brackets reckoned: {listed}."

    return explore(draw, {"depth": 4, "width": 32}, height=3.8, depth=list(compounding.DEPTHS),
                   width=list(compounding.WIDTHS),
                   hint="Depth alone: the first three bars do not grow, the next two do slowly, on the whole, and the "
                        "last three without end. Then width alone.")


class MLP:
    """One modular-addition model's proofs by rung and rank, each made once."""

    RANKS = (2, 4, 6, 8, 12, 16)

    def __init__(self, model: Model, noise_seed: int):
        self.model = model
        self.bound = lru_cache(maxsize=None)(lambda rung, rank: mlp.certify(model, rung, rank))
        self.facts = lru_cache(maxsize=None)(lambda rank: mlp.facts(model, rank, noise_seed))


def mlp_drop_off(proofs: MLP) -> Explorer:
    """Bound against compactness for the MLP, with the true leftovers and with noise of matched size."""
    def draw(figure, strategy: str):
        sizes, shares = figure.add_axes((0.1, 0.17, 0.37, 0.67)), figure.add_axes((0.6, 0.17, 0.37, 0.67))
        facts = [proofs.facts(r) for r in MLP.RANKS]
        lines = ((strategy, plots.OV, "o-", "bound"), ("noise", plots.NOISE, "s--", "noise"),
                 ("exact", plots.QK, ".-", "true" if strategy != "exact" else "true: the bound"))
        for key, colour, style, label in lines:
            sizes.semilogy(MLP.RANKS, [f[key] for f in facts], style, color=colour, label=label)
        sizes.set_ylim(5e-3, 2e6)
        sizes.set_title("Row differences of what is left", fontsize=9.5)
        bounds: list[Bound] = [proofs.bound(strategy, r) for r in MLP.RANKS]
        shares.plot(MLP.RANKS, [f["noisy"] for f in facts], "s--", color=plots.NOISE, label="right, with noise")
        shares.plot(MLP.RANKS, [b.accuracy_lower_bound for b in bounds], "o-", color=plots.OV, label="certified")
        plots.percent_axis(shares.yaxis, "pairs")
        shares.set_ylim(-0.03, 1.08)
        first = next((r for r, b in zip(MLP.RANKS, bounds) if b.correct > b.total // 2), None)
        shares.set_title(f"Certified from {first} directions on" if first
                         else "Never half of the pairs certified", fontsize=9.5)
        for axes in (sizes, shares):
            axes.set_xlabel("directions of the logits peeled")
            axes.legend()
        last = facts[-1]
        listed = "; ".join(f"rank {r}: true {f['exact']:.3g}, noise {f['noise']:.3g}, bound {f[strategy]:.3g}, "
                           f"certified {share_lo(b.accuracy_lower_bound, 1)} percent"
                           for r, f, b in zip(MLP.RANKS, facts, bounds))
        head = (f"at {MLP.RANKS[-1]} directions: true {last['exact']:.2g} · noise {last['noise']:.2g} · "
                f"bound {last[strategy]:.2g}")
        return head, f"Two panels for {proofs.model.name}, {LABELS[strategy]}. {listed}."

    return explore(draw, {"strategy": "norms"}, height=3.5, strategy=LABELS,
                   hint="Multiplied out, or by norms of rows, a few directions suffice; by norms around a product "
                        "never half of the pairs. And compare true with noise at 12 directions and more: the rest is "
                        "smaller than random there, because activations avoid what is left of W_out. No rung that "
                        "forgets them can know.")


def ways_out(seeds: Sequence[int]) -> pd.DataFrame:
    """What each way out buys: accuracy, certified share and operations, means over some models."""
    by = lambda rung, rank=1: lambda m: residual.certify(m, rung, "QK", rank)
    ways = {f"as it is: {LABELS['per_dimension']}, rank 1": ("max-of-4", by("per_dimension")),
            f"more rank: {LABELS['per_dimension']}, rank 8": ("max-of-4", by("per_dimension", 8)),
            f"{LABELS['gram']}, rank 1": ("max-of-4", by("gram")),
            LABELS["exact"]: ("max-of-4", lambda m: mp.prove(m, "separable")),
            names.STRATEGIES["monte_carlo"].label: (
                "max-of-4", lambda m: mp.prove(m, "monte_carlo:buckets=9,query=each")),
            f"projected: {LABELS['per_dimension']}": ("max-of-4-projected", by("per_dimension")),
            f"decayed: {LABELS['per_dimension']}": ("max-of-4-decayed", by("per_dimension")),
            f"decayed: {LABELS['recursive']}": ("max-of-4-decayed", by("recursive")),
            f"decayed: {LABELS['frobenius']}": ("max-of-4-decayed", by("frobenius"))}
    rows = []
    for name, (collection, prove) in ways.items():
        models = [mp.load(f"{collection}/{seed}") for seed in seeds]
        bounds = [prove(m) for m in models]
        right = [m.metadata["accuracy"]["correct"] / m.metadata["accuracy"]["total"] for m in models]
        second = mean(float(torch.linalg.svdvals(Paths(m).scaled_W_Q.mid @ m["W_K"].double().T)[1]) for m in models)
        shares = [b.accuracy_lower_bound for b in bounds]
        rows.append({"way": name, "sigma_2": f"{second:.2g}", "accuracy": f"{share_lo(mean(right), 3)}%",
                     "certified": f"{share_lo(mean(shares), 3)} ± {100 * stdev(shares):.3f}%",
                     "operations": short(mean(b.flops for b in bounds))})
    return pd.DataFrame(rows).set_index("way")
