"""Exercises of the pizza chapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import cos, isclose, pi

import torch
from torch import Tensor

import mechproof as mp

from .. import zoo
from ..figures.pizza_quadrature import Survey
from ..pizza import fourier, quadrature
from ..proof.bound import Bound
from ..proof.family import Model
from .checking import exercise, expect, whole


@cache
def survey() -> Survey:
    return Survey(mp.load("pizza-113/3"))


@cache
def wheel() -> Bound:
    return mp.prove(survey().model, "wheel")


@exercise("pizza/1", "easy", 5)
def phase_of_the_answer(answer: float) -> str:
    """The output phase of a neuron whose input phase is 0.7."""
    expect(not isclose(answer, 0.7), "That is its input phase; look at the figure of both.")
    expect(isclose(answer, 1.4), "Output phases are twice the input phases.")
    return "Twice, because bending doubles the frequency."


@exercise("pizza/2", "easy", 5)
def fewest_nodes(answer: int) -> str:
    """The fewest evenly spaced nodes that do as well as 14."""
    def worst(nodes: int) -> float:
        phi = (torch.arange(nodes).double() + 0.5) * 2 * pi / nodes - pi
        rule = quadrature.Rule(phi, torch.full((nodes,), 1.0 / nodes, dtype=torch.float64), 2 * phi)
        return float(quadrature.by_moments(rule, 200).mid)

    expect(3 <= whole(answer) <= 14, "A number from 3 to 14 is expected.")
    expect(worst(answer) < 1.01 * worst(14), "So few do worse.")
    expect(all(worst(n) > 1.01 * worst(14) for n in range(3, answer)), "Fewer do as well.")
    return "Only even multiples count, so that an odd number does as well as twice as many."


@exercise("pizza/3", "easy", 10)
def flat_spot(answer: float) -> str:
    """A(pi/2) / R for t = 0.13."""
    expect(not isclose(answer, 0.0, abs_tol=1e-9), "That is the bare pizza, t = 0.")
    expect(not isclose(answer, 0.065), "That is one half of it; the linear half adds as much.")
    expect(isclose(answer, 0.13, abs_tol=1e-9), "Every neuron is on there, so |P| = P.")
    return "It is t itself: the folded half gives t/2, the linear one t/2."


@exercise("pizza/4", "easy", 10)
def one_key(answer: float) -> str:
    """By what share of its amplitude one key alone tells right from the nearest wrong answer, p = 113."""
    expect(not isclose(answer, 2.0, rel_tol=1e-3), "That is the farthest wrong answer.")
    expect(isclose(answer, 1 - cos(2 * pi / 113), rel_tol=1e-3), "Some wrong answer is one step away on its wave.")
    return "Less than two thousandths: the rest of the network only has to be off by that."


@exercise("pizza/5", "medium", 10)
def blind_pair(answer: Sequence[int]) -> str:
    """Two numbers for which the wave of the loudest key nearly vanishes."""
    a, b = (int(x) for x in answer)
    p, key = survey().p, survey().keys[0]
    expect(0 <= a < p and 0 <= b < p, f"Two numbers from 0 to {p - 1} are expected.")
    theta = lambda d: abs(float(fourier.turn(torch.tensor(key * d * ((p + 1) // 2)), p).cos()))
    least = min(map(theta, range(p)))
    expect(theta(a - b) < 1.001 * least, f"The wave still stands at {theta(a - b):.3f} of its height.")
    return f"The network answers all the same, and the proof certifies it: {wheel().why([a, b]).covered}."


@exercise("pizza/6", "medium", 30)
def box_bound(answer: Callable) -> str:
    """box(phi, w): how far sum_i w_i f(phi_i) can be from sum w / pi times the integral of f over a half turn."""
    g = torch.Generator().manual_seed(0)
    for n in (3, 5, 8, 13) * 4:
        phi, _ = (torch.rand(n, generator=g, dtype=torch.float64) * pi).sort()
        w = torch.rand(n, generator=g, dtype=torch.float64) + 0.1
        found, grid = float(answer(phi, w)), torch.linspace(0, pi, 4001, dtype=torch.float64)[:-1]
        for s in (0.0, 0.4, 1.1, 2.0, 2.9):
            f = lambda x, s=s: (x + s).cos().abs() * torch.exp(2j * (x + s))     # slope at most 2, period pi
            off = float((w * f(phi)).sum().sub(w.sum() / pi * f(grid).mean() * pi).abs())
            expect(found >= off * (1 - 1e-3), f"A rule of {n} nodes is off by {off:.3f}, the bound says {found:.3f}.")
        ours = float(quadrature.boxes(quadrature.Rule(phi, w, 2 * phi)).mid)
        expect(found <= 2.5 * ours, f"Sound, but {found:.2f} where {ours:.2f} can be had.")
    return "Each node answers for a box as wide as its weight, with slope two."


@exercise("pizza/7", "medium", 20)
def other_order(answer: Tensor) -> str:
    """A place for every neuron with which the wheel's proof takes twice the operations and certifies as much."""
    model, advice = survey().model, mp.search(survey().model, "wheel")
    advice["place"] = torch.as_tensor(answer, dtype=torch.float64)
    found = mp.check(model, "wheel", advice)
    expect(found.correct == wheel().correct, f"It certifies {found.correct} pairs.")
    expect(found.flops >= 2 * wheel().flops, f"It takes {found.flops} operations, where ours takes {wheel().flops}.")
    return "The order is all that the interpretation gives; a poor one costs length and never truth."


@exercise("pizza/8", "open", 60)
def added_by_hand(answer: dict[str, Tensor]) -> str:
    """Weights written by hand that add modulo a prime p >= 5, right on every pair, certified."""
    model = answer if isinstance(answer, Model) else zoo.model_from_tensors("by-hand", answer)
    expect(model.family.name == "pizza" and model.sizes["p"] >= 5, "A network of this kind with p >= 5 is expected.")
    found = mp.prove(model, "brute_force")
    expect(found.correct == found.total, f"{found.total - found.correct} of {found.total} pairs are wrong or tied.")
    return f"All {found.total} pairs, in real arithmetic on the weights as they stand."
