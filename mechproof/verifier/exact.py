"""The exact number of right sequences, by branch and bound.

Cells of the separable proof, each stage only on what the one before left open: groups of wrong tokens and buckets of
queries, single wrong tokens, single queries, single keys.  At the end a sum is that of one sequence and one wrong
token: certainly positive, certainly negative, or, within rounding, decided in balls of growing precision.  A sequence
is wrong if any of its sums is not positive; what 2048 bits leave undecided is a tie, and a tie is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import product

import numpy as np
from flint import arb, ctx

from .cells import BLOCK
from .circuits import Circuits
from .layout import Layout, children
from .ledger import Sample, drawn, masses
from .numbers import Real, Refused, must, reduced, weights, work
from .separable import Marks, by_rows
from .terms import Stage, Terms

GROUPS, BUCKETS = 6, 9          # of the first stage
PRECISIONS = (128, 512, 2048)
ENUMERABLE = 2**33              # more sequences than this are not told apart
TRIED = 2**18                   # nor more than this many tried in balls


def lead(table: Real, row: np.ndarray, m: np.ndarray, x: np.ndarray) -> Real:
    """table[row, m] - table[row, x]; one row may stand for all."""
    row = row if len(table.mid) > 1 else 0
    return table[row, m] - table[row, x]


def by_token(terms: Terms, coarse: Stage) -> Stage:
    """Buckets of queries and single wrong tokens: of the query what the token's group knows, of the keys its own."""
    lay, every = terms.lay, np.arange(terms.v)
    keys = terms.by_bucket(lead(terms.OV, lay.t, lay.m, every[:, None]))                                # [x, m, b]
    places = lead(terms.PV, np.arange(len(terms.PV.mid) - 1), every[:, None], every[:, None, None])     # [x, m, p]
    worst = keys + places.pick(lambda a: reduced(np.min, a, 2))[..., None]

    def votes(x: np.ndarray, m: np.ndarray, merged: bool) -> Real:
        return worst[x, m][:, None] if merged else keys[x, m][:, None] + places[x, m][..., None]

    def group(x: np.ndarray, r: np.ndarray) -> np.ndarray:
        work(len(x))
        return terms.groups.of[x - coarse.m[r]]

    return replace(coarse, direct=lambda x, r: coarse.direct(group(x, r), r),
                   own=lambda x, r: coarse.own(group(x, r), r), votes=votes)


def leads(terms: Terms, split: Real | None = None) -> tuple[Callable, Callable]:
    """By how much the direct path (with a head's part of a split [m, x]) prefers the maximum of a pair to a token, and
    the query's own term."""
    lay = terms.lay

    def direct(x: np.ndarray, r: np.ndarray) -> Real:
        some = lead(terms.EU, lay.t[r], lay.m[r], x)
        return some if split is None else some + split[lay.m[r], x]

    def own(x: np.ndarray, r: np.ndarray) -> Real:
        t, m = lay.t[r], lay.m[r]
        last = np.full_like(m, len(terms.PV.mid) - 1)
        return terms.own(direct(x, r) + lead(terms.OV, t, m, x) + lead(terms.PV, last, m, x), r)

    return direct, own


def by_query(terms: Terms, tokens: Stage) -> Stage:
    """Single queries and single wrong tokens."""
    direct, own = leads(terms)
    return replace(terms.single(), direct=direct, own=own, votes=tokens.votes)


def by_key(terms: Terms, single: Stage) -> Stage:
    """Single keys: choice o is the token m - o (or m, where there is none),
    and every term is the real one but for rounding.

    Keys' logarithms are not above 0: no weight is too large here that was not so in `single`.
    """
    lay, every = terms.lay, np.arange(terms.v)
    key = np.where(every[:, None] < every, every[:, None], every[:, None] - every)          # [m, o]

    def keys(rows: np.ndarray) -> Real:
        m = lay.m[rows]
        return weights(terms.A[lay.t[rows][:, None], key[m]] - terms.top[rows][:, None])[0]

    def votes(x: np.ndarray, m: np.ndarray, merged: bool) -> Real:
        some = lead(terms.OV, key[m], m[:, None], x[:, None])
        places = lead(terms.PV, np.arange(len(terms.PV.mid) - 1), m[:, None], x[:, None])
        return some[:, None] + places[..., None]

    return replace(single, few=every + 1, keys=keys, votes=votes)


