"""Single-token terms of one network, and the cells that they make: query by query, or queries in buckets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .cells import BLOCK, Cells
from .circuits import Circuits
from .layout import Groups, Layout, children, edges, runs
from .ledger import Ledger
from .numbers import Real, most, must, reduced, weighted, weights, work

OPEN = 2**27            # numbers in the cells that a stage leaves open


@dataclass
class Stage:
    """One resolution.  m, need, known [row]: its maximum, whether another position must hold that, whether no weight
    was too large; few [m], choices that there are; keys [2, row, b] and places [2, row, p] both ends (or one) of the
    factors of another position's weight; direct(x, r) and own(x, r) [c]; votes(x, m, merged) [c, p, b]."""

    n: int
    m: np.ndarray
    need: np.ndarray
    known: np.ndarray
    few: np.ndarray
    keys: Real | Callable[[np.ndarray], Real]
    places: Real
    direct: Callable[[np.ndarray, np.ndarray], Real]
    own: Callable[[np.ndarray, np.ndarray], Real]
    votes: Callable[[np.ndarray, np.ndarray, bool], Real]

    def cells(self, r: np.ndarray, x: np.ndarray, tokens: np.ndarray, merged: bool) -> Cells:
        """Terms of the cells (r, x); `merged`: one f for all positions, of the worst of them."""
        return self.terms(runs(r), (x, tokens), merged)

    def terms(self, at_rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray],
              merged: bool) -> Cells:
        """The same of cells whose rows are rows[place]."""
        (rows, place), (x, tokens) = at_rows, columns
        r, w = rows[place], self.weights(rows, merged)
        f = weighted(self.direct(x, r)[:, None, None] + self.votes(x, self.m[r], merged), w[:, place])
        return Cells.of((r, x, tokens), self.own(x, r), f, (self.known[r], self.need[r], self.few[self.m[r]]), self.n)

    def weights(self, rows: np.ndarray, merged: bool) -> Real:
        """Both ends (or one) of the weights of other positions [2, row, p, b]."""
        at = self.places[:, rows]
        if merged:
            at = at.pick(lambda a: np.stack([reduced(np.min, a[0], 1), reduced(np.max, a[-1], 1)])[..., None])
        return (self.keys(rows) if callable(self.keys) else self.keys[:, rows])[:, :, None] * at[..., None]

    def open(self, book: Ledger, resolve: bool) -> Cells:
        """The cells left open with positions merged and then, if asked for, apart; block by block;
        the others are settled in the book."""
        b, p = self.votes(book.x[:0], book.r[:0], False).mid.shape[:0:-1]
        for merged in ((True, False) if resolve else (True,)) if p > 1 else (False,):
            step, parts = max(1, BLOCK // (b * (1 if merged else p))), []
            for k in range(0, max(len(book.r), 1), step):
                cells = self.cells(*(column[k : k + step] for column in (book.r, book.x, book.tokens)), merged)
                sure = cells.sure()
                book.settle(cells.r[sure], cells.tokens[sure])
                parts.append(cells.take(np.flatnonzero(~sure)))
            must(sum(part.f.size for part in parts) <= OPEN, "too many cells are left open")
            columns = (np.concatenate([getattr(part, name) for part in parts]) for name in Cells.COLUMNS)
            cells = Cells(*columns, self.n, most(part.slack for part in parts))
            book.r, book.x, book.tokens = cells.r, cells.x, cells.tokens
        return cells


class Terms:
    """What the stages of one network share: log-weights of pairs, and leads of m over groups of wrong tokens."""

    def __init__(self, circuits: Circuits, groups: int, buckets: int):
        c = circuits.centred()
        self.A, self.B, self.EU, self.OV, self.PV = (table.real() for table in (c.A, c.B, c.EU, c.OV, c.PV))
        must(all(x is None or np.isfinite(x).all() for x in c.slack.values()),
             "a table's slack overflows, and nothing is certain")
        self.slack = {name: x if x is None else Real(x) for name, x in c.slack.items()}
        self.n_ctx, self.v, self.groups = c.n_ctx, c.OV.shape[1], Groups(groups, c.OV.shape[1])
        self.lay = lay = Layout(self.v, edges(self.v, buckets))
        t = np.minimum(lay.t, c.EU.shape[0] - 1)
        self.lead_EU, self.lead_OV = self.lead(self.EU, "eu", t), self.lead(self.OV, "ov", lay.t)
        p, every = np.arange(c.PV.shape[0]), np.arange(self.v)
        self.lead_PV = self.groups.lead(self.PV, p, every[:, None])                                        # [g, m, p]
        self.key_votes = self.by_bucket(self.lead_OV)                                                       # [g, m, b]
        self.all_own = self.own(self.lead_EU + self.lead_OV + self.lead_PV[:, lay.m, -1], slice(None))      # [g, pair]

    def lead(self, table: Real, name: str, row: np.ndarray) -> Real:
        lead, slack = self.groups.lead(table, row, self.lay.m), self.slack[name]
        return lead if slack is None else lead - slack[row]

    def by_bucket(self, x: Real) -> Real:
        """[.., pair] to [.., m, b], the least; bucket 0 once more in the place of an empty one."""
        def spread(rows: np.ndarray) -> np.ndarray:
            out = np.zeros((*rows.shape[:-1], *self.lay.size.shape))
            out[..., self.lay.row_m, self.lay.row_b] = rows
            return np.where(self.lay.size > 0, out, out[..., :1])
        return self.lay.over_rows(x).pick(spread)

    @cached_property
    def merged_votes(self) -> Real:
        return (self.key_votes + self.lead_PV[:, :, :-1].pick(lambda a: reduced(np.min, a, 2))[..., None])[:, :, None]

    @cached_property
    def all_votes(self) -> Real:
        return self.key_votes[:, :, None] + self.lead_PV[:, :, :-1, None]

    def votes(self, g: np.ndarray, m: np.ndarray, merged: bool) -> Real:
        return (self.merged_votes if merged else self.all_votes)[g, m]

    @cached_property
    def top(self) -> Real:
        """The largest score of a token up to m [pair]: all terms of a pair are divided by its exponential."""
        return self.A.pick(lambda a: reduced(np.maximum.accumulate, a, 1))[self.lay.t, self.lay.m]

    @cached_property
    def own_weights(self) -> tuple[Real, np.ndarray]:
        """Both ends [2, pair] (or one) of the query's own weight."""
        t, m, slack = self.lay.t, self.lay.m, self.slack["qk"]
        at = self.A[t, t] - self.top
        if slack is None:
            return weights(at)
        apart = slack[t] * Real((t != m) * 1.0)
        return weights(at - apart, at + apart)

    def own(self, votes: Real, pairs: np.ndarray | slice) -> Real:
        """The query's own term from its votes [.., pair]."""
        return weighted(votes, self.own_weights[0][:, pairs])

    def key_logs(self, extreme: np.ufunc, sign: float) -> Real:
        """Extreme of A[t, k] - top over the keys k of each bucket [pair, b], moved by the slack;
        bucket 0 for an empty one."""
        lay, slack = self.lay, self.slack["qk"]
        ends = self.A.pick(lambda a: windows(a, lay, extreme)) - self.top[:, None]
        if slack is not None:
            # only differences to m are off
            ends = ends + slack[lay.t][:, None] * Real((lay.edges > 0) * sign)
        return ends.pick(lambda a: np.where(lay.none, a[:, :1], a))

    @cached_property
    def logs(self) -> tuple[Real, Real, Real]:
        """Log-weights of pairs: of keys, lower and upper ends [pair, b], and of positions [pair, p]."""
        places = (self.B[:, :-1] - self.B[:, -1:])[self.lay.t]
        return self.key_logs(np.minimum, -1.0), self.key_logs(np.maximum, 1.0), places

    def single(self) -> Stage:
        """Query by query: a row is a pair."""
        lo, hi, at = self.logs
        (keys, bad), (places, worse) = weights(lo, hi), weights(at)
        known = ~(bad.any(1) | worse.any(1) | self.own_weights[1])
        return Stage(self.n_ctx - 1, self.lay.m, self.lay.t < self.lay.m, known, self.lay.few, keys, places,
                     lambda g, r: self.lead_EU[g, r], lambda g, r: self.all_own[g, r], self.votes)

    def grouped(self) -> Stage:
        """Buckets of queries: a row is (maximum, bucket)."""
        lay, (lo, hi, at) = self.lay, self.logs
        worst = lambda x, least: lay.over_rows(x.pick(np.transpose), least).pick(np.transpose)
        keys, bad = weights(worst(lo, np.minimum), worst(hi, np.maximum))
        places, worse = weights(worst(at, np.minimum), worst(at, np.maximum))
        direct, own = lay.over_rows(self.lead_EU), lay.over_rows(self.all_own)
        known = ~(bad.any(1) | worse.any(1) | np.logical_or.reduceat(self.own_weights[1], lay.first))
        return Stage(self.n_ctx - 1, lay.row_m, lay.row_b > 0, known, lay.few, keys, places,
                     lambda g, r: direct[g, r], lambda g, r: own[g, r], self.votes)

    def start(self) -> Ledger:
        """Every cell of `grouped` whose group is not empty."""
        r, g = np.nonzero(self.groups.count.T[self.lay.row_m])
        return Ledger(self.v, np.zeros_like(self.lay.row_m), r, g, self.groups.count[g, self.lay.row_m[r]])

    def by_query(self, book: Ledger) -> Ledger:
        """The cells left, query by query."""
        lay = self.lay
        parent, r = children(lay.first[book.r], lay.count[book.r])
        return Ledger(self.v, np.repeat(book.settled, lay.count), r, book.x[parent], book.tokens[parent])


def windows(x: np.ndarray, lay: Layout, extreme: np.ufunc) -> np.ndarray:
    """Extreme of x[t, k] over the keys of each bucket below m [pair, b];
    a window of 2^j keys is made of two of half."""
    out, width, window = [], 1, x
    for j, start in enumerate(lay.edges):
        if j == len(lay.edges) - 1:
            window = reduced(extreme.accumulate, x, 1)
        else:
            while width < lay.edges[j + 1] - start:
                window = np.concatenate([window[:, :width], extreme(window[:, width:], window[:, :-width])], 1)
                work(window.size)
                width *= 2
        out.append(window[lay.t, np.maximum(lay.m - start, 0)])
    return np.stack(out, 1)
