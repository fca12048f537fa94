"""The walk of the pizza chapter: a wave, its bend, the wheel with its arc, the sum over keys, and every pair."""

from __future__ import annotations

from functools import cached_property, lru_cache
from math import pi

import torch
from torch import Tensor

from ..explorable import plots
from ..explorable.explore import Explorer
from ..explorable.walk import walk
from ..pizza import fourier
from ..pizza.wheel import pairs
from ..proof.bound import Bound, digits_lo, percent_lo, short_int
from .pieces import NOTE, against_trying, best_but, choice
from .pizza_quadrature import SHARP, SOFT, Survey

RANKS = (4, 6, 12)


class Story:
    """One answer, reached by pairs of several differences, through the neurons of the loudest keys."""

    def __init__(self, survey: Survey):
        self.survey, self.p, self.keys = survey, survey.p, survey.keys[:3]
        self.answer = round(0.35 * self.p)
        self.differences = sorted({round(share * self.p) for share in (0, 0.09, 0.18, 0.27, 0.36, 0.45)})
        self.margins = lru_cache(None)(self._margins)

    def pair(self, difference: int) -> tuple[int, int]:
        """The two numbers with this answer and difference, modulo p."""
        half = (self.p + 1) // 2                                         # 1/2 modulo p
        return (self.answer + difference) * half % self.p, (self.answer - difference) * half % self.p

    def height(self, key: int, difference: int) -> float:
        """cos theta: how high the wave stands that neurons of this key see, as the sum varies."""
        return float(fourier.turn(torch.tensor(key * difference * ((self.p + 1) // 2)), self.p).cos())

    def neuron(self, key: int) -> int:
        """The one of a key that counts most."""
        weight = self.survey.neurons.r * self.survey.neurons.omega
        return int(torch.where(self.survey.neurons.key == key, weight, 0).argmax())

    def _margins(self, rank: int) -> tuple[Bound, Tensor]:
        """The bound at this rank, and what each pair is certified by, zero where it is not, [g, h]."""
        bound, at = self.survey.bound("wheel", rank), pairs(self.p)
        cases = [[bound.why([a, b]) for a, b in zip(*rows)] for rows in zip(at.a.tolist(), at.b.tolist())]
        return bound, torch.tensor([[case.margin_lo or 0.0 if case.covered else 0.0 for case in row] for row in cases])

    @cached_property
    def brute(self) -> Bound:
        return self.survey.brute


def wave(story: Story, figure, difference: int, key: int) -> tuple[str, str]:
    """What one neuron hears of every number, and of the pair."""
    i, (a, b) = story.neuron(key), story.pair(difference)
    H = story.survey.table.H[:, i]
    left, right = figure.add_axes((0.09, 0.17, 0.56, 0.68)), figure.add_axes((0.74, 0.17, 0.24, 0.68))
    angle = fourier.turn(key * torch.arange(story.p), story.p)
    left.plot(angle, H, ".", color=plots.NOISE, markersize=4)
    for x, name, up in ((a, "a", 13), (b, "b", -20)):
        left.plot(angle[x], H[x], "o", color=SOFT, markersize=9, markeredgecolor="black")
        left.annotate(f"{name} = {x}", (angle[x], H[x]), (6, up), **NOTE,
                      bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1})
    top = float(H.abs().max())
    left.set_xlim(-0.1, 2 * pi + 0.6)
    left.set_ylim(-1.3 * top, 1.5 * top)
    left.set_xticks([0, pi, 2 * pi], ["0", "π", "2π"])
    left.set_xlabel(f"{key} times the number, as an angle: one turn is {story.p}")
    left.set_ylabel("what the neuron hears of it")
    left.set_title(f"Neuron {i} hears a wave of key {key}")
    heard = [float(H[a]), float(H[b]), float(H[a] + H[b])]
    right.bar(range(3), heard, color=[SOFT, SOFT, SHARP], width=0.62)
    right.axhline(0, color="black", linewidth=0.8)
    right.set_xticks(range(3), ["a", "b", "together"])
    right.set_ylim(-2.2 * top, 2.2 * top)
    right.set_title("Above zero: on" if heard[2] > 0 else "Below zero: off")
    state = "above zero: it is on" if heard[2] > 0 else "below zero: it is off"
    said = (f"{a} + {b} = {story.answer} modulo {story.p}. Neuron {i} hears {heard[0]:.1f} of {a} and {heard[1]:.1f} "
            f"of {b}, together {heard[2]:.1f}, {state}")
    return said, f"Left: its input over all numbers, a wave of key {key}. Right: bars for a, b and both. {said}."


def bend(story: Story, figure, difference: int, key: int) -> tuple[str, str]:
    """The same neuron over all pairs of one difference: before and after the ReLU, and what turns twice as fast."""
    i, p = story.neuron(key), story.p
    axes, H = figure.add_axes((0.09, 0.17, 0.88, 0.68)), story.survey.table.H[:, i]
    order = torch.arange(p) * pow(key, -1, p) % p                        # h, in the order of the wave's phase
    half = difference * ((p + 1) // 2)
    x = H[(order + half) % p] + H[(order - half) % p]
    y = x.relu()
    twice = torch.fft.rfft(y)
    twice[torch.arange(len(twice)) != 2] = 0
    angle = torch.arange(p) * 2 * pi / p
    axes.plot(angle, x, color=plots.NOISE, linewidth=1.2, label="heard")
    axes.fill_between(angle, y, color=SHARP, alpha=0.25, linewidth=0)
    axes.plot(angle, y, color=SHARP, label="after the ReLU")
    axes.plot(angle, torch.fft.irfft(twice, n=p), color=SOFT, linestyle="--", linewidth=1.6,
              label="of that: twice the frequency")
    top = 2.3 * float(H.abs().max())
    axes.set_ylim(-top, top)
    axes.set_xticks([0, pi, 2 * pi], ["0", "π", "2π"])
    axes.set_xlabel(f"key {key} times half the sum of a and b, as an angle; the difference stays {difference}")
    axes.set_ylabel("neuron")
    axes.legend(loc="lower left", ncols=3)
    strength, height = float(twice[2].abs()) * 2 / p, story.height(key, difference)
    axes.set_title("What is bent has twice the frequency")
    said = (f"At difference {difference} the wave stands at {abs(height):.2f} of its height; after the ReLU a wave of "
            f"twice the frequency is in it, {strength:.2f} high, which turns with a + b and not with half of it")
    return said, f"Three curves of neuron {i} over a turn of key {key}. {said}."


def wheel(story: Story, figure, difference: int, key: int) -> tuple[str, str]:
    """All neurons of a key on the circle of their phases, those that are on filled."""
    neurons, (a, b) = story.survey.neurons, story.pair(difference)
    mine = (neurons.key == key).nonzero().flatten()
    phase = neurons.phi[mine] % (2 * pi)
    mine = mine[phase.argsort()]
    x = story.survey.table.H[a, mine] + story.survey.table.H[b, mine]
    phi, on = neurons.phi[mine], x > 0
    axes = figure.add_axes((0.02, 0.04, 0.46, 0.86))
    axes.set_aspect("equal")
    axes.set_axis_off()
    for some, fill in ((on, SHARP), (~on, "white")):
        axes.plot(phi[some].cos(), phi[some].sin(), "o", color=SHARP, markerfacecolor=fill, markersize=6)
    axes.set_xlim(-1.2, 1.2)
    axes.set_ylim(-1.2, 1.2)
    changes = int((on != on.roll(1)).sum())
    axes.text(0, 0, f"key {key}\n{int(on.sum())} of {len(on)} on\n{changes} switches", ha="center", va="center",
              fontsize=10)
    line = figure.add_axes((0.58, 0.2, 0.4, 0.6))
    for values, colour in ((x.clamp_min(0), SHARP), (x.clamp_max(0), plots.PALE)):
        line.fill_between(range(len(x)), values, step="mid", color=colour, linewidth=0)
    line.axhline(0, color="black", linewidth=0.8)
    top = 2.2 * float(story.survey.table.H[:, mine].abs().max())
    line.set_ylim(-top, top)
    line.set_xlabel("its neurons, once around the wheel")
    line.set_ylabel("what each hears of the pair")
    line.set_title("Neighbours fire together" if changes else "All alike")
    said = (f"{int(on.sum())} of the {len(on)} neurons of key {key} are on for {a} and {b}; once around the wheel "
            f"there are {changes} switches from on to off or back")
    return said, f"Left: neurons on a circle by phase, filled where on. Right: the same as bars. {said}."


def adding_up(story: Story, figure, difference: int) -> tuple[str, str]:
    """What the neurons of each key write into the answers, along the key's own wave, and the sum."""
    table, neurons, (a, b), p = story.survey.table, story.survey.neurons, story.pair(difference), story.p
    fired = (table.H[a] + table.H[b]).relu()
    logits, keys = fired @ table.W + table.S[a] + table.S[b], story.survey.keys
    written = [fired[neurons.key == key] @ table.W[neurons.key == key] for key in keys]
    best = int(logits.argmax())
    second, top, wide = best_but(logits, best), 1.35 * float(torch.stack(written).abs().max()), 0.9 / len(keys)
    everywhere = torch.arange(p)

    def marked(axes, x, y):
        axes.plot(float(x[second]), float(y[second]), "o", color=SOFT, markersize=7, markeredgecolor="black")
        choice(axes, float(x[best]), float(y[best]), size=8)
    for j, (key, values) in enumerate(zip(keys, written)):
        axes = figure.add_axes((0.08 + wide * j, 0.66, 0.92 * wide, 0.23))
        phase = (fourier.turn(key * (everywhere - story.answer), p) + pi) % (2 * pi) - pi
        axes.plot(phase.sort().values, values[phase.argsort()], color=SHARP, linewidth=1.5)
        marked(axes, phase, values)
        axes.set_ylim(-top, top)
        axes.set_yticks([])
        axes.set_xticks([-pi, 0, pi], ["-π", f"{story.answer}", "π"])
        axes.text(0.02, 0.9, f"key {key}", transform=axes.transAxes, fontsize=9)
    figure.axes[len(keys) // 2].set_xlabel("where the key puts each answer on its wave")
    axes = figure.add_axes((0.08, 0.14, 0.9, 0.3))
    stems = torch.stack([logits.min().expand(p), logits, torch.full_like(logits, torch.nan)], 1)
    axes.plot(everywhere.repeat_interleave(3), stems.flatten(), color=SHARP, linewidth=1.2)
    marked(axes, everywhere, logits)
    for x in (best, second):
        axes.annotate(str(x), (x, float(logits[x])), (7, -3), **NOTE)
    axes.set_yticks([])
    axes.margins(x=0.01, y=0.12)
    axes.set_ylabel("the sum")
    axes.set_xlabel("possible answer")
    lead = float(logits[best] - logits[second])
    axes.set_title(f"In the sum {best} is highest")
    said = (f"Every key writes a wave that is high at {story.answer} and at the answers beside it on that wave; in the "
            f"sum {best} stands highest, {lead:.1f} logits ahead of {second}")
    return said, f"Waves over {p} answers, one a key, and their sum, for {a} and {b}. {said}."


def every_pair(story: Story, figure, rank: int) -> tuple[str, str]:
    """What the proof certifies of every pair, and the operations it took."""
    bound, margins = story.margins(rank)
    axes, bars = figure.add_axes((0.09, 0.17, 0.52, 0.68)), figure.add_axes((0.76, 0.34, 0.2, 0.34))
    axes.imshow(margins, cmap="Blues", vmin=0, vmax=1.2 * float(margins.max()) or 1.0, aspect="auto",
                interpolation="none", origin="lower")
    axes.grid(False)
    axes.set_xlabel("half the sum, h")
    axes.set_ylabel("half the difference, g")
    lit = margins[margins > 0]
    axes.set_title(f"Proved: {percent_lo(bound.correct, bound.total)} of the pairs")
    against_trying(bars, bound.flops, story.brute.flops, "every pair")
    least = f"by at least {digits_lo(float(lit.min()), 2)} logits each, " if len(lit) else ""
    every = story.survey.bound("exact_activations", rank).flops
    said = (f"With {rank} directions kept and arcs instead of neurons, {percent_lo(bound.correct, bound.total)} of the "
            f"{short_int(bound.total)} pairs are proved, {least}in 1/{story.brute.flops / bound.flops:.0f} of the "
            f"operations of trying; neuron by neuron, in the same directions, it is 1/{story.brute.flops / every:.0f}")
    return said, f"Map of pairs, darker where the certified margin is larger; bars of operations. {said}."


def a_pair(survey: Survey) -> Explorer:
    """One pair followed from a neuron's wave to the bound on all of them: the walk that opens the chapter."""
    story = Story(survey)
    steps = {"a wave": lambda figure, difference, key: wave(story, figure, difference, key),
             "its bend": lambda figure, difference, key: bend(story, figure, difference, key),
             "the wheel": lambda figure, difference, key: wheel(story, figure, difference, key),
             "the sum": lambda figure, difference: adding_up(story, figure, difference),
             "every pair": lambda figure, rank: every_pair(story, figure, rank)}
    return walk(steps, {"rank": RANKS[-1], "difference": story.differences[2]},
                "Step on to the end. Then move the difference at the second and third step: there is one at which the "
                "wave of a key is nearly gone. Which neurons are on then, and why does the sum still find the answer?",
                3.7, difference=story.differences, key=story.keys, rank=RANKS)
