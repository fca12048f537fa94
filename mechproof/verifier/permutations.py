"""Composition of permutations: how many pairs (x, y) have all K answers x(y(q)) certainly largest.

    before[i] = sum_k X[x(k), k, i] + sum_q Y[y(q), q, i] + b[i]
    logit[q, j] = sum_i relu(before[i]) U[i, q, j] + c[q, j]

One neuron: with a row R given to it, x^-1(R) = k, the sum over the places i is X[R, k] and, from the places i != k, one
entry each out of the other rows; so it lies between X[R, k] + sum_{i != k} min_{j != R} X[j, i] and the same with max,
also after constants that x cannot change (the middle of each row, whose sum is put back) are moved.  Y with a column
given likewise.

One lead, of s = x(l), l = y(q), over j = x(k), k != l: what is known of a neuron (R, C) is where its row is met if
R = s (in l) or R = j (in k), else in neither; and what its column holds if C = q (l), else not l.  Neurons of one
(R, C) are added up before the least is taken, those of one C before its value is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations
from math import ceil, factorial

import numpy as np
from flint import fmpz, fmpz_mat

from .circuits import whole
from .numbers import Real, must, reduced, require, stacked, work

ALLOWED = {"cells": (), "rivals": (), "brute_force": ()}
MOST_TRIED = 6                                      # points
LARGEST = 2**26                                     # numbers in a table
Weights = dict[str, np.ndarray]


def expected(strategy: str, parameters: dict[str, int],
             sizes: dict[str, int]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array of advice; tables that would be too large are refused."""
    K, n = sizes["v"], sizes["m"]
    if strategy == "brute_force":
        must(K <= MOST_TRIED, f"K: {K} points have too many permutations to be tried here")
        return {}
    must(max(n * K**3, K**5) <= LARGEST, "sizes: the tables do not fit into memory")
    return {"row": ((n,), "<i8"), "column": ((n,), "<i8")}


def given(x: np.ndarray) -> Real:
    """Weights, which are exact."""
    work(2 * x.size)
    return Real(x)


def least_other(x: np.ndarray, axis: int) -> np.ndarray:
    """Of every entry the least of the others along an axis."""
    x = np.moveaxis(x, axis, -1)
    first = reduced(np.argmin, x, -1)[..., None]
    rest = x.copy()
    np.put_along_axis(rest, first, np.inf, -1)
    second = reduced(np.min, rest, -1)[..., None]
    work(x.size)
    found = np.where(np.arange(x.shape[-1]) == first, second, np.take_along_axis(x, first, -1))
    return np.moveaxis(found, -1, axis)


def without(x: Real, out: np.ndarray, largest: bool) -> Real:
    """Largest or least along the first axis, but for what is left out (never all)."""
    fill, choose = (-np.inf, np.max) if largest else (np.inf, np.min)
    work(x.mid.size)
    return x.pick(lambda t: reduced(choose, np.where(out, fill, t), 0))


def shifted(W: Real, line: np.ndarray) -> list[Real]:
    """Least and largest of what a permutation adds to each neuron, by the place in which its line is met [K, n];
    W [line, place, n]."""
    K, n = W.shape[0], W.shape[2]
    middle = (W.max(1) + W.min(1)) * Real(np.array(0.5))
    W = W - middle[:, None]
    own = (np.arange(K)[:, None] == line)[:, None]
    base = W.pick(lambda t: t[line, :, np.arange(n)].T) + middle.sum(0)
    return [base + rest.sum(0) - rest for rest in (without(W, own, largest) for largest in (False, True))]


