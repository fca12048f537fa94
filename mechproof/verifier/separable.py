"""Sums of single-token terms: which sequences they certify, and how many those are.

A sequence with query q and maximum m is right iff for every wrong x, softmax's positive denominator multiplied out,

    sum_p e^(B[q,p] - B[q,K-1]) e^(A[q,t_p] - A[q,m]) (EU[q,m] - EU[q,x] + OV[t_p,m] - OV[t_p,x] + PV[p,m] - PV[p,x]) > 0.

Problem: v^K sums are too many.  Idea: a *cell* is a set of queries with one maximum (a row) and a set of wrong tokens
(a column).  It knows a lower bound `own` of the last position's term and `f` of another position's, for every bucket
of tokens that may stand there.  Buckets are ranges of m - t; bucket 0 is the maximum itself.  If own and the least f
of every position add up to something positive, the whole cell is right; if not, the combinations of buckets that do
not are listed, each once a row, and their sequences subtracted from v^K.  Where the query is not the maximum (`need`)
some other position must hold it: a combination is then told by the position that holds it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, log2

import numpy as np

from .circuits import Circuits
from .numbers import HUGE, Real, Refused, U, reduced, require, up, weighted, weights, work

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
        """x[row, m] minus the largest of each group [g, ...]; +inf for an empty one."""
        def rivals(table: np.ndarray) -> np.ndarray:
            v, out, width, window = table.shape[1], [], 1, table
            at = lambda a, i: np.where((i < 0) | (i >= v), -inf, a[row, np.clip(i, 0, v - 1)])
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
            return np.stack(out if self.n > 1 else [reduced(np.maximum, *out)])
        return x[row, m] - x.pick(rivals)


@dataclass
class Cells:
    """r, x [c] row and column; own [c], f [c, p, b] (p = 1: all positions alike), need [c]; n other positions.

    slack: no sum formed below is further from the real one.  Such a sum has at most n + 4 roundings of numbers of
    size at most own + (n + 2) f, which is allowed for twice; a slack that is not a number is as good as infinite.
    """

    r: np.ndarray
    x: np.ndarray
    own: np.ndarray
    f: np.ndarray
    need: np.ndarray
    n: int
    slack: float

    @classmethod
    def of(cls, r: np.ndarray, x: np.ndarray, own: Real, f: Real, need: np.ndarray, n: int) -> Cells:
        slack = up(own.rad + n * f.rad + 2 * (n + 4) * U * (own.mag + (n + 2) * f.mag))
        return cls(r, x, own.mid, f.mid, need, n, slack if slack < HUGE / 2 else HUGE / 2)

    def take(self, at: np.ndarray) -> Cells:
        return Cells(self.r[at], self.x[at], self.own[at], self.f[at], self.need[at], self.n, self.slack)

    def open(self) -> Cells:
        """Those that their worst combination does not certify."""
        low = reduced(np.min, self.f, 2)
        least = self.own + reduced(np.sum, low, 1) * (self.n // self.f.shape[1])
        held = least + reduced(np.min, self.f[:, :, 0] - low, 1)
        work(8 * len(self.own) + low.size)
        return self.take(np.flatnonzero(~(np.where(self.need, held, least) > self.slack)))

    def survivors(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Blocks of (cell, combination, sum), combinations not certainly positive, position by position base b."""
        for need in (False, True):
            at = np.flatnonzero(self.need == need)
            work(2 * len(self.need))
            f = np.broadcast_to(self.f[at], (len(at), self.n, self.f.shape[2]))
            held, below = f[:, :, 0], reduced(np.min, self.f[at][:, :, 1:], 2)
            either = np.minimum(held, below)
            work(either.size)
            for first in range(self.n) if need else [None]:
                g, low = f, either
                if need:
                    g, low = f.copy(), either.copy()
                    g[:, :first, 0], g[:, first, 1:] = inf, inf
                    low[:, :first], low[:, first] = np.broadcast_to(below, low.shape)[:, :first], held[:, first]
                yield from extended(self.own[at], g, low, self.slack, at)


def extended(own: np.ndarray, f: np.ndarray, low: np.ndarray, slack: float, cell: np.ndarray) -> Iterator[tuple]:
    """Sums own + f[0, .] + f[1, .] + ... of at most slack, built choice by choice while the least rest may keep them so."""
    n, b = f.shape[1:]
    least = own + reduced(np.sum, low, 1)
    at = np.flatnonzero(~(least > slack))
    work(3 * len(own))
    own, f, low, cell = own[at], f[at], low[at], cell[at]
    bound = np.minimum((slack - least[at])[:, None] + low, HUGE)                      # +inf is no choice, whatever the slack
    i, p, choice = np.nonzero(f <= bound[..., None])
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
            keep = np.flatnonzero(sums <= limit[row[block][parent], p])
            work(3 * len(sums))
            parent, child = parent[keep], child[keep]
            work(2 * len(keep))
            yield from walk(row[block][parent], sums[keep], code[block][parent] * b + choice[child], p + 1)

    yield from walk(np.arange(len(at)), own, np.zeros(len(at), np.int64), 0)


