"""The figures and tables of the noise chapter over all models, from data that `benchmarks/noise.py` makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median, stdev

import pandas as pd

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..noise import ablation, surrogate
from ..proof.bound import share_lo, short
from ..proof.product_bounds import RUNGS
from .noise_limits import LABELS, NULLS, PEELS, number_legend, times
from .pieces import NOTE, missing_axis, strips

# "about 4 standard deviations worse than random"
AUTHORS = 4.0


def z_of(entry: Sequence[float]) -> float:
    """The standard score of a stored comparison (real, mean, sd, draws at least as large)."""
    real, center, sd, _ = entry
    return (real - center) / sd


def of_collection(results: Mapping, collection: str) -> list[Mapping]:
    return [row for row in results["models"] if row["name"].partition("/")[0] == collection]


def claim(results: Mapping) -> Explorer:
    """z of the largest row difference over all models, by peel and rank, one strip a null."""
    rows = of_collection(results, "max-of-4")
    z = {(peel, rank, null): [z_of(row["compared"][peel][str(rank)][null]) for row in rows]
         for peel in PEELS for rank in (1, 2, 4, 8) for null in NULLS}
    low, high = min(map(min, z.values())), max(map(max, z.values()))

    def draw(figure, peel: str, rank: int):
        axes = figure.add_axes((0.1, 0.13, 0.77, 0.73))
        mid = strips(axes, {label: z[peel, rank, null] for null, label in NULLS.items()},
                     names=[row["name"] for row in rows])
        axes.set_ylim(low - 1, high + 1)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.axhline(AUTHORS, color=plots.OV, linestyle=":", linewidth=1.5)
        axes.annotate("the authors:\nabout 4", (2.8, AUTHORS), (4, -8), color=plots.OV, **NOTE)
        axes.set_ylabel("standard deviations from the random mean")
        reach = [sum(x >= AUTHORS for x in z[peel, rank, null]) for null in NULLS]
        axes.set_title(f"{len(rows)} models: medians {', '.join(f'{m:+.1f}' for m in mid.values())}, by what the noise "
                       "keeps")
        above = [median(row["compared"][peel][str(rank)][null][3] for row in rows) for null in NULLS]
        listed = "; ".join(f"{label}: median {m:+.2f}, at least 4 in {n} models; in the median model {some:g} of "
                           f"{results['draws']} draws are as large"
                           for (label, m), n, some in zip(mid.items(), reach, above))
        head = f"4 or more: {', '.join(f'{label} {n}' for label, n in zip(mid, reach))}, of {len(rows)} models each"
        return head, f"Strips of z at rank {rank}, peel {PEELS[peel]}. {listed}."

    return explore(draw, {"peel": "QK", "rank": 1}, height=3.8, peel=PEELS, rank=[1, 2, 4, 8],
                   hint="At rank 1 and both sides peeled the median is near 2 against turned factors, and some models "
                        "reach what the authors said. Peel the query side alone: the real rest is smaller than random "
                        "ones. Then peel more from each factor: against turned factors nothing is left to see.")


def claims(results: Mapping) -> pd.DataFrame:
    """Median z over all models, how many reach the authors' 4, and the real value over the random mean, by peel,
    rank and null."""
    rows, table = of_collection(results, "max-of-4"), []
    for peel, rank in [(peel, rank) for peel in PEELS for rank in (1, 2, 4, 8)]:
        found = {null: [surrogate.Compared(*row["compared"][peel][str(rank)][null], n=results["draws"])
                        for row in rows] for null in NULLS}
        table.append({"peeled": PEELS[peel], "rank": rank} | {
            NULLS[null]: f"{median(c.z for c in some):+.1f} [{sum(c.z >= AUTHORS for c in some)}] "
                         f"x{median(c.real / c.mean for c in some):.2f}"
            .replace(" ", "\u00a0") for null, some in found.items()})       # a field is not broken over lines
    return pd.DataFrame(table).set_index(["peeled", "rank"])


def moved(results: Mapping) -> pd.DataFrame:
    """By how many points the accuracy moves when the rest is replaced: mean and largest over all models."""
    rows, table = of_collection(results, "max-of-4"), []
    for rank in ("1", "4"):
        kinds = {kind: [row["ablated"][rank][kind] for row in rows] for kind in ablation.ABLATIONS}
        kinds |= {f"noise: {label}": [row["noised"][rank][null]["correct"] for row in rows]
                  for null, label in NULLS.items()}
        for kind, right in kinds.items():
            change = [100 * (n - row["ablated"][rank]["itself"]) / row["total"] for n, row in zip(right, rows)]
            table.append({"rank": int(rank), "in place of the rest": kind, "mean": f"{mean(change):+.4f}",
                          "largest": f"{max(change, key=abs):+.4f}"})
    return pd.DataFrame(table).set_index(["rank", "in place of the rest"])


def their_reason(results: Mapping) -> plots.Picture:
    """z of all keys and within each quarter of them, for models trained on uniform sequences and on uniform maxima."""
    figure, kinds = plots.new_figure(3.6), {"max-of-4": "uniform sequences", "max-of-4-uniform": "uniform maxima"}
    words = []
    with plots.house():
        panels = [figure.add_axes((0.1 + 0.47 * i, 0.17, 0.41, 0.67)) for i in range(2)]
        for axes, (collection, label) in zip(panels, kinds.items()):
            rows = of_collection(results, collection)
            columns = {"all": [z_of(row["compared"]["QK"]["1"]["haar"]) for row in rows]}
            columns |= {name: [z_of(row["quarters"][i]) for row in rows]
                        for i, name in enumerate(("lowest", "low", "high", "highest"))}
            rising = sum(top > bottom for top, bottom in zip(columns["highest"], columns["lowest"]))
            mid = strips(axes, columns)
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_ylim(-4, 14)
            axes.set_xlabel("keys: all, and by quarter")
            axes.set_title(f"{label.capitalize()}: rising in {rising} of {len(rows)}", fontsize=9.5)
            words.append(f"{label}: medians " + ", ".join(f"{name} {m:+.2f}" for name, m in mid.items())
                         + f"; the highest quarter above the lowest in {rising} of {len(rows)} models")
        panels[0].set_ylabel("standard deviations")
    return plots.Picture(figure, "Strips of z of the largest row difference within each quarter of the keys. "
                         + "; ".join(words) + ".")


def looseness(results: Mapping) -> Explorer:
    """What each rung certifies over all models, against its looseness, its operations on the scores,
    and the whole proof's."""
    rows = of_collection(results, "max-of-4")
    against = {"looseness": "bound over the true mean row difference", "scores": "operations spent on the scores",
               "flops": "operations of the whole proof"}

    def draw(figure, against_what: str, rank: int):
        axes = figure.add_axes((0.11, 0.15, 0.58, 0.74))
        axes.set_xscale("log")
        missing_axis(axes, 3e-4)
        words, mid = [], {}
        for i, rung in enumerate(RUNGS, 1):
            steps = [row["ladder"][str(rank)] for row in rows]
            found = [step["rungs"][rung] | {"looseness": step["rungs"][rung]["bound"] / step["mean"]} for step in steps]
            shares = [f["correct"] / row["total"] for f, row in zip(found, rows)]
            x, y = [f[against_what] for f in found], [max(1 - share, 1e-5) for share in shares]
            plots.dots(axes, x, y, 7, plots.NOISE, 0.35)
            plots.name_points(axes, x, y, (row["name"] for row in rows))
            axes.plot(median(x), median(y), "D", color=plots.QK, markersize=8, markeredgecolor="white")
            axes.annotate(str(i), (median(x), median(y)), (7, 4 if i % 2 else -11), annotation_clip=False, **NOTE)
            mid[rung] = median(x)
            words.append(f"{LABELS[rung]}: {median(x):.3g}, {share_lo(median(shares), 1)} percent")
        number_legend(axes, LABELS.values(), loc="upper left", bbox_to_anchor=(1, 0.97))
        plots.log_ticks(axes, plots.flops_label)
        axes.set_xlim(axes.get_xlim()[0], 1.35 * axes.get_xlim()[1])
        axes.set_xlabel(f"{against[against_what]} (log scale)")
        nothing = sum(word.endswith(" 0.0 percent") for word in words)
        axes.set_title(f"{len(rows)} models, {rank} direction{'s' * (rank != 1)} peeled: "
                       f"{nothing} of {len(RUNGS)} rungs certify nothing of most")
        least, most = min(mid, key=mid.get), max(mid, key=mid.get)
        head = f"in the median from {times(mid[least])} ({LABELS[least]}) to {times(mid[most])} ({LABELS[most]})"
        return head, f"Scatter of certified share by {against[against_what]}, medians: {'; '.join(words)}."

    return explore(draw, {"against_what": "looseness", "rank": 1}, height=3.9, against_what=against, rank=[1, 4],
                   hint="Against looseness the rungs lie on one curve. Then choose the whole proof: down the list "
                        "proofs get longer, up to singular values of factors; with Frobenius norms, where nothing is "
                        "left to be proved, it is short.")


