"""The figures and explorers of the pizza chapter; each draws what the library has computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain
from math import exp, log, pi
from statistics import linear_regression, mean, median, stdev

import pandas as pd
import torch
from matplotlib.axes import Axes

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..pizza import amplitude, fourier, quadrature
from ..pizza.quadrature import Rule
from ..pizza.wheel import pairs
from ..proof.bound import Bound, percent_lo, share_lo, short
from ..proof.family import Model
from ..proof.names import STRATEGIES, labels
from .pieces import NOTE, choice, in_a_sentence, point, proofs, share_axis, strips, truth_line

RANKS = (2, 4, 6, 8, 10, 12, 16)
LABELS = labels(STRATEGIES, ("paper", "moments", "moments_exact_neurons", "wheel", "exact_activations"))
SHARP, SOFT = plots.QK, plots.OV
# seeds of p = 113 below were known when rank and doors were chosen
IN_VIEW = 24


class Survey:
    """The bounds of one model, each proved once, and how the model is read."""

    def __init__(self, model: Model):
        self.model, self.p = model, model.sizes["p"]
        self.bound = lru_cache(maxsize=None)(self._bound)
        self.table = fourier.tables(model)
        self.neurons = fourier.read(self.table)
        self.measured, self.logits = amplitude.measure(model)
        self.keys = self.measured.keys

    def _bound(self, id: str, rank: int | None = None) -> Bound:
        return mp.prove(self.model, id, rank)

    @property
    def brute(self) -> Bound:
        return self.bound("brute_force")

    def wheel_of(self, key: int) -> Rule:
        return quadrature.of_key(self.neurons, key)


def tradeoff(survey: Survey, strategy: str, rank: int) -> Explorer:
    """Bound against length, by rank and strategy: the picture that opens the chapter."""
    ranks = sorted({r for r in RANKS if r <= survey.model.sizes["d_model"]} | {rank})
    paths = {id: [survey.bound(id, r) for r in ranks] for id in LABELS}
    trying = STRATEGIES["brute_force"].label
    high, low = survey.brute.flops * 1.6, min(b.flops for path in paths.values() for b in path) / 1.6

    def draw(figure, strategy: str, rank: int):
        bound, truth = survey.bound(strategy, rank), survey.brute.accuracy_lower_bound
        axes = proofs(figure, chain(*paths.values()), paths[strategy], bound, point, truth)
        in_a_sentence(axes, STRATEGIES[strategy].says)
        axes.plot([survey.brute.flops], [truth], "D", color=plots.TRUTH, markersize=7)
        axes.annotate(trying, (survey.brute.flops, truth), (0, -16), ha="center", **NOTE)
        share_axis(axes, "pairs certified")
        plots.flops_axis(axes, low, high)
        times = survey.brute.flops / bound.flops
        axes.set_title(f"{LABELS[strategy].capitalize()}: {percent_lo(bound.correct, bound.total)} for 1/{times:.0f} "
                       f"of {trying}")
        alt = (f"Certified pairs against proof length for {survey.model.name}. {LABELS[strategy]} at rank {rank}: "
               f"{bound}, 1/{times:.1f} of the {short(survey.brute.flops, 'FLOP')} of trying every pair.")
        return repr(bound), alt

    return explore(draw, {"strategy": strategy, "rank": rank}, height=4.1, strategy=LABELS, rank=ranks,
                   hint=f"Take the rank down, with {LABELS['wheel']} or {LABELS['exact_activations']}: nothing happens "
                        "as long as the directions hold all keys, and then everything goes at once. Change the "
                        "strategy: what the first three have to call error, those two add up exactly.")


def neuron(survey: Survey) -> Explorer:
    """One neuron: what it hears of a, and where it is on over the pairs."""
    weight = survey.neurons.r * survey.neurons.omega
    chosen = {}
    for k in survey.keys:
        mine = (survey.neurons.key == k).nonzero().flatten()
        for place, i in zip(("loudest", "middle"),
                            mine[weight[mine].argsort(descending=True)][[0, len(mine) // 2]].tolist()):
            chosen[f"{place} of key {k}"] = i
    p = survey.p

    def draw(figure, which: str):
        i = chosen[which]
        H, k = survey.table.H[:, i], int(survey.neurons.key[i])
        left, right = figure.add_axes((0.09, 0.16, 0.4, 0.7)), figure.add_axes((0.58, 0.16, 0.4, 0.7))
        r, phi, t = float(survey.neurons.r[i]), float(survey.neurons.phi[i]), -float(survey.neurons.second[i].real)
        angle = (fourier.turn(k * torch.arange(p), p) + phi) % (2 * pi)
        grid = torch.linspace(0, 2 * pi, 200)
        left.plot(grid, r * (grid.cos() + t * (1 - (2 * grid).cos())), color=SOFT, linewidth=1.5)
        left.plot(angle, H, ".", color=SHARP, markersize=4)
        left.set_xlabel(r"$u = \kappa a + \varphi$")
        left.set_ylabel("half of the pre-activation")
        left.set_title(f"A cosine and a little bend, t = {t:.3f}")
        turn = torch.arange(p) * pow(k, -1, p) % p                       # h and g in the order of the wave's phase
        h, g = turn[:, None], turn[: (p + 1) // 2]
        x = (H[(h + g) % p] + H[(h - g) % p]).clamp_min(0)
        _turns(right, x, "What passes the ReLU")
        form = r * (angle.cos() + t * (1 - (2 * angle).cos()))
        left_over = float(1 - (H - form).square().sum() / (H - H.mean()).square().sum())
        alt = (f"Neuron {i}, key {k}: amplitude {r:.2f}, t {t:.3f}; "
               f"the two-term form explains {100 * left_over:.2f} percent of its input's variance.")
        return f"neuron {i} · key {k} · {100 * left_over:.2f}% of its variance in two terms", alt

    return explore(draw, which=list(chosen), hint="The points are the trained neuron, the curve has two numbers and a "
                                                  "phase. Compare keys.")


def _turns(axes: Axes, x: torch.Tensor, title: str) -> None:
    """A table that is nowhere below zero, over h once around and g half around."""
    shown = axes.imshow(x, cmap="Blues", vmin=0, interpolation="none", aspect="auto", origin="lower",
                        extent=(0, pi, 0, 2 * pi))
    axes.grid(False)
    axes.set_title(title)
    axes.set_xticks([0, pi / 2, pi], ["0", "π/2", "π"])
    axes.set_yticks([0, pi, 2 * pi], ["0", "π", "2π"])
    axes.set_xlabel(r"$\kappa g$")
    axes.set_ylabel(r"$\kappa h$")
    axes.figure.colorbar(shown, ax=axes, pad=0.02).outline.set_visible(False)


RULES = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 24)


def rectangles(seed: int) -> Explorer:
    """The integral and its rule: n nodes on the wheel, evenly spaced or jittered, under the integrand.

    Of the ReLU's two halves, x/2 + |x|/2, it is the folded one that is drawn: this is the rule whose error boxes and
    moments bound, and whose integral is the whole one, since the linear half's is zero.
    """
    @cache
    def rule(nodes: int, jitter: int) -> tuple[Rule, dict[str, float]]:
        """The nodes, and how far off the sum can be for any s and c, over the answer's height."""
        shake = torch.rand(nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
        phi = (torch.arange(nodes) + 0.5 + jitter / 100 * shake) * 2 * pi / nodes - pi
        made = Rule(phi, torch.full((nodes,), 1.0 / nodes, dtype=torch.float64), 2 * phi)
        by = {"boxes": quadrature.boxes(made), "moments": quadrature.by_moments(made, 200)}
        return made, {name: float(bound.mid / quadrature.integral(made).mid) for name, bound in by.items()}

    def draw(figure, nodes: int, jitter: int, answer_off_by: int):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        (made, worst), s, delta = rule(nodes, jitter), pi / 5, 2 * pi * answer_off_by / 12
        f = lambda phi: (s / 2 + phi).cos().abs() / 2 * (s + delta + 2 * phi).cos()
        grid = torch.linspace(-pi, pi, 400, dtype=torch.float64)
        axes.bar(made.phi, f(made.phi), width=2 * pi / nodes, color="#bcd9ec", edgecolor=SHARP, linewidth=0.5)
        axes.plot(grid, f(grid), color=SOFT, linewidth=1.6)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_ylim(-0.6, 0.6)
        axes.set_xlabel(r"phase $\varphi$ of the neuron")
        axes.set_ylabel("what its folded half adds")
        true, got = 2 / 3 * float(torch.cos(torch.tensor(delta))), float(f(made.phi).mean() * 2 * pi)
        axes.set_title(f"{nodes} rectangles give {got:+.3f}, the integral is {true:+.3f}")
        alt = (f"Integrand and {nodes} rectangles, jitter {jitter} percent, c - s = {answer_off_by} twelfths of a "
               f"turn: sum {got:.4f}, integral {true:.4f}. Proved for every s and c: error at most "
               f"{worst['boxes']:.3f} by boxes, {worst['moments']:.3f} by moments, in units of the answer.")
        by = f"{worst['boxes']:.3f} by boxes · {worst['moments']:.3f} by moments"
        off = abs(got - true) / (2 / 3)
        return f"off by {off:.3f} of the answer's height; for every s and c at most {by}", alt

    return explore(draw, {"nodes": 12}, nodes=RULES,
                   jitter={0: "none", 30: "30% of the spacing", 100: "100% of the spacing"},
                   answer_off_by={0: "nothing: c = s"} | {d: f"c - s = {d}/12 of a turn" for d in (3, 6)},
                   hint="Evenly spaced nodes err little; moments know it, boxes hardly. Go from 5 nodes to 6: in what "
                        "is proved for every s and c fewer were better; for the s and c drawn it may be otherwise. "
                        "Then jitter them: moments pay at once. For an answer that is off by 3/12 of a turn the "
                        "integral is zero.")


def blind_spot(survey: Survey) -> Explorer:
    """A_k along the difference a - b for a t that can be moved, over the trained model's."""
    theta = torch.linspace(0, pi, 181, dtype=torch.float64)
    p = survey.p

    def draw(figure, t: int):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        value = t / 1000
        total = amplitude.shape(theta, value)
        linear = -value / 2 * (2 * theta).cos()
        axes.plot(theta, total - linear, color=SOFT, linestyle=":", linewidth=1.3)
        axes.plot(theta, linear, color=plots.EU, linestyle="--", linewidth=1.3)
        axes.plot(theta, total, color=SHARP, linewidth=2)
        for i, (name, colour, style) in enumerate((("folded half", SOFT, ":"), ("linear half", plots.EU, "--"),
                                                   ("together", SHARP, "-"))):
            axes.plot([0.05 + 0.9 * i, 0.2 + 0.9 * i], [0.245, 0.245], color=colour, linestyle=style, linewidth=1.6)
            axes.text(0.25 + 0.9 * i, 0.245, name, color=colour, fontsize=8.5, va="center")
        for j, k in enumerate(survey.keys):
            here = fourier.turn(k * torch.arange(survey.measured.A.shape[1]), p) % pi
            direct = 2 * survey.measured.s[j] * (2 * here).cos()
            axes.plot(here, (survey.measured.A[j] - direct) / survey.measured.R[j], ".", color=plots.NOISE,
                      markersize=3, alpha=0.6)
        axes.set_xlabel(r"$\theta = \kappa (a - b)/2$")
        axes.set_ylabel("amplitude over R")
        axes.set_ylim(-0.12, 0.26)
        found = amplitude.floor(value)
        best, top = amplitude.flattest()
        axes.set_title(f"t = {value:.3f}: the floor is {100 * found:.0f}% of the peak")
        own = float((survey.measured.t * survey.measured.R).sum() / survey.measured.R.sum())
        alt = (f"Amplitude along theta at t = {value:.3f}: smallest over largest {found:.3f}; "
               f"highest possible {top:.4f} at t = {best:.4f}; "
               f"the neurons of {survey.model.name} have {own:.3f} on average.")
        floors = f"floor {100 * found:.1f}% · flattest {100 * top:.2f}% at t = {best:.4f}"
        return f"{floors} · this model's neurons {own:.3f}", alt

    return explore(draw, {"t": 0}, t={i: f"{i / 1000:.2f}" for i in range(0, 201, 10)},
                   hint="Start with the bare pizza at t = 0: silent when a - b is half a period away. "
                        "Raise t until the floor is as high as it gets. The grey points are the trained model.")


def phases(survey: Survey) -> plots.Picture:
    """psi against 2 phi, key by key."""
    figure = plots.new_figure(3.2)
    with plots.house():
        for j, k in enumerate(survey.keys[:4]):
            axes = figure.add_axes((0.08 + 0.235 * j, 0.18, 0.2, 0.62))
            mine = survey.neurons.key == k
            axes.plot((2 * survey.neurons.phi[mine]) % (2 * pi), survey.neurons.psi[mine] % (2 * pi), ".",
                      color=SHARP, markersize=3)
            axes.plot([0, 2 * pi], [0, 2 * pi], color=plots.TRUTH, linestyle="--", linewidth=0.8)
            axes.set_title(f"key {k}: {int(mine.sum())} neurons", fontsize=9)
            axes.set_xticks([0, pi, 2 * pi], ["0", "π", "2π"])
            axes.set_yticks([0, pi, 2 * pi], ["0", "π", "2π"] if j == 0 else [""] * 3)
            axes.set_xlabel(r"$2\varphi$")
            if j == 0:
                axes.set_ylabel(r"$\psi$")
    apart = fourier.phase_gap(survey.neurons)
    return plots.Picture(figure, "Output phase against twice the input phase, key by key, on the diagonal: "
                                 f"off by {apart:.3f} rad on average.")


ADDED = {"bias": SOFT, "harmonics": "#eeb28a", "leftovers": plots.NOISE, "angles": plots.PALE, "the rule": SHARP}


def error_budget(survey: Survey) -> Explorer:
    """The paper's pieces of one key, added up for each way to bound the rule, against 1: the line above which nothing
    follows."""
    def draw(figure, key: int, terms: int):
        axes = figure.add_axes((0.14, 0.26, 0.83, 0.6))
        found = quadrature.budget(survey.model, key, terms)
        sums = {}
        for y, way in enumerate(("boxes", "moments", "table")):
            parts = [found[name] for name in ("bias", "harmonics", "leftovers")]
            parts += [found["angles"] if way == "boxes" else 0.0, found[way]]      # the others contain the angles
            for i, (name, colour) in enumerate(ADDED.items()):
                axes.barh(y, parts[i], left=sum(parts[:i]), color=colour, height=0.62, label="" if y else name)
            sums[f"by {way}"] = sum(parts)
        axes.barh(len(sums), found["true"], color=plots.TRUTH, height=0.62)
        sums["true error"] = found["true"]
        for y, x in enumerate(sums.values()):
            axes.annotate(f"{x:.2f}", (x, y), (4, -3), **NOTE)
        axes.set_yticks(range(len(sums)), list(sums))
        axes.set_ylim(3.5, -0.75)
        axes.grid(False, axis="y")
        axes.axvline(1, color=plots.TRUTH, linestyle="--", linewidth=1)
        axes.annotate("the answer's height", (1, 3.4), (4, 0), **NOTE)
        axes.set_xlim(0, 1.12 * max(1.6, *sums.values()))
        axes.set_xlabel("error over the answer's height M")
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=5)
        axes.set_title(f"By moments the pieces add up to {sums['by moments']:.2f}, the error is {found['true']:.2f}")
        listed = ", ".join(f"{name} {found[name]:.3f}" for name in (*quadrature.PIECES, "true", "naive"))
        head = " · ".join(f"{name} {x:.2f}" for name, x in sums.items())
        return (f"{head} · all neurons at their worst, not drawn: {found['naive']:.1f}",
                f"Error pieces of key {key} in stacked bars, {terms} terms: {listed}. Sums: {head}.")

    return explore(draw, {"key": survey.keys[0], "terms": 80}, key=list(survey.keys),
                   terms=[3, 6, 12, 40, 80, 200],
                   hint="The three bars differ in their last part, how the rule is bounded. More terms help the "
                        "moments, and the rule is not the problem: bias and harmonics alone exceed what a proof can "
                        "bear, and the paper counts them as error.")


