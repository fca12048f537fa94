"""Two proofs that all answers of all (K!)^2 inputs win, of lengths polynomial in K.

Position q has its answer s from the place l = y(q), x(l) = s, and a rival j stands in x at some other place k.  A lead
of s over j is bounded once for all inputs that share (q, s, j, k, l), which are (K - 1)! (K - 2)! each.

`cells`: a neuron counts exactly at the output that is its own, (q, j) for its main row j and main column q, where
(k, l) is what it reads; at any other output by the range of its activations.  `rivals`: all neurons of one main row
and column together, at every output.  Where a row other than s and j is met, and what a column other than q holds, is
unknown, and taken at its worst: what a column holds once for all its neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, Model, Proved
from ..proof.rounding import Ball, largest_but, smallest_but, stack
from .model import inputs
from .neurons import Neurons, between, neurons

Leads = Float[Ball, "q s #j #k l"]                                     # of one rival, or of all at once
Way = Callable[[Neurons, Float[Ball, "q j"]], Leads]


def others_lo(x: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """Of every entry the smallest of the others along a dimension, of two or more."""
    x = x.movedim(dim, -1)
    edge = torch.full_like(x[..., :1], torch.inf)
    before = torch.cat([edge, x.cummin(-1).values[..., :-1]], -1)
    after = torch.cat([x.flip(-1).cummin(-1).values.flip(-1)[..., 1:], edge], -1)
    return torch.minimum(before, after).movedim(-1, dim)


def cells(net: Neurons, b_U: Float[Ball, "q j"]) -> Leads:
    """Leads of every answer over its best rival anywhere, [q, s, 1, 1, l].

    Complexity: O(n K^2 + K^4).  Theorem: *Every neuron at its cell*.
    """
    n, K = len(net.own), b_U.shape[0]
    own = net.own[:, None]
    at_own = between(net.lo, net.hi, net.out.pick(lambda x: x.gather(1, own)[..., None]))
    lo, hi = (x.sum_by(net.own, K * K, n).pick(lambda x: x.view(K, K, K, K)) for x in at_own)      # [q, j, k, l]
    ends = net.lo.pick(lambda x: x.amin((1, 2))), net.hi.pick(lambda x: x.amax((1, 2)))
    rest_lo, rest_hi = (x.pick(lambda x: x.scatter(1, own, 0.0)).sum(0).pick(lambda x: x.view(K, K)) + b_U
                        for x in between(ends[0][:, None], ends[1][:, None], net.out))
    right = lo.pick(lambda x: x.diagonal(dim1=2, dim2=3)) + rest_lo[..., None]
    eye = torch.eye(K, dtype=torch.bool)                                 # no rival stands where the answer does
    rival = hi.pick(lambda x: largest_but(x, eye, 2)) + rest_hi[..., None]
    best = rival.pick(lambda x: -others_lo(-x, 1))
    return (right - best)[:, :, None, None]


def rivals(net: Neurons, b_U: Float[Ball, "q j"]) -> Leads:
    """Leads of every answer over every rival.

    Complexity: O(n K^4 + K^7).  Theorem: *Rival by rival*.
    """
    n, K, found = len(net.own), b_U.shape[0], []
    for q in range(K):
        here = between(net.lo[:, None], net.hi[:, None], net.out[:, q * K : (q + 1) * K, None, None])
        lo, hi = (x.sum_by(net.own, K * K, n).pick(lambda x: x.view(*[K] * 5)) for x in here)      # [Q, J, j, k, l]
        found += [over(lo[:, :, s, None] - hi, q, s) + (b_U[q, s] - b_U[q])[:, None, None] for s in range(K)]
    return stack(found).pick(lambda x: x.view(*[K] * 5))


def over(lead: Float[Ball, "Q J j k l"], q: int, s: int) -> Float[Ball, "j k l"]:
    """The least that these leads of s over the rivals j can add up to, at (k, l) of the answer's position q.

    Row J is met at l if J = s, at k if J = j, else not at l.  Column Q holds l if Q = q, else one m != l for all J.
    """
    eye = torch.eye(lead.shape[2], dtype=torch.bool)
    known = eye | eye[s][:, None]                                        # [J, j]
    unknown = lead.pick(lambda x: others_lo(x, 3).masked_fill(known[..., None, None], 0.0)).sum(1)  # [Q, j, l, m]
    of_rival = lead.pick(lambda x: x.diagonal(dim1=1, dim2=2).movedim(-1, 1))                       # [Q, j, k, m]
    by_column = (unknown + lead[:, s])[:, :, None] + of_rival[:, :, :, None]                        # [Q, j, k, l, m]

    def held(x: Float[Tensor, "Q j k l m"]) -> Float[Tensor, "Q j k l"]:
        other = smallest_but(x, eye, 4)
        return torch.cat([other[:q], x[q].diagonal(dim1=2, dim2=3)[None], other[q + 1 :]])

    return by_column.pick(held).sum(0)


def leads(model: Model, advice: Advice, way: Way) -> Leads:
    """What a proof knows of every lead.  Complexity: of the way."""
    return way(neurons(model, advice), Ball(model["b_U"]))


def no_lead(leads: Leads) -> Bool[Tensor, "#s #j #k #l"]:
    """Where these speak of a rival that is the answer, or that stands in its place."""
    K = leads.shape[0]
    with cost.addresses():
        eye = torch.eye(K, dtype=torch.bool)
        return eye[:, :, None, None] | eye[None, None] if leads.shape[2] > 1 else eye.new_zeros(1, 1, 1, 1)


def least(leads: Leads) -> float:
    """A number at most the least lead of any answer over any rival in any input: the certified margin."""
    return float(-(-leads).upper().mid.masked_fill(no_lead(leads), -torch.inf).amax())


def check(model: Model, advice: Advice, way: Way) -> Proved:
    """All inputs less those that some lead leaves open, counted as if no input met two such leads.

    An open lead is met by (K - 1)! (K - 2)! inputs, and all those of one (q, s, l) by no more than ((K - 1)!)^2.  Where
    two are met by the same input the count is smaller than the number of inputs covered.
    Theorem: *Permutations left open*.
    """
    K, found = model.sizes["K"], leads(model, advice, way)
    open_ = (~(-found).negative() & ~no_lead(found)).sum((2, 3))         # [q, s, l]
    each, most = factorial(K - (1 if found.shape[2] == 1 else 2)), factorial(K - 1)
    with cost.charge(3 * open_.numel(), "inputs counted"):
        lost = sum(min(n * each, most) for n in open_.flatten().tolist()) * most
    total = factorial(K) ** 2
    return Proved(max(0, total - lost), total, lambda tokens: case(model, found, tokens))


def met(leads: Leads, x: Int[Tensor, "b K"],
        y: Int[Tensor, "b K"]) -> tuple[Float[Ball, "b q j"], Bool[Tensor, "b q j"]]:
    """The leads that inputs meet, and which of them are over a rival.  Complexity: O(b K^2)."""
    K, point = x.shape[1], torch.arange(x.shape[1])
    answer, places = x.gather(1, y)[..., None], x.argsort(1)
    at = point[:, None], answer, point, places[:, None], y[..., None]
    return leads.pick(lambda t: t.expand(*[K] * 5)[at]), point != answer


def case(model: Model, leads: Leads, tokens: Sequence[int]) -> Case:
    """An input by all its answers: certified if each is certain to beat each rival."""
    x, y = (torch.tensor([p]) for p in inputs(tokens, model.sizes))
    found, rival = met(leads, x, y)
    open_ = (rival & ~(-found).negative()).nonzero()
    if not len(open_):
        reason = "every answer beats every rival"
    else:
        _, q, j = open_[0].tolist()
        reason = f"at {q} the answer {int(x[0, y[0, q]])} is not certain to beat {j}"
    return Case(not len(open_), reason, lambda: float(-(-found).upper().mid[rival].amax()))