class Neurons:
    """Activations between lo and hi [n, k, l]; outputs U [n, q, j], less the middle of each q."""

    def __init__(self, w: Weights, row: np.ndarray, column: np.ndarray):
        X, Y, U, b = (given(w[name]) for name in ("W_X", "W_Y", "W_U", "b_in"))
        self.K, self.row, self.column = len(w["b_U"]), row, column
        x, y = shifted(X, row), shifted(Y.pick(lambda t: t.transpose(1, 0, 2)), column)
        self.lo, self.hi = (((p + b)[:, None] + q[None]).relu().pick(lambda t: t.transpose(2, 0, 1))
                            for p, q in zip(x, y))
        own = (column[:, None] == np.arange(self.K))[..., None] & (row[:, None] == np.arange(self.K))[:, None]
        turned = U.pick(lambda t: np.moveaxis(t, 2, 0)), np.moveaxis(own, 2, 0)
        middle = (without(*turned, True) + without(*turned, False)) * Real(np.array(0.5))
        self.own, self.U = own, U - middle[..., None]
        self.families = [np.flatnonzero((column == C) & (row == R)) for C in range(self.K) for R in range(self.K)]

    def added(self, x: Real) -> Real:
        """Sums over the neurons of every (column, row) [C, R, ...]."""
        parts = [x[i].sum(0) for i in self.families]
        return stacked(parts).pick(lambda t: t.reshape(self.K, self.K, *t.shape[1:]))


def ends(lo: Real, hi: Real, factor: Real) -> tuple[Real, Real]:
    """Least and largest of factor times what lies between."""
    both = stacked([lo * factor, hi * factor])
    return both.min(0), both.max(0)


def by_cells(net: Neurons, c: Real) -> np.ndarray:
    """Answers [q, s, l] that are not certain to lead over all rivals, wherever these stand."""
    i, apart = np.arange(len(net.row)), np.eye(net.K, dtype=bool)
    here = ends(net.lo, net.hi, net.U.pick(lambda t: t[i, net.column, net.row][:, None, None]))
    lo, hi = (net.added(x) for x in here)                                                       # [q, j, k, l]
    work(2 * net.own.size + hi.mid.size)
    least, most = (x.pick(lambda t: reduced(choose, t, (1, 2))[:, None, None])
                   for x, choose in ((net.lo, np.min), (net.hi, np.max)))
    away = [x.pick(lambda t: np.where(net.own, 0.0, t)).sum(0) + c for x in ends(least, most, net.U)]
    met = lo.pick(lambda t: t.diagonal(axis1=2, axis2=3)) + away[0][..., None]
    rival = hi.pick(lambda t: reduced(np.max, np.where(apart, -np.inf, t), 2)) + away[1][..., None]
    return ~(-met - rival.pick(lambda t: least_other(-t, 1))).negative()


def by_rivals(net: Neurons, c: Real) -> np.ndarray:
    """Leads that are not certain [q, s, j, k, l], of s in place l of x over j in place k."""
    K, open_ = net.K, np.zeros((net.K,) * 5, bool)
    for q in range(K):
        here = ends(net.lo[:, None], net.hi[:, None], net.U.pick(lambda t: t[:, q, :, None, None]))
        lo, hi = (net.added(x) for x in here)                                                   # [C, R, j, k, l]
        for s in range(K):
            known = least_sum(lo[:, :, s, None] - hi, q, s) + (c[q, s] - c[q])[:, None, None]
            open_[q, s] = ~(-known).negative()
    rival, elsewhere = np.eye(K, dtype=bool)[:, :, None, None], np.eye(K, dtype=bool)
    return open_ & ~(rival | elsewhere)


def least_sum(lead: Real, q: int, s: int) -> Real:
    """At least the sum over all (C, R) of leads [C, R, j, k, l] of s over j, for the places k, l of j and s [j, k, l].

    Column by column: R = s and R = j are met where they are, the others not in l; then the column's value is chosen.
    """
    rows = np.arange(lead.shape[2])
    known = (rows[:, None] == rows) | (rows[:, None] == s)
    work(lead.mid.size)
    loose = lead.pick(lambda t: np.where(known[..., None, None], 0.0, least_other(t, 3))).sum(1)        # [C, j, l, m]
    rival = lead.pick(lambda t: t[:, rows, rows])                                                       # [C, j, k, m]
    total = (loose + lead[:, s])[:, :, None] + rival[:, :, :, None]
    work(total.mid.size)
    same = rows[:, None] == rows
    column = (rows == q)[:, None, None, None]
    return total.pick(lambda t: np.where(column, t[..., rows, rows],
                                         reduced(np.min, np.where(same, np.inf, t), 4))).sum(0)


