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

from .. import cost
from ..rounding import Ball, inverse, number
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
    """(rho, iota) of every pair and key, [half, p, k], and what the waves leave of its row's margins, [half, shifts]."""
    p = wave.shape[0]
    fit = Ball(wave.mid * (2 / p))                                       # any numbers are sound
    M, MS = x.T @ fit, x.S @ fit                                         # [q, 2k], [p, 2k]
    T_rest, S_rest = x.T - M @ wave.T, x.S - MS @ wave.T
    amplitude = x.z @ M + MS[at.a] + MS[at.b]
    c, s = (amplitude.pick(lambda y: y[..., i::2]) for i in (0, 1))
    answer = (at.a + at.b) % p
    cos, sin = (wave.pick(lambda y: y[:, i::2])[answer] for i in (0, 1))
    spread = S_rest.amax(1) - S_rest.amin(1)
    fixed, rest = bent(x.z, T_rest, at)
    return c * cos + s * sin, s * cos - c * sin, (rest + spread[at.a] + spread[at.b] + x.slack).amax(1)[:, None] + fixed


def bent(z: Float[Ball, "half p q"], T: Float[Ball, "q p"], at: Pairs) -> tuple[Float[Ball, "half shifts"], Float[Ball, "half p"]]:
    """(fixed, rest) with z (T_{s+delta} - T_s) <= fixed + rest for tables T that are no waves.

    Along a row of pairs z is nearly what it is at a = b, where g = 0, times a number for each plane: that part is
    multiplied out once for all rows, at its worst answer s; only what is left of z meets T at its widest.
    Complexity: O(p^2 q).
    """
    p, q = T.shape[1], z.shape[2] // 2 * 2                               # an odd last direction belongs to no plane
    both = torch.arange(p)
    first = z[0, both * ((p + 1) // 2) % p]                              # [p, q], by answer
    size = z.mid.abs().mean(1)[:, :q].unflatten(-1, (-1, 2)).sum(-1)
    times = Ball(size / (size[:1] + 2.0**-900))                          # any numbers that are not negative will do
    each = times.pick(lambda x: torch.cat([x.repeat_interleave(2, 1), x.new_zeros(len(x), z.shape[2] - q)], 1))
    left = z - each[:, None] * first[(at.a + at.b) % p]
    by_plane = first.pick(lambda x: x[:, :q].unflatten(1, (-1, 2)).transpose(0, 1)) @ T.pick(lambda x: x[:q].unflatten(0, (-1, 2)))
    gain = by_plane[:, both, (both + both[:, None]) % p] - by_plane[:, both, both][:, None]      # [planes, delta, s]
    return times @ gain[:, 1:].amax(2), left.abs() @ (T.amax(1) - T.amin(1))


def widths(x: Logits) -> Float[Ball, "planes shifts"]:
    """Per plane and delta, the longest T_{s+delta} - T_s: what one unit astray can do to a margin.  Complexity: O(p^2 planes)."""
    p, planes = x.v.shape[0], x.astray.shape[2]
    s, turned = torch.arange(p), x.T[: 2 * planes].pick(lambda y: y.unflatten(0, (planes, 2)))
    away = turned[:, :, (s + s[1:, None]) % p] - turned[:, :, None]      # [planes, 2, delta, s]
    return (away * away).sum(1).amax(2).sqrt_upper()


def settled(x: Logits, keys: Int[Tensor, " k"], at: Pairs) -> Bool[Tensor, "half shifts"]:
    """Which shifts delta = 1 .. p - 1 lose to the right answer on a whole row of pairs.  Complexity: O(p^2 q k)."""
    wave = waves(keys, x.S.shape[0])
    rho, iota, rest = turned(x, keys, at, wave)
    cos, sin = (wave.pick(lambda y: y[1:, i::2].T) for i in (0, 1))      # [k, shifts]
    one = Ball(torch.ones_like(cos.mid))
    p = x.v.shape[0]
    two = (x.v[None] + x.v[(torch.arange(p)[:, None] + torch.arange(p)) % p])[1:].amax(1)      # the worst s of every delta
    upper = iota.abs().amax(1) @ sin.abs() - rho.amin(1) @ (one - cos) + rest + x.spare.amax(1)[:, None] * two + x.astray.amax(1) @ widths(x)
    return upper.negative()


def right(x: Logits, keys: Int[Tensor, " k"], at: Pairs) -> Bool[Tensor, "half p"]:
    """The pairs whose right answer is certified largest.  Complexity: O(p^2 q), and q a pair and shift left open."""
    p = x.S.shape[0]
    g, shift = (~settled(x, keys, at)).nonzero().unbind(-1)
    a, b = at.a[g], at.b[g]                                              # [open, p]
    answer = (at.a + at.b) % p
    columns = x.T.T
    top = (x.z * columns[answer]).sum(2) + x.S[at.a, answer] + x.S[at.b, answer] - x.slack - x.spare * x.v[answer]
    with cost.addresses():
        wrong = (torch.arange(p)[:, None] + torch.arange(1, p)) % p      # every answer's other classes, shift by shift
    c = wrong[answer[g], shift[:, None]]
    other = (x.z[g] * columns[c]).sum(2) + x.S[a, c] + x.S[b, c] + x.spare[g] * x.v[c]
    if x.astray.shape[2]:
        other = other + (x.astray[g] * widths(x).T[shift][:, None]).sum(2)
    least = -(Ball(other.rad) - top).upper().mid                         # a number below this is a real number below the right logit
    won = torch.zeros(at.a.shape, dtype=torch.int64).index_add(0, g, (other.mid < least[g]).long())
    return won == torch.bincount(g, minlength=at.a.shape[0])[:, None]


def lowest(x: Logits, at: Pairs, g: int, h: int) -> float:
    """A lower bound on the right logit less the largest wrong one, at one pair."""
    a, b = at.a[g, h], at.b[g, h]
    c = (a + b) % x.v.shape[0]
    logit = x.z[g, h] @ x.T + x.S[a] + x.S[b]
    gap = logit[c] - logit - x.spare[g, h] * (x.v + x.v[c]) - x.slack[g, h]
    away = (c + torch.arange(1, x.v.shape[0])) % x.v.shape[0]
    return float((-(x.astray[g, h] @ widths(x) - gap[away]).upper().mid).min())
