"""Which combinations of choices keep a sum of single-token functions from being certified positive.

Problem: a cell is certified where own + sum_p f_p(choice_p) > 0 for the choices of the K-1 other positions, each
one of b buckets (or tokens); b^(K-1) sums are too many.  Idea: nearly all are positive, so list the others.
Extend choice by choice, only by choices that could be part of such a sum at all, and keep a prefix only while the
least that its remaining positions can add leaves the sum undecided.

What is not listed counts as certified, so nothing may be left out but on evidence: every comparison here asks
whether a sum is certainly large enough, and a choice is missing only where a mask says that there is none.  Where
nothing is known (a weight was cut off, a radius is not finite) the evidence fails, and everything is listed.

Choice 0 is the maximum itself.  A cell whose query is not the maximum must hold it somewhere, which is said by
patterns: position j holds it first, smaller tokens before, anything after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import Ball, U, _up

ROWS = 2**17                # prefixes extended at once


class AnyCells:
    """What a proof asks of cells, of one head or of several: need, positions, slack, given_up, settled(), certain(..),
    survivors(), the parts that levels count, and some of them by index."""


@dataclass(frozen=True, eq=False)
class Cells(AnyCells):
    """own [c] and f [c,p,b], lower bounds of the query's term and of every other's; f may have one p for all positions.

    none [c,b]: there is no such choice, and that of choice 0 stands there once more.  known [c]: no weight was cut off;
    elsewhere own and f bound nothing.  need [c]: the maximum must be among the choices.
    Lemma: *Sums within their slack*.
    """

    own: Float[Ball, " c"]
    f: Float[Ball, "c p b"]
    need: Bool[Tensor, " c"]
    positions: int
    none: Bool[Tensor, "c b"]
    known: Bool[Tensor, " c"]

    @property
    def parts(self) -> tuple[Cells, ...]:
        """Sums that are enough to certify a combination if each is positive (heads.py has several)."""
        return (self,)

    @cached_property
    def slack(self) -> Tensor:
        """No sum of own and one f a position, in any order, is further than this from the real one;
        not finite if one of them is not."""
        n, own, f = self.positions, self.own, self.f
        return _up(own.rad + n * f.rad + 4 * (n + 2) * U * _up(own.mag + n * f.mag))

    @cached_property
    def given_up(self) -> Bool[Tensor, " c"]:
        """Cells of which nothing is known."""
        return ~(self.known & (self.slack < torch.inf))

    def least(self) -> Float[Tensor, " c"]:
        """The sum of each cell's worst combination, off by at most twice the slack: there is up to own + 3 f in
        between.  Complexity: O(c p b)."""
        low = self.f.mid.amin(2)
        least = self.own.mid + low.sum(1) * (self.positions // self.f.shape[1])
        with_maximum = least + (self.f.mid[:, :, 0] - low).amin(1)
        return torch.where(self.need, with_maximum, least)

    def settled(self) -> Bool[Tensor, " c"]:
        """Cells that their worst combination certifies."""
        return (self.least() > 2 * self.slack) & self.known

    def __getitem__(self, index: Tensor) -> Cells:
        return Cells(self.own[index], self.f[index], self.need[index], self.positions, self.none[index],
                     self.known[index])

    def of(self, cell: Int[Tensor, " n"], choices: Int[Tensor, "n p"]) -> Float[Tensor, " n"]:
        """own and one f a position, of these combinations."""
        with cost.addresses():
            p = torch.arange(choices.shape[1]).clamp_max(self.f.shape[1] - 1)
        return self.own.mid[cell] + self.f.mid[cell[:, None], p, choices].sum(1)

    def sums(self, choices: Int[Tensor, "c p"]) -> Float[Tensor, " c"]:
        """The same of a combination a cell."""
        with cost.addresses():
            cell = torch.arange(len(choices))
        return self.of(cell, choices)

    def certain(self, choices: Int[Tensor, "c p"], part: float = 1.0) -> Bool[Tensor, " c"]:
        """Whether a combination a cell is certified, with this part of the slack."""
        return (self.sums(choices) > part * self.slack) & ~self.given_up

    def survivors(self) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, "n p"], Float[Tensor, " n"]]]:
        """Blocks of (cell, choices, sum) whose sum is not certainly positive.

        Complexity: O(c p^2 b), then O(1) for every choice tried after a prefix.
        """
        for need in (False, True):
            at = (self.need == need).nonzero()[:, 0]
            own = self.own.mid[at].masked_fill(self.given_up[at], torch.nan)
            yield from Prefixes.of(own, self.f.mid[at].expand(-1, self.positions, -1), self.none[at], need,
                                   self.slack, at).extended()


SMALLER, MAXIMUM, ANY = range(3)                                         # what a pattern asks of a position


@dataclass(frozen=True)
class Patterns:
    """What is asked of n positions, pattern by pattern: kind [pattern, p]; free [pattern, j],
    those that have a choice; barred [kind, b].

    With `need`: smaller before the first that is the maximum, any after; without: anything.
    """

    kind: Int[Tensor, "k n"]
    free: Int[Tensor, "k j"]
    barred: Bool[Tensor, "3 b"]

    @classmethod
    def of(cls, n: int, b: int, need: bool) -> Patterns:
        with cost.addresses():
            at, first = torch.arange(n), torch.arange(n)[:, None]
            barred = torch.zeros(3, b, dtype=torch.bool)
            barred[SMALLER, 0] = True
            if not need:
                return cls(torch.full((1, n), ANY), at[None], barred)
            return cls(1 + (at > first).long() - (at < first).long(), at[:-1] + (at[:-1] >= first).long(), barred)


def least_terms(f: Float[Tensor, "c p b"], kind: Int[Tensor, "k p"]) -> Float[Tensor, "k c p"]:
    """The smallest term among the choices that a pattern leaves a position.  Complexity: O(c p b)."""
    smaller, maximum = f[..., 1:].amin(2), f[..., 0]
    low = torch.stack([smaller, maximum, torch.minimum(smaller, maximum)])                    # SMALLER, MAXIMUM, ANY
    return low[kind, :, torch.arange(f.shape[1])].permute(0, 2, 1)


def children(start: Int[Tensor, " n"], count: Int[Tensor, " n"]) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"]]:
    """(parent, child) with count[i] consecutive children from start[i] on.  Complexity: O(n + c)."""
    parent = torch.repeat_interleave(count)
    return parent, (start - (count.cumsum(0) - count))[parent] + torch.arange(len(parent))


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Rows, one a pattern and cell, with their own term, the largest sum of the first p positions that the rest might
    not lift above the slack (limit [p, row]), and the choices that may survive.

    The choices of (row, p) are entries start[row, p] .. + count[row, p] of `choice` and `term`.
    NaN is never large enough.
    """

    cell: Int[Tensor, " row"]
    own: Float[Tensor, " row"]
    limit: list[Float[Tensor, " row"]]
    start: Int[Tensor, "row p"]
    count: Int[Tensor, "row p"]
    choice: Int[Tensor, " n"]
    term: Float[Tensor, " n"]

    @classmethod
    def of(cls, own: Float[Tensor, " c"], f: Float[Tensor, "c p b"], none: Bool[Tensor, "c b"], need: bool,
           slack: Tensor, cell: Int[Tensor, " c"]) -> Prefixes:
        """Only rows and choices that the least of all others does not decide.  Complexity: O(row p b)."""
        patterns = Patterns.of(*f.shape[1:], need)
        low = least_terms(f, patterns.kind)
        least = own + low.sum(2)
        pattern, at = (~(least > slack)).nonzero().unbind(1)
        own, low, least = own[at], low[pattern, at], least[pattern, at]
        limit = [slack.expand(len(own))]
        for j in reversed(range(1, f.shape[1])):
            limit.insert(0, limit[0] - low[:, j])
        each, free = (slack - least)[:, None] + low, patterns.free[pattern]                    # [row, j]
        row, j, choice = (~(f[at[:, None], free] > each.gather(1, free)[..., None])).nonzero().unbind(1)
        p = free[row, j]
        there = (~(none[at[row], choice] | patterns.barred[patterns.kind[pattern[row], p], choice])).nonzero()[:, 0]
        row, p, choice = row[there], p[there], choice[there]
        count = torch.bincount(row * f.shape[1] + p, minlength=low.numel()).view(low.shape)
        start, term = count.flatten().cumsum(0).view(low.shape) - count, f[at[row], p, choice]
        if need:                                                         # and the maximum where the pattern asks for it
            every = torch.arange(len(own))
            count = count.index_put((every, pattern), torch.ones_like(every))
            start = start.index_put((every, pattern), len(row) + every)
            choice, term = torch.cat([choice, torch.zeros_like(every)]), torch.cat([term, f[at, pattern, 0]])
        return cls(cell[at], own, limit, start, count, choice, term)

    def extended(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Position by position, depth first."""
        positions = self.count.shape[1]

        def walk(row: Tensor, total: Tensor, choices: Tensor, p: int) -> Iterator[tuple]:
            if p == positions:
                yield self.cell[row], choices, total
                return
            for block in torch.arange(len(row)).split(ROWS):
                at = row[block]
                parent, child = children(self.start[at, p], self.count[at, p])
                room = self.limit[p][at] - total[block]
                keep = (~(self.term[child] > room[parent])).nonzero()[:, 0]
                prefix, child = block[parent[keep]], child[keep]
                yield from walk(row[prefix], total[prefix] + self.term[child],
                                torch.cat([choices[prefix], self.choice[child, None]], 1), p + 1)

        yield from walk(torch.arange(len(self.own)), self.own, torch.empty(len(self.own), 0, dtype=torch.long), 0)
