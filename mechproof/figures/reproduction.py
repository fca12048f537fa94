"""Every model and every strategy beside the papers: the figures and tables of the reproduction page,
from the tables that ship."""

from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator, LogLocator

import mechproof as mp

from .. import zoo
from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..proof.bound import digits_lo, share_lo, short
from ..proof.names import ATTENTION, STRATEGIES
from ..zoo import tables
from . import max_of_k as figures
from .pieces import NOTE

# kinds of proof and their ids: the rows of the paper's Table 1, then ours; of several the best, model by model
PAPERS = {row: figures.row_ids(row) for row in figures.ROWS}
OURS = {"ours, compact tables": ["compact-gram", "compact-spectral", "compact-frobenius"],
        f"ours, {STRATEGIES['monte_carlo'].label}": ["monte_carlo"],
        "ours, token by token": ["separable", "separable-grouped", "separable-small"],
        f"ours, {STRATEGIES['exact'].label}": ["exact"], STRATEGIES["brute_force"].label: ["brute_force"]}
MAX_OF_K = PAPERS | OURS
PIZZA = {STRATEGIES[id].label: [id]
         for id in ("paper", "moments", "moments_exact_neurons", "exact_activations", "wheel",
                    "wheel-short", "brute_force")}

# The authors' own code, unmodified, on five models of the same recipe: mean bound, and operations by its own counter
THEIR_CODE = {"cubic": (".955", "3.5e7"), "subcubic": (".712", "3.8e6"),
              "subcubic, without mean+diff": (".511", "3.7e6"), "low-rank QK": (".680", "2.8e6"),
              "low-rank QK, svd only": (".564", "4.7e6"), "low-rank EU": (".659", "2.3e6"),
              "low-rank QK and EU": (".636", "2.5e6"), "quadratic QK": (".321", "2.2e6"),
              "quadratic QK and EU": (".292", "2.0e6")}
LOW, HIGH = 7e5, 4e10                                       # operations that the figures show

table_of = lru_cache(maxsize=None)(tables.shipped)


def collections(family: str, edited: bool = True) -> dict[str, str]:
    """The shipped collections of a chapter by size, those made in another way (`edited`) last,
    and what a menu calls them."""
    found: dict[str, tuple] = {}
    for entry in zoo.models():
        if entry["family"] == family:
            words = entry["collection"].split("-")
            kind = [word for word in words if word.isalpha() and word not in ("max", "of", "pizza")]
            sizes = entry["sizes"]
            said = f"p = {sizes['p']}" if family == "pizza" else f"K = {sizes['n_ctx']}"
            said += f", v = {sizes['d_vocab']}" if sizes.get("d_vocab", 64) != 64 else ""
            found[entry["collection"]] = (kind, [sizes.get(name, 0) for name in ("p", "d_vocab", "n_ctx")],
                                          ", ".join([said, *kind]))
    return {name: said for name, (kind, _, said) in sorted(found.items(), key=lambda item: item[1])
            if edited or not kind}


def best(bounds: pd.DataFrame, ids: Sequence[str]) -> pd.DataFrame:
    """For each model the row of the best bound among these strategies, whatever their parameters;
    of equals the shortest."""
    mine = bounds[bounds.strategy.str.partition(":")[0].isin(ids)]
    ordered = mine.sort_values(["accuracy_lower_bound", "flops"], ascending=[False, True], kind="stable")
    return ordered.drop_duplicates("model").sort_index()


def spread(shares: pd.Series) -> str:
    """Mean and standard deviation in percent; the mean rounded down, with two decimals from 99 on."""
    places = 2 if shares.mean() >= 0.99 else 1
    deviation = f" ± {100 * shares.std():.{places}f}" if len(shares) > 1 else ""
    return f"{share_lo(shares.mean(), places)}{deviation}%"


def sequences(models: str, proof: str) -> Explorer:
    """Max-of-K: all models of a collection by their best proof of a kind."""
    def draw(figure, models: str, proof: str):
        return _points(figure, models, proof, MAX_OF_K[proof])

    return explore(draw, {"models": models, "proof": proof}, height=3.9, models=collections("max_of_k"),
                   proof=list(MAX_OF_K), hint="Go down the list of proofs at K = 4. Then stay with one proof and make "
                                              "the sequences longer: which proofs hold on?")


