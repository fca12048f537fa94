"""Feature by feature: what every output is off by, at most, as a sum over the other features that are on.

Problem: a neuron sees all s features that are on at once, and there are C(m, s) ways.  Idea: relu(x + y) <= relu(x) +
relu(y), and relu(x) >= t x for t = 0 or 1.  So with i on and j off, sharing what is fixed among the s - 1 others,

    relu(A_i + b + sum_a A_a) = relu(sum_a (A_a + e)) <= sum_a relu(A_a + e)  and  >= sum_a t (A_a + e),   e = (A_i + b)/(s-1)

neuron by neuron, and the readout makes of it a number for every output and other feature: a positive entry of R takes
the upper end, a negative one the lower.  Likewise with neither on (e = b/s, s others), and with both on,
relu(u + sum_a A_a) <= relu(u) + sum_a relu(A_a) and >= t (u + sum_a A_a), u = A_i + A_j + b.  An output can be wrong
only where the numbers of the features that are on add up to the distance from 1/2.

For W_in of zeros and ones, b = -1 and the plain readout the sum with i on is the very error (*Worst input*).

Source: the study that this chapter comes from; subadditivity is what Haenni et al. 2024 use in expectation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import Ball, inverse, number
from .listing import Rows
from .model import Network

Ends = tuple[Ball, Ball]                                                 # at most, at least


def where(on: Bool[Tensor, "*x"], x: Float[Ball, "*x"]) -> Float[Ball, "*x"]:
    """x, and 0 where not `on`."""
    return x.pick(lambda y: torch.where(on, y, 0.0))


def ends(net: Network, R: Float[Ball, "d m"], upper: Float[Ball, "d a"], lower: Float[Ball, "d a"]) -> Ends:
    """What sum_k R[k, j] h[k, a] is at most and at least, where lower <= h <= upper."""
    if not net.signed:
        return R.T @ upper, R.T @ lower
    up, down = R.pick(lambda x: x.clamp_min(0)).T, R.pick(lambda x: x.clamp_max(0)).T
    return up @ upper + down @ lower, up @ lower + down @ upper


def alone(net: Network, R: Float[Ball, "d m"], e: Float[Ball, " d"], r: int) -> Ends:
    """Each of r features with its share e of what is fixed, by output and feature; exact for r = 1."""
    x = net.A.T + e[:, None]
    upper, lower = x.relu(), where((e.mid > 0)[:, None], x) if r > 1 else x.relu()
    if net.signed or r == 1:
        return ends(net, R, upper, lower)
    return R.T @ upper, Ball(torch.zeros(R.shape[1], x.shape[1]))        # no output is below b_out


def with_both(net: Network, R: Float[Ball, "d m"], i: int) -> tuple[Ends, Float[Ball, " m"]]:
    """Others' numbers for outputs of i with both on, and what an output is without others, which is exact."""
    u = net.A[i][:, None] + net.A.T + net.b[:, None]
    const = (R * u.relu()).sum(0) + net.c[i]
    on, rising = u.mid > 0, net.A.T.relu()
    if not net.signed:
        return (R.T @ rising, where(on, R).T @ net.A.T), const
    up, down = R.pick(lambda x: x.clamp_min(0)), R.pick(lambda x: x.clamp_max(0))
    upper = up.T @ rising + where(on, down).T @ net.A.T
    return (upper, where(on, up).T @ net.A.T + down.T @ rising), const


def both_ways(found: Ends, const: Float[Ball, " m"], truth: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Tables and needs for outputs that are too large, and for those that are too small."""
    yield found[0].upper().mid, -(const - number(truth + 0.5)).upper().mid
    yield (-found[1]).upper().mid, -(number(truth - 0.5) - const).upper().mid


def outputs(m: int, i: int) -> tuple[Int[Tensor, "m1 2"], Int[Tensor, "late 2"]]:
    """Pairs of i with every other feature, and with later ones."""
    with cost.addresses():
        pairs = torch.stack([torch.full((m,), i), torch.arange(m)], 1)
        return torch.cat([pairs[:i], pairs[i + 1 :]]), pairs[i + 1 :]


def rows(net: Network, i: int) -> Iterator[Rows]:
    """Everything that the bound says of the outputs of i: with i on and the other off, and, where the other comes
    later, with neither on and with both.  Complexity: O(m^2 d)."""
    m, s, R = len(net.A.mid), net.s, net.column(i)
    every, late = outputs(m, i)
    for table, need in both_ways(alone(net, R, (net.A[i] + net.b) * inverse(s - 1), s - 1), net.c[i], 0):
        yield Rows(every[:, :1], every, table[every[:, 1]], need[every[:, 1]], s - 1)
    later = R.pick(lambda x: x[:, i + 1 :])
    for table, need in both_ways(alone(net, later, net.b * inverse(s), s), net.c[i, i + 1 :], 0):
        yield Rows(late[:, :0], late, table, need, s)
    found, const = with_both(net, R, i)
    for table, need in both_ways(found, const, 1):
        yield Rows(late, late, table[late[:, 1]], need[late[:, 1]], s - 2)
