"""The figures of the chapter on computation in superposition: neurons, errors, laws, lines, depth."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import product
from math import comb, pi
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from torch import Tensor

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..proof.bound import short
from ..proof.family import InputError, Model
from ..proof.names import STRATEGIES
from ..superposition import certify, chance, designs, layers, plain
from ..superposition.model import opened
from ..superposition.train import train
from ..zoo.weights import model_from_tensors
from .pieces import NOTE, ON_WHITE, choice

M, HALF = 32, 0.5
P = {22: "0.22", 33: "0.33", 50: "0.5"}
SHADES = ("#ffffff", "#dddddd", plots.QK, plots.OV)                      # not of both, silent, fires once, more


@cache
def network(d: int, p: float, s: int, readout: str = "plain", seed: int = 0) -> Model | None:
    """A random construction of 32 features; None where a pair has no neuron."""
    tensors = train({"kind": "random", "m": M, "d": d, "p": p}, seed)
    try:
        return model_from_tensors(f"random {d}/{seed}", tensors, {"sparsity": str(s), "readout": readout})
    except InputError:
        return None


@cache
def errors(model: Model) -> tuple[Int[Tensor, "n s"], Float[Tensor, "n outputs"]]:
    """All inputs, and what their outputs are off by, as anybody would run them: the picture, not the proof."""
    net = opened(model)
    inputs, (i, j) = torch.combinations(torch.arange(M), net.s), torch.triu_indices(M, M, 1)
    x = torch.zeros(len(inputs), M).scatter(1, inputs, 1.0)
    h = torch.relu(x @ net.A.mid.float() + net.b.mid.float())
    return inputs, h @ certify.together(net, M).mid.float() - x[:, i] * x[:, j]


def neurons(d: int = 1024, p: float = 0.22, s: int = 2, readout: str = "plain") -> Explorer:
    """The neurons of one AND under one input: which fire, and what comes out."""
    def draw(figure, neurons: int, p: int, on: int, readout: str, input: str):
        model = network(neurons, p / 100, on, readout)
        inputs, off = errors(model)
        row, output = divmod(int(off.abs().argmax()), off.shape[1]) if input == "worst" else (0, 0)
        (i, j), active, off = torch.triu_indices(M, M, 1)[:, output].tolist(), inputs[row].tolist(), off[row]
        both, fires = model["W_in"][[i, j]].amin(0) > 0, torch.relu(model["W_in"][active].sum(0) - 1)
        side = int(neurons**0.5)
        shade = torch.where(both, 1 + fires.clamp_max(2), 0).reshape(side, side)
        axes = figure.add_axes((0.02, 0.1, 0.4, 0.76))
        axes.imshow(shade, cmap=ListedColormap(SHADES), vmin=0, vmax=3, interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.grid(False)
        axes.set_xlabel(f"{int(both.sum())} of {neurons} neurons have features {i} and {j}")
        right = figure.add_axes((0.5, 0.16, 0.47, 0.7))
        right.axhspan(-HALF, HALF, color=plots.EU, alpha=0.1, linewidth=0)
        order = off.argsort()
        right.plot(range(len(off)), off[order], color=plots.NOISE, linewidth=2.5)
        choice(right, int((order == output).nonzero()), float(off[output]), 10)
        right.set_ylim(-1.1, 1.6)
        right.set_xlabel(f"the {len(off)} ANDs, by error")
        right.set_ylabel("output less truth")
        wrong = int((off.abs() >= HALF).sum())
        names = " and ".join(map(str, active)) if on == 2 else ", ".join(map(str, active))
        right.set_title(f"{names} on: {wrong} of {len(off)} ANDs wrong", fontsize=10)
        says = f"{neurons} neurons, {readout}, {on} on: the largest error is {float(off.abs().max()):.3f}"
        return says, (f"Left: {neurons} neurons; {int(both.sum())} have both features {i} and {j}, "
                      f"{int((both & (fires > 0)).sum())} of these fire. Right: errors of all {len(off)} outputs with "
                      f"features {names} on; the largest is {float(off.abs().max()):.3f}, {wrong} are 1/2 or more.")

    start = {"neurons": d, "p": round(100 * p), "on": s, "readout": readout, "input": "worst"}
    return explore(draw, start, hint="White neurons lack one of the two features, grey ones are silent, blue fire "
                   "once, red more (which takes three on). Take fewer neurons, then the other readout; put a third "
                   "feature on.", height=3.4,
                   neurons=(256, 1024), p=P, on=(2, 3), readout=("plain", "contrast"),
                   input={"worst": "the worst", "first": "the first"})


def histogram() -> Explorer:
    """Errors of all outputs of all inputs, the exact worst, and what chance alone predicts."""
    def draw(figure, neurons: int, p: int, on: int):
        model = network(neurons, p / 100, on)
        off, exact = errors(model)[1], float(plain.worst(model)[0])
        predicted, rms = chance.worst(M, neurons, p / 100, on), float(off.pow(2).mean() ** 0.5)
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        axes.stairs(torch.histc(off, 80, 0, 2.0), torch.linspace(0, 2.0, 81), fill=True, color=plots.PALE)
        axes.set_yscale("log")
        axes.set(xlim=(0, 2), ylim=(0.5, 2e7))
        axes.axvspan(HALF, 2, color=plots.NOISE, alpha=0.12, linewidth=0)
        for x, colour, style, label, y in ((exact, plots.TRUTH, "-", "proved, the worst of all", 3e6),
                                           (predicted, plots.OV, "--", "predicted by chance", 6e5),
                                           (rms, plots.QK, "-", "typical", 6e4)):
            axes.axvline(x, color=colour, linestyle=style, linewidth=1.6)
            place, side = max(exact, predicted), "left" if exact < 1 else "right"
            axes.annotate(f"{label}: {x:.3f}", (place, y), (8 if exact < 1 else -8, 0), ha=side, color=colour, zorder=5,
                          **ON_WHITE)
        axes.set_xlabel("error of an output")
        axes.set_ylabel("number of outputs, all inputs")
        axes.set_title(f"The worst error is {exact / rms:.0f} times the typical one; chance misses it by "
                       f"{100 * abs(predicted / exact - 1):.0f}%")
        return (f"{neurons} neurons, {on} on: worst {exact:.3f}, predicted {predicted:.3f}",
                f"Histogram of all {off.numel()} errors, logarithmic. Exact worst {exact:.3f}, predicted "
                f"{predicted:.3f}, root mean square {rms:.3f}.")

    return explore(draw, {"neurons": 1024, "p": 22, "on": 2}, hint="The black line is a theorem, the dashed one "
                   "knows nothing of the weights. In the shade outputs are wrong. Take more neurons; put a third on.",
                   height=3.5, neurons=(256, 1024, 4096), p=P, on=(2, 3))


SIZES = (256, 512, 1024, 2048, 4096)
SHARES = (0.12, 0.15, 0.18, 0.22, 0.27, 0.33, 0.42, 0.5)


@cache
def measured(d: int, p: float, readout: str) -> tuple[float, float]:
    """Worst and root mean square error with two on; not finite where there is no such network."""
    model = network(d, p, 2, readout)
    if model is None:
        return float("inf"), float("inf")
    off = errors(model)[1]
    return float(off.abs().max()), float(off.pow(2).mean() ** 0.5)


def log_axes(axes: Axes, ticks: Iterable[float], low: float, high: float) -> None:
    """Neurons across, errors upwards, both logarithmic."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def laws() -> Explorer:
    """Error against neurons for two readouts, with the fitted exponents."""
    def draw(figure, error: str, p: str):
        axes, k, slopes = figure.add_axes((0.1, 0.16, 0.87, 0.7)), int(error == "typical"), {}
        for readout, colour, law in (("plain", plots.OV, -1 / 3), ("contrast", plots.QK, -1 / 2)):
            shares = SHARES if p == "best" else (float(p),)
            best = {d: min(measured(d, q, readout)[k] for q in shares) for d in SIZES}
            x, y = zip(*((d, y) for d, y in best.items() if y < 9))
            slopes[readout] = np.polyfit(np.log(x), np.log(y), 1)[0]
            axes.plot(x, y, "o-", color=colour, linewidth=2)
            axes.plot(SIZES, [y[-1] * (d / x[-1]) ** law for d in SIZES], ":", color=colour, linewidth=1)
            axes.annotate(f"{readout}: exponent {slopes[readout]:.2f}", (x[-3], y[-3]), (8, 6), color=colour, **NOTE)
        axes.axhline(HALF, color=plots.TRUTH, linestyle="--", linewidth=1)
        log_axes(axes, SIZES, 0.015, 1.2)
        axes.set_xlabel("neurons d")
        axes.set_ylabel(f"{error} error")
        said = ", ".join(f"{readout} {fitted:.2f}" for readout, fitted in slopes.items())
        axes.annotate("1/2", (SIZES[-1], HALF), (0, 3), ha="right", color=plots.TRUTH, **NOTE)
        axes.set_title(f"The {error} error as a power of d: {said}")
        return (f"{error} error, two on, exponents of d: {said}",
                f"Lines of the {error} error against neurons, logarithmic. Fitted exponents: {said}; dotted lines have "
                "-1/3 and -1/2.")

    return explore(draw, {"error": "worst", "p": "best"}, hint="Dotted: exponents -1/3 and -1/2. Below the dashed "
                   "line every input is right. Fix p: the plain readout keeps its bias p however many neurons there "
                   "are, and the larger p, the flatter its line. The contrast has no bias.", height=3.6,
                   error=("worst", "typical"),
                   p={"best": "the best for each d"} | {str(k / 100): v for k, v in P.items()})


