"""The paper's reading of the MLP: neurons are nodes of a rule that integrates, and the rule's error is bounded.

The neurons of a key k add up to sum_i w_i |cos(kappa h + phi_i)| cos(kappa c + psi_i), w_i = r_i omega_i,
a rectangle rule for

    int_{-pi}^{pi} ReLU[cos(s/2 + phi)] cos(c + 2 phi) dphi = (2/3) cos(c - s),

so that with psi = 2 phi their amplitude at the right answer is about M_k = (2 / 3 pi) sum w.  How far the sum can be
from M_k, over all h and in any direction of c, is bounded in three ways, each in time linear in the number of
neurons but for the table. What else the network does is then counted as error, piece by piece, over M_k.  Source:
Yip et al. 2024, section 5.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import InputError, Model
from ..proof.rounding import Ball, number
from .fourier import Neurons, read, tables, turn
from .margins import angles
from .wheel import pairs


class Rule(NamedTuple):
    """Nodes phi with weights w >= 0 and output phases psi, of one key."""

    phi: Float[Tensor, " n"]
    w: Float[Tensor, " n"]
    psi: Float[Tensor, " n"]


def of_key(neurons: Neurons, key: int) -> Rule:
    """The rule that a key's neurons make.  Errors: InputError for a key that no neuron has."""
    i = neurons.key == key
    if not i.any():
        raise InputError(f"key {key} has no neurons; those that have: {sorted(set(neurons.key.tolist()))}")
    return Rule(neurons.phi[i], (neurons.r * neurons.omega)[i], neurons.psi[i])


def integral(rule: Rule) -> Float[Ball, ""]:
    """M = (2 / 3 pi) sum w, what a perfect rule gives. Theorem: *The integral*."""
    return Ball(rule.w).sum(0) * number(2 / (3 * pi), 2.0**-52)


def boxes(rule: Rule) -> Float[Ball, ""]:
    """At least the rule's error, were psi = 2 phi: nodes in order on a half turn, each in a box as wide as its weight.

    The integrand |cos(x + s)| exp(2 i (x + s)) has slope at most 2: error <= 2 (sum w / pi) sum_i int_box |x - phi_i|
    dx.  The boxes may start anywhere; the best of 64 starts is taken.  Complexity: O(n log n).
    """
    phi, order = (rule.phi % pi).sort()
    w = rule.w[order]
    width, total = w * (pi / w.sum()), Ball(w).sum(0)
    # boxes touch; where they start is free, and so is rounding there:
    right = width.cumsum(0)
    # widths are not quite in proportion to w, phi not quite mod pi
    rounded = Ball((len(w) + 8 + rule.phi.abs().amax()) * 2.0**-50)
    best = None
    for start in torch.arange(-32, 32) * (float(width.max()) / 16):
        ends = Ball(torch.cat([right[:1] * 0, right]) + start)           # any increasing ends that span pi
        far, near = ends[1:] - Ball(phi), ends[:-1] - Ball(phi)
        area = ((far * far.abs() - near * near.abs()) * number(0.5)).sum(0)
        last = (Ball(right[-1:]) - number(pi)[None]).abs().sum(0)
        uneven = ((ends[1:] - ends[:-1]) - Ball(width)).abs().sum(0) + last
        error = ((area + uneven) * number(2.0) + rounded) * total * number(1 / pi, 2.0**-53)
        best = error if best is None or bool(error.mid < best.mid) else best
    return best.upper()


def modulus(re: Ball, im: Ball) -> Ball:
    return (re * re + im * im).sqrt_upper()


