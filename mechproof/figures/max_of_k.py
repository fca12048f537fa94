"""The figures and explorers of the Max-of-K chapter; each draws data that the library has proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import mean, median, stdev

import pandas as pd
import torch
from matplotlib.axes import Axes

import mechproof as mp

from .. import zoo
from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k import direct, scores
from ..max_of_k.family import skeleton_id
from ..max_of_k.losses import CAUSES, losses
from ..max_of_k.paths import Paths
from ..max_of_k.subcubic import HANDLINGS, Skeleton
from ..proof import names
from ..proof.bound import Bound, digits_lo, percent_lo, share_lo, short
from ..proof.family import Model
from .pieces import NOTE, Point, bars, choice, point, proofs, share_axis, strips, truth_line

RANKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
PAPER = ("brute_force", "cubic", "subcubic")          # families of the paper's 102
MEAN_DIFF, DROP = HANDLINGS

MARKED = (names.SCORES["exact_EQKE+max_diff_exact"].label, names.STRATEGIES["cubic"].label)
# what the opening figure offers: one representative of each row of the paper's Table 1, and its neighbours
OFFERED = (*(("max_diff_exact", error) for error in ("exact_EQKE+max_diff_exact", "max_diff_exact", "svd", "max_diff",
                                                     "max_diff_subproduct", "max_diff_subproduct_recursive")),
           *(("mean_query+max_diff", error) for error in ("max_diff_subproduct", "max_diff_subproduct_recursive")))


def in_words(skeleton: Skeleton) -> str:
    """How a composition with reference attention knows the scores, and the direct path where that is not exact."""
    path = "" if skeleton.direct == "max_diff_exact" else f", {names.DIRECT[skeleton.direct].label}"
    return names.SCORES[skeleton.error].label + path


NAMED = {"cubic": "cubic"} | {in_words(s): s for s in (Skeleton(path, MEAN_DIFF, error) for path, error in OFFERED)}
NAMED_IDS = {label: s if isinstance(s, str) else skeleton_id(s) for label, s in NAMED.items()}


class Survey:
    """The bounds of one model, each proved once, and the truth to hold them against."""

    def __init__(self, model: Model):
        self.model = model
        self.presets = {s.id: s for s in mp.strategies(model) if s.family in PAPER}
        self.accuracy = zoo.accuracy(model)
        self.bound = lru_cache(maxsize=None)(self._bound)

    def _bound(self, id: str, rank: int | None = None) -> Bound:
        return mp.prove(self.model, id, rank if "rank" in self.presets[id].parameters else None)

    def ranks(self, id: str) -> list[int]:
        """The ranks an id can take, of those on the slider."""
        limit = self.presets[id].parameters
        return [r for r in RANKS if r <= limit["rank"].high] if "rank" in limit else []

    def name_points(self, axes: Axes, at: Callable[[Bound], Point]) -> None:
        """Every preset, where it stands, says what readers know it as."""
        called = [self.presets[bound.strategy.partition(":")[0]].label for bound in self.everything()]
        plots.name_points(axes, *zip(*map(at, self.everything())), called)

    def everything(self) -> list[Bound]:
        """Every preset but brute force, at its defaults."""
        return [self.bound(id) for id in self.presets if id != "brute_force"]

    @property
    def truth_label(self) -> str:
        return "exact" if "correct" in self.accuracy else "sampled"

    @property
    def truth_said(self) -> str:
        """The accuracy as bounds are said."""
        found = self.accuracy
        return percent_lo(found["correct"], found["total"]) if "correct" in found else f"{share_lo(self.truth)}%"

    @property
    def truth(self) -> float:
        """Exact accuracy, or the sampled one where inputs are too many."""
        found = self.accuracy
        return found["correct"] / found["total"] if "correct" in found else found["right"] / found["sampled"]


def tradeoff(survey: Survey, strategy: str, rank: int) -> Explorer:
    """Bound against length, movable by strategy and rank: the picture that opens the chapter."""
    named = dict(NAMED_IDS) | ({} if strategy in NAMED_IDS.values() else {strategy: strategy})
    high = max(max(b.flops for b in survey.everything()), 2e7) * 1.6
    low = min(b.flops for b in survey.everything()) / 1.6

    def draw(figure, strategy: str, rank: int):
        path = [survey.bound(strategy, r) for r in survey.ranks(strategy)]
        bound = survey.bound(strategy, rank if path else None)
        axes = proofs(figure, survey.everything(), path, bound, point, survey.truth)
        survey.name_points(axes, point)
        plots.flops_axis(axes, low, high)
        share_axis(axes)
        label = next(name for name, id in named.items() if id == strategy)
        title = f"{label.replace('-r ', f'-{rank} ')} certifies {percent_lo(bound.correct, bound.total)}"
        axes.set_title(title[0].upper() + title[1:])
        note = NOTE | {"ha": "right"}
        for called in MARKED:
            marked = survey.bound(NAMED_IDS[called])
            if marked.strategy != bound.strategy:
                axes.annotate(called, point(marked), (-6, -3), color="#666666", **note)
        axes.annotate(f"{survey.truth_label} accuracy {survey.truth_said}", (high, survey.truth), (-4, 4), **note)
        axes.annotate("each grey point: one of the paper's strategies, rank 1", (high, 0), (-4, 4),
                      color="#666666", **note)
        rank_text = f"at rank {rank}" if path else "(the rank has no effect)"
        alt = (f"Scatter of certified accuracy against proof length for {survey.model.name}. {label} {rank_text}: "
               f"{bound}. The {survey.truth_label} accuracy is {survey.truth_said}.")
        return repr(bound), alt

    ranks = [r for r in RANKS if r <= min(survey.model.sizes["d_model"], survey.model.sizes["d_head"])]
    start = {"strategy": strategy, "rank": min(ranks, key=lambda r: abs(r - rank))}
    return explore(draw, start, lambda strategy, rank: () if survey.ranks(strategy) else ("rank",),
                   "Start at rest by singular value and raise the rank: the bound climbs, then stops paying for its "
                   "length. Do the same with quadratic QK, which multiplies no two factors of the scores. Then give "
                   "up the direct path, what the query token says by itself (the last two).", height=3.7,
                   fine={"rank": range(ranks[-1] + 1)}, strategy={id: label for label, id in named.items()}, rank=ranks)


def all_strategies(survey: Survey, start: Skeleton) -> Explorer:
    """All hundred compositions, selectable piece by piece, against bound and against unexplained dimensions."""
    points = survey.everything()

    def draw(figure, direct_path: str, attention: str, scores_by: str):
        chosen = survey.bound(skeleton_id(Skeleton(direct_path, attention, scores_by)))
        for i, (name, label) in enumerate((("accuracy_lower_bound", "inputs certified"),
                                           ("unexplained_dimensions", "unexplained dimensions"))):
            axes = figure.add_axes((0.1 + 0.5 * i, 0.16, 0.39, 0.68))
            at = lambda b, name=name: (b.flops, getattr(b, name))
            plots.dots(axes, *zip(*map(at, points)), 18, plots.PALE)
            survey.name_points(axes, at)
            choice(axes, [chosen.flops], [getattr(chosen, name)], size=11)
            plots.flops_axis(axes, min(b.flops for b in points) / 1.4, max(b.flops for b in points) * 1.5, "FLOP")
            if i:
                axes.set_ylabel(label)
                axes.set_ylim(0, None)
            else:
                truth_line(axes, survey.truth)
                plots.percent_axis(axes.yaxis, label)
                axes.set_ylim(-0.03, 1.05)
                place = 1 + sum(b.correct > chosen.correct for b in points if b.strategy != "cubic")
                axes.set_title(f"Number {place} of 100 by what it certifies")
        return repr(chosen), ("Two scatter plots over the paper's strategies. "
                              f"Chosen: {chosen.strategy}, {chosen}; number {place} of 100.")

    return explore(draw, {"direct_path": start.direct, "attention": start.handling, "scores_by": start.error},
                   hint="Take the direct path by mean query and go back; then the attention by maxima apart: each "
                        "alone costs less than fifteen points. Now both together: more than fifty.",
                   height=3.5, direct_path=names.labels(names.DIRECT),
                   attention=names.labels(names.ATTENTION), scores_by=names.labels(names.SCORES))


def path_maps(model: Model) -> Explorer:
    """The tables of the network as heat maps."""
    paths = Paths(model)
    A, EU, OV = ((t.mid - t.mid.mean(1, keepdim=True)).float() for t in (paths.A, paths.EU, paths.OV))
    PV = (paths.PV.mid - paths.PV.mid.mean(1, keepdim=True)).float()
    maps = {"QK": ("QK circuit: attention scores", A, "query token", "key token", "score"),
            "OV": ("OV circuit: votes of an attended token", OV, "attended token", "output logit", "logits"),
            "EU": ("direct path: votes of the query token", EU, "query token", "output logit", "logits"),
            "PV": ("positions: votes of an attended position", PV, "position", "output logit", "logits"),
            "B": ("positions: attention scores", paths.B.mid.float(), "query token", "position", "score")}

    def sentence(path: str) -> str:
        if path == "QK":
            rising = float((A[:, 1:] > A[:, :-1]).double().mean())
            return f"Scores rise from one key token to the next in {100 * rising:.0f}% of steps"
        if path == "B":
            share = (maps["B"][1].amax(1) - maps["B"][1].amin(1)).mean() / (A.amax(1) - A.amin(1)).mean()
            return f"Positions move a query's scores {100 * float(share):.2g}% as far as tokens do"
        if path == "OV":
            itself = int((OV.argmax(1) == torch.arange(len(OV))).sum())
            return f"An attended token votes for itself first in {itself} of {len(OV)} cases"
        share = {"EU": EU, "PV": PV}[path].std() / OV.std()
        who = "The query token" if path == "EU" else "A position"
        return f"{who} moves the logits {100 * float(share):.0f}% as much as an attended token does"

    def draw(figure, path: str):
        label, table, rows, columns, unit = maps[path]
        axes = figure.add_axes((0.1, 0.15, 0.8, 0.72))
        title = sentence(path)
        plots.token_map(axes, table.numpy(), title, rows, columns, bar=unit)
        return label, f"Heat map, {label}, {rows} by {columns}, row means removed, for {model.name}. {title}."

    return explore(draw, hint="Compare the direct path with the OV circuit: "
                              "the same axes, a colour bar many times smaller.",
                   height=4.0, path={name: entry[0] for name, entry in maps.items()})


def qk_residual(model: Model, rank: int) -> Explorer:
    """Singular values of the score table, and what is left after the first r."""
    table = Paths(model).A.mid
    U, S, Vh = torch.linalg.svd(table)
    left = lambda r: (U[:, r:] * S[r:]) @ Vh[r:]
    limit, d = float(left(1).abs().max()), min(model.sizes["d_head"], model.sizes["d_model"])

    def draw(figure, rank: int):
        spectrum, image = figure.add_axes((0.1, 0.16, 0.36, 0.68)), figure.add_axes((0.58, 0.16, 0.36, 0.68))
        index = torch.arange(1, d + 1)
        spectrum.semilogy(index, S[:d], ".", color=plots.NOISE)
        spectrum.semilogy(index[:rank], S[:rank], "o", color=plots.QK)
        spectrum.set_xlabel("direction")
        spectrum.set_ylabel("singular value of the scores")
        rest = left(rank)
        shown = lambda x: f"{x:.3g}" if x > 1e-9 else "0"                       # below that it is float64's own noise
        worst = shown(float((rest.amax(1) - rest.amin(1)).max()))
        spectrum.set_title(f"Rank {rank} leaves differences of {worst}")
        beyond = float(rest.abs().max()) > 1.001 * limit
        left_over = "what is left (colours saturate)" if beyond else "what is left of the scores"
        plots.token_map(image, rest.float().numpy(), left_over, "query token",
                        "key token", limit, "score")
        allowed = shown(2**0.5 * float(S[rank]) if rank < len(S) else 0)
        head = (f"rank {rank}: what is left differs within a row by up to {worst}; "
                f"by singular value a proof must allow {allowed}")
        return head, (f"Left: singular values of the attention scores of {model.name}, the first {rank} peeled. "
                      f"Right: the rest as a map. {head}.")

    ranks = [r for r in range(d + 1) if r in RANKS or r < 17]
    return explore(draw, {"rank": min(ranks, key=lambda r: abs(r - rank))}, height=3.6, rank=ranks,
                   hint="Go from rank 0 to rank 1: nearly all of the pattern disappears at once. "
                        "Then look for the rank at which you would stop explaining and start bounding.")


def lost_percentage(survey: Survey, rank: int, start: str) -> Explorer:
    """1 - bound, split by cause, for the named subcubic proofs."""
    right = int(survey.truth * survey.model.sizes["d_vocab"] ** survey.model.sizes["n_ctx"])
    named = {label: s for label, s in NAMED.items() if isinstance(s, Skeleton)}
    colours = (plots.QK, "#56B4E9", plots.EU, "#E69F00", plots.NOISE, plots.TRUTH)

    def draw(figure, strategy: str):
        axes = figure.add_axes((0.2, 0.16, 0.74, 0.7))
        parts = losses(survey.model, named[strategy], {"rank": rank}, right)
        points = {cause: 100 * float(parts[cause]) for cause in CAUSES}
        bars(axes, points, map("{:.2f}".format, points.values()), colours)
        axes.set_xlim(-2, 75)
        axes.set_xlabel("points of accuracy lost")
        total = sum(parts.values())
        most = max(parts, key=parts.get)
        axes.set_title(f"Most of the lost {100 * float(total):.1f} points go to {most}")
        listed = ", ".join(f"{cause} {x:.2f}" for cause, x in points.items())
        alt = f"Bars of points lost by cause for {strategy} on {survey.model.name}: {listed}."
        return f"{100 * float(total):.2f} points lost at rank {rank}", alt

    begin = next((label for label, id in NAMED_IDS.items() if id == start and label in named), next(iter(named)))
    return explore(draw, {"strategy": begin}, strategy=list(named),
                   hint="Go from exact QK to quadratic QK: the scores take over. The last two give up the exact "
                        "direct path, and its bar appears. Grouping never goes away.")


ROWS = {
    "cubic": ["cubic"],
    "subcubic": [Skeleton("max_diff_exact", MEAN_DIFF, e) for e in ("exact_EQKE+max_diff_exact", "max_diff_exact")],
    "subcubic, without mean+diff": [Skeleton("max_diff_exact", DROP, e)
                                    for e in ("exact_EQKE+max_diff_exact", "max_diff_exact")],
    "low-rank QK": [Skeleton("max_diff_exact", MEAN_DIFF, e) for e in scores.WAYS if "exact" not in e
                    and "recursive" not in e],
    "low-rank QK, svd only": [Skeleton("max_diff_exact", MEAN_DIFF, "svd")],
    "low-rank EU": [Skeleton(d, MEAN_DIFF, e) for d in direct.WAYS if "exact" not in d
                    for e in ("exact_EQKE+max_diff_exact", "max_diff_exact")],
    "low-rank QK and EU": [Skeleton(d, MEAN_DIFF, e) for d in direct.WAYS if "exact" not in d
                           for e in scores.WAYS if "exact" not in e and "recursive" not in e],
    "quadratic QK": [Skeleton("max_diff_exact", MEAN_DIFF, e) for e in scores.WAYS if "recursive" in e],
    "quadratic QK and EU": [Skeleton(d, MEAN_DIFF, e) for d in direct.WAYS if "exact" not in d for e in scores.WAYS
                            if "recursive" in e],
}


def row_ids(row: str) -> list[str]:
    """The strategies of which a row of the paper's Table 1 takes the best, model by model."""
    return [s if isinstance(s, str) else skeleton_id(s) for s in ROWS[row]]


