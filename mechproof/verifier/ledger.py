"""The books of a check that certifies what it does not list.

Problem: what gets lost on the way to the list counts as right.  Idea: two statements besides the count.  Every
row's wrong tokens, settled and left, are all that there are, and the sequences of the rows passed, listed and
given up are all v^K; and combinations drawn at random from what is left, added up by themselves, are in the
list unless they are certain.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np

from .cells import Cells
from .numbers import must, work

SAMPLE = 16                                                             # combinations drawn from every block of rows


@dataclass
class Ledger:
    """settled [row]: wrong tokens done with.  r, x, tokens [c]: the cells that are left,
    and how many wrong tokens each stands for."""

    v: int
    settled: np.ndarray
    r: np.ndarray
    x: np.ndarray
    tokens: np.ndarray

    def settle(self, r: np.ndarray, tokens: np.ndarray) -> None:
        np.add.at(self.settled, r, tokens)
        work(len(r))

    def verdicts(self, cells: Cells, mass: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows passed and rows to be listed [row]; those that are neither are given up."""
        left = np.bincount(self.r, self.tokens, len(self.settled))
        work(len(self.r) + 3 * len(self.settled))
        must(bool((self.settled + left == self.v - 1).all()), "books: wrong tokens are neither settled nor left open")
        given_up = np.zeros(len(left), bool)
        given_up[cells.r[cells.given_up]] = True
        passed, lists = left == 0, (left > 0) & ~given_up
        shares = (sum(mass[row] for row in np.flatnonzero(rows)) for rows in (passed, lists, given_up))
        must(sum(shares) == sum(mass), "books: rows passed, listed and given up are not all there are")
        return passed, lists


def masses(m: np.ndarray, need: np.ndarray, copies: np.ndarray, sizes: tuple[int, int],
           total: int | None = None) -> list[int]:
    """Sequences of every row, exact integers; all together v^(n + 1), or as many as there are said to be."""
    v, n = sizes
    mass = [((k + 1) ** n - (k**n if held else 0)) * c
            for k, held, c in zip(m.tolist(), need.tolist(), copies.tolist())]
    work(4 * len(mass))
    must(sum(mass) == (total or v ** (n + 1)), "books: the rows are not all sequences")
    return mass


def drawn(n: int) -> np.ndarray:
    """Some of n cells, in order; none of none."""
    work(SAMPLE)
    return np.sort(np.random.default_rng(secrets.randbits(64)).integers(n, size=SAMPLE)) if n else np.zeros(0, int)


class Sample:
    """A combination drawn at random for each of some cells [c, p], and whether its sum is certain [c].

    The list adds in another order, and may be off by the slack's part for rounding, which is half of it.
    """

    def __init__(self, cells: Cells):
        source, count = np.random.default_rng(secrets.randbits(64)), len(cells.need)
        self.choices = (source.random((count, cells.n)) * cells.few[:, None]).astype(int)
        held = source.integers(cells.n, size=count)
        self.choices[cells.need, held[cells.need]] = 0                  # somebody has to hold the maximum
        self.sure = cells.certain(self.choices, 1 / 2)
        self.code = np.zeros(count, int)                                # position by position base b
        for p in range(cells.n):
            self.code = self.code * cells.parts[0].f.shape[2] + self.choices[:, p]
        work(3 * self.choices.size + 3 * count)

    def compare(self, listed: np.ndarray) -> None:
        """Raises `Refused` where a combination is neither certain nor listed."""
        must(bool((self.sure | listed).all()), "books: an input drawn at random is neither certain nor listed")