def rungs(results: Mapping) -> pd.DataFrame:
    """Median z of every rung's bound over all models, at rank 1 and both sides peeled, by null."""
    rows = of_collection(results, "max-of-4")
    def text(rung: str, null: str) -> str:
        if rung in surrogate.invariant(null, 4):
            return "invariant"
        return f"{median(z_of(row['rungs'][null][rung]) for row in rows):+.1f}"
    return pd.DataFrame([{"bound": LABELS[rung]} | {NULLS[null]: text(rung, null) for null in NULLS}
                         for rung in RUNGS]).set_index("bound")


def with_noise(results: Mapping) -> pd.DataFrame:
    """Certified shares of the networks with noise in place of the rest beside their own, by rung and rank:
    mean and spread."""
    rows, table = of_collection(results, "max-of-4"), []
    said = lambda shares: f"{share_lo(mean(shares))} ± {100 * stdev(shares):.2f}"
    for rank in ("1", "4"):
        for rung in rows[0]["noised"][rank]["haar"]["certified"]:
            own = [row["ladder"][rank]["rungs"][rung]["correct"] / row["total"] for row in rows]
            table.append({"rank": int(rank), "proof": LABELS[rung], "trained": said(own)} | {
                NULLS[null]: said([row["noised"][rank][null]["certified"][rung] for row in rows]) for null in NULLS})
    return pd.DataFrame(table).set_index(["rank", "proof"])


