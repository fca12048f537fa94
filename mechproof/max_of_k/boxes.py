"""Which combinations of choices keep a sum of single-token functions from being certified positive.

Problem: a cell is certified where own + sum_p f_p(choice_p) > 0 for the choices of the K-1 other positions, each
one of b buckets (or tokens); b^(K-1) sums are too many.  Idea: nearly all are positive, so list the others.
Extend choice by choice, only by choices that could be part of such a sum at all, and keep a prefix only while the
least that its remaining positions can add leaves the sum undecided.

Choice 0 is the maximum itself.  A cell whose query is not the maximum must hold it somewhere, which is said by
patterns: position j holds it first, smaller tokens before, anything after.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import cost
from ..rounding import Ball, U, _up

ROWS = 2**17                # prefixes extended at once
HOPELESS = -(2.0**1000)     # stands for minus infinity where +inf may be added to it


@dataclass(frozen=True, eq=False)
class Cells:
    """own [c] and f [c,p,b], lower bounds of the query's term and of every other's; f = +inf where there is no such
    choice, and f may have one p for all positions.  `need` [c]: the maximum must be among the choices."""

    own: Float[Ball, " c"]
    f: Float[Ball, "c p b"]
    need: Bool[Tensor, " c"]
    positions: int

    @property
    def slack(self) -> Tensor:
        """No sum of own and one f a position, in any order, is further than this from the real one."""
        n, own, f = self.positions, self.own, self.f
        return _up(own.rad + n * f.rad + 4 * (n + 2) * U * _up(own.mag + n * f.mag))

    def undecided(self) -> Bool[Tensor, " c"]:
        """Cells that their worst combination does not certify.  Complexity: O(c p b)."""
        low = self.f.mid.amin(2)
        least = self.own.mid + low.sum(1) * (self.positions // self.f.shape[1])
        with_maximum = least + (self.f.mid[:, :, 0] - low).amin(1)
        return ~(torch.where(self.need, with_maximum, least) > 2 * self.slack)          # up to own + 3 f in between: twice the slack

    def __getitem__(self, index: Tensor) -> Cells:
        return Cells(self.own[index], self.f[index], self.need[index], self.positions)

    def survivors(self) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, "n p"], Float[Tensor, " n"]]]:
        """Blocks of (cell, choices, sum) whose sum is not certainly positive.

        Complexity: O(c p^2 b), then O(1) for every choice tried after a prefix.
        """
        for need in (False, True):
            cells = (self.need == need).nonzero()[:, 0]
            own, f = (x.mid[cells].nan_to_num(HOPELESS, torch.inf, HOPELESS) for x in (self.own, self.f))
            f = f.expand(-1, self.positions, -1)
            f, low = by_pattern(f) if need else (f[:, None], f.amin(2)[:, None])
            rows = cells[:, None].expand(f.shape[:2]).flatten()
            own = own[:, None].expand(f.shape[:2]).flatten()
            yield from Prefixes.of(own, f.flatten(0, 1), low.flatten(0, 1), self.slack, rows).extended()


def by_pattern(f: Float[Tensor, "c p b"]) -> tuple[Float[Tensor, "c p p b"], Float[Tensor, "c p p"]]:
    """[cell, pattern, position, choice], +inf for what the pattern excludes (smaller before, the maximum at, any after),
    and the least choice."""
    smaller, first = f.clone(), f.clone()
    smaller[..., 0], first[..., 1:] = torch.inf, torch.inf
    least = smaller.amin(2)
    at, pattern = torch.arange(f.shape[1]), torch.arange(f.shape[1])[:, None]
    with cost.addresses():
        kind = 1 + (at > pattern).long() - (at < pattern).long()
    low = torch.stack([least, f[..., 0], torch.minimum(least, f[..., 0])])
    return torch.stack([smaller, first, f])[kind, :, at].permute(2, 0, 1, 3), low[kind, :, at].permute(2, 0, 1)


def children(start: Int[Tensor, " n"], count: Int[Tensor, " n"]) -> tuple[Int[Tensor, " c"], Int[Tensor, " c"]]:
    """(parent, child) with count[i] consecutive children from start[i] on.  Complexity: O(n + c)."""
    parent = torch.repeat_interleave(count)
    return parent, (start - (count.cumsum(0) - count))[parent] + torch.arange(len(parent))


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Rows with their own term, the largest sum of the first p positions that the rest might not lift above the slack
    (limit [p, row]), and the choices that may survive.

    The choices of (row, p) are entries start[row, p] .. + count[row, p] of `choice` and `term`.  There are no NaN here.
    """

    cell: Int[Tensor, " row"]
    own: Float[Tensor, " row"]
    limit: list[Float[Tensor, " row"]]
    start: Int[Tensor, "row p"]
    count: Int[Tensor, "row p"]
    choice: Int[Tensor, " n"]
    term: Float[Tensor, " n"]

    @classmethod
    def of(cls, own: Float[Tensor, " row"], f: Float[Tensor, "row p b"], low: Float[Tensor, "row p"], slack: Tensor,
           cell: Int[Tensor, " row"]) -> Prefixes:
        """Only rows and choices that the least of all others leaves undecided.  Complexity: O(row p b)."""
        slack, least = slack.nan_to_num(torch.inf), own + low.sum(1)
        row = (least <= slack).nonzero()[:, 0]
        own, f, low, least = own[row], f[row], low[row], least[row]
        each = ((slack - least)[:, None] + low).clamp_max(-HOPELESS)                            # a term of +inf is no choice
        at, p, choice = (f <= each[..., None]).nonzero().unbind(1)
        limit = [slack.expand(len(own))]
        for j in reversed(range(1, f.shape[1])):
            limit.insert(0, limit[0] - low[:, j])
        count = torch.bincount(at * f.shape[1] + p, minlength=low.numel())
        start = (count.cumsum(0) - count).view(low.shape)
        return cls(cell[row], own, limit, start, count.view(low.shape), choice, f[at, p, choice])

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
                sums = total[block[parent]] + self.term[child]
                keep = (sums <= self.limit[p][at[parent]]).nonzero()[:, 0]
                prefix = block[parent[keep]]
                yield from walk(row[prefix], sums[keep], torch.cat([choices[prefix], self.choice[child[keep], None]], 1), p + 1)

        yield from walk(torch.arange(len(self.own)), self.own, torch.empty(len(self.own), 0, dtype=torch.long), 0)