LINE = (64, 128, *SIZES, 8192, 16384)


def random_line(s: int, seeds: int = 3) -> dict[int, float]:
    """Neurons -> the exact worst error of random networks (half of it with constants), mean of seeds, best share."""
    found = {}
    for d in LINE:
        means = []
        for p in SHARES:
            every = [network(d, p, s, seed=seed) for seed in range(seeds)]
            means.append(sum(float(plain.worst(model)[0]) if model else 9.0 for model in every) / seeds)
        found[d] = min(means)
    return found


def reach(law: dict[int, float], error: float) -> float:
    """The neurons at which a falling line has this error, between its points by powers; inf beyond them."""
    found = np.interp(np.log(error), np.log([*law.values()][::-1]), np.log([*law][::-1]), left=np.inf)
    return float(np.exp(found))


class Made(NamedTuple):
    """A network that was not drawn: neurons, features, its worst error, proved and exact (designs: with constants)."""

    name: str
    d: int
    m: int
    proved: float
    worst: float


def made(s: int) -> list[Made]:
    """Trained networks and designs for s features on."""
    found = []
    for q, kind in ((5, "halves"), (5, "circles"), (7, "circles"), (5, "quadruples")):
        m, d = (W := designs.design(kind, q)).shape
        worst = float(designs.error(m, int(W[:, 0].sum()), s)) / 2
        found.append(Made("design", d, m, worst, worst))
    for name in ("u-and-examples", "u-and-proof") if s == 2 else ("u-and-proof-s3",):
        model = mp.load(f"{name}/0")
        found.append(Made(name.removesuffix("-s3").removeprefix("u-and-"), model.sizes["d_mlp"], model.sizes["m"],
                          certify.error_hi(model), certify.worst(model).hi))
    return found