def best_of(bounds: pd.DataFrame, ids: Sequence[str]) -> pd.Series:
    """For each model of a sweep's table the best bound among `ids`, as a share of its inputs."""
    return bounds[bounds.strategy.isin(ids)].groupby("model", sort=False).accuracy_lower_bound.max()


def two_drops(bounds: pd.DataFrame) -> plots.Picture:
    """Every model's bound by row of Table 1."""
    figure = plots.new_figure()
    rows = [row for row in ROWS if row not in ("subcubic, without mean+diff", "low-rank QK, svd only")]
    values = {row: best_of(bounds, row_ids(row)) for row in rows}
    with plots.house():
        axes = figure.add_axes((0.1, 0.2, 0.87, 0.67))
        mid = strips(axes, values, lambda share: f"{share_lo(share, 1)}%")
        axes.set_xticks(range(len(rows)), [row.replace(" and ", "\nand ").replace("-rank ", "-rank\n", 1)
                                           for row in rows], fontsize=8.5)
        plots.percent_axis(axes.yaxis, "inputs certified")
        axes.set_ylim(0, 1.05)
        qk, eu = (100 * (mid["subcubic"] - mid[row]) for row in ("quadratic QK", "low-rank EU"))
        axes.set_title(f"Multiplying no factors of QK costs {qk:.0f} points, an inexact direct path {eu:.0f}")
    listed = ", ".join(f"{row} {share_lo(m, 1)} percent" for row, m in mid.items())
    return plots.Picture(figure, f"Strip plot over {bounds.model.nunique()} models, one strip a row of Table 1; "
                                 f"medians: {listed}.")


