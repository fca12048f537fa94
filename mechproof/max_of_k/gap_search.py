"""Search for the gaps of a subcubic proof, all of them together.

Problem: a smaller gap covers more sequences of its own group but lets closer tokens into W[m,n], which every
group of the same (m, n) shares; found one by one, better scores can give a worse proof.  Idea: for fixed
(m, n) try every value G of the smallest gap, which fixes W.  Then each query's best gap follows by itself: the
set of attentions that pass is an interval, the score difference it needs is one number, and the largest
covered token is found by bisection in the running maxima.  Keep the G that covers most sequences in all.

Nothing here is trusted: it works on midpoints and writes advice.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from ..family import Advice, Model, Parameters
from . import direct, scores
from .paths import Paths
from .subcubic import Attention, Line, Skeleton, Votes

QUANTILES = (0.1, 0.5, 0.9)     # of u over queries: each gives a candidate for the reference attention
SAFETY = 1e-9                   # keep clear of what rounding would refuse


def find(skeleton: Skeleton, model: Model, parameters: Parameters) -> Advice:
    """Directions, gaps and reference attentions for `skeleton`.  Complexity: O(v^3 K log v) after the pieces."""
    paths, rank = Paths(model), parameters["rank"]
    way = scores.WAYS[skeleton.error]
    advice = dict(direct.WAYS[skeleton.direct].hints(paths))
    if way.hints:
        advice |= way.hints(paths, rank)
    votes, attention = skeleton.pieces(paths, advice, rank)
    v, n_ctx = paths.d_vocab, paths.n_ctx
    gaps = torch.zeros(v, v, n_ctx, dtype=torch.long)
    reference = torch.zeros(v, n_ctx - 1, dtype=torch.float64)
    L, R, W, u = (getattr(votes, name).mid for name in "LRWu")
    eye = torch.eye(v, dtype=torch.bool)
    gaps[:, :, 0] = torch.diag(((L + R).masked_fill(eye, -torch.inf).amax(1) + u.diagonal() < -SAFETY).long())
    best = torch.zeros(v, n_ctx - 1, dtype=torch.float64)
    for quantile in QUANTILES if skeleton.handling == "mean_query+diff" else (0.5,):
        references = tangent_points(L, R, W, u, quantile)
        line = skeleton.line(votes, references)
        for m in range(1, v):
            total, tops = covered(m, line, votes, attention, n_ctx)
            value, at = total.max(1)                                    # [n], over the smallest gap G = 1 + at
            better = value > best[m]
            best[m] = torch.where(better, value, best[m])
            reference[m] = torch.where(better, references[m, at], reference[m])
            top = tops.gather(2, at[None, :, None].expand(m + 1, -1, 1))[..., 0]
            found = torch.where(top >= 0, m - top, 0)
            gaps[: m + 1, m, 1:] = torch.where(better, found, gaps[: m + 1, m, 1:])
    return advice | {"gaps": gaps, "reference_attention": reference}


def tangent_points(L: Tensor, R: Tensor, W: Tensor, u: Tensor, quantile: float) -> Tensor:
    """[m, G-1]: the least attention at which (*) turns negative for a typical query, exactly in i.

    L_i + a R_i + (1 - a) W + u < 0 iff a (W - R_i) > L_i + W + u; there the reference attention costs nothing.
    """
    v = len(L)
    tops = (torch.arange(v)[:, None] - torch.arange(1, v + 1)).clamp_min(0)       # [m, G-1]: largest token covered
    worst = W[tops, torch.arange(v)[:, None]]
    typical = torch.stack([u[: m + 1, m].quantile(quantile) for m in range(v)])[:, None, None]
    ratio = (L[:, None] + worst[..., None] + typical) / (worst[..., None] - R[:, None]).clamp_min(1e-9)
    return ratio.masked_fill(torch.eye(v, dtype=torch.bool)[:, None], -torch.inf).amax(2).clamp(0, 1)


def passing(line: Line, W: Tensor, u: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The interval of attentions at which (*) is negative, [q, G-1] both: one inequality for each slope of `line`."""
    at, ref, up, down = (getattr(line, name).mid[m, : len(W)] for name in ("at", "ref", "up", "down"))
    low, high = torch.full_like(u * W, -torch.inf), torch.full_like(u * W, torch.inf)
    for slope in (up, down):
        offset, tilt = at - ref * slope + W + u + SAFETY, slope - W
        root = -offset / tilt
        low = torch.where(tilt < 0, torch.maximum(low, root), torch.where((tilt == 0) & (offset >= 0), torch.inf, low))
        high = torch.where(tilt > 0, torch.minimum(high, root), high)
    return low.clamp(0, 1), high.clamp(0, 1)


def covered(m: int, line: Line, votes: Votes, attention: Attention, n_ctx: int) -> tuple[Tensor, Tensor]:
    """For every n and smallest gap G: sequences covered [n-1, G-1], and the largest token each query may cover.

    The second is [q, n-1, G-1], -1 where the group cannot be claimed.
    """
    q, n, G = torch.arange(m + 1)[:, None, None], torch.arange(1, n_ctx)[:, None], torch.arange(1, m + 1)
    low, high = passing(line, votes.W.mid[m - G, m], votes.u.mid[: m + 1, m, None], m)
    own, kind = attention.own.mid[: m + 1, m, None, None], (q < m).long()
    at_most = own - attention.odds_hi.mid[q, n - 1, kind] - low.logit()[:, None]     # of the running maximum
    at_least = own - attention.odds_lo.mid[q, n - 1, kind] - high.logit()[:, None]   # of the running minimum
    count = lambda running, limit: torch.searchsorted(running.mid[: m + 1].contiguous(), limit.flatten(1)).view_as(limit)
    top = torch.minimum(count(attention.highest, at_most), count(-attention.lowest, -at_least)) - 1
    top = torch.minimum(top, m - G)
    top = torch.where((q == m) | (q <= top), top, -1)
    below = n - (q < m).long()                                                       # tokens below m besides the query
    ways = torch.tensor([float(comb(n_ctx - 1, k)) for k in range(n_ctx)], dtype=torch.float64)[below]
    return (ways * (top + 1).double() ** below * (top >= 0)).sum(0), top