class Trial:
    """Single sequences in balls; each of `make` makes a head's circuits (with the direct path in the first alone) at
    the precision there is."""

    def __init__(self, make: list[Callable[[], Circuits]], logits: np.ndarray, n_ctx: int):
        self.make, self.tables = make, lru_cache(self._tables)
        self.twins = [(logits == logits[:, m : m + 1]).all(0).sum() > 1 for m in range(logits.shape[1])]
        self.n_ctx = n_ctx

    def _tables(self, precision: int) -> list[list[list[list[arb]]]]:
        heads = []
        for c in (make() for make in self.make):
            # positions alike are written out
            alike = lambda rows, n=c.n_ctx: [*rows[:1] * (n + 1 - len(rows)), *rows[1:]]
            B = [alike(row) for row in c.B.balls.tolist()]
            heads.append([c.A.balls.tolist(), B, c.EU.balls.tolist(), c.OV.balls.tolist(), alike(c.PV.balls.tolist())])
        return heads

    def right(self, tokens: list[int]) -> bool:
        """Whether the largest token's logit is strictly the largest."""
        m = max(tokens)
        for precision in () if self.twins[m] else PRECISIONS:
            with ctx.workprec(precision):
                margins = self.margins(tokens, m, precision)
            work(len(self.make) * len(tokens) * len(margins) * precision // 64)
            if all(x > 0 for x in margins):
                return True
            if any(x <= 0 for x in margins):
                return False
        return False

    def margins(self, tokens: list[int], m: int, precision: int) -> list[arb]:
        """Right minus wrong logits, times the denominator if there is but one."""
        heads, q = self.tables(precision), tokens[-1]
        votes: list[arb] = []
        for A, B, EU, OV, PV in heads:
            scores = [A[q][t] + B[q][p] for p, t in enumerate(tokens)]
            top = max(scores, key=lambda s: float(s.mid()))
            shares = [(s - top).exp() for s in scores]
            total, direct = sum(shares, arb(0)), EU[min(q, len(EU) - 1)]
            attended = list(enumerate(zip(shares, tokens)))
            found = [total * direct[i] + sum((w * (OV[t][i] + PV[p][i]) for p, (w, t) in attended), arb(0))
                     for i in range(len(direct))]
            found = found if len(heads) == 1 else [vote / total for vote in found]
            votes = [a + b for a, b in zip(votes, found)] if votes else found
        return [votes[m] - vote for i, vote in enumerate(votes) if i != m]


def right_sequences(make: Callable[[], Circuits], logits: np.ndarray, sizes: tuple[int, int]) -> int:
    """Of all v^K.  `logits`: the matrix whose equal columns make equal logits."""
    n_ctx, v = sizes
    if v**n_ctx > ENUMERABLE:
        raise Refused(f"sizes: {v}^{n_ctx} inputs are more than this strategy tells apart ({ENUMERABLE})")
    terms, trial = Terms(make(), GROUPS, BUCKETS), Trial([make], logits, n_ctx)
    grouped, book = terms.grouped(), terms.start()
    grouped.open(book, False)
    parent, x = children(*(table[book.x, grouped.m[book.r]] for table in (terms.groups.begin, terms.groups.count)))
    book.r, book.x, book.tokens = book.r[parent], x, np.ones_like(x)
    tokens = by_token(terms, grouped)
    tokens.open(book, False)
    book, queries = terms.by_query(book), by_query(terms, tokens)
    cells = queries.open(book, False)
    mass = masses(queries.m, queries.need, np.ones_like(queries.m), (v, queries.n))
    passed, lists = book.verdicts(cells, mass)
    known = np.flatnonzero(lists[cells.r])
    wrong = wrong_sequences(terms.lay, by_key(terms, queries), book.r[known], book.x[known], trial)
    return v**n_ctx - wrong - wrong_in_rows(terms.lay, np.flatnonzero(~(passed | lists)), trial, mass)


def wrong_in_rows(lay: Layout, rows: np.ndarray, trial: Trial, mass: list[int]) -> int:
    """Wrong sequences in rows of which nothing is known, each tried."""
    must(sum(mass[row] for row in rows) <= TRIED, f"more than {TRIED} sequences are too close to call in float64")
    wrong, n = 0, trial.n_ctx - 1
    for m, t in zip(lay.m[rows].tolist(), lay.t[rows].tolist()):
        tokens = ([*others, t] for others in product(range(m + 1), repeat=n) if max(*others, t) == m)
        wrong += sum(not trial.right(sequence) for sequence in tokens)
    return wrong


def wrong_sequences(lay: Layout, stage: Stage, r: np.ndarray, x: np.ndarray, trial: Trial) -> int:
    """Wrong sequences in the cells (pair, wrong token), each sequence once."""
    n, v, wrong, close, tried = stage.n, lay.v, 0, 0, 0
    step = max(1, BLOCK // (n * v))
    for rows, at, place in by_rows(r, v**n):
        marks, doubtful = Marks(len(rows) * v**n), []
        for k in range(0, len(at), step):
            cells = stage.cells(r[at[k : k + step]], x[at[k : k + step]], np.ones_like(at[k : k + step]), False)
            for cell, code, total in cells.survivors():
                sure = total < -cells.slack
                work(8 * len(sure))
                code = place[k : k + step][cell] * v**n + code
                wrong += len(marks.new(code[sure]))
                doubtful.append(code[~sure])
                close += len(doubtful[-1])
                must(close <= 64 * TRIED, f"more than {64 * TRIED} sums are too close to call in float64")
        code = marks.new(np.concatenate(doubtful)) if doubtful else ()
        tried += len(code)
        must(tried <= TRIED, f"more than {TRIED} sequences are too close to call in float64")
        for c in map(int, code):
            row = rows[c // v**n]
            m, offsets = int(lay.m[row]), [c // v**p % v for p in reversed(range(n))]
            wrong += not trial.right([m - o for o in offsets] + [int(lay.t[row])])
        some = drawn(len(at))
        sample = Sample(stage.terms((r[at[some]], np.arange(len(some))), (x[at[some]], np.ones_like(some)), False))
        sample.compare(marks.mark[place[some] * v**n + sample.code] > 0)
    return wrong
