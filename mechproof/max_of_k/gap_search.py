"""Search for the gaps of a subcubic proof, all of them together.

Problem: a smaller gap covers more sequences of its own group but lets closer tokens into W[m,n], which every
group of the same (m, n) shares; found one by one, better scores can give a worse proof.  Idea: for fixed
(m, n) try every value G of the smallest gap, which fixes W.  Then each query's best gap follows by itself: the
set of attentions that pass is an interval, the score difference it needs is one number, and the largest
covered token is found by bisection in the running maxima.  Keep the G that covers most sequences in all.

Nothing here is trusted: it works on midpoints and writes advice.
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Advice, Model, Parameters
from . import direct, scores
from .paths import Paths
from .subcubic import Attention, Line, Skeleton, Votes

Interval = Float[Tensor, "q m G"]
CHUNK = 2**17          # numbers in a block of maxima
SAFETY = 1e-9          # keep clear of what rounding would refuse


def find(skeleton: Skeleton, model: Model, parameters: Parameters) -> Advice:
    """Directions, gaps and reference attentions for `skeleton`.  Complexity: O(v^3 K log v) after the pieces."""
    rank = parameters.get("rank", 0)
    hints, attention = known_attention(model, skeleton.error, rank)
    directions, votes = known_votes(model, skeleton.direct)
    v, n_odds = len(votes.L.mid), attention.odds.shape[1]
    gaps = torch.zeros(v, v, n_odds + 1, dtype=torch.long)
    gaps[:, :, 0] = torch.eye(v, dtype=torch.long)
    reference = torch.zeros(v, n_odds, dtype=torch.float64)
    references = tangent_points(votes)
    line = skeleton.line(votes, references)
    for maxima in torch.arange(1, v).split(max(1, CHUNK // (v * v * n_odds))):
        total, tops = covered(maxima, line, votes, attention)
        at = total.argmax(-1)                                           # [m, n], the best smallest gap G = 1 + at
        reference[maxima] = references[maxima].gather(1, at)
        top = tops.gather(3, at[None, :, :, None].expand(len(tops), -1, -1, 1))[..., 0]
        gaps[: len(tops), maxima, 1:] = torch.where(top >= 0, maxima[:, None] - top, 0)
    kept = {name: tensor.clone() for name, tensor in (hints | directions).items()}
    return kept | {"gaps": gaps, "reference_attention": reference}


@lru_cache(maxsize=32)
def known_attention(model: Model, error: str, rank: int) -> tuple[Advice, Attention]:
    """Hints for a way to know the scores and what follows from them; kept, since many proofs share it."""
    paths, way = Paths(model), scores.WAYS[error]
    hints = way.hints(paths, rank)
    return hints, Attention.of(paths, way.scores(paths, hints, rank))


@lru_cache(maxsize=32)
def known_votes(model: Model, way: str) -> tuple[Advice, Votes]:
    """Hints for a way to know the direct path and the votes that follow."""
    paths = Paths(model)
    hints = direct.WAYS[way].hints(paths)
    return hints, Votes.of(paths, direct.WAYS[way], hints)


def tangent_points(votes: Votes) -> Float[Tensor, "m G"]:
    """[m, G-1]: the least attention at which (*) turns negative for a typical query, exactly in i.

    L_i + a R_i + (1 - a) W + u < 0 iff a (W - R_i) > L_i + W + u; there the reference attention costs nothing.
    """
    L, R, W, u = (getattr(votes, name).mid for name in "LRWu")
    v = len(L)
    tops = (torch.arange(v)[:, None] - torch.arange(1, v + 1)).clamp_min(0)       # [m, G-1]: largest token covered
    worst = W[tops, torch.arange(v)[:, None]][..., None]
    typical = u.masked_fill(torch.ones_like(u).tril(-1) > 0, torch.nan).nanmedian(0).values
    ratio = (L[:, None] + worst + typical[:, None, None]) / (worst - R[:, None]).clamp_min(1e-9)
    return ratio.masked_fill(torch.eye(v, dtype=torch.bool)[:, None], -torch.inf).amax(2).clamp(0, 1)


def passing(line: Line, W: Float[Tensor, "m G"], u: Float[Tensor, "q m 1"],
            m: Int[Tensor, " m"]) -> tuple[Interval, Interval]:
    """The interval of attentions at which (*) is negative, [q, m, G-1] both:
    one inequality for each slope of `line`."""
    at, ref, up, down = (getattr(line, name).mid[m, : W.shape[1]] for name in ("at", "ref", "up", "down"))
    low, high = torch.full_like(u + W, -torch.inf), torch.full_like(u + W, torch.inf)
    for slope in (up, down):
        offset, tilt = at - ref * slope + W + u + SAFETY, slope - W
        root = -offset / tilt
        low = torch.where(tilt < 0, torch.maximum(low, root), torch.where((tilt == 0) & (offset >= 0), torch.inf, low))
        high = torch.where(tilt > 0, torch.minimum(high, root), high)
    return low.clamp(0, 1).logit(), high.clamp(0, 1).logit()


def covered(m: Int[Tensor, " m"], line: Line, votes: Votes,
            attention: Attention) -> tuple[Float[Tensor, "m n G"], Int[Tensor, "q m n G"]]:
    """For maxima m, every n and smallest gap G: sequences covered [m, n-1, G-1],
    and the largest token each query covers.

    The second is [q, m, n-1, G-1], -1 where the group cannot be claimed.
    """
    n_odds, top_m = attention.odds.shape[1], int(m.max())
    q, n = torch.arange(top_m + 1)[:, None, None, None], torch.arange(1, n_odds + 1)[:, None]
    G = torch.arange(1, top_m + 1)
    m_ = m[:, None, None]
    W = votes.W.mid[(m[:, None] - G).clamp_min(0), m[:, None]]
    low, high = passing(line, W, votes.u.mid[: top_m + 1, m, None], m)
    own, kind = attention.own.mid[: top_m + 1, m, None], (q < m_).long()
    # of the running maximum
    at_most = (own - attention.odds.mid[q, n - 1, kind, 0][..., 0])[..., None] - low[:, :, None]
    # of the running minimum
    at_least = (own - attention.odds.mid[q, n - 1, kind, 1][..., 0])[..., None] - high[:, :, None]
    count = lambda running, limit: torch.searchsorted(running.mid[: top_m + 1], limit.flatten(1)).view_as(limit)
    top = torch.minimum(count(attention.highest, at_most), count(-attention.lowest, -at_least)) - 1
    top = torch.minimum(top, m_ - G)
    top = torch.where((q == m_) | ((q < m_) & (q <= top)), top, -1)
    below = n - (q < m_).long()                                                      # tokens below m besides the query
    ways = torch.tensor([float(comb(n_odds, k)) for k in range(n_odds + 1)], dtype=torch.float64)[below]
    return (ways * (top + 1).double() ** below * (top >= 0)).sum(0), top