def certified_map(survey: Survey, rank: int) -> Explorer:
    """Which pairs the moments certify, as clusters and neurons done exactly are added."""
    n = survey.model.sizes["d_mlp"]
    menu = next(s for s in mp.strategies(survey.model) if s.id == "moments_exact_neurons").parameters["alone"].default
    counts = sorted({0, n // 8, n // 4, min(menu, n), n // 2})
    at = pairs(survey.p)

    @cache
    def proved(clusters: int, alone: int) -> tuple[Bound, torch.Tensor]:
        bound = mp.prove(survey.model, f"moments:clusters={clusters},alone={alone},rank={rank}")
        covered = [[bound.covers([int(a), int(b)]) for a, b in zip(*rows)]
                   for rows in zip(at.a.tolist(), at.b.tolist())]
        return bound, torch.tensor(covered)

    def draw(figure, clusters: int, exact_neurons: int):
        bound, covered = proved(clusters, exact_neurons)
        axes = figure.add_axes((0.1, 0.17, 0.86, 0.68))
        axes.imshow(covered.double(), cmap="Blues", vmin=0, vmax=1.4, aspect="auto",
                    interpolation="none", origin="lower")
        axes.grid(False)
        axes.set_xlabel("h = (a + b)/2")
        axes.set_ylabel("g = (a - b)/2")
        axes.set_title(f"Blue: {percent_lo(bound.correct, bound.total)} of the pairs certified, with {exact_neurons} "
                       f"of {n} neurons one by one")
        alt = f"Map of certified pairs with {clusters} clusters a key and {exact_neurons} exact neurons: {bound}."
        return repr(bound), alt

    return explore(draw, {"clusters": 3, "exact_neurons": min(menu, n)}, clusters=[1, 3], exact_neurons=counts,
                   height=3.2,
                   hint="Rows are differences, columns sums. Take neurons away: the rows that go first are those where "
                        "the keys' waves stand tall, g = 0 before all others. Those at the keys' blind spots stay.")


def why_several_keys(survey: Survey) -> Explorer:
    """The margin over all wrong answers as keys are added."""
    p, A = survey.p, survey.measured.A.mean(1)

    def draw(figure, keys: int):
        axes = figure.add_axes((0.1, 0.17, 0.87, 0.68))
        delta = torch.arange(1, p)
        angle = (fourier.turn(survey.keys[0] * delta, p) + pi) % (2 * pi) - pi     # the top in the middle
        waves = torch.stack([A[j] * (1 - fourier.turn(survey.keys[j] * delta, p).cos()) for j in range(keys)])
        margin, grid = waves.sum(0), torch.linspace(-pi, pi, 200)
        axes.plot(grid, A[0] * (1 - grid.cos()), color=plots.NOISE, linewidth=1.2)
        axes.vlines(angle, waves[0], margin, color=plots.PALE, linewidth=1)
        axes.plot(angle, margin, "o", color=SHARP, markersize=4)
        low = int(margin.argmin())
        choice(axes, [float(angle[low])], [float(margin[low])], size=9)
        axes.set_ylim(-0.06 * float(A.sum()), 2.05 * float(A.sum()))
        axes.set_xticks([-pi, 0, pi], ["-π", "0: as the right answer", "π"])
        axes.set_xlabel(f"where key {survey.keys[0]} puts the wrong answer, an angle; the line: this key alone")
        axes.set_ylabel("margin (logits), on average")
        axes.set_title(f"{keys} key{'s' if keys > 1 else ''}: the nearest wrong answer is {float(margin[low]):.1f} "
                       "logits away")
        least, at = float(margin[low]), int(delta[low])
        return f"averaged over all differences a - b, the smallest margin is {least:.2f} logits, at δ = {at}", (
            f"Mean margin by wrong answer with {keys} keys of {survey.model.name}, in the order of the first key's "
            f"wave: smallest {least:.2f} at delta {at}.")

    return explore(draw, {"keys": 1}, keys=list(range(1, len(survey.keys) + 1)),
                   hint="Alone, the first key can hardly tell the right answer from those beside it on its wave. Each "
                        "further key lifts them, since it puts them elsewhere.")


def training(notes: Sequence[Mapping]) -> Explorer:
    """What of the mechanism is there at which step of one run."""
    names = {"t": "t of the neurons", "phase_gap": "|psi - 2 phi| (rad)", "floor": "floor, as measured",
             "wrong": "wrong pairs"}

    def draw(figure, quantity: str):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        steps, values = [n["step"] for n in notes], [n[quantity] for n in notes]
        axes.plot(steps, values, ".-", color=SHARP)
        if quantity == "wrong":
            axes.set_yscale("symlog")
        if quantity == "t":
            truth_line(axes, amplitude.flattest()[0])
            axes.annotate("flattest", (steps[-1], amplitude.flattest()[0]), (0, 4), ha="right", **NOTE)
            axes.axhline(amplitude.balance(), color=plots.EU, linestyle=":", linewidth=1.2)
            axes.annotate("balance", (steps[-1], amplitude.balance()), (0, -12), ha="right", color=plots.EU, **NOTE)
            axes.set_ylim(-0.02, 0.2)
        axes.set_xlabel("training step")
        axes.set_ylabel(names[quantity])
        texts = [str(v) if isinstance(v, int) else f"{v:.3g}" for v in values]
        axes.set_title(f"From {texts[0]} at step {steps[0]} to {texts[-1]} at the end")
        listed = ", ".join(f"{s}: {v}" for s, v in zip(steps, texts))
        return f"{names[quantity]}: {texts[-1]} at the end", f"{names[quantity]} by training step: {listed}."

    return explore(draw, quantity=names, hint="Which comes first, and what still moves when every pair is right?")


def t_of_all(rows: Sequence[Mapping]) -> plots.Picture:
    """t of every key of the models that learned the task, by collection, against the flattest point."""
    figure = plots.new_figure()
    rows = [r for r in rows if r["proofs"]["brute_force"]["correct"] >= 0.99 * r["proofs"]["brute_force"]["total"]]
    groups = sorted({r["collection"] for r in rows}, key=lambda c: (int(c.split("-")[1]), c))
    of_keys = lambda r: [t for t, R in zip(r["t_own"], r["R"]) if 0.1 * sum(r["R"]) < R]
    with plots.house():
        axes = figure.add_axes((0.1, 0.22, 0.87, 0.64))
        strips(axes, {name: [t for r in rows if r["collection"] == name for t in of_keys(r)] for name in groups},
               "{:.2f}".format)
        truth_line(axes, amplitude.flattest()[0])
        axes.annotate("flattest floor", (len(groups) - 0.5, amplitude.flattest()[0]), (0, 4), ha="right", **NOTE)
        axes.axhline(amplitude.balance(), color=plots.EU, linestyle=":", linewidth=1.2)
        axes.annotate("balance", (-0.6, amplitude.balance()), (0, -12), color=plots.EU, **NOTE)
        axes.set_xticks(range(len(groups)), [name.removeprefix("pizza-").replace("-", "\n", 1) for name in groups],
                        fontsize=8.5)
        axes.set_ylabel("t of a key's neurons")
        everything = [t for r in rows for t in of_keys(r)]
        under = sum(t < amplitude.flattest()[0] for t in everything)
        axes.set_title(f"{percent_lo(under, len(everything))} of the keys stay below the flattest point")
    return plots.Picture(figure, f"t over {len(everything)} keys of {len(rows)} models: median "
                                 f"{median(everything):.3f}, flattest {amplitude.flattest()[0]}.")


def right_everywhere(rows: Sequence[Mapping], collection: str) -> list[Mapping]:
    """The models of a collection that brute force certifies on every pair."""
    return [r for r in rows if r["collection"] == collection and r["proofs"]["brute_force"]["correct"]
            == r["proofs"]["brute_force"]["total"]]


def certified(rows: Sequence[Mapping], id: str, share: float, ratio: float) -> int:
    """How many models a strategy certifies on this share of pairs in at most 1/ratio of brute force's operations."""
    proofs = [(r["proofs"][id], r["proofs"]["brute_force"]["flops"]) for r in rows]
    return sum(proof["correct"] >= share * proof["total"] and proof["flops"] * ratio <= brute
               for proof, brute in proofs)


def reached(rows: Sequence[Mapping]):
    """How many models of p = 113 reach a share of the pairs in a part of brute force's operations,
    as a pandas table."""
    trained, polished = (right_everywhere(rows, name) for name in ("pizza-113", "pizza-113-polished"))
    groups = {"in view when the setting was chosen": [r for r in trained if r["seed"] < IN_VIEW],
              "trained afterwards": [r for r in trained if r["seed"] >= IN_VIEW],
              "polished, three keys": [r for r in polished if len(r["keys"]) == 3],
              "polished, more keys": [r for r in polished if len(r["keys"]) > 3]}
    marks = [("wheel", 0.995, 15), ("wheel", 0.995, 20), ("wheel", 1, 20), ("wheel-short", 1, 30)]
    said = lambda id, share, ratio: f"{100 * share:g}% at 1/{ratio} ({STRATEGIES[id].label})"
    return pd.DataFrame([{"models": name, "number": len(some)} | {said(*mark): certified(some, *mark) for mark in marks}
                         for name, some in groups.items()]).set_index("models")


def by_collection(rows: Sequence[Mapping], ids: Sequence[str] = ("wheel", "wheel-short", "moments_exact_neurons")):
    """Median certified share and length against brute force, by collection and strategy, as a pandas table."""
    table = []
    for name in sorted({r["collection"] for r in rows}, key=lambda c: (int(c.split("-")[1]), c)):
        mine = [r for r in rows if r["collection"] == name]
        entry = {"collection": name, "models": len(mine)}
        for id in ids:
            share = median(r["proofs"][id]["correct"] / r["proofs"][id]["total"] for r in mine)
            ratio = median(r["proofs"]["brute_force"]["flops"] / r["proofs"][id]["flops"] for r in mine)
            entry[STRATEGIES[id].label] = f"{share_lo(share)}% · 1/{ratio:.0f}"
        table.append(entry)
    return pd.DataFrame(table).set_index("collection")


def budgets(rows: Sequence[Mapping]):
    """The paper's pieces over models: mean, spread, smallest and largest, as a pandas table."""
    return pd.DataFrame([{"piece": name} | {f.__name__: f"{f([r['budget'][name] for r in rows]):.3f}"
                                                for f in (mean, stdev, min, max)}
                             for name in (*quadrature.PIECES, "naive", "true")]).set_index("piece")


def forms(rows: Sequence[Mapping]):
    """R^2 of the three closed forms over models, as a pandas table."""
    return pd.DataFrame([{"form": name} | {f.__name__: f"{f([r['r2'][name] for r in rows]):.4f}"
                                               for f in (median, min, max)}
                             for name in ("pizza", "flattest", "fitted")]).set_index("form")


def _by_size(rows: Sequence[Mapping], id: str) -> dict[int, float]:
    """Median operations of a strategy at each p, over models with 512 neurons."""
    wide = [r for r in rows if r["sizes"]["d_mlp"] == 512]
    return {p: median(r["proofs"][id]["flops"] for r in wide if r["sizes"]["p"] == p)
            for p in sorted({r["sizes"]["p"] for r in wide})}


def _power(flops: Mapping[int, float]) -> tuple[float, float]:
    """Slope and intercept of log(operations) over log p."""
    return tuple(linear_regression([log(p) for p in flops], [log(f) for f in flops.values()]))


def exponents(rows: Sequence[Mapping], ids: Sequence[str] = ("brute_force", "exact_activations", "moments", "wheel")):
    """Median operations by p for models with 512 neurons, and the power of p that fits them, as a pandas table."""
    table = []
    for id in ids:
        flops = _by_size(rows, id)
        table.append({"strategy": STRATEGIES[id].label} | {f"p = {p}": short(f) for p, f in flops.items()}
                     | {"fit": f"p^{_power(flops)[0]:.2f}"})
    return pd.DataFrame(table).set_index("strategy")


def break_even(rows: Sequence[Mapping], id: str = "wheel") -> float:
    """The p at which the two fitted powers meet: above it the strategy is shorter than brute force."""
    (a, b), (c, d) = (_power(_by_size(rows, name)) for name in ("brute_force", id))
    return exp((d - b) / (a - c))