def additions(models: str, proof: str) -> Explorer:
    """Modular addition: all models of a collection by a proof."""
    def draw(figure, models: str, proof: str):
        return _points(figure, models, proof, PIZZA[proof])

    return explore(draw, {"models": models, "proof": proof}, height=3.9, models=collections("pizza"), proof=list(PIZZA),
                   hint="Compare moments with arcs of the wheel at p = 113. Then go to p = 31: "
                        "how many operations do arcs save there?")


def _points(figure, models: str, proof: str, ids: Sequence[str]) -> tuple[str, str]:
    """Each model a point, their mean and spread, their accuracies, and what is known of the paper's."""
    bounds = table_of(models)
    mine, middle = best(bounds, ids), bounds.groupby("strategy")[["flops", "accuracy_lower_bound"]].median()
    axes = figure.add_axes((0.11, 0.15, 0.86, 0.74))
    plots.flops_axis(axes, LOW, HIGH)
    axes.xaxis.set_major_locator(LogLocator(10))
    axes.set_yscale("function", functions=(lambda y: -np.cbrt(1 - y), lambda z: 1 + z**3))
    axes.set_ylim(-0.06, 1.0005)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999]))
    plots.percent_axis(axes.yaxis, "inputs certified (cube root of the rest)")
    plots.dots(axes, middle.flops, middle.accuracy_lower_bound, 14, plots.PALE)
    accuracies = bounds.drop_duplicates("model").truth
    axes.plot([0.75 * HIGH] * len(accuracies), accuracies, "_", color=plots.TRUTH, markersize=14, markeredgewidth=0.7)
    axes.annotate("black: accuracy of each", (1, 0), (-4, 4), xycoords="axes fraction", ha="right", **NOTE)
    words = _chosen(axes, mine) if len(mine) else "not run: predicted to cost more than 2e10 operations"
    known = _theirs(axes, proof) if models == "max-of-4" and proof in THEIR_CODE else ""
    axes.set_title(f"{proof[0].upper()}{proof[1:]}: {_distance(mine)}")
    return words, f"Scatter of certified share against length for {models}, {proof}: {words}{known}."


def _chosen(axes, mine: pd.DataFrame) -> str:
    """The chosen proofs as points, with their mean and a band that holds four fifths of them;
    what they come to in words."""
    shares = mine.accuracy_lower_bound
    plots.dots(axes, mine.flops, shares, 16, plots.QK, 0.5)
    plots.name_points(axes, mine.flops, shares, mine.model)
    axes.axhspan(shares.quantile(0.1), shares.quantile(0.9), color=plots.QK, alpha=0.12, linewidth=0)
    axes.plot([mine.flops.median()], [shares.mean()], "D", color=plots.CHOICE, markersize=9, markeredgecolor="black")
    number = f"{len(mine)} models" if len(mine) > 1 else "1 model"
    ends = f"from {share_lo(shares.min(), 1)}% to {share_lo(shares.max(), 1)}%"
    return f"{number}: {spread(shares)}, {ends} · {short(mine.flops.median(), 'FLOP')}"


def _distance(mine: pd.DataFrame) -> str:
    """How far bounds are from the accuracy on average, in words."""
    if not len(mine):
        return "it would cost too much here"
    if (mine.correct == mine.right).all():
        return "the accuracy itself"
    return f"{100 * (mine.truth - mine.accuracy_lower_bound).mean():.2f} points below the accuracy"


def _theirs(axes, proof: str) -> str:
    """What is known of the paper's figure for a row of Table 1, drawn at its own length; in words."""
    code, flops = THEIR_CODE[proof]
    axes.plot([float(flops)], [float(code)], "^", color=plots.OV, markersize=8, markeredgecolor="black")
    words = f"authors' code on five models {code}"
    axes.annotate(words, (float(flops), float(code)), (8, -10), **NOTE)
    return f"; {words}"


def table_1(collection: str) -> pd.DataFrame:
    """What the rows of the paper's Table 1, and ours, certify on a collection,
    beside what is known of theirs (on Max-of-4 alone)."""
    rows, known = [], collection == "max-of-4"
    for proof, mine in of_every_kind(collection):
        shares = mine.accuracy_lower_bound
        lowest, highest = (f"{share_lo(share, 1)}%" for share in (shares.min(), shares.max()))
        theirs = {"authors' code": THEIR_CODE.get(proof, [""])[0]} if known else {}
        rows.append({"proof": proof, "ours, mean ± s.d.": spread(shares), "worst": lowest, "best": highest} | theirs)
    return pd.DataFrame(rows).set_index("proof")


