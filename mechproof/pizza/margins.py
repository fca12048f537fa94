"""From what is known of the logits to the pairs on which the right one is largest.

Problem: p^2 / 2 pairs times p - 1 wrong classes are as many comparisons as brute force makes, if cheaper ones.
Idea: at the key frequencies the logits are waves in c, turned by the answer s.  Turned back, all pairs of one
difference a - b look alike, so one bound a difference and a shift delta = c - s settles most wrong classes
of a whole row of pairs,

    logit_s - logit_{s+delta} >= sum_k rho_k (1 - cos kappa delta) - |iota_k| |sin kappa delta| - rest,

and only what it leaves open is compared pair by pair.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import Ball, inverse, number
from .wheel import Pairs


class Logits(NamedTuple):
    """logit_c(a, b) = z(a, b) T_c + S[a, c] + S[b, c], off by at most spare(a, b) v_c + slack(a, b) / 2.

    Besides, z may be off by `astray` in each of its first planes.
    """

    z: Float[Ball, "half p q"]
    T: Float[Ball, "q p"]
    S: Float[Ball, "p p"]
    spare: Float[Ball, "half p"]
    v: Float[Ball, " p"]
    slack: Float[Ball, "half p"]
    astray: Float[Ball, "half p planes"]


TURN = number(2 * torch.pi, 2.0**-50)                                    # 2 pi


def angles(keys: Int[Tensor, " k"], p: int) -> Float[Ball, "p k"]:
    """2 pi k c / p for every c = 0 .. p - 1, turned into [0, 2 pi)."""
    turns = torch.outer(torch.arange(p), keys) % p
    return Ball(turns.double()) * TURN * inverse(p)


def waves(keys: Int[Tensor, " k"], p: int) -> Float[Ball, "p k2"]:
    """cos kappa c and sin kappa c for every class and key, key by key."""
    angle = angles(keys, p)
    return angle.cos().pick(lambda cos: torch.stack([cos, angle.mid.sin()], -1).flatten(1))


def turned(x: Logits, keys: Int[Tensor, " k"], at: Pairs, wave: Float[Ball, "p k2"]) -> tuple[Ball, Ball, Ball]:
    """(rho, iota) of every pair and key, [half, p, k], and at most what the waves leave of its margins, [half, p]."""
    p = wave.shape[0]
    fit = Ball(wave.mid * (2 / p))                                       # any numbers are sound
    M, MS = x.T @ fit, x.S @ fit                                         # [q, 2k], [p, 2k]
    T_rest, S_rest = x.T - M @ wave.T, x.S - MS @ wave.T
    amplitude = x.z @ M + MS[at.a] + MS[at.b]
    c, s = (amplitude.pick(lambda y: y[..., i::2]) for i in (0, 1))
    cos, sin = (wave.pick(lambda y: y[:, i::2])[at.answer] for i in (0, 1))
    spread = S_rest.amax(1) - S_rest.amin(1)
    rest = x.z.abs() @ (T_rest.amax(1) - T_rest.amin(1)) + spread[at.a] + spread[at.b] + x.slack
    return c * cos + s * sin, s * cos - c * sin, rest


def others(p: int) -> Int[Tensor, "p shifts"]:
    """Class s + delta of every answer s and shift delta = 1 .. p - 1."""
    with cost.addresses():
        return (torch.arange(p)[:, None] + torch.arange(1, p)) % p


def widths(x: Logits) -> Float[Ball, "planes shifts"]:
    """Per plane and delta, the longest T_{s+delta} - T_s: what one unit astray can do to a margin.
    Complexity: O(p^2 planes)."""
    p, planes = x.v.shape[0], x.astray.shape[2]
    turned = x.T[: 2 * planes].pick(lambda y: y.unflatten(0, (planes, 2)))
    away = turned[:, :, others(p)] - turned[..., None]                   # [planes, 2, s, delta]
    return (away * away).sum(1).amax(1).sqrt_upper()


def settled(x: Logits, keys: Int[Tensor, " k"], at: Pairs) -> Bool[Tensor, "half shifts"]:
    """Which shifts delta = 1 .. p - 1 lose to the right answer on a whole row of pairs.  Complexity: O(p^2 q k).

    Theorem: *Margins*.
    """
    wave = waves(keys, x.S.shape[1])
    rho, iota, rest = turned(x, keys, at, wave)
    cos, sin = (wave.pick(lambda y: y[1:, i::2].T) for i in (0, 1))      # [k, shifts]
    one = Ball(torch.ones_like(cos.mid))
    two = (x.v[:, None] + x.v[others(x.v.shape[0])]).amax(0)             # the worst s of every delta
    upper = iota.abs().amax(1) @ sin.abs() - rho.amin(1) @ (one - cos) + rest.amax(1)[:, None]
    return (upper + x.spare.amax(1)[:, None] * two + x.astray.amax(1) @ widths(x)).negative()


def right(x: Logits, keys: Int[Tensor, " k"], at: Pairs) -> Bool[Tensor, "half p"]:
    """The pairs whose right answer is certified largest: every shift is settled for its row, or won by itself.

    Complexity: O(p^2 q), and q a pair and shift left open.
    """
    sure = settled(x, keys, at)
    g, shift = (~sure).nonzero().unbind(-1)
    a, b = at.a[g], at.b[g]                                              # [open, p]
    s, columns = at.answer, x.T.T
    top = (x.z * columns[s]).sum(2) + x.S[at.a, s] + x.S[at.b, s] - x.slack - x.spare * x.v[s]
    c = others(x.v.shape[0])[s[g], shift[:, None]]
    other = (x.z[g] * columns[c]).sum(2) + x.S[a, c] + x.S[b, c] + x.spare[g] * x.v[c]
    if x.astray.shape[2]:
        other = other + (x.astray[g] * widths(x).T[shift][:, None]).sum(2)
    # a number below this is a real number below the right logit
    least = -(Ball(other.rad) - top).upper().mid
    won = torch.zeros(at.a.shape, dtype=torch.int64).index_add(0, g, (other.mid < least[g]).long())
    return won + sure.sum(1)[:, None] == sure.shape[1]


def lowest(x: Logits, at: Pairs, g: int, h: int) -> float:
    """A lower bound on the right logit less the largest wrong one, at one pair."""
    a, b, s = at.a[g, h], at.b[g, h], at.answer[g, h]
    logit = x.z[g, h] @ x.T + x.S[a] + x.S[b]
    gap = logit[s] - logit - x.spare[g, h] * (x.v + x.v[s]) - x.slack[g, h]
    return float((-(x.astray[g, h] @ widths(x) - gap[others(x.v.shape[0])[s]]).upper().mid).min())