def by_moments(rule: Rule, terms: int = 80) -> Float[Ball, ""]:
    """At least the rule's error with its own psi, from |cos u| = 2/pi + sum_m a_m (-1)^(m+1) cos 2mu,
    a_m = 4 / (pi (4 m^2 - 1)).

    (2/pi) |sum w e^{i psi}| + (a_1/2)(|sum w e^{i(2 phi - psi)} - sum w| + |sum w e^{i(2 phi + psi)}|) + the same for m
    = 2.. with nothing taken off, + sum w (2/pi)/(2 terms + 1) for the tail.  Complexity: O(n terms).
    """
    w, total = Ball(rule.w), Ball(rule.w).sum(0)
    m = Ball(torch.arange(1, terms + 1, dtype=torch.float64))[:, None] * Ball(2 * rule.phi)
    parts = []
    for sign in (1.0, -1.0):
        angle = m + Ball(rule.psi) * number(sign)
        parts.append((angle.cos() @ w, angle.sin() @ w))
    psi = Ball(rule.psi)
    constant = modulus(psi.cos() @ w, psi.sin() @ w) * number(2 / pi * (1 + 2.0**-50))
    (plus, minus), j = parts, torch.arange(1, terms + 1, dtype=torch.float64)
    first = torch.zeros(terms, dtype=torch.float64)
    first[0] = 1.0
    size = modulus(*plus) + modulus(minus[0] - Ball(first) * total, minus[1])
    series = (size * Ball(2 / (pi * (4 * j * j - 1)) * (1 + 2.0**-40))).sum(0)
    return (constant + series + total * number(2 / (pi * (2 * terms + 1)) * (1 + 2.0**-40))).upper()


def by_table(rule: Rule, key: int, p: int) -> Float[Ball, ""]:
    """At least the rule's error at the p values of h that occur, computed for each.  Complexity: O(p n)."""
    h = angles(torch.tensor([key]), p)                                   # [p, 1]
    size = (h + Ball(rule.phi)).cos().abs() * Ball(rule.w)
    out = h * number(2.0) + Ball(rule.psi)
    re, im = (size * out.cos()).sum(1) - integral(rule), (size * out.sin()).sum(1)
    return modulus(re, im).amax(0).upper()


PIECES = ("bias", "harmonics", "angles", "leftovers", "boxes", "moments", "table")


def budget(model: Model, key: int, terms: int = 80) -> dict[str, float]:
    """The paper's error pieces of one key over M, beside the naive bound and the largest error that really occurs.

    bias sum |beta| omega, harmonics sum max |H - beta - r cos| omega, angles sum w 2 |sin((psi - 2 phi)/2)|, leftovers
    sum max |H| max_c |W - omega cos(kappa c + psi)|, and the rule's error in three ways
    (`moments` and `table` contain the angles).
    Complexity: O(p n) and the rule's.
    """
    table, neurons = tables(model), read(tables(model))
    i, rule, p = neurons.key == key, of_key(neurons, key), table.H.shape[0]
    H, W = table.H[:, i], table.W[i]
    beta, r, omega = neurons.beta[i], neurons.r[i], neurons.omega[i]
    angle = turn(key * torch.arange(p), p)
    H_wave = beta + r * (angle[:, None] + rule.phi).cos()
    W_wave = omega[:, None] * (angle + rule.psi[:, None]).cos()
    M = float(integral(rule).mid)
    pieces = {"bias": (beta.abs() * omega).sum(), "harmonics": ((H - H_wave).abs().amax(0) * omega).sum(),
              "angles": (rule.w * 2 * ((rule.psi - 2 * rule.phi) / 2).sin().abs()).sum(),
              "leftovers": (H.abs().amax(0) * (W - W_wave).abs().amax(1)).sum(),
              "boxes": boxes(rule).mid, "moments": by_moments(rule, terms).mid, "table": by_table(rule, key, p).mid}
    naive = (H.abs().amax(0) * W.abs().amax(1)).sum() + M
    return {name: float(value) / M
            for name, value in (pieces | {"naive": naive, "true": true_error(H, W, key, M)}).items()} | {"M": M}


def true_error(H: Float[Tensor, "p n"], W: Float[Tensor, "n p"], key: int, M: float) -> float:
    """The largest |sum_i |H_i(a) + H_i(b)| / 2 W_ic - M |cos kappa g| cos kappa(s - c)| over all pairs and classes.
    Complexity: O(p^3 n)."""
    p, worst = H.shape[0], 0.0
    for g, (a, b, answer) in enumerate(zip(*pairs(p))):
        found = (H[a] + H[b]).abs() / 2 @ W
        meant = M * turn(torch.tensor(key * g),
                         p).cos().abs() * turn(key * (answer[:, None] - torch.arange(p)), p).cos()
        worst = max(worst, float((found - found.mean(1, keepdim=True) - meant).abs().max()))
    return worst