def lengths(collection: str) -> pd.DataFrame:
    """What they take: operations, beside the authors' own count (on Max-of-4 alone), and unexplained dimensions; and
    the bound over the accuracy."""
    rows, known = [], collection == "max-of-4"
    for proof, mine in of_every_kind(collection):
        dimensions = mine.unexplained_dimensions.dropna()
        rows.append({"proof": proof, "FLOP, ours": short(mine.flops.median())}
                    | ({"authors' code": short(float(THEIR_CODE[proof][1])) if proof in THEIR_CODE
                        else ""} if known else {})
                    | {"unexplained": short(int(dimensions.median())) if len(dimensions) else "",
                       "bound over accuracy": share_lo((mine.accuracy_lower_bound / mine.truth).mean(), 1) + "%"})
    return pd.DataFrame(rows).set_index("proof")


def of_every_kind(collection: str) -> list[tuple[str, pd.DataFrame]]:
    """The kinds of proof that were run on a collection, and each model's best."""
    found = ((proof, best(table_of(collection), ids)) for proof, ids in MAX_OF_K.items())
    return [(proof, mine) for proof, mine in found if len(mine)]


def transfer(*names: str) -> pd.DataFrame:
    """Mean and spread of every kind of proof in percent, by collection."""
    columns = {}
    for name in names:
        found = {proof: spread(mine.accuracy_lower_bound).rstrip("%") for proof, mine in of_every_kind(name)}
        columns[collections("max_of_k")[name]] = {"models": str(table_of(name).model.nunique())} | found
    return pd.DataFrame(columns).reindex(["models", *MAX_OF_K]).fillna("")


def theirs_and_ours() -> plots.Picture:
    """The 102 strategies on the reference model: what the authors' code certifies, and what ours does."""
    theirs = figures.certified_by_authors().correct_count
    ours = table_of("max-of-4-reference").set_index("strategy")
    x, y = theirs / 64**4, ours.loc[theirs.index].accuracy_lower_bound
    more, figure = int((y > x).sum()), plots.new_figure(4.2)
    looks = ((plots.QK, "o"), (plots.OV, "s"))
    kinds = {f"attn-{id}".replace("_", "-"): (*look, name.label) for look, (id, name) in zip(looks, ATTENTION.items())}
    with plots.house():
        axes = figure.add_axes((0.11, 0.14, 0.55, 0.76))
        axes.plot([0, 1], [0, 1], color=plots.TRUTH, linewidth=1, linestyle="--")
        for kind, (colour, marker, label) in kinds.items():
            at = [id for id in x.index if kind in id]
            axes.plot(x[at], y[at], marker, color=colour, alpha=0.65, markersize=6, linestyle="", label=label)
        whole = ["cubic", "brute_force"]
        axes.plot(x[whole], y[whole], "D", color=plots.TRUTH, linestyle="",
                  label=" and ".join(STRATEGIES[id].label for id in whole))
        plots.percent_axis(axes.xaxis, "the authors' code certifies")
        plots.percent_axis(axes.yaxis, "ours certifies")
        axes.legend(loc="center left", bbox_to_anchor=(1.03, 0.5), frameon=False)
        axes.set_title(f"Ours certifies more in {more} of {len(x)} cases, by {100 * (y - x).median():.0f} points in "
                       "the median", loc="left")
    less = ", ".join(f"{id} ({100 * (y[id] - x[id]):.2f} points)" for id in x.index if y[id] < x[id])
    return plots.Picture(figure, f"Scatter of {len(x)} strategies on max-of-4-reference/123, authors' code against "
                                 f"ours: more in {more}, the same in {int((y == x).sum())}, less in "
                                 f"{int((y < x).sum())}{': ' + less if less else ''}.")


SCORES = {"scores exact": (plots.QK, "o"), "rest exact": ("#56B4E9", "v"), "rest bounded": (plots.EU, "s"),
          "quadratic": (plots.OV, "^"), "cubic": (plots.TRUTH, "D")}


def _scores(id: str) -> str:
    """How one of the paper's strategies knows the scores: a key of SCORES."""
    error = id.partition("attn-err-")[2]
    named = {"exact-EQKE+max-diff-exact": "scores exact", "max-diff-exact": "rest exact", "": "cubic"}
    return named.get(error, "quadratic" if "recursive" in error else "rest bounded")