def noise_costs(bounds: pd.DataFrame, ratios: Mapping[str, float]) -> Explorer:
    """sigma_1/sigma_2 of the scores (by model) against the bound, normalised by accuracy, over all models."""
    truth = bounds.groupby("model").truth.first()
    named = {label: id for label, id in NAMED_IDS.items() if label != "cubic"}

    def draw(figure, strategy: str):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        found = best_of(bounds, [named[strategy]])
        ratio, of_truth = [ratios[name] for name in found.index], (found / truth[found.index]).tolist()
        plots.dots(axes, ratio, of_truth, 16, plots.QK, 0.55)
        plots.name_points(axes, ratio, of_truth, found.index)
        axes.set_xscale("log")
        plots.log_ticks(axes, lambda x, _: f"{x:g}")
        axes.set_ylim(0, 1.05)
        axes.set_xlabel("first over second singular value of the scores (log scale)")
        plots.percent_axis(axes.yaxis, "bound over accuracy")
        log = torch.tensor(ratio).log()
        r2 = float(torch.corrcoef(torch.stack([log, torch.tensor(of_truth)]))[0, 1] ** 2)
        axes.set_title(f"The ratio predicts {100 * r2:.0f}% of the variance of this bound")
        head = f"median {share_lo(median(of_truth), 1)}% of the accuracy; R² = {r2:.2f}"
        return head, (f"Scatter over {len(ratio)} models, singular value ratio against normalised bound of {strategy}. "
                      f"{head}.")

    return explore(draw, {"strategy": names.SCORES["svd"].label}, strategy=list(named),
                   hint="By singular value, one ratio predicts the bound well. With exact scores it says little: "
                        "then noise is not what limits the proof.")


