"""Sums of single-token terms: which sequences they certify, and how many those are.

A sequence with query q and maximum m is right iff for every wrong x, softmax's positive denominator multiplied out,

    sum_p e^(B[q,p] - B[q,K-1]) e^(A[q,t_p] - A[q,m])
          (EU[q,m] - EU[q,x] + OV[t_p,m] - OV[t_p,x] + PV[p,m] - PV[p,x])  >  0.

Problem: v^K sums are too many.  Idea: a *cell* is a set of queries with one maximum (a row) and a set of wrong tokens
(a column).  It knows a lower bound `own` of the last position's term and `f` of another position's, for every bucket
of tokens that may stand there.  Buckets are ranges of m - t; bucket 0 is the maximum itself.  If own and the least f
of every position add up to something positive, the whole cell is right; if not, the combinations of buckets that do
not are listed, each once a row, and their sequences subtracted from their rows'.  What is not listed counts as
right, so nothing is left out but on evidence: every comparison asks whether a sum is certainly large enough.
Where the query is not the maximum (`need`) some other position must hold it: a combination is then told by the
position that holds it first.
"""
from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2

import numpy as np

from .cells import BLOCK, Cells
from .circuits import Circuits
from .layout import Layout, runs
from .ledger import Ledger, Sample, drawn, masses
from .levels import counted
from .numbers import must, work
from .terms import Stage, Terms

LISTED = 2**33          # sequences up to which the open combinations are listed
MARKS = 2**26           # combinations told apart at once


def by_rows(r: np.ndarray, table: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, cells, place of each cell's row among them), so many rows at once
    that their combinations can be marked."""
    order = np.argsort(r, kind="stable")
    work(len(r) * ceil(log2(max(len(r), 2))) + len(r))
    rows, place = runs(r[order])
    step = max(1, MARKS // table)
    for k in range(0, len(rows), step):
        at = slice(*np.searchsorted(place, [k, k + step]))
        yield rows[k : k + step], order[at], place[at] - k


class Marks:
    """Which combinations have been seen.  Pages of an untouched table cost nothing."""

    def __init__(self, size: int):
        must(size <= 4 * MARKS, f"{size} combinations in a row are more than this checker tells apart ({4 * MARKS})")
        self.mark = np.zeros(size, np.int32)

    def new(self, code: np.ndarray) -> np.ndarray:
        """One of each code that was not seen before."""
        work(2 * len(code))
        code = code[self.mark[code] == 0]
        n = np.arange(1, len(code) + 1, dtype=np.int32)
        self.mark[code] = n
        work(2 * len(code))
        return code[self.mark[code] == n]


def listed(cells: Cells, lay: Layout, m: np.ndarray, copies: np.ndarray) -> int:
    """Sequences in the combinations left open, each once a row; there are at most LISTED, so that int64 holds them."""
    n, b, lost = cells.n, len(lay.edges), 0
    step = max(1, BLOCK // (n * b))
    for rows, at, place in by_rows(cells.r, b**n):
        marks = Marks(len(rows) * b**n)
        for k in range(0, len(at), step):
            for cell, code, _ in cells.take(at[k : k + step]).survivors():
                code = marks.new(place[k : k + step][cell] * b**n + code)
                row = rows[code // b**n]
                mass = copies[row]
                for p in range(n):
                    mass = mass * lay.size[m[row], code // b**p % b]
                work((4 * n + 3) * len(code))
                lost += int(mass.sum())
        some = drawn(len(at))
        sample = Sample(cells.take(at[some]))
        sample.compare(marks.mark[place[some] * b**n + sample.code] > 0)
    return lost


def certified(circuits: Circuits, groups: int, buckets: int, each: bool) -> int:
    """How many sequences the separable proof certifies: of rows without cells left all, of rows given up none, of the
    others all but those in the combinations left open."""
    terms = Terms(circuits, groups, buckets)
    lay, stage, book = terms.lay, terms.grouped(), terms.start()
    cells, copies = stage.open(book, True), lay.count
    if each:
        stage, book = terms.single(), terms.by_query(book)
        cells, copies = stage.open(book, True), np.ones_like(lay.m)
    return tallied(stage, book, cells, lay, copies, terms.v**terms.n_ctx)


def tallied(stage: Stage, book: Ledger, cells: Cells, lay: Layout, copies: np.ndarray, total: int) -> int:
    """The sequences, of so many, that a last stage certifies, with the cells that it leaves open."""
    mass = masses(stage.m, stage.need, copies, (lay.v, stage.n), total)
    passed, lists = book.verdicts(cells, mass)
    cells = cells.take(np.flatnonzero(lists[cells.r]))
    few = total <= LISTED
    lost = listed(cells, lay, stage.m, copies) if few else counted(cells, lay, stage.m, copies)
    return sum(mass[row] for row in np.flatnonzero(passed | lists)) - lost