def dimensions(start: str) -> Explorer:
    """Unexplained dimensions against length and bound, every one of the paper's strategies by its mean over a
    collection's models."""
    def draw(figure, models: str):
        bounds = table_of(models)
        papers = bounds[bounds.strategy.str.match("EUPU|cubic")]
        papers = papers.assign(dimensions=papers.unexplained_dimensions.astype(float))
        means = papers.groupby("strategy")[["dimensions", "flops", "accuracy_lower_bound"]].mean()
        means[["dimensions", "flops"]] /= means.loc["cubic", ["dimensions", "flops"]]
        hundred, rho = means.drop("cubic").rank(), {}
        for i, (name, label) in enumerate({"flops": "length (cubic proof: 1)",
                                           "accuracy_lower_bound": "inputs certified"}.items()):
            axes = figure.add_axes((0.1 + 0.5 * i, 0.16, 0.39, 0.7))
            for kind, (colour, marker) in SCORES.items():
                at = means[means.index.map(_scores) == kind]
                axes.plot(at.dimensions, at[name], marker, color=colour, alpha=0.65, linestyle="", label=kind)
            axes.set_xscale("log")
            axes.set_xlim(0.25, 1.3)
            plots.log_ticks(axes, lambda x, _: f"{x:g}")
            axes.set_xlabel("unexplained dimensions (cubic proof: 1)")
            axes.set_ylabel(label)
            rho[name] = hundred.dimensions.corr(hundred[name])
        figure.axes[0].set_yscale("log")
        figure.axes[0].set_ylim(0.012, 2)
        figure.axes[0].yaxis.set_major_formatter(lambda y, _: f"{y:g}")
        figure.axes[0].legend(frameon=False, loc="upper left")
        plots.percent_axis(figure.axes[1].yaxis, "inputs certified")
        figure.axes[1].set_ylim(-0.03, 1.03)
        order = "are as long as others" if abs(rho["flops"]) <= 0.1 else (
            "tend to be longer" if rho["flops"] < 0 else "tend to be shorter")
        figure.axes[0].set_title(f"Of the hundred, those with fewer dimensions {order}")
        head = (f"rank correlation among the hundred: {rho['flops']:+.2f} with length, "
                f"{rho['accuracy_lower_bound']:+.2f} with the bound")
        return head, (f"Two scatter plots of the paper's strategies for {models}, "
                      f"unexplained dimensions against length and bound. {head}.")

    return explore(draw, {"models": start}, height=3.7, models=collections("max_of_k"),
                   hint="What does the estimate tell apart? Make the vocabulary larger: "
                        "the hundred draw away from the cubic proof.")


def under_truth() -> pd.DataFrame:
    """Every shipped bound held against the truth: exact accuracies,
    or the upper end of the interval of a sample at 1 - 1e-6."""
    rows = []
    for name in sorted({entry["collection"] for entry in zoo.models()}, key=tables.natural):
        bounds = table_of(name)
        highest = {row.model: tables.truth_hi(row._asdict()) for row in bounds.drop_duplicates("model").itertuples()}
        gaps = [highest[row.model] - Fraction(row.correct, row.total) for row in bounds.itertuples()]
        below = [gap for gap in gaps if gap > 0]
        rows.append({"collection": name, "bounds": len(bounds),
                     "truth": "exact" if (bounds.tried == bounds.total).all() else "upper end",
                     "above": sum(gap < 0 for gap in gaps), "equal": sum(gap == 0 for gap in gaps),
                     "nearest, points below": f"{float(100 * min(below)):.2g}" if below else ""})
    return pd.DataFrame(rows).set_index("collection")


def again(draw: int, number: int = 12) -> pd.DataFrame:
    """Some shipped rows proved anew: the count that ships, the count now, and how far they are apart."""
    names, choice, rows = sorted({entry["collection"] for entry in zoo.models()}), random.Random(draw), []
    for _ in range(number):
        row = table_of(choice.choice(names)).sample(1, random_state=choice.randrange(2**31)).iloc[0]
        bound = mp.prove(mp.load(row.model), row.strategy)
        rows.append({"model": row.model, "strategy": row.strategy, "ships": digits_lo(row.accuracy_lower_bound, 6),
                     "now": digits_lo(bound.accuracy_lower_bound, 6), "inputs apart": abs(bound.correct - row.correct)})
    return pd.DataFrame(rows).set_index("model")