def mlp_rungs(results: Mapping, rank: int) -> pd.DataFrame:
    """The ladder of the MLP over all models of p = 113: looseness, certified pairs, operations; medians."""
    rows = [row for row in results["mlps"] if row["name"].startswith("pizza-113/")]
    found, table = [row["ranks"][str(rank)] for row in rows], []
    for rung in RUNGS:
        shares = [f["proofs"][rung]["correct"] / row["total"] for f, row in zip(found, rows)]
        table.append({"rung": LABELS[rung], "looseness": f"{median(f[rung] / f['exact'] for f in found):.3g}",
                      "certified, median":
                      share_lo(median(shares)) + "%", "mean": share_lo(mean(shares)) + "%",
                      "operations": short(median(f["proofs"][rung]["flops"] for f in found))})
    return pd.DataFrame(table).set_index("rung")


def mlp_noise(results: Mapping) -> pd.DataFrame:
    """True row differences of the MLP's rest beside those of turned factors, and pairs right with these:
    medians by collection and rank."""
    table = []
    for name, rank in [(name, rank) for name in ("pizza-59", "pizza-113") for rank in ("6", "12")]:
        found = [row["ranks"][rank] for row in results["mlps"] if row["name"].partition("/")[0] == name]
        true, turned = ([f[kind] for f in found] for kind in ("exact", "noise"))
        table.append({"models": name, "rank": int(rank), "number": len(found), "true": f"{median(true):.3g}",
                      "turned": f"{median(turned):.3g}",
                      "true over turned": f"{median(a / b for a, b in zip(true, turned)):.2f}",
                      "smaller in": sum(a < b for a, b in zip(true, turned)),
                      "right with noise": share_lo(median(f["noisy"] for f in found)) + "%"})
    return pd.DataFrame(table).set_index(["models", "rank"])


def causes(results: Mapping) -> pd.DataFrame:
    """Points that are not certified at rank 1, by cause, over all models; noise is one draw a model, turned factors."""
    rows, of = of_collection(results, "max-of-4"), {}
    for row in rows:
        rungs = row["ladder"]["1"]["rungs"]
        share = {rung: step["correct"] / row["total"] for rung, step in rungs.items()}
        noise = row["noised"]["1"]["haar"]["certified"]["exact"]
        steps = {"the model errs": 1 - row["ablated"]["1"]["itself"] / row["total"], "kind of proof: scores known":
                 row["ablated"]["1"]["itself"] / row["total"] - row["slack"][0],
                 "kind of proof: the rest at its worst, were it noise": row["slack"][0] - noise,
                 "structure: it is not noise": noise - share["exact"]}
        steps |= {f"the rung: {LABELS[rung]}": share["exact"] - share[rung] for rung in RUNGS if rung != "exact"}
        for cause, points in steps.items():
            of.setdefault(cause, []).append(100 * points)
    return pd.DataFrame([{"cause": cause, "mean": f"{mean(x):.3f}", "s.d.": f"{stdev(x):.3f}",
                          "least": f"{min(x):.3f}", "most": f"{max(x):.3f}"}
                         for cause, x in of.items()]).set_index("cause")


def slacks(results: Mapping) -> pd.DataFrame:
    """Certified share under one slack for all scores: mean, spread and extremes over all models."""
    rows = of_collection(results, "max-of-4")
    table = []
    for i, slack in enumerate(results["slacks"]):
        shares = [row["slack"][i] for row in rows]
        table.append({"slack": slack, "mean": f"{share_lo(mean(shares))}%", "s.d.": f"{100 * stdev(shares):.2f}",
                      "least": f"{share_lo(min(shares))}%", "most": f"{share_lo(max(shares))}%"})
    return pd.DataFrame(table).set_index("slack")
