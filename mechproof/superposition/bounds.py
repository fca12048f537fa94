"""Feature by feature: what every output is off by, at most, as a sum over the other features that are on.

Problem: a neuron sees all s features that are on at once, and there are C(m, s) ways.  Idea: relu(x + y) <= relu(x) +
relu(y), and relu(x) >= t x for t = 0 or 1.  So with i on and j off, sharing what is fixed among the s - 1 others,

    sum_a t (A_a + e) <= relu(A_i + b + sum_a A_a) = relu(sum_a (A_a + e)) <= sum_a relu(A_a + e),  e = (A_i + b)/(s-1)

neuron by neuron, and the readout makes of it a number for every output and other feature: a positive entry of R takes
the upper end, a negative one the lower.  Likewise with neither on (e = b/s, s others) and with both on (e = (A_i +
A_j + b)/(s-2), s - 2 others).  One other alone is no bound but the neuron itself (t = 1 where A_a + e > 0); without
others (s = 2, both on) the output is computed.  An output can be wrong only where the numbers of the features that are
on add up to the distance from 1/2.

For W_in of zeros and ones, b = -1 and the plain readout the sum with i on is the very error (*Worst input*).

Source: the study that this chapter comes from; subadditivity is what Haenni et al. 2024 use in expectation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import Ball, cat, inverse, number
from .listing import Rows
from .model import Network

BLOCK = 2**21
Ends = tuple[Ball, Ball]                                                 # at most, at least


def ends(net: Network, R: Float[Ball, "*j out d"], upper: Float[Ball, "*j d a"], lower: Float[Ball, "*j d a"]) -> Ends:
    """What sum_k R[out, k] h[k, a] is at most and at least, where lower <= h <= upper."""
    if not net.signed:
        return R @ upper, R @ lower
    up, down = R.pick(lambda x: x.clamp_min(0)), R.pick(lambda x: x.clamp_max(0))
    return up @ upper + down @ lower, up @ lower + down @ upper


def alone(net: Network, R: Float[Ball, "*j out d"], e: Float[Ball, "*j d"], r: int) -> Ends:
    """Each of r features with its share e of what is fixed, by output and feature; exact for r = 1."""
    x = net.A.T + e[..., None]
    upper = x.relu()
    lower = x.pick(lambda y: torch.where((e.mid > 0)[..., None], y, 0.0)) if r > 1 else upper
    return ends(net, R, upper, lower)


def with_both(net: Network, R: Float[Ball, "out d"], u: Float[Ball, "out d"]) -> Ends:
    """Others' numbers for outputs with both on, each with its own u of what is fixed.  Complexity: O(out m d)."""
    (n, d), m, r, parts = u.shape, len(net.A.mid), net.s - 2, []
    e = u * inverse(r)
    for j in range(0, n, step := max(1, BLOCK // (m * d))):
        parts.append(alone(net, R[j : j + step, None], e[j : j + step], r))
    return tuple(cat([x[:, 0] for x in side], 0) for side in zip(*parts))


def both_ways(found: Ends, const: Float[Ball, " m"], truth: int, off: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Tables and needs for outputs that are too large by `off`, and for those that are too small."""
    yield found[0].upper().mid, -(const - number(truth + off, 2.0**-52)).upper().mid
    yield (-found[1]).upper().mid, -(number(truth - off, 2.0**-52) - const).upper().mid


def outputs(m: int, i: int) -> tuple[Int[Tensor, "m1 2"], Int[Tensor, "late 2"]]:
    """Pairs of i with every other feature, and with later ones."""
    with cost.addresses():
        pairs = torch.stack([torch.full((m,), i), torch.arange(m)], 1)
        return torch.cat([pairs[:i], pairs[i + 1 :]]), pairs[i + 1 :]


def rows(net: Network, i: int, off: float = 0.5) -> Iterator[Rows]:
    """Where outputs of i may be so far off: with i on and the other off, and, where the other comes later, with neither
    on and with both.

    Theorem: *Feature by feature*.
    Complexity: O(m^2 d).
    """
    (m, _), s, R, c = net.A.shape, net.s, net.column(i).T, net.c[i]
    every, late = outputs(m, i)
    one, later = every[:, 1], slice(i + 1, m)
    found = alone(net, R, (net.A[i] + net.b) * inverse(s - 1), s - 1)
    for table, need in both_ways(found, c, 0, off):
        yield Rows(every[:, :1], every, table[one], need[one], s - 1)
    for table, need in both_ways(alone(net, R[later], net.b * inverse(s), s), c[later], 0, off):
        yield Rows(late[:, :0], late, table, need, s)
    if i == m - 1:
        return
    u, c = net.A[i] + net.A[later] + net.b, c[later]
    if s == 2:
        # nothing else is on: the output itself
        c, nothing = c + (R[later] * u.relu()).sum(1), Ball(torch.zeros(len(late), m))
    for table, need in both_ways((nothing, nothing) if s == 2 else with_both(net, R[later], u), c, 1, off):
        yield Rows(late, late, table, need, s - 2)
