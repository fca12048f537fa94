"""Cells: for which queries and wrong tokens a sum of single-token terms is positive whatever the other tokens are, and
by which combinations of buckets it may not be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from .layout import children
from .numbers import Real, U, reduced, up, work

BLOCK = 2**21           # numbers in a block of cells


@dataclass
class Cells:
    """r, x, tokens [c] row, column, and for how many wrong tokens it stands; own [c], f [c, p, b] (p = 1: all positions
    alike); known [c] whether these bound anything, need [c], few [c] choices that there are (the others are copies of
    choice 0); n other positions.

    slack: no sum formed below is further from the real one.  Such a sum has at most n + 4 roundings of numbers of
    size at most own + (n + 2) f, which is allowed for twice.  It is infinite where one of them is not finite.
    """

    r: np.ndarray
    x: np.ndarray
    tokens: np.ndarray
    own: np.ndarray
    f: np.ndarray
    known: np.ndarray
    need: np.ndarray
    few: np.ndarray
    n: int
    slack: float

    COLUMNS = ("r", "x", "tokens", "own", "f", "known", "need", "few")

    @classmethod
    def of(cls, addresses: tuple[np.ndarray, ...], own: Real, f: Real, told: tuple[np.ndarray, ...], n: int) -> Cells:
        slack = up(own.rad + n * f.rad + 2 * (n + 4) * U * (own.mag + (n + 2) * f.mag))
        return cls(*addresses, own.mid, f.mid, *told, n, slack if slack < inf else inf)

    def take(self, at: np.ndarray) -> Cells:
        return Cells(*(getattr(self, name)[at] for name in self.COLUMNS), self.n, self.slack)

    @property
    def given_up(self) -> np.ndarray:
        """Cells of which nothing is known."""
        return ~self.known if self.slack < inf else np.ones_like(self.known)

    @property
    def parts(self) -> list[Cells]:
        """Sums that are enough to certify a combination if each is positive; heads.py has several."""
        return [self]

    def least(self) -> np.ndarray:
        """The sum of each cell's worst combination."""
        low = reduced(np.min, self.f, 2)
        least = self.own + reduced(np.sum, low, 1) * (self.n // self.f.shape[1])
        held = least + reduced(np.min, self.f[:, :, 0] - low, 1)
        work(8 * len(self.own) + low.size)
        return np.where(self.need, held, least)

    def sure(self) -> np.ndarray:
        """Those that their worst combination certifies."""
        return (self.least() > self.slack) & self.known

    def sums(self, cell: np.ndarray, choices: np.ndarray) -> np.ndarray:
        """Combinations [i, p] of some cells [i], added up."""
        p = np.minimum(np.arange(self.n), self.f.shape[1] - 1)
        work(choices.size + len(choices))
        return self.own[cell] + self.f[cell[:, None], p, choices].sum(1)

    def certain(self, choices: np.ndarray, part: float) -> np.ndarray:
        """Whether one combination a cell [c, p] is, with this part of the slack."""
        return (self.sums(np.arange(len(choices)), choices) > part * self.slack) & ~self.given_up

    def survivors(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (cell, combination, sum), combinations not certainly positive, position by position base b.

        Where the maximum has to be held, a pattern says who holds it first: smaller tokens before, anything after.
        """
        b = self.f.shape[2]
        none = np.arange(b) >= self.few[:, None]
        for need in (False, True):
            at = np.flatnonzero(self.need == need)
            work(2 * len(self.need))
            f = np.broadcast_to(self.f[at], (len(at), self.n, b))
            held, below = f[:, :, 0], np.broadcast_to(reduced(np.min, self.f[at][:, :, 1:], 2), f.shape[:2])
            either = np.minimum(held, below)
            own = np.where(self.given_up[at], np.nan, self.own[at])                  # no sum of theirs is large enough
            work(either.size + len(own))
            for first in range(self.n) if need else [None]:
                low, out = either.copy(), np.broadcast_to(none[at][:, None], f.shape)
                if need:
                    low[:, :first], low[:, first], out = below[:, :first], held[:, first], out.copy()
                    out[:, :first, 0], out[:, first, 1:] = True, True
                yield from extended((own, f, low), out, self.slack, at)


def extended(terms: tuple[np.ndarray, ...], out: np.ndarray, slack: float, cell: np.ndarray) -> Iterator[tuple]:
    """Sums own + f[0, .] + f[1, .] + ... not above slack, by choices that are not `out`, built choice by choice while
    the least rest (`low`) may keep them so."""
    own, f, low = terms
    n, b = f.shape[1:]
    least = own + reduced(np.sum, low, 1)
    at = np.flatnonzero(~(least > slack))
    work(3 * len(own))
    own, f, low, out, cell = own[at], f[at], low[at], out[at], cell[at]
    bound = (slack - least[at])[:, None] + low
    i, p, choice = np.nonzero(~((f > bound[..., None]) | out))
    work(3 * low.size + 2 * f.size + low.size)
    term = f[i, p, choice]
    count = np.bincount(i * n + p, minlength=len(at) * n).reshape(-1, n)
    work(3 * len(i) + 2 * low.size)
    start = (np.cumsum(count) - count.ravel()).reshape(-1, n)
    # what the rest leaves, [row, p]
    limit = slack - np.concatenate([np.cumsum(low[:, :0:-1], 1)[:, ::-1], np.zeros((len(at), 1))], 1)

    def walk(row: np.ndarray, total: np.ndarray, code: np.ndarray, p: int) -> Iterator[tuple]:
        if p == n:
            yield cell[row], code, total
            return
        step = max(1, BLOCK // (4 * b))
        for block in (slice(k, k + step) for k in range(0, len(row), step)):
            parent, child = children(start[row[block], p], count[row[block], p])
            sums = total[block][parent] + term[child]
            keep = np.flatnonzero(~(sums > limit[row[block][parent], p]))
            work(3 * len(sums))
            parent, child = parent[keep], child[keep]
            work(2 * len(keep))
            yield from walk(row[block][parent], sums[keep], code[block][parent] * b + choice[child], p + 1)

    yield from walk(np.arange(len(at)), own, np.zeros(len(at), np.int64), 0)
