"""Which tokens go together: pairs and rows of a maximum and its queries, buckets of other tokens,
groups of wrong ones."""

from __future__ import annotations

import numpy as np

from .numbers import Real, best_other, reduced, work

FAR = 2**40             # an offset beyond every vocabulary


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
    """Addresses.  A pair is (m, t), t <= m, by m and then m - t; a row is a nonempty (m, bucket of t):
    consecutive pairs."""

    def __init__(self, v: int, starts: list[int]):
        self.v, self.edges, b = v, np.array(starts), len(starts)
        m = np.arange(v)
        self.m, offset = np.nonzero(m <= m[:, None])
        self.t = self.m - offset
        self.size = np.maximum(np.minimum([*starts[1:], v], m[:, None] + 1) - self.edges, 0)                # [m, b]
        self.row_m, self.row_b = np.nonzero(self.size)
        self.count = self.size[self.row_m, self.row_b]
        self.first = np.concatenate([[0], np.cumsum(self.count)[:-1]])
        # [m], buckets that there are
        self.few = (self.size > 0).sum(1)
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

    begin, count [g, m]: first wrong token, and how many; of [offset]: the group of x - m, for n > 1,
    negative ones at the end.
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
                        longer = np.maximum(window[:, width:], window[:, :-width])
                        window = np.concatenate([window[:, :width], longer], 1)
                        work(window.size)
                        width *= 2
                    out.append(at(window, m + last))
            return np.stack(out)
        return x[row, m] - x.pick(rivals)