def line() -> Explorer:
    """Proved worst error against neurons: chance, designs, training."""
    lines, others = {s: random_line(s) for s in (2, 3)}, {s: made(s) for s in (2, 3)}
    looks = {"design": (plots.QK, "D", "design"), "examples": (plots.OV, "s", "trained: examples"),
             "proof": (plots.EU, "^", "trained: proof")}

    def draw(figure, on: int):
        axes, law = figure.add_axes((0.1, 0.16, 0.87, 0.7)), lines[on]
        half = {d: y / 2 for d, y in law.items()}
        axes.plot([*law], [*law.values()], "o--", color=plots.NOISE, linewidth=1.2, markersize=4)
        axes.plot([*half], [*half.values()], "o-", color=plots.NOISE, linewidth=2)
        axes.annotate("random, plain", (4096, law[4096]), (4, 8), color=plots.NOISE, **NOTE)
        axes.annotate("random, with constants", (8192, half[8192]), (0, -18), ha="right", color=plots.NOISE, **NOTE)
        for name, d, m, proved, worst in others[on]:
            colour, mark, label = looks[name]
            at = d * 0.9 if name == "examples" else d                    # else it hides under the other one
            axes.plot(at, proved, mark, color=colour, markersize=9, markeredgecolor="black")
            other = 2 * proved if name == "design" else worst            # a design without constants
            if not 0.95 < other / proved < 1.05:
                axes.plot([at, at], [other, proved], ":", color=colour, linewidth=1)
                axes.plot(at, other, mark, color="white", markersize=6, markeredgecolor=colour)
            said = label if m == M else f"m = {m}"
            axes.annotate(said, (at, proved), (4, -17) if name == "proof" else (9, -4), color=colour, **NOTE)
        axes.axhline(HALF, color=plots.TRUTH, linestyle="--", linewidth=1)
        axes.annotate("1/2", (19000, HALF), (0, 3), ha="right", color=plots.TRUTH, **NOTE)
        axes.axvline(comb(M, 2), 0.7, 1, color=plots.TRUTH, linestyle=":", linewidth=1)
        axes.annotate(f"{comb(M, 2)}: a neuron a pair, no error", (comb(M, 2), 3.4), (5, 0), color=plots.TRUTH, **NOTE)
        log_axes(axes, LINE, 0.025, 5)
        axes.set_xlim(48, 20000)
        axes.set_xlabel("neurons d")
        axes.set_ylabel("worst error that is proved")
        best = next(o for o in others[on] if o.name == "proof")
        times = [f"{reach(x, best.proved) / best.d:.2g}" for x in (half, law)]
        axes.set_title(f"Chance takes {times[0]} times the neurons of training, {times[1]} without constants")
        shown = ", ".join(f"{o.name} {o.d} neurons, proved {o.proved:.2f}, true {o.worst:.2f}" for o in others[on])
        return (f"{on} on: {best.d} neurons trained against the proof are proved right within {best.proved:.3f}",
                "Worst proved error against neurons. Random with constants, and twice that without: "
                + ", ".join(f"{d} neurons {y:.2f}" for d, y in half.items()) + f". Others: {shown}.")

    return explore(draw, {"on": 2}, hint="Filled marks are what is proved. Hollow: the exact worst error of what was "
                   "trained, and designs without constants. Marks without an m are of 32 features, as is the line. "
                   "With two on, 128 neurons trained on examples are right everywhere, and this proof of it says "
                   "nothing. Put a third feature on.", height=3.8, on=(2, 3))


