"""Sums of single-token terms: which sequences they certify, and how many those are.

A sequence with query q and maximum m is right iff for every wrong x, softmax's positive denominator multiplied out,

    sum_p e^(B[q,p] - B[q,K-1]) e^(A[q,t_p] - A[q,m]) (EU[q,m] - EU[q,x] + OV[t_p,m] - OV[t_p,x] + PV[p,m] - PV[p,x]) > 0.

Problem: v^K sums are too many.  Idea: a *cell* is a set of queries with one maximum (a row) and a set of wrong tokens
(a column).  It knows a lower bound `own` of the last position's term and `f` of another position's, for every bucket
of tokens that may stand there.  Buckets are ranges of m - t; bucket 0 is the maximum itself.  If own and the least f
of every position add up to something positive, the whole cell is right; if not, the combinations of buckets that do
not are listed, each once a row, and their sequences subtracted from their rows'.  What is not listed counts as right, so
nothing is left out but on evidence: every comparison asks whether a sum is certainly large enough.  Where the query is not the maximum (`need`)
some other position must hold it: a combination is then told by the position that holds it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, log2

import numpy as np

from .circuits import Circuits
from .ledger import Ledger, Sample, drawn, masses
from .numbers import Real, Refused, U, best_other, most, reduced, require, up, weighted, weights, work

LISTED = 2**33          # sequences up to which the open combinations are listed
FAR = 2**40             # an offset beyond every vocabulary
MARKS = 2**26           # combinations told apart at once
BLOCK = 2**21           # numbers in a block of cells
OPEN = 2**27            # numbers in the cells that a stage leaves open


def edges(v: int, n: int) -> list[int]:
    """Where n buckets of m - t begin: at least three of a single offset, and as few doublings (widths 2, 4, 8, ...)
    after them as reach v/4."""
    for doublings in range(n):
        singles = n - 1 - doublings
        starts = [*range(singles), *(singles + 2 * (2**j - 1) for j in range(doublings + 1))]
        if starts[-1] >= v / 4 or singles <= 3:
            break
    return [start for start in starts if start < v]


class Layout:
    """Addresses.  A pair is (m, t), t <= m, by m and then m - t; a row is a nonempty (m, bucket of t): consecutive pairs."""

    def __init__(self, v: int, starts: list[int]):
        self.v, self.edges, b = v, np.array(starts), len(starts)
        m = np.arange(v)
        self.m, offset = np.nonzero(m <= m[:, None])
        self.t = self.m - offset
        self.size = np.maximum(np.minimum([*starts[1:], v], m[:, None] + 1) - self.edges, 0)                # [m, b]
        self.row_m, self.row_b = np.nonzero(self.size)
        self.count = self.size[self.row_m, self.row_b]
        self.first = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        self.few = (self.size > 0).sum(1)                                                                   # [m], buckets that there are
        self.none = self.edges[:b] > self.m[:, None]                                                        # [pair, b]

    def over_rows(self, x: Real, least: np.ufunc = np.minimum) -> Real:
        """Least (largest) over the pairs of each row, along the last axis."""
        return x.pick(lambda a: reduced(least.reduceat, a, self.first, -1))


def children(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(parent, child): count[i] consecutive children from first[i] on."""
    parent = np.repeat(np.arange(len(first)), count)
    work(4 * len(first) + len(parent))
    return parent, np.arange(len(parent)) + (first - np.cumsum(count) + count)[parent]


