"""Several heads: cells of all of them at once.

With a denominator Z a head and any numbers split[h, m, x] whose sum over heads is 0,

    lead of m over x  =  sum_h F_h / Z_h,     F_h = N_h + Z_h ((EU[q,m] - EU[q,x]) / H + split[h,m,x]),

and F_h is a sum of single-token terms, as of a network of one head.  From f_h <= F_h and the ends of Z_h follows
F_h / Z_h >= f_h / Z_h, at the largest Z_h for f_h >= 0 and at the smallest for the others.  A combination of buckets
that every head certifies by itself has a positive lead; the others are listed, head by head, and the sums of quotients
of these decide.  Wrong tokens stand singly from the start: each head would take its own worst one of a group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from flint import arb

from .cells import BLOCK, Cells
from .circuits import Circuits, Weights, shared
from .exact import BUCKETS, ENUMERABLE, Trial, by_key, by_query, by_token, leads, wrong_in_rows, wrong_sequences
from .layout import Layout, children, runs
from .ledger import Ledger, masses
from .numbers import Mat, Real, Refused, U, must, reduced, up, work
from .separable import tallied
from .terms import OPEN, Stage, Terms

PER_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_V")


@dataclass
class Divisors:
    """A head's denominators.  own [2, row] and others [2, row, p, b], smallest and largest; place [c]: a cell's row;
    off: what a sum of them may be off by."""

    own: np.ndarray
    others: np.ndarray
    place: np.ndarray
    off: float

    @classmethod
    def of(cls, own: Real, others: Real, place: np.ndarray, n: int) -> Divisors:
        off = up(own.rad + n * others.rad + 2 * (n + 2) * U * (own.mag + n * others.mag))
        return cls(own.mid[[0, -1]], others.mid[[0, -1]], place, off)

    def ends(self, others: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Smallest (NaN where that is not positive for certain) and largest, from the others' sums [2, i]."""
        lo, hi = self.own[0, row] + others[0] - 2 * self.off, self.own[1, row] + others[1] + 2 * self.off
        work(6 * len(row))
        return np.where(lo > 0, lo, np.nan), hi

    def of_cells(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        sums = np.stack([reduced(choose, x, 2).sum(1) for choose, x in zip((np.min, np.max), self.others)])
        work(2 * sums.size)
        return self.ends(sums[:, self.place] * (n // self.others.shape[2]), self.place)

    def of_combinations(self, cell: np.ndarray, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        row, p = self.place[cell], np.minimum(np.arange(choices.shape[1]), self.others.shape[2] - 1)
        work(2 * choices.size)
        return self.ends(self.others[:, row[:, None], p, choices].sum(2), row)


def least_quotients(sums: list[np.ndarray], slack: list[float],
                    ends: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """At least the sum over heads of F / Z where F >= f - slack; NaN where nothing is known."""
    low = [f - off for f, off in zip(sums, slack)]
    terms = np.stack([f / np.where(f < 0, *z) for f, z in zip(low, ends)])
    work(6 * terms.size)
    # a difference, a quotient, sums: fewer than 2^10 roundings
    return terms.sum(0) - (2.0**-40 * np.abs(terms).sum(0) + 2.0**-1000)


@dataclass
class HeadCells:
    """The same cells of all heads.  A combination's sum is a verdict: 2 right, -2 wrong, 0 neither."""

    parts: list[Cells]
    divisors: list[Divisors]

    slack = 1.0
    r, n, need, few = (property(lambda self, name=name: getattr(self.parts[0], name))
                       for name in ("r", "n", "need", "few"))

    def take(self, at: np.ndarray) -> HeadCells:
        return HeadCells([part.take(at) for part in self.parts], [replace(z, place=z.place[at]) for z in self.divisors])

    @property
    def given_up(self) -> np.ndarray:
        return np.any([part.given_up for part in self.parts], 0)

    def sure(self) -> np.ndarray:
        """Those that the heads' worst combinations certify, were they one."""
        low = least_quotients([part.least() for part in self.parts], [part.slack for part in self.parts],
                              [z.of_cells(self.n) for z in self.divisors])
        return (low > 0) & ~self.given_up

    def lead(self, cell: np.ndarray, choices: np.ndarray, part: float, sign: int = 1) -> np.ndarray:
        """At least the lead of combinations (times the sign, if weights have one end)."""
        return least_quotients([sign * head.sums(cell, choices) for head in self.parts],
                               [part * head.slack for head in self.parts],
                               [z.of_combinations(cell, choices) for z in self.divisors])

    def certain(self, choices: np.ndarray, part: float) -> np.ndarray:
        return (self.lead(np.arange(len(choices)), choices, part) > 0) & ~self.given_up

    def survivors(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (cell, combination, verdict) of what a head leaves open and the quotients do not certify; a
        combination may come once a head."""
        b, lost = self.parts[0].f.shape[2], self.given_up
        places = b ** np.arange(self.n)[::-1]
        for head in self.parts:
            for cell, code, _ in head.survivors():
                choices = code[:, None] // places % b
                left = np.flatnonzero(~(self.lead(cell, choices, 1.0) > 0) | lost[cell])
                cell, code, choices = cell[left], code[left], choices[left]
                work(3 * choices.size)
                yield cell, code, np.where(self.lead(cell, choices, 1.0, -1) > 0, -2.0, 0.0)


@dataclass
class HeadStage:
    """The stages of all heads; own [h]: both ends (or one) of the query's weight [2, row]."""

    stages: list[Stage]
    own: list[Real]

    n, m, need = (property(lambda self, name=name: getattr(self.stages[0], name)) for name in ("n", "m", "need"))

    def cells(self, r: np.ndarray, x: np.ndarray, tokens: np.ndarray, merged: bool) -> HeadCells:
        return self.terms(runs(r), (x, tokens), merged)

    def terms(self, at_rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray],
              merged: bool) -> HeadCells:
        rows, place = at_rows
        return HeadCells([stage.terms(at_rows, columns, merged) for stage in self.stages],
                         [Divisors.of(own[:, rows], stage.weights(rows, merged), place, self.n)
                          for own, stage in zip(self.own, self.stages)])

    def open(self, book: Ledger) -> HeadCells:
        """The cells left open with positions merged and then apart; the others are settled in the book."""
        b, p = self.stages[0].votes(book.x[:0], book.r[:0], False).mid.shape[:0:-1]
        for merged in (True, False) if p > 1 else (False,):
            step, left = max(1, BLOCK // (b * (1 if merged else p))), []
            for k in range(0, max(len(book.r), 1), step):
                at = slice(k, k + step)
                sure = self.cells(book.r[at], book.x[at], book.tokens[at], merged).sure()
                book.settle(book.r[at][sure], book.tokens[at][sure])
                left.append(k + np.flatnonzero(~sure))
            kept = np.concatenate(left)
            book.r, book.x, book.tokens = book.r[kept], book.x[kept], book.tokens[kept]
        must(len(book.r) * b * p * len(self.stages) <= OPEN, "too many cells are left open")
        return self.cells(book.r, book.x, book.tokens, p == 1)


class Heads:
    """The terms of every head, and the stages that they go through together."""

    def __init__(self, w: Weights, split: np.ndarray, buckets: int):
        tables, splits = tables_of(w), [Real(x) for x in split]
        splits.append(Real(np.zeros(split.shape[1:])))
        for x in splits[:-1]:
            splits[-1] = splits[-1] - x
        self.terms = [Terms(c, 2, buckets) for c in tables]
        self.split, self.lay = splits, self.terms[0].lay

    def begun(self) -> tuple[HeadStage, Ledger]:
        """Buckets of queries, single wrong tokens."""
        lay, book = self.lay, self.terms[0].start()
        groups = self.terms[0].groups
        parent, book.x = children(*(table[book.x, lay.row_m[book.r]] for table in (groups.begin, groups.count)))
        book.r, book.tokens = book.r[parent], np.ones_like(parent)
        return HeadStage([self.by_bucket(t, s) for t, s in zip(self.terms, self.split)],
                         [ends_by_row(t.own_weights[0], lay) for t in self.terms]), book

    def by_bucket(self, terms: Terms, split: Real) -> Stage:
        pairs, every = np.arange(len(self.lay.m)), np.arange(self.lay.v)[:, None]
        direct, own = (self.lay.over_rows(table(every, pairs)) for table in leads(terms, split))
        return replace(by_token(terms, terms.grouped()), direct=lambda x, r: direct[x, r], own=lambda x, r: own[x, r])

    def by_query(self, begun: HeadStage) -> HeadStage:
        stages = []
        for terms, split, stage in zip(self.terms, self.split, begun.stages):
            direct, own = leads(terms, split)
            stages.append(replace(by_query(terms, stage), direct=direct, own=own))
        return HeadStage(stages, [terms.own_weights[0] for terms in self.terms])

    def taken(self) -> tuple[HeadStage, Ledger, HeadCells]:
        """The stage of single queries, and what it leaves open."""
        stage, book = self.begun()
        stage.open(book)
        book, stage = self.terms[0].by_query(book), self.by_query(stage)
        return stage, book, stage.open(book)


def ends_by_row(own: Real, lay: Layout) -> Real:
    """The smallest and the largest of a query's weights in every bucket."""
    low, high = (lay.over_rows(own[e], least) for e, least in ((0, np.minimum), (-1, np.maximum)))
    return Real(np.stack([low.mid, high.mid]), own.rad, own.mag)


def tables_of(w: Weights, whole: bool = False) -> list[Circuits]:
    """The circuits of each head, which share the direct path; or with all of it in the first."""
    found, n = [], len(w["W_Q"])
    for h in range(n):
        chains, B, places = shared({name: x[h] if name in PER_HEAD else x for name, x in w.items()})
        queries, Q, K, keys = chains["qk"]
        embed, V, out, W_U = chains["ov"]
        if not h:
            EU = queries @ W_U
            share = EU if whole else EU.scaled(1 / arb(n))
        direct = share if not (h and whole) else Mat.zeros(*EU.shape)
        found.append(Circuits(len(w["W_pos"]), queries @ (Q @ K) @ keys, B, direct, embed @ (V @ out) @ W_U, places,
                              dict.fromkeys(("qk", "eu", "ov"))))
    return found


def certified(w: Weights, split: np.ndarray, buckets: int) -> int:
    """How many sequences the separable proof certifies."""
    heads = Heads(w, split, buckets)
    stage, book, cells = heads.taken()
    return tallied(stage, book, cells, heads.lay, np.ones_like(heads.lay.m), heads.lay.v ** (stage.n + 1))


def right_sequences(w: Weights, split: np.ndarray, logits: np.ndarray, sizes: tuple[int, int]) -> int:
    """The exact number of right ones.  `logits`: the matrix whose equal columns make equal logits."""
    n_ctx, v = sizes
    if v**n_ctx > ENUMERABLE:
        raise Refused(f"sizes: {v}^{n_ctx} inputs are more than this strategy tells apart ({ENUMERABLE})")
    heads = Heads(w, split, BUCKETS)
    trial = Trial([lambda h=h: tables_of(w, True)[h] for h in range(len(heads.terms))], logits, n_ctx)
    stage, book, cells = heads.taken()
    mass = masses(stage.m, stage.need, np.ones_like(stage.m), (v, stage.n))
    passed, lists = book.verdicts(cells, mass)
    known = np.flatnonzero(lists[cells.r])
    keys = HeadStage([by_key(terms, x) for terms, x in zip(heads.terms, stage.stages)], stage.own)
    wrong = wrong_sequences(heads.lay, keys, book.r[known], book.x[known], trial)
    return v**n_ctx - wrong - wrong_in_rows(heads.lay, np.flatnonzero(~(passed | lists)), trial, mass)
