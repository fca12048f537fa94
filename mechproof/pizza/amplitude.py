"""How loud each key speaks: its amplitude as a function of the difference a - b, measured and in closed form.

At the right answer the logits of one difference 2 g are sum_k A_k(g), and A_k(g) (1 - cos kappa delta) is lost
at distance delta.  Neurons r [cos u + t (1 - cos 2u)] whose phases are spread over the circle and whose
outputs have psi = 2 phi give

    A_k(g) = R_k [c_2(theta; t) - (t / 2) cos 2 theta] + 2 s_k cos 2 theta,   theta = kappa g,   R_k = sum r omega,

c_2 = (1/pi) int_0^pi |P| cos 2u du, half the second coefficient of `moments.series`, and s_k the direct
path's coefficient of cos kappa (c - 2a).  For t = 0 it is the pizza, (2 / 3 pi) R_k |cos theta|, which
is silent at theta = pi/2.
"""

from __future__ import annotations

from functools import cache
from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import Model
from ..proof.rounding import Ball, number
from .fourier import Neurons, keys, read, tables, turn
from .model import Tables
from .moments import Curve, series
from .wheel import pairs


def shape(theta: Float[Tensor, " g"], t: float) -> Float[Tensor, " g"]:
    """c_2(theta; t) - (t / 2) cos 2 theta.  Complexity: O(1) an angle. Theorem: *The amplitude of a key*."""
    C, tilt = Ball(theta).cos(), number(t)
    curve = Curve(C, Ball((2 * theta).cos() * t), tilt)
    return series(curve, 3).c.mid[:, 2] / 2 - t / 2 * (2 * theta).cos()


def floor(t: float, points: int = 721) -> float:
    """Smallest over largest amplitude along theta: 0 for the bare pizza,
    1 if no difference were harder than another."""
    values = shape(torch.linspace(0, pi / 2, points, dtype=torch.float64), t)
    return float(values.min() / values.max())


@cache
def flattest() -> tuple[float, float]:
    """The t with the highest floor, and that floor, to four digits."""
    return max(((t, floor(t)) for t in (0.12 + 0.0001 * i for i in range(400))), key=lambda found: found[1])


@cache
def balance() -> float:
    """The t at which a - b = 0 and a - b half a period are equally loud, to six digits, by bisection: A(pi/2) = t R."""
    lo, hi = 0.0, 0.2
    for _ in range(24):
        mid = (lo + hi) / 2
        lo, hi = (mid, hi) if float(shape(torch.zeros(1, dtype=torch.float64), mid)) > mid else (lo, mid)
    return round(lo, 6)


class Measured(NamedTuple):
    """Amplitudes of a model's keys over g = 0 .. (p - 1)/2, and what the closed form is made of."""

    keys: list[int]
    A: Float[Tensor, "k g"]
    R: Float[Tensor, " k"]
    s: Float[Tensor, " k"]
    t: Float[Tensor, " k"]                                               # the neurons' own, averaged by weight

    def form(self, j: int, t: float) -> Float[Tensor, " g"]:
        """The closed form of key j with this t."""
        p = 2 * self.A.shape[1] - 1
        theta = turn(self.keys[j] * torch.arange(self.A.shape[1]), p)
        return self.R[j] * shape(theta, t) + 2 * self.s[j] * (2 * theta).cos()


def logits(table: Tables) -> Float[Tensor, "half p p"]:
    """All of them, by row of pairs, [half, p, p].  Complexity: O(p^3 n)."""
    at = pairs(table.H.shape[0])
    return torch.stack([(table.H[a] + table.H[b]).relu() @ table.W + table.S[a] + table.S[b]
                        for a, b in zip(at.a, at.b)])


def waves(key: int, p: int) -> Float[Tensor, "half p p"]:
    """cos kappa (c - s) for every pair and class."""
    return turn(key * (torch.arange(p) - pairs(p).answer[..., None]), p).cos()


def measure(model: Model, most: int = 6) -> tuple[Measured, Float[Tensor, "half p p"]]:
    """Amplitudes of the strongest keys, averaged over h, and the logits they come from."""
    table = tables(model)
    neurons, p, found = read(table), table.H.shape[0], logits(table)
    strongest, c = keys(neurons, most), torch.arange(p)
    A = [(found * waves(k, p)).sum(2).mean(1) * 2 / p for k in strongest]
    s = [(table.S * turn(k * (c - 2 * c[:, None]), p).cos()).sum() * 2 / p**2 for k in strongest]
    R, t = by_key(neurons, strongest)
    return Measured(strongest, torch.stack(A), R, torch.stack(s), t), found


def by_key(neurons: Neurons, strongest: list[int]) -> tuple[Tensor, Tensor]:
    """R and the weighted mean of t, key by key."""
    weight = neurons.r * neurons.omega
    own = [neurons.key == k for k in strongest]
    return (torch.stack([weight[i].sum() for i in own]),
            torch.stack([-(weight * neurons.second.real)[i].sum() / weight[i].sum() for i in own]))


def explained(measured: Measured, found: Float[Tensor, "half p p"]) -> dict[str, float | list[float]]:
    """R^2 over all logits of three forms, and the t that fits each key's amplitudes best.

    `pizza`: |cos theta|, its height fitted; `flattest`: the closed form at the flattest t, nothing fitted;
    `fitted`: t fitted.
    """
    half, p, _ = found.shape
    grid = [0.002 * i for i in range(101)]
    best, amplitudes = [], {"pizza": [], "flattest": [], "fitted": []}
    for j, k in enumerate(measured.keys):
        bare = turn(k * torch.arange(half), p).cos().abs()
        amplitudes["pizza"].append(bare * (measured.A[j] @ bare) / (bare @ bare))
        amplitudes["flattest"].append(measured.form(j, flattest()[0]))
        best.append(min(grid, key=lambda t: float((measured.form(j, t) - measured.A[j]).square().sum())))
        amplitudes["fitted"].append(measured.form(j, best[-1]))
    centred = found - found.mean(2, keepdim=True)
    rows = torch.full((half, 1, 1), 2.0, dtype=torch.float64)
    rows[0] = 1.0                                                        # pairs a != b count for both orders
    def r2(heights: list[Tensor]) -> float:
        left = centred.clone()
        for k, A in zip(measured.keys, heights):
            left -= A[:, None, None] * waves(k, p)
        return float(1 - (rows * left.square()).sum() / (rows * centred.square()).sum())
    return {name: r2(heights) for name, heights in amplitudes.items()} | {"t": best}