def runs(r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different numbers in a list that is in order, and the place of each entry among them."""
    new = np.diff(r, prepend=-1) != 0
    work(5 * len(r))
    return r[new], np.cumsum(new) - 1


class Groups:
    """Wrong tokens by x - m, each group an interval: n = 1: all together; else up to six singles +1, -1, +2, ..., then,
    beyond eight groups, 2, 4, 8, ... at a time downwards, then the rest below and the rest above.

    begin, count [g, m]: first wrong token, and how many; of [offset]: the group of x - m, for n > 1, negative ones at the end.
    """

    def __init__(self, n: int, v: int):
        self.n = n
        singles = [(i // 2 + 1) * (-1) ** i for i in range(min(n - 2, 6))]
        near, spans = 1 + sum(o < 0 for o in singles), [(o, o) for o in singles]
        for j in range(1, n - 1 - len(singles)):
            spans.append((1 - near - 2**j, -near))
            near += 2**j
        self.first, self.last = np.array([*spans, (-FAR, -near), (1 + sum(o > 0 for o in singles), FAR)]).T
        offset, first, last = np.r_[:v, 1 - v : 0], self.first[:, None], self.last[:, None]
        self.of = ((offset >= first) & (offset <= last)).argmax(0)
        self.begin = np.maximum(np.arange(v) + first, 0)
        self.count = np.maximum(np.minimum(np.arange(v) + last + 1, v) - self.begin, 0)
        if n == 1:
            self.count = np.full((1, v), v - 1)

    def lead(self, x: Real, row: np.ndarray, m: np.ndarray) -> Real:
        """x[row, m] minus the largest of each group [g, ...]; any number for an empty one, whose cells are none."""
        def rivals(table: np.ndarray) -> np.ndarray:
            if self.n == 1:
                return best_other(table)[row, m][None]
            v, out, width, window = table.shape[1], [], 1, table
            at = lambda a, i: a[row, np.clip(i, 0, v - 1)]
            for first, last in zip(self.first, self.last):
                if last == FAR:
                    out.append(at(reduced(np.maximum.accumulate, table[:, ::-1], 1)[:, ::-1], m + first))
                elif first == -FAR:
                    out.append(at(reduced(np.maximum.accumulate, table, 1), m + last))
                else:
                    while width < last - first + 1:
                        window = np.concatenate([window[:, :width], np.maximum(window[:, width:], window[:, :-width])], 1)
                        work(window.size)
                        width *= 2
                    out.append(at(window, m + last))
            return np.stack(out)
        return x[row, m] - x.pick(rivals)


@dataclass
class Cells:
    """r, x, tokens [c] row, column, and for how many wrong tokens it stands; own [c], f [c, p, b] (p = 1: all positions alike);
    known [c] whether these bound anything, need [c], few [c] choices that there are (the others are copies of choice 0);
    n other positions.

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

    def sure(self) -> np.ndarray:
        """Those that their worst combination certifies."""
        low = reduced(np.min, self.f, 2)
        least = self.own + reduced(np.sum, low, 1) * (self.n // self.f.shape[1])
        held = least + reduced(np.min, self.f[:, :, 0] - low, 1)
        work(8 * len(self.own) + low.size)
        return (np.where(self.need, held, least) > self.slack) & self.known

    def sums(self, choices: np.ndarray) -> np.ndarray:
        """One combination a cell [c, p], added up."""
        cell, p = np.arange(len(choices))[:, None], np.minimum(np.arange(self.n), self.f.shape[1] - 1)
        work(choices.size + len(choices))
        return self.own + self.f[cell, p, choices].sum(1)

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
    """Sums own + f[0, .] + f[1, .] + ... not above slack, by choices that are not `out`, built choice by choice while the least
    rest (`low`) may keep them so."""
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
    limit = slack - np.concatenate([np.cumsum(low[:, :0:-1], 1)[:, ::-1], np.zeros((len(at), 1))], 1)    # what the rest leaves, [row, p]

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


@dataclass
class Stage:
    """One resolution.  m, need, known [row]: its maximum, whether another position must hold that, whether no weight was too
    large; few [m], choices that there are; keys [2, row, b] and places [2, row, p] both ends (or one) of the factors of
    another position's weight; direct(x, r) and own(x, r) [c]; votes(x, m, merged) [c, p, b]."""

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

    def terms(self, at_rows: tuple[np.ndarray, np.ndarray], columns: tuple[np.ndarray, np.ndarray], merged: bool) -> Cells:
        """The same of cells whose rows are rows[place]."""
        (rows, place), (x, tokens) = at_rows, columns
        r = rows[place]
        at = self.places[:, rows]
        if merged:
            at = at.pick(lambda a: np.stack([reduced(np.min, a[0], 1), reduced(np.max, a[-1], 1)])[..., None])
        w = (self.keys(rows) if callable(self.keys) else self.keys[:, rows])[:, :, None] * at[..., None]
        f = weighted(self.direct(x, r)[:, None, None] + self.votes(x, self.m[r], merged), w[:, place])
        return Cells.of((r, x, tokens), self.own(x, r), f, (self.known[r], self.need[r], self.few[self.m[r]]), self.n)

    def open(self, book: Ledger, resolve: bool) -> Cells:
        """The cells left open with positions merged and then, if asked for, apart; block by block; the others are settled in the book."""
        b, p = self.votes(book.x[:0], book.r[:0], False).mid.shape[:0:-1]
        for merged in ((True, False) if resolve else (True,)) if p > 1 else (False,):
            step, parts = max(1, BLOCK // (b * (1 if merged else p))), []
            for k in range(0, max(len(book.r), 1), step):
                cells = self.cells(*(column[k : k + step] for column in (book.r, book.x, book.tokens)), merged)
                sure = cells.sure()
                book.settle(cells.r[sure], cells.tokens[sure])
                parts.append(cells.take(np.flatnonzero(~sure)))
            require(sum(part.f.size for part in parts) <= OPEN, "too many cells are left open", Refused)
            columns = (np.concatenate([getattr(part, name) for part in parts]) for name in Cells.COLUMNS)
            cells = Cells(*columns, self.n, most(part.slack for part in parts))
            book.left(cells.r, cells.x, cells.tokens)
        return cells


class Terms:
    """What the stages of one network share: log-weights of pairs, and leads of m over groups of wrong tokens."""

    def __init__(self, circuits: Circuits, groups: int, buckets: int):
        c = circuits.centred()
        self.A, self.B, self.EU, self.OV, self.PV = (table.real() for table in (c.A, c.B, c.EU, c.OV, c.PV))
        self.slack = {name: x if x is None else exact_numbers(x) for name, x in c.slack.items()}
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
        """Extreme of A[t, k] - top over the keys k of each bucket [pair, b], moved by the slack; bucket 0 for an empty one."""
        lay, slack = self.lay, self.slack["qk"]
        ends = self.A.pick(lambda a: windows(a, lay, extreme)) - self.top[:, None]
        if slack is not None:
            ends = ends + slack[lay.t][:, None] * Real((lay.edges > 0) * sign)                              # only differences to m are off
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


def exact_numbers(x: np.ndarray) -> Real:
    require(bool(np.isfinite(x).all()), "a table's slack overflows, and nothing can be certified", Refused)
    return Real(x)


def windows(x: np.ndarray, lay: Layout, extreme: np.ufunc) -> np.ndarray:
    """Extreme of x[t, k] over the keys of each bucket below m [pair, b]; a window of 2^j keys is made of two of half."""
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


def by_rows(r: np.ndarray, table: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows, cells, place of each cell's row among them), so many rows at once that their combinations can be marked."""
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
        require(size <= 4 * MARKS, f"{size} combinations in a row are more than this checker tells apart ({4 * MARKS})", Refused)
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
    """How many sequences the separable proof certifies: of rows without cells left all, of rows given up none, of the others all
    but those in the combinations left open."""
    from .levels import counted
    terms = Terms(circuits, groups, buckets)
    lay, stage, book = terms.lay, terms.grouped(), terms.start()
    cells, copies = stage.open(book, True), lay.count
    if each:
        stage, book = terms.single(), terms.by_query(book)
        cells, copies = stage.open(book, True), np.ones_like(lay.m)
    mass = masses(stage.m, stage.need, copies, (terms.v, stage.n))
    passed, lists = book.verdicts(cells, mass)
    cells = cells.take(np.flatnonzero(lists[cells.r]))
    few = terms.v**terms.n_ctx <= LISTED
    lost = listed(cells, lay, stage.m, copies) if few else counted(cells, lay, stage.m, copies)
    return sum(mass[row] for row in np.flatnonzero(passed | lists)) - lost