SHARE, INPUTS = 3.0, 25
GRID = tuple((d, m) for d in (512, 1024, 2048) for m in (d // 8, d // 4, d // 2, d, 2 * d, 4 * d))


@cache
def excess(d: int, m: int, s: int = 3) -> float:
    """By how much superposed features raise an output with one on, beyond what the same neurons read without it."""
    g = torch.Generator().manual_seed(0)
    p = SHARE / d**0.5
    W = (torch.rand(m, d, generator=g) < p).float()
    E = torch.randn(m, d, generator=g)
    E /= E.norm(dim=1, keepdim=True)
    on = torch.stack([torch.randperm(m, generator=g)[:s] for _ in range(INPUTS)])
    clean = torch.stack([W[x].sum(0) for x in on]) - 1
    noisy = torch.stack([E[x].sum(0) for x in on]) @ E.T @ W - 1
    some = torch.randperm(m, generator=g)[:200]
    found = []
    for a, x in enumerate(on):
        both = W[x[0]] * W[some]
        size = both.sum(1).clamp_min(1)
        kept = (both.sum(1) > 0) & ~torch.isin(some, x)
        found.append(((both @ (torch.relu(noisy[a]) - torch.relu(clean[a]))) / size)[kept].mean())
    return float(torch.stack(found).mean())


def spread(d: int, m: int, s: int = 3) -> float:
    """sigma: of what superposed features add to a neuron."""
    return (s * m * SHARE / d**1.5) ** 0.5


def superposed() -> Explorer:
    """What superposition adds to an error, for many sizes: one line."""
    found = {(d, m): excess(d, m) for d, m in GRID}
    ratios = [y / spread(d, m) * (2 * pi) ** 0.5 for (d, m), y in found.items()]
    logs = np.log([[d, m, y] for (d, m), y in found.items()])
    by_d, by_m = np.linalg.lstsq(np.c_[logs[:, :2], np.ones(len(logs))], logs[:, 2], rcond=None)[0][:2]

    def draw(figure, across: str):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        for d, colour in ((512, plots.OV), (1024, plots.QK), (2048, plots.EU)):
            points = [(spread(d, m) if across == "sigma" else m, y) for (e, m), y in found.items() if e == d]
            axes.plot(*zip(*points), "o-", color=colour, linewidth=1.2)
            axes.annotate(f"d = {d}", points[-1], (-8, 6), ha="right", color=colour, **NOTE)
        if across == "sigma":
            axes.plot([0.1, 1.3], [x / (2 * pi) ** 0.5 for x in (0.1, 1.3)], "--", color=plots.TRUTH, linewidth=1)
        log_axes(axes, [0.1, 0.2, 0.5, 1] if across == "sigma" else [64, 256, 1024, 4096], 0.02, 0.8)
        axes.set_xlabel("sigma = sqrt(s m p / D), D = d" if across == "sigma" else "features m")
        axes.set_ylabel("mean excess error")
        axes.set_title(f"Superposition costs what sigma says, within {max(abs(x - 1) for x in ratios):.0%}"
                       if across == "sigma" else
                       f"At the same mean excess m grows as d to the {-by_d / by_m:.2f}")
        return (f"measured over predicted: {sum(ratios) / len(ratios):.2f} on average",
                f"Excess error of {len(GRID)} sizes against {across}. Measured over sigma / sqrt(2 pi): from "
                f"{min(ratios):.2f} to {max(ratios):.2f}. Fitted: d^{by_d:.2f} m^{by_m:.2f}.")

    return explore(draw, {"across": "sigma"}, hint="Three on. Against the number of features every width has a line "
                   "of its own; against sigma they are nearly one. The dashed line is sigma / sqrt(2 pi), with nothing "
                   "fitted.", height=3.5, across={"sigma": "sigma", "m": "features"})


DEPTH, TOWER = 8, (128, 1024, 8)


@cache
def tower(D: int, on: int, wires: str) -> tuple[list[float], list[float], bool]:
    """Root mean square error after every layer with correction and without, and whether every depth is certified."""
    m, d, each = TOWER
    made = layers.tower((m, D, d, each), DEPTH, 0, wires == "spread")
    inputs = torch.rand(200, m, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :on]
    x = torch.zeros(200, m, dtype=torch.float64).scatter(1, inputs, 1.0)
    rms = [[float((y - x).pow(2).mean() ** 0.5) for y in layers.run(made, inputs, correct)]
           for correct in (True, False)]
    return *rms, all(zone.dead for zone in layers.certified(made, on))


def constant(on: int) -> float:
    """The root mean square error where no two features share a neuron: what is off is written as -mu / (1 - mu)."""
    m, d, each = TOWER
    mu = 1 - (1 - each / d) ** on
    return mu / (1 - mu) * (1 - on / m) ** 0.5


def depth() -> Explorer:
    """Errors layer by layer, with and without correction."""
    def draw(figure, width: int, on: int, wires: str):
        axes = figure.add_axes((0.1, 0.16, 0.87, 0.7))
        (corrected, plainly, certified), rest = tower(width, on, wires), constant(on)
        steps = range(1, DEPTH + 1)
        axes.axhline(rest, color=plots.TRUTH, linestyle=":", linewidth=1)
        axes.annotate("without any noise", (1, rest), (0, 6), color=plots.TRUTH, **NOTE)
        axes.plot(steps, plainly, "s--", color=plots.NOISE, linewidth=1.5)
        axes.plot(steps, corrected, "o-", color=plots.EU if certified else plots.OV, linewidth=2.5)
        axes.annotate("without correction", (4, plainly[3]), (-4, 6), ha="right", color=plots.NOISE, **NOTE)
        axes.annotate("corrected", (6, corrected[5]), (0, 8), color=plots.EU if certified else plots.OV, **NOTE)
        axes.set_yscale("log")
        axes.set_ylim(0.01, 10)
        axes.set_xlabel("layer")
        axes.set_ylabel("root mean square error of a feature")
        says = "every layer certified" if certified else "not certified"
        axes.set_title(f"After {DEPTH} layers {corrected[-1]:.3f}, without correction {plainly[-1]:.2f}: {says}")
        return (f"{TOWER[0]} features in {width} numbers, {on} on, {wires} wires: {says}",
                f"Errors by layer, logarithmic. Corrected from {corrected[0]:.3f} to {corrected[-1]:.3f}, without from "
                f"{plainly[0]:.3f} to {plainly[-1]:.2f}; without any noise {rest:.3f}; {says}.")

    return explore(draw, {"width": 64, "on": 3, "wires": "spread"}, hint="Dotted: the constant that is written for "
                   "features that are off. Take random wires: some gate is not its OR, and that error is read again by "
                   "the next layer. Then change how many are on.", height=3.5,
                   width=(64, 128), on=(2, 3, 4), wires=("spread", "random"))


SHOWN = ("u-and-256", "u-and-1024", "u-and-design-62", "u-and-design-130", "u-and-examples", "u-and-proof",
         "u-and-proof-s3")


def lengths() -> pd.DataFrame:
    """What proofs of shipped networks certify, and at what length, against trying every input."""
    rows = []
    for name in SHOWN:
        model = mp.load(f"{name}/0")
        brute, bound = (mp.prove(model, id) for id in ("brute_force", "features"))
        rows.append({"network": model.name, "neurons": model.sizes["d_mlp"], "ANDs": comb(model.sizes["m"], 2),
                     "on": model.sizes["sparsity"], "inputs": bound.total, "right": brute.correct,
                     "certified": bound.correct, STRATEGIES["features"].label: short(bound.flops),
                     STRATEGIES["brute_force"].label: short(brute.flops)})
    return pd.DataFrame(rows).set_index("network")


def growth(sizes: tuple[int, ...] = (3, 4, 5)) -> pd.DataFrame:
    """Counted operations a neuron by the number of features, of designs, and the exponent of the last two."""
    rows = {}
    for id, s in product(("features", "brute_force"), (2, 3)):
        models = [model_from_tensors("grown", train({"kind": "design", "design": "quadruples", "size": n}, 0),
                                     {"sparsity": str(s), "readout": "plain"}) for n in sizes]
        counted = {f"m = {model.sizes['m']}": mp.prove(model, id).flops / model.sizes["d_mlp"] for model in models}
        last = list(counted.values())[-2:]
        rows[f"{STRATEGIES[id].label}, {s} on"] = {key: short(n) for key, n in counted.items()} | {
            "exponent": f"{np.log2(last[1] / last[0]):.1f}"}
    return pd.DataFrame(rows).T
