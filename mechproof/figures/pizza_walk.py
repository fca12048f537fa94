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
    for x, name in ((a, "a"), (b, "b")):
        left.plot(angle[x], H[x], "o", color=SOFT, markersize=9, markeredgecolor="black")
        left.annotate(f"{name} = {x}", (angle[x], H[x]), (8, 6), **NOTE)
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
    right.set_title("on" if heard[2] > 0 else "off")
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
    axes.plot(angle, x, color=plots.NOISE, linewidth=1.2)
    axes.fill_between(angle, y, color=SHARP, alpha=0.25, linewidth=0)
    axes.plot(angle, y, color=SHARP)
    axes.plot(angle, torch.fft.irfft(twice, n=p), color=SOFT, linestyle="--", linewidth=1.6)
    top = 2.3 * float(H.abs().max())
    axes.set_ylim(-top, top)
    axes.set_xticks([0, pi, 2 * pi], ["0", "π", "2π"])
    axes.set_xlabel(f"key {key} times half the sum of a and b, as an angle; the difference stays {difference}")
    axes.set_ylabel("neuron")
    for text, colour, dx in (("heard", plots.NOISE, 0.02), ("after the ReLU", SHARP, 0.14),
                             ("of that: twice the frequency", SOFT, 0.36)):
        axes.text(dx, 0.03, text, color=colour, transform=axes.transAxes, fontsize=8.5)
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
    axes.text(0, 0, f"key {key}\n{int(on.sum())} of {len(on)} on", ha="center", va="center", fontsize=10)
    line = figure.add_axes((0.58, 0.2, 0.4, 0.6))
    for values, colour in ((x.clamp_min(0), SHARP), (x.clamp_max(0), plots.PALE)):
        line.fill_between(range(len(x)), values, step="mid", color=colour, linewidth=0)
    line.axhline(0, color="black", linewidth=0.8)
    top = 2.2 * float(story.survey.table.H[:, mine].abs().max())
    line.set_ylim(-top, top)
    line.set_xlabel("its neurons, once around the wheel")
    line.set_ylabel("what each hears of the pair")
    changes = int((on != on.roll(1)).sum())
    line.set_title("Neighbours fire together" if changes else "All alike")
    said = (f"{int(on.sum())} of the {len(on)} neurons of key {key} are on for {a} and {b}; once around the wheel "
            f"there are {changes} switches from on to off or back")
    return said, f"Left: neurons on a circle by phase, filled where on. Right: the same as bars. {said}."


def adding_up(story: Story, figure, difference: int) -> tuple[str, str]:
    """What the neurons of each key write into the answers, and the sum."""
    table, neurons, (a, b), p = story.survey.table, story.survey.neurons, story.pair(difference), story.p
    fired = (table.H[a] + table.H[b]).relu()
    logits, keys = fired @ table.W + table.S[a] + table.S[b], story.survey.keys
    rows = [(f"key {key}", fired[neurons.key == key] @ table.W[neurons.key == key], SHARP) for key in keys]
    rows.append(("logits", logits, "black"))
    high, place = 0.68 / (len(rows) + 1), 0.85
    for name, values, colour in rows:
        tall = high * (2 if name == "logits" else 0.85)
        place -= tall + (0.15 * high if name != "logits" else 0)
        axes = figure.add_axes((0.1, place, 0.87, tall))
        axes.plot(range(p), values, color=colour, linewidth=1.2)
        axes.axvline(story.answer, color=SOFT, linestyle="--", linewidth=1)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set_yticks([])
        axes.set_xlim(-1, p)
        if name != "logits":
            axes.set_xticks([])
    best = int(logits.argmax())
    second = best_but(logits, best)
    choice(axes, best, float(logits[best]), size=9)
    lead = float(logits[best] - logits[second])
    axes.set_xlabel("possible answer")
    figure.axes[0].set_title(f"The waves of {len(keys)} keys meet at {best}")
    said = (f"Every key writes a wave that is high at {story.answer} and at other places; in the sum {best} stands "
            f"highest, {lead:.1f} logits ahead of {second}")
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
    said = (f"With {rank} directions kept, arcs instead of neurons prove {percent_lo(bound.correct, bound.total)} "
            f"of the {short_int(bound.total)} pairs, {least}in 1/{story.brute.flops / bound.flops:.0f} of the "
            "operations of trying")
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
