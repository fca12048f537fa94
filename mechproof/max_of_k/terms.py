"""Proofs without a softmax: a sum of single-token functions, and a count.

Problem: attention couples all tokens of a sequence through the softmax denominator, so the paper's proofs bound
attention first and logits after.  Idea: that denominator is positive, and multiplying by it leaves

    sum_p e^(B[q,p] - B[q,K-1]) e^(A[q,t_p] - A[q,m])
          (EU[q,m] - EU[q,x] + OV[t_p,m] - OV[t_p,x] + PV[p,m] - PV[p,x])  >  0

for every wrong token x: a sum of functions of one token each (the last has t_p = q).  A proof bounds them from
below over groups of wrong tokens, buckets of keys and, if it likes, buckets of queries, and counts the
combinations whose sum is positive (boxes.py lists the others, levels.py counts them for long sequences).

Adding c_x to every OV[k,x] and taking it from EU[q,x] and PV[p,x] changes no sum, and with c the mean over
queries and positions what is left of EU and PV is small, so that a group's worst x no longer needs to be worst
in all three at once.  A table may be known only up to a slack a row; then weights and votes move by it.

Source: book, "Past the paper".  `Votes` and `Queries` hold the terms, a `Stage` makes cells of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import exp

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.peeling import Known
from ..proof.rounding import Ball, _up, cat
from .boxes import Cells
from .direct import best_other

LIMIT = 30.0            # log-weights above this are not worth certifying
FLOOR = 300.0           # and below minus this all the same
SINGLES = 6             # wrong tokens next to the maximum that get a group of their own, at most
FAR = 2**40             # an offset beyond every vocabulary


@dataclass(frozen=True, eq=False)
class Circuits:
    """What a proof knows of the network: A [q,k], EU [q,x], OV [k,x] each up to a slack; B [q,p], PV [p,x] exactly.

    Where all positions but the last are alike, B and PV may hold one for all of them, and the last.
    """

    n_ctx: int
    A: Known
    B: Ball
    EU: Known
    OV: Known
    PV: Ball

    d_vocab = property(lambda self: self.PV.shape[1])

    def centred(self) -> Circuits:
        """The same sums with the means of EU and PV moved into OV; any numbers c would do.  Complexity: O(v^2)."""
        c, p = (Ball(x.mid.mean(0)) for x in (self.EU.table, self.PV))
        return Circuits(self.n_ctx, self.A, self.B, Known(self.EU.table - c, self.EU.slack),
                        Known(self.OV.table + (c + p), self.OV.slack), self.PV - p)


def edges(d_vocab: int, n: int) -> list[int]:
    """Where n buckets of offsets m - k begin: at least three of one offset, then two, four, eight, ..., and the rest.

    >>> edges(64, 9)
    [0, 1, 2, 3, 4, 5, 7, 11, 19]
    """
    for doublings in range(n):
        singles = n - 1 - doublings
        starts = list(range(singles)) + [singles + 2 * (2**j - 1) for j in range(doublings + 1)]
        if starts[-1] >= d_vocab / 4 or singles <= 3:
            break
    return [start for start in starts if start < d_vocab]


class Layout:
    """Addresses: a pair is a maximum m and a token t <= m, in order of m and then of the offset m - t.

    m, t [pair]; segment [pair], the row (maximum, bucket of the offset) it is in; size [m, b], tokens in a bucket; none
    [m, b], where there are none, and place [m, b], which bucket stands in; first [row], where a row's pairs begin;
    window [pair, b], the last token of a bucket; rivals, the number of wrong tokens.
    """

    def __init__(self, d_vocab: int, edges: list[int], outputs: int | None = None):
        self.d_vocab, self.edges, self.rivals = d_vocab, edges, (outputs or d_vocab) - 1
        at, m = torch.tensor(edges), torch.arange(d_vocab)
        self.m = m.repeat_interleave(m + 1)
        self.t = self.m - torch.cat([torch.arange(k + 1) for k in range(d_vocab)])
        self.segment = self.m * len(at) + torch.searchsorted(at, self.m - self.t, right=True) - 1
        ends = torch.cat([at[1:], torch.tensor([d_vocab])])
        self.size = (torch.minimum(ends, m[:, None] + 1) - at).clamp_min(0)
        self.none = self.size == 0
        self.place = torch.where(self.none, 0, torch.arange(len(at)))
        self.first = (self.pair(m, m)[:, None] + at).flatten()
        self.window = self.m[:, None] - at

    @property
    def need(self) -> Bool[Tensor, " pair"]:
        """Where the query is not the maximum, so that another position must hold it."""
        return self.t < self.m

    def pair(self, m: Tensor | int, t: Tensor | int) -> Tensor | int:
        return m * (m + 1) // 2 + m - t

    def sequences(self, others: int) -> int:
        """All of them, with so many tokens besides the query."""
        return self.d_vocab ** (others + 1)


class OneQuery(Layout):
    """The same where the query is no token of the sequence: a pair is a maximum, t is 0 for all."""

    def __init__(self, d_vocab: int, edges: list[int], outputs: int | None = None):
        super().__init__(d_vocab, edges, outputs)
        self.m = torch.arange(d_vocab)
        self.t, self.window = torch.zeros_like(self.m), self.m[:, None] - torch.tensor(edges)

    @property
    def need(self) -> Bool[Tensor, " pair"]:
        return torch.ones_like(self.m, dtype=torch.bool)

    def pair(self, m: Tensor | int, t: Tensor | int) -> Tensor | int:
        return m

    def sequences(self, others: int) -> int:
        return self.d_vocab**others


@lru_cache(maxsize=16)
def layout(d_vocab: int, n: int) -> Layout:
    """The layout of these sizes."""
    with cost.addresses():
        return Layout(d_vocab, edges(d_vocab, n))


@dataclass(frozen=True)
class Groups:
    """n groups of wrong tokens x, each an interval of offsets x - m.

    1: all.  2: all below, all above.  Up to 8: m+1, m-1, m+2, ..., m-3 singly before those.  Beyond, what is below is
    split further, from near to far, into intervals of 2, 4, 8, ...: a token votes for itself, and where many tokens
    vote, as in long sequences, it matters that not all of their votes are taken for the same wrong token's.
    """

    n: int

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last offset of every group; the last two are the rests below and above."""
        singles = [(i // 2 + 1) * (1 - 2 * (i % 2)) for i in range(min(self.n - 2, SINGLES))]
        blocks, near = [], 1 + sum(o < 0 for o in singles)
        for j in range(1, self.n - 1 - len(singles)):
            blocks.append((1 - near - 2**j, -near))
            near += 2**j
        return [*((o, o) for o in singles), *blocks, (-FAR, -near), (1 + sum(o > 0 for o in singles), FAR)]

    def rivals(self, x: Float[Tensor, "r v"], row: Tensor, m: Tensor) -> Float[Tensor, "g n"]:
        """The largest x[row] in each group; any number of the row for an empty one, whose cells are none.
        Complexity: O(r v) a group."""
        if self.n == 1:
            return best_other(x)[row, m][None]
        v, out, width, window = x.shape[1], [], 1, x
        for first, last in self.spans:
            while width < last - first + 1 < FAR:
                window = torch.cat([window[:, :width], torch.maximum(window[:, width:], window[:, :-width])], 1)
                width *= 2
            table, at = window, last
            if last == FAR:
                table, at = x.flip(1).cummax(1).values.flip(1), first
            elif first == -FAR:
                table = x.cummax(1).values
            with cost.addresses():
                place = (m + at).clamp(0, v - 1)
            out.append(table[row, place])
        return torch.stack(out)

    def by_offset(self, v: int) -> Int[Tensor, " offset"]:
        """The group of each offset x - m, for n > 1; the negative ones stand at the end, where indexing finds them."""
        with cost.addresses():
            first, last = torch.tensor(self.spans).T[..., None]
            offset = torch.cat([torch.arange(v), torch.arange(1 - v, 0)])
            return ((offset >= first) & (offset <= last)).long().argmax(0)

    def members(self, v: int) -> tuple[Int[Tensor, "g m"], Int[Tensor, "g m"]]:
        """First wrong token of each group (for n > 1) and number of them; none of an empty group."""
        with cost.addresses():
            if self.n == 1:
                return torch.zeros(1, v, dtype=torch.long), torch.full((1, v), v - 1)
            m, (first, last) = torch.arange(v), torch.tensor(self.spans).T[..., None]
            start, stop = (m + first).clamp_min(0), (m + last + 1).clamp_max(v)
            return start, (stop - start).clamp_min(0)

    def lead(self, x: Ball, row: Tensor, m: Tensor) -> Float[Ball, "g n"]:
        """x[row, m] minus the largest of each group."""
        return x[row, m] - x.pick(lambda t: self.rivals(t, row, m))


def over_bucket(x: Float[Ball, "*r pair"], lay: Layout, better: Callable = torch.minimum) -> Float[Ball, "*r row"]:
    """Minimum (maximum) over the pairs of every row of (maximum, bucket); 0 in an empty one, which is no row."""
    name, n = "amin" if better is torch.minimum else "amax", lay.d_vocab * len(lay.edges)
    return x.pick(lambda t: t.new_zeros(*t.shape[:-1], n).scatter_reduce(
        -1, lay.segment.expand(t.shape), t, name, include_self=False))


def standing_in(x: Float[Ball, "*g b"], place: Int[Tensor, "*r b"]) -> Float[Ball, "*g b"]:
    """The maximum's own bucket once more in the place of every one that there is not:
    so the least of all is nobody else's."""
    return x.pick(lambda t: t.gather(-1, place.expand(t.shape)))


def windows(x: Float[Tensor, "q k"], lay: Layout, better: Callable) -> Float[Tensor, "pair b"]:
    """Extreme of x[t, k] over the keys k of each bucket below m, by doubling.  Complexity: O(v^2 b)."""
    out, width, window = [], 1, x
    for j, start in enumerate(lay.edges):
        if j == len(lay.edges) - 1:
            window = (x.cummin if better is torch.minimum else x.cummax)(1).values
        else:
            while width < lay.edges[j + 1] - start:
                window = torch.cat([window[:, :width], better(window[:, width:], window[:, :-width])], 1)
                width *= 2
        with cost.addresses():
            last = lay.window[:, j].clamp_min(0)
        out.append(window[lay.t, last])
    return torch.stack(out, 1)


def weighted(h: Ball, weights: Float[Ball, "e *w"]) -> Ball:
    """At least h w for every w between two weights (smallest, largest), or for the one weight there is."""
    if len(weights.mid) == 1:
        return h * weights[0]
    end = (h.mid < 0).long()[None]
    return h * weights.pick(lambda w: torch.stack([x.expand(h.shape) for x in w.unbind(0)]).gather(0, end)[0])


def exponential(*ends: Ball) -> Float[Ball, "e *w"]:
    """Weights from log-weights, one or both ends, cut off above e^LIMIT (`bounded` says where not) and below e^-FLOOR:
    no infinities, no zeros.  The radius allows for the latter."""
    w = cat([end[None] for end in ends], 0).pick(lambda x: x.clamp(-FLOOR, LIMIT)).exp()
    return Ball(w.mid, _up(w.rad + exp(1 - FLOOR)), w.mag)


def bounded(weights: Float[Ball, "e *w"]) -> Bool[Tensor, "*w"]:
    """Where a weight is certainly no larger than what was computed."""
    return weights.mid[-1] <= exp(LIMIT - 1)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Everything about a query q and a maximum m >= q, for every pair:
    log-weights against the largest of the keys <= m.

    lo, hi [pair, b] of a key in each bucket; e [pair, p] of a position; own_lo, own_hi [pair] of the query itself.
    Complexity: O(v^2 b).
    """

    circuits: Circuits
    lay: Layout

    @cached_property
    def top(self) -> Float[Ball, " pair"]:
        return self.circuits.A.table.pick(lambda x: x.cummax(1).values)[self.lay.t, self.lay.m]

    def of(self, better: Callable) -> Ball:
        A, lay, sign = self.circuits.A, self.lay, -1.0 if better is torch.minimum else 1.0
        ends = A.table.pick(lambda x: windows(x, lay, better)) - self.top[:, None]
        if A.slack is None:
            return ends
        # only differences to the maximum are off
        apart = Ball((torch.tensor(lay.edges) > 0).double() * sign)
        return ends + A.slack[lay.t][:, None] * apart

    @cached_property
    def lo(self) -> Ball:
        return self.of(torch.minimum)

    @cached_property
    def hi(self) -> Ball:
        return self.of(torch.maximum)

    @cached_property
    def e(self) -> Ball:
        B = self.circuits.B
        return (B[:, :-1] - B[:, -1:])[self.lay.t]

    @cached_property
    def own_weights(self) -> Float[Ball, "e pair"]:
        A, t, m = self.circuits.A, self.lay.t, self.lay.m
        at = A.table[t, t] - self.top
        if A.slack is None:
            return exponential(at)
        slack = A.slack[t] * Ball((t != m).double())
        return exponential(at - slack, at + slack)

    def own(self, votes: Ball, index: Tensor | slice) -> Ball:
        """The query's term from its votes [..., pair]."""
        return weighted(votes, self.own_weights[:, index])


class AnyStage:
    """What a proof asks of a stage, of one head or of several: others, m, need, none, positions, cells(..) and
    terms(..)."""


@dataclass(frozen=True, eq=False)
class Stage(AnyStage):
    """One resolution of a proof: rows r are (maximum, query or bucket of queries), columns g wrong tokens or groups.

    direct(g, r) [c], own(g, r) [c]: the direct path's lead and the query's term.  keys(r) [2, r, b] and
    positions [2, r, p]: both ends (or one) of the factors of another position's weight; votes(g, m) [c, p, b].
    While positions are not told apart (`merged`) p is 1 and stands for the worst of them.  none [m, b]: where a maximum
    has no such choice, and that of the maximum itself stands in.
    Theorem: *Sum and count*.
    """

    others: int                       # positions besides the last
    m: Int[Tensor, " r"]
    need: Bool[Tensor, " r"]          # the query is not the maximum, so that another position must hold it
    direct: Callable[[Tensor, Tensor], Ball]
    own: Callable[[Tensor, Tensor], Ball]
    keys: Callable[[Tensor], Ball]
    positions: Float[Ball, "e r p"]
    votes: Callable[[Tensor, Tensor, bool], Ball]
    known: Bool[Tensor, " r"]         # no weight was cut off
    none: Bool[Tensor, "m b"]

    def cells(self, r: Tensor, g: Tensor, merged: bool = False) -> Cells:
        """The terms of cells (r, g).  Complexity: O(c p b)."""
        return self.terms(*(r.unique_consecutive(return_inverse=True) if len(r) else (r, r)), g, merged)

    def weights(self, rows: Tensor, merged: bool) -> Float[Ball, "e r p b"]:
        """Both ends (or one) of another position's weight."""
        at = self.positions[:, rows]
        if merged:
            at = at.pick(lambda x: torch.stack([x[0].amin(1), x[-1].amax(1)])[..., None])
        return self.keys(rows)[:, :, None] * at[..., None]

    def terms(self, rows: Tensor, place: Tensor, g: Tensor, merged: bool = False) -> Cells:
        """The same of cells whose rows are rows[place]."""
        r, weights = rows[place], self.weights(rows, merged)
        m = self.m[r]
        h = self.direct(g, r)[:, None, None] + self.votes(g, m, merged)
        return Cells(self.own(g, r), weighted(h, weights[:, place]), self.need[r], self.others,
                     self.none[m], self.known[r])


class AnyProof:
    """What counting and explaining ask of a proof, of one head or of several: its layout and stages."""


@dataclass(frozen=True, eq=False)
class Separable(AnyProof):
    """The tables of one proof, made when asked for, and the stages that it may go through, from coarse to fine."""

    circuits: Circuits
    groups: Groups
    buckets: int

    @cached_property
    def lay(self) -> Layout:
        return layout(self.circuits.d_vocab, self.buckets)

    @cached_property
    def pairs(self) -> Pairs:
        return Pairs(self.circuits, self.lay)

    def lead(self, known: Known) -> Float[Ball, "g pair"]:
        """By how much m leads each group in row t of a table, less the slack; one row may stand for all."""
        with cost.addresses():
            row = self.lay.t.clamp_max(len(known.table.mid) - 1)
        lead = self.groups.lead(known.table, row, self.lay.m)
        return lead if known.slack is None else lead - known.slack[row]

    @cached_property
    def lead_EU(self) -> Float[Ball, "g pair"]:
        return self.lead(self.circuits.EU)

    @cached_property
    def lead_OV(self) -> Float[Ball, "g pair"]:
        return self.lead(self.circuits.OV)

    @cached_property
    def lead_PV(self) -> Float[Ball, "g m p"]:
        n, v = self.circuits.PV.shape
        with cost.addresses():
            p, m = torch.arange(n).repeat(v), torch.arange(v).repeat_interleave(n)
        return self.groups.lead(self.circuits.PV, p, m).pick(lambda x: x.unflatten(1, (v, n)))

    @cached_property
    def own(self) -> Float[Ball, "g pair"]:
        return self.pairs.own((self.lead_EU + self.lead_OV) + self.lead_PV[:, self.lay.m, -1], slice(None))

    @cached_property
    def bucket_EU(self) -> Float[Ball, "g row"]:
        return over_bucket(self.lead_EU, self.lay)

    @cached_property
    def bucket_own(self) -> Float[Ball, "g row"]:
        return over_bucket(self.own, self.lay)

    @cached_property
    def key_votes(self) -> Float[Ball, "g m b"]:
        rows = over_bucket(self.lead_OV, self.lay)
        return standing_in(rows.pick(lambda x: x.unflatten(1, (self.circuits.d_vocab, -1))), self.lay.place)

    @cached_property
    def merged_votes(self) -> Float[Ball, "g m 1 b"]:
        return (self.key_votes + self.lead_PV[:, :, :-1].amin(2)[..., None])[:, :, None]

    @cached_property
    def all_votes(self) -> Float[Ball, "g m p b"]:
        return self.key_votes[:, :, None] + self.lead_PV[:, :, :-1, None]

    def votes(self, g: Tensor, m: Tensor, merged: bool) -> Float[Ball, "c p b"]:
        return (self.merged_votes if merged else self.all_votes)[g, m]

    def keys(self, lo: Float[Ball, "r b"], hi: Float[Ball, "r b"], m: Int[Tensor, " r"]) -> Float[Ball, "2 r b"]:
        """Weights from log-weights."""
        return exponential(*(standing_in(x, self.lay.place[m]) for x in (lo, hi)))

    def each(self) -> Stage:
        """Single queries, groups of wrong tokens: a row is a pair."""
        lay, pairs = self.lay, self.pairs
        keys, places = self.keys(pairs.lo, pairs.hi, lay.m), exponential(pairs.e)
        known = bounded(keys).all(1) & bounded(places).all(1) & bounded(pairs.own_weights)
        return Stage(self.circuits.n_ctx - 1, lay.m, lay.need, lambda g, r: self.lead_EU[g, r],
                     lambda g, r: self.own[g, r], lambda rows: keys[:, rows], places, self.votes, known, lay.none)

    def grouped(self) -> Stage:
        """Buckets of queries, groups of wrong tokens: a row is (maximum, bucket)."""
        lay, pairs, worst = self.lay, self.pairs, (torch.minimum, torch.maximum)
        with cost.addresses():
            r = torch.arange(lay.size.numel())
            m, need = r // len(lay.edges), r % len(lay.edges) > 0
        ends = zip((pairs.lo, pairs.hi, pairs.e, pairs.e), worst * 2)
        lo, hi, at_lo, at_hi = (over_bucket(x.T, lay, better).T for x, better in ends)
        own_hi = over_bucket(pairs.own_weights, lay, torch.maximum)
        keys, places = self.keys(lo, hi, m), exponential(at_lo, at_hi)
        known = bounded(keys).all(1) & bounded(places).all(1) & bounded(own_hi)
        return Stage(self.circuits.n_ctx - 1, m, need, lambda g, r: self.bucket_EU[g, r],
                     lambda g, r: self.bucket_own[g, r], lambda rows: keys[:, rows], places, self.votes, known,
                     lay.none)

    def start(self) -> tuple[Tensor, Tensor]:
        """(row of `grouped`, group) of every cell that holds sequences."""
        with cost.addresses():
            lay = self.lay
            some = self.groups.members(lay.d_vocab)[1].T.repeat_interleave(len(lay.edges), 0) > 0
            return (some & ~lay.none.flatten()[:, None]).nonzero().unbind(1)

    def margin_lo(self, stage: Stage, cells: Cells, choices: Int[Tensor, "c p"], row: int, pair: int) -> Tensor:
        """At least by how many logits the maximum leads, of one combination of one row and pair in all its cells."""
        chosen = choices[0]
        places = stage.positions[-1, row, torch.arange(len(chosen))]
        total = (stage.keys(torch.tensor([row]))[-1, 0, chosen] * places).sum(0) + self.pairs.own_weights[-1, pair]
        return (cells.sums(choices).amin() - cells.slack) / total.upper().mid