def certified_by_authors():
    """What the authors' own verifier certified on the reference model, as a pandas table by strategy."""
    return pd.read_csv(zoo.DATA / "results" / "max-of-4-reference.csv").set_index("strategy")


def their_counting():
    """The authors' groups on the reference model as they count them, counted in full, and what of them is rigorous."""
    theirs = certified_by_authors()
    table = []
    for row in list(ROWS)[1:]:
        best = theirs.loc[theirs.loc[row_ids(row), "correct_count"].idxmax()]
        table.append({"proof": row, "as counted": digits_lo(best["accuracy_lower_bound"], 3),
                      "counted in full": digits_lo(best["bound_counting_fixed"], 3),
                      "groups": int(best["accepted_groups"]),
                      "of them not proved": int(best["accepted_groups_not_rigorous"])})
    return pd.DataFrame(table).set_index("proof")


def table_1(bounds: pd.DataFrame):
    """The rows of the paper's Table 1, as a pandas table: the authors' code and ours on the reference model, ours on
    all."""
    theirs = certified_by_authors()["correct_count"]
    survey = Survey(mp.load("max-of-4-reference/123"))
    table = []
    for row in ROWS:
        ids, spread = row_ids(row), best_of(bounds, row_ids(row))
        ours = max((survey.bound(id) for id in ids), key=lambda b: b.correct)
        table.append({"proof": row, "authors' code": digits_lo(theirs[ids].max() / ours.total, 3),
                      "ours": digits_lo(ours.accuracy_lower_bound, 3), "FLOP": short(ours.flops).replace(" ", ""),
                      f"ours, {len(spread)} models": f"{digits_lo(mean(spread), 3)} ± {stdev(spread):.3f}"})
    return pd.DataFrame(table).set_index("proof")


def powers(formula: str) -> str:
    """O(v^2 d) as people write it: O(v² d)."""
    for written, meant in (("^2", "²"), ("^3", "³"), ("^(K+1)", "ᴷ⁺¹")):
        formula = formula.replace(written, meant)
    return formula


def cost_table(counting: Mapping):
    """Counted operations of the named proofs by vocabulary size,
    as a pandas table with the exponent of the last doubling."""
    table = []
    for label, id in {names.STRATEGIES["brute_force"].label: "brute_force", **NAMED_IDS}.items():
        entry = counting["strategies"][id]
        counts = [short(n).replace(" ", "")
                  for n in entry["flops"]] + [""] * (len(counting["sizes"]) - len(entry["flops"]))
        stated = powers(entry["complexity"].replace(" + v^2 K + v K^2", ""))
        table.append({"proof": label, **{f"v={v}": n for v, n in zip(counting["sizes"], counts)},
                      "exponent": f"{entry['exponents'][-1]:.2f}", "stated": stated})
    return pd.DataFrame(table).set_index("proof")