def tried(w: Weights) -> int:
    """Right inputs, each tried; what float64 leaves undecided in whole numbers."""
    K, right, exact = len(w["b_U"]), 0, exactly(w)
    all_, points = np.array(list(permutations(range(K)))), np.arange(K)
    x, y = (given(w[name]).pick(lambda t: t[all_, points]).sum(1) for name in ("W_X", "W_Y"))
    y, U, c = y + given(w["b_in"]), given(w["W_U"].reshape(-1, K * K)), given(w["b_U"].ravel())
    for i, first in enumerate(all_):
        logit = ((y + x[i]).relu() @ U + c).pick(lambda t: t.reshape(-1, K, K))
        answer = first[all_][..., None]
        behind = logit - logit.pick(lambda t: np.take_along_axis(t, answer, 2))
        worst = behind.pick(lambda t: reduced(np.max, np.where(points == answer, -np.inf, t), (1, 2)))
        sure, wrong = worst.negative(), (-worst).negative()
        right += int(reduced(np.sum, sure)) + sum(exact(first, all_[j]) for j in np.flatnonzero(~(sure | wrong)))
    return right


def exactly(w: Weights) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether all right logits are strictly largest at an input, in whole numbers: weights times `one`."""
    K, n = len(w["b_U"]), len(w["b_in"])
    tables = [w[name].reshape(-1, n) for name in ("W_X", "W_Y", "b_in")]

    @cache
    def scaled() -> tuple:
        *matrices, unit = whole(*tables, w["W_U"].reshape(n, -1), w["b_U"].reshape(1, -1), np.ones((1, 1)))[0]
        X, Y, b = (m.tolist() for m in matrices[:3])
        return X, Y, b[0], matrices[3], [value * unit[0, 0] for value in matrices[4].entries()]

    def right(x: np.ndarray, y: np.ndarray) -> bool:
        X, Y, b, U, c = scaled()
        rows = [X[j * K + k] for k, j in enumerate(x)] + [Y[j * K + k] for k, j in enumerate(y)]
        on = fmpz_mat(1, n, [max(sum(column, bias), fmpz(0)) for column, bias in zip(zip(*rows), b)])
        logit = [value + bias for value, bias in zip((on * U).entries(), c)]
        work(2 * n * (K * K + K) * max(ceil(abs(int(value)).bit_length() / 64) for value in [*logit, fmpz(1)]))
        best = [logit[q * K + x[y[q]]] for q in range(K)]
        return all(best[q] > logit[q * K + j] for q in range(K) for j in range(K) if j != x[y[q]])

    return right


def certified(strategy: str, w: Weights, advice: Weights) -> int:
    """How many inputs the strategy certifies: all but those that meet an open lead, added up as if none met two.

    An input meets (q, s, l) if y(q) = l and x(l) = s: ((K - 1)!)^2 do, and (K - 1)! (K - 2)! also have x(k) = j.
    """
    if strategy == "brute_force":
        return tried(w)
    K = len(w["b_U"])
    for name in ("row", "column"):
        require(bool(((advice[name] >= 0) & (advice[name] < K)).all()), f"advice {name!r} holds numbers out of range")
    net, c, most = Neurons(w, advice["row"], advice["column"]), given(w["b_U"]), factorial(K - 1)
    if strategy == "cells":
        lost = int(reduced(np.sum, by_cells(net, c))) * most
    else:
        open_ = reduced(np.sum, by_rivals(net, c), (2, 3))
        lost = sum(min(int(k) * factorial(K - 2), most) for k in open_.flat)
    return max(0, factorial(K) ** 2 - lost * most)