@dataclass
class Stage:
    """One resolution.  m, need, hopeless [row]; keys [2, row, b] and places [2, row, p] both ends (or one) of the
    factors of another position's weight; direct(x, r) and own(x, r) [c]; votes(x, m, merged) [c, p, b]."""

    n: int
    m: np.ndarray
    need: np.ndarray
    hopeless: np.ndarray
    keys: Real | Callable[[np.ndarray], Real]
    places: Real
    direct: Callable[[np.ndarray, np.ndarray], Real]
    own: Callable[[np.ndarray, np.ndarray], Real]
    votes: Callable[[np.ndarray, np.ndarray, bool], Real]

    def cells(self, r: np.ndarray, x: np.ndarray, merged: bool) -> Cells:
        """Terms of the cells (r, x); `merged`: one f for all positions, of the worst of them."""
        rows, place = runs(r)
        at = self.places[:, rows]
        if merged:
            at = at.pick(lambda a: np.stack([reduced(np.min, a[0], 1), reduced(np.max, a[-1], 1)])[..., None])
        w = (self.keys(rows) if callable(self.keys) else self.keys[:, rows])[:, :, None] * at[..., None]
        f = weighted(self.direct(x, r)[:, None, None] + self.votes(x, self.m[r], merged), w[:, place])
        own = self.own(x, r).pick(lambda a: np.where(self.hopeless[r], -HUGE, a))
        return Cells.of(r, x, own, f, self.need[r], self.n)

    def open(self, r: np.ndarray, x: np.ndarray, resolve: bool) -> Cells:
        """The cells left open with positions merged and then, if asked for, apart; block by block."""
        b, p = self.votes(x[:0], r[:0], False).mid.shape[:0:-1]
        for merged in ((True, False) if resolve else (True,)) if p > 1 else (False,):
            step = max(1, BLOCK // (b * (1 if merged else p)))
            parts = [self.cells(r[k : k + step], x[k : k + step], merged).open() for k in range(0, max(len(r), 1), step)]
            require(sum(part.f.size for part in parts) <= OPEN, "too many cells are left open", Refused)
            columns = (np.concatenate([getattr(part, name) for part in parts]) for name in ("r", "x", "own", "f", "need"))
            cells = Cells(*columns, self.n, max(part.slack for part in parts))
            r, x = cells.r, cells.x
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
        """[.., pair] to [.., m, b], the least; +inf where a bucket is empty."""
        def spread(rows: np.ndarray) -> np.ndarray:
            out = np.full((*rows.shape[:-1], *self.lay.size.shape), inf)
            out[..., self.lay.row_m, self.lay.row_b] = rows
            return out
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
        w, hopeless = self.own_weights
        return weighted(votes, w[:, pairs]).pick(lambda a: np.where(hopeless[pairs], -HUGE, a))

    def key_logs(self, extreme: np.ufunc, sign: float) -> Real:
        """Extreme of A[t, k] - top over the keys k of each bucket [pair, b], moved by the slack; 0 for an empty one."""
        lay, slack = self.lay, self.slack["qk"]
        ends = self.A.pick(lambda a: windows(a, lay, extreme)) - self.top[:, None]
        if slack is not None:
            ends = ends + slack[lay.t][:, None] * Real((lay.edges > 0) * sign)                              # only differences to m are off
        return ends.pick(lambda a: np.where(lay.none, 0.0, a))

    @cached_property
    def logs(self) -> tuple[Real, Real, Real]:
        """Log-weights of pairs: of keys, lower and upper ends [pair, b], and of positions [pair, p]."""
        places = (self.B[:, :-1] - self.B[:, -1:])[self.lay.t]
        return self.key_logs(np.minimum, -1.0), self.key_logs(np.maximum, 1.0), places

    def single(self) -> Stage:
        """Query by query: a row is a pair."""
        lo, hi, at = self.logs
        (keys, bad), (places, worse) = weights(lo, hi), weights(at)
        return Stage(self.n_ctx - 1, self.lay.m, self.lay.t < self.lay.m, bad.any(1) | worse.any(1), keys, places,
                     lambda g, r: self.lead_EU[g, r], lambda g, r: self.all_own[g, r], self.votes)

    def grouped(self) -> Stage:
        """Buckets of queries: a row is (maximum, bucket)."""
        lay, (lo, hi, at) = self.lay, self.logs
        worst = lambda x, least: lay.over_rows(x.pick(np.transpose), least).pick(np.transpose)
        keys, bad = weights(worst(lo, np.minimum), worst(hi, np.maximum))
        places, worse = weights(worst(at, np.minimum), worst(at, np.maximum))
        direct, own = lay.over_rows(self.lead_EU), lay.over_rows(self.all_own)
        return Stage(self.n_ctx - 1, lay.row_m, lay.row_b > 0, bad.any(1) | worse.any(1), keys, places,
                     lambda g, r: direct[g, r], lambda g, r: own[g, r], self.votes)

    def start(self) -> tuple[np.ndarray, np.ndarray]:
        """Every cell of `grouped` whose group is not empty."""
        return np.nonzero(self.groups.count.T[self.lay.row_m])


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
    return lost


def certified(circuits: Circuits, groups: int, buckets: int, each: bool) -> int:
    """How many sequences the separable proof certifies."""
    from .levels import counted
    terms = Terms(circuits, groups, buckets)
    lay, stage = terms.lay, terms.grouped()
    cells, copies = stage.open(*terms.start(), True), lay.count
    if each:
        stage, coarse = terms.single(), cells
        parent, r = children(lay.first[coarse.r], lay.count[coarse.r])
        cells, copies = stage.open(r, coarse.x[parent], True), np.ones_like(lay.m)
    few = terms.v**terms.n_ctx <= LISTED
    lost = listed(cells, lay, stage.m, copies) if few else counted(cells, lay, stage.m, copies)
    return terms.v**terms.n_ctx - lost
