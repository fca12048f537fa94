"""The walk of the chapter on composition: a pair of elements, what neurons are told of it, the sums, and the margin."""

from __future__ import annotations

import torch

import mechproof as mp

from ..explorable import plots
from ..explorable.explore import Explorer
from ..explorable.walk import walk
from ..groups import cosets
from ..groups.group import elements
from ..groups.model import network
from ..proof.bound import digits_lo
from ..proof.family import Model
from .pieces import NOTE

PAIRS = {1: (1, 9), 2: (8, 17), 3: (23, 10)}


class Story:
    """A network of S4 as it is, and as it is told of its inputs."""

    def __init__(self, model: Model):
        advice = mp.search(model, "cosets")
        self.net, self.advice = network(model), advice
        self.names = ["".join(str(i + 1) for i in x) for x in elements("S4")]
        self.told = cosets.told(self.net, advice)
        part = cosets.summed(self.net, self.told.left, self.told.right, advice)
        self.main = part.table.mid[part.cell].transpose(0, 1)                                    # [x, y, z]
        self.largest = [int(i) for i in self.net.U.mid.norm(dim=1).argsort(descending=True)[:6]]

    def logits(self, x: int, y: int) -> torch.Tensor:
        """Of the network itself."""
        net = self.net
        return torch.relu(net.L.mid[x] + net.b_in.mid + net.R.mid[y]) @ net.U.mid + net.b_U.mid

    def lead(self, logits: torch.Tensor, s: int) -> float:
        """Of the right product over the best of the others."""
        return float(logits[s] - logits.scatter(0, torch.tensor(s), -torch.inf).amax())

    def said(self, pair: int) -> tuple[int, int, int, str]:
        """x, y, their product, and these in words."""
        x, y = PAIRS[pair]
        s = int(self.net.answers[x, y])
        return x, y, s, f"x = {self.names[x]}, y = {self.names[y]}, xy = {self.names[s]}"


def products(axes, story: Story, s: int) -> None:
    """The axis of all products, the right one marked."""
    axes.set_xticks(range(len(story.names)), story.names, rotation=90, fontsize=7)
    axes.axvline(s, color=plots.CHOICE, linewidth=9, alpha=0.25)
    axes.set_xlabel("candidate z, by the places of 1 2 3 4")
    axes.set_ylabel("logit")


def answer(story: Story, figure, pair: int) -> tuple[str, str]:
    """All logits of one pair."""
    axes = figure.add_axes((0.1, 0.26, 0.87, 0.6))
    x, y, s, said = story.said(pair)
    logits = story.logits(x, y)
    axes.bar(range(len(logits)), logits, color=[plots.CHOICE if z == s else plots.PALE for z in range(len(logits))])
    products(axes, story, s)
    by = f"by {digits_lo(story.lead(logits, s), 2)} logits"
    axes.set_title(f"{said}: right {by}")
    return f"{said}: right {by}", f"Bars of all 24 logits. {said}, ahead {by}."


def one_neuron(story: Story, figure, pair: int, neuron: int) -> tuple[str, str]:
    """What one neuron reads of both, by cosets."""
    x, y, _, said = story.said(pair)
    i, told = story.largest[neuron - 1], []
    sides = ("x", story.net.L.mid, story.told.left, x), ("y", story.net.R.mid, story.told.right, y)
    for at, (side, value, end, own) in enumerate(sides):
        axes = figure.add_axes((0.1 + 0.47 * at, 0.17, 0.4, 0.66))
        cell = story.advice[f"{side}_cells"][story.advice[f"{side}_of"][story.net.live[i]]]
        plots.dots(axes, cell, value[:, i], 30, plots.PALE)
        axes.plot(cell, end[:, i], "_", color="black", markersize=16)
        axes.plot(cell[own], value[own, i], "o", color=plots.CHOICE, markersize=9, markeredgecolor="black")
        n = len(cell.unique())
        axes.set_xticks(range(n), [str(c + 1) for c in range(n)])
        axes.set_xlabel(f"coset of {side}")
        axes.set_title(f"of {side}: told {float(end[own, i]):.2f}, is {float(value[own, i]):.2f}", fontsize=9.5)
        told.append(n)
    return (f"neuron {neuron}: {told[0]} cosets of x, {told[1]} of y",
            f"Two panels of a neuron's weights by coset, of 24 elements each; dashes are what it is told. {said}.")


def known(story: Story, figure, pair: int) -> tuple[str, str]:
    """The logits as sums over cells, beside those of the network."""
    axes = figure.add_axes((0.1, 0.26, 0.87, 0.6))
    x, y, s, said = story.said(pair)
    off = float((story.logits(x, y) - story.main[x, y]).abs().amax())
    axes.plot(story.logits(x, y), "o", color=plots.PALE, markersize=9, label="of the network")
    axes.plot(story.main[x, y], "_", color="black", markersize=12, label="from cells")
    axes.legend(fontsize=8.5)
    products(axes, story, s)
    axes.set_title(f"From cells alone: off by at most {off:.2f} logits here")
    by = f"off by at most {off:.2f}"
    return f"{said}: cells are {by}", f"Dots of 24 logits, and dashes from cells, {by}. {said}."


def margin(story: Story, figure, pair: int) -> tuple[str, str]:
    """From the lead in cells to what is certified."""
    axes = figure.add_axes((0.24, 0.16, 0.7, 0.7))
    x, y, s, said = story.said(pair)
    main = story.lead(story.main[x, y], s)
    of_x, of_y = float(story.told.slack_x.mid[x, s]), float(story.told.slack_y.mid[y, s])
    rows = {"the network's lead": story.lead(story.logits(x, y), s), "lead from cells": main, "not told of x": -of_x,
            "not told of y": -of_y, "certified": main - of_x - of_y}
    colours = (plots.NOISE, plots.QK, plots.OV, plots.OV, plots.CHOICE)
    for i, (value, colour) in enumerate(zip(rows.values(), colours)):
        axes.barh(i, value, color=colour, height=0.6)
        axes.annotate(digits_lo(value, 2), (max(value, 0), i), (4, -3), **NOTE)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(1.3 * min(rows.values()), 1.25 * max(rows.values()))
    axes.set_xlabel("logits")
    sure = digits_lo(rows["certified"], 2)
    axes.set_title(f"Right by {sure} logits at least, and proved")
    return (f"{said}: certified by {sure}",
            f"Bars from the lead in cells, {main:.2f}, to what is certified, {sure} logits. {said}.")


def of_one_pair(model: Model) -> Explorer:
    """The proof of one pair, in four steps."""
    story = Story(model)
    steps = {"a pair and its product": lambda figure, pair: answer(story, figure, pair),
             "what a neuron is told": lambda figure, pair, neuron: one_neuron(story, figure, pair, neuron),
             "sums over cells": lambda figure, pair: known(story, figure, pair),
             "what is left": lambda figure, pair: margin(story, figure, pair)}
    return walk(steps, {"neuron": 4}, hint="Step through, then take another pair. In step 2 the dots of a coset lie on "
                "their dash: being told the coset is being told nearly all.", height=3.7,
                pair=[*PAIRS], neuron=range(1, len(story.largest) + 1))
