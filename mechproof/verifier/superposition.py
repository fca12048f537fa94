"""ANDs of features from neurons of zeros and ones: which inputs have every output less than 1/2 away.

With x the features that are on, s of m, and n_k how many of those neuron k has besides i and j, the output of a pair
i < j is the mean of max(x_i + x_j + n_k - 1, 0) over the neurons G that both have.  All is counted in whole numbers,
times |G|:

    one of i, j on    n_k: the sum of |G and N_a| over the other s - 1 that are on; should be 0
    both              1 + n_k: |G| more than the same sum over the other s - 2; should be |G|
    none              max(n_k - 1, 0), which is at most n_k (s - 1)/s, since n_k <= s; should be 0

An input is wrong iff twice what is too much reaches |G| for some pair.  The first two are sums over single features,
so that sets which reach a sum are listed from the largest number downwards; of the third only the bound is, and what
it leaves open is either left out or, for an exact count, added up neuron by neuron.  Whole numbers in float64 are
exact below 2^53.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import ceil, comb, log2

import numpy as np

from .numbers import must, require, work

ALLOWED = {"features": (), "exact": (), "brute_force": ()}
LARGEST, MOST_OPEN, BLOCK = 2**26, 2**22, 2**20


def check_sizes(weights: dict[str, np.ndarray], said: object) -> int:
    """The sparsity, of a network that this file is about."""
    W, text = weights["W_in"], str(said)
    require(text.isascii() and text.isdigit() and len(text) < 5, "model metadata does not say sparsity")
    require(2 <= int(text) < len(W), f"model says sparsity {text} of {len(W)} features")
    require(bool(((W == 0) | (W == 1)).all()) and bool((weights["b_in"] == -1).all()),
            "model has other neurons than of zeros and ones, with biases of -1")
    W = W.astype(np.float64)
    must(len(W) ** 2 * W.shape[1] <= LARGEST, "sizes: the tables do not fit into memory")
    require(bool(((W @ W.T) > 0).all()), "model has a pair of features without a neuron")
    return int(text)


def reaching(numbers: list[int], r: int, need: int) -> Iterator[tuple[int, ...]]:
    """Places of every r of these falling numbers whose sum is `need` or more."""
    before = [0]
    for x in numbers:
        before.append(before[-1] + x)

    def from_place(p: int, left: int, need: int) -> Iterator[tuple[int, ...]]:
        if not left:
            yield ()
            return
        while p + left <= len(numbers) and before[p + left] - before[p] >= need:
            work(2)
            for rest in from_place(p + 1, left - 1, need - numbers[p]):
                yield (p, *rest)
            p += 1
    if r > 0 or need <= 0:
        yield from from_place(0, r, need)


def certified(strategy: str, weights: dict[str, np.ndarray], s: int) -> int:
    """How many inputs the strategy certifies."""
    W = weights["W_in"].astype(np.float64)
    if strategy == "brute_force":
        return tried(W, s)
    m, wrong = len(W), set()
    for i in range(m - 1):
        G = W[i] * W[i + 1 :]
        common, size = G @ W.T, G.sum(1)
        work(2 * common.size * W.shape[1] + 2 * G.size)
        common[:, i] = -1
        common[np.arange(len(G)), np.arange(i + 1, m)] = -1
        order = np.argsort(-common, 1, "stable")[:, : m - 2]
        falling = np.take_along_axis(common, order, 1)
        most = falling[:, : s - 1].sum(1)                               # no other case reaches more
        work(common.size * ceil(log2(m)) + s * len(G))
        for row in np.flatnonzero(2 * most >= size):
            pair = i, i + 1 + int(row)
            some = open_of(falling[row].astype(int).tolist(), int(size[row]), s)
            for kind, places in some:
                on = order[row, list(places)].tolist()
                if kind or strategy != "exact" or reached(W, G[row], on):
                    alone = [[f] for f in pair] if kind == 1 else [list(pair)] if kind == 2 else [[]]
                    wrong |= {tuple(sorted(on + fixed)) for fixed in alone}
            must(len(wrong) <= MOST_OPEN, f"more than {MOST_OPEN} inputs are left open")
    return comb(m, s) - len(wrong)


def open_of(falling: list[int], size: int, s: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """How many of the pair are on, and which others (places in falling order) may make its output wrong."""
    half = -(-size // 2)
    for kind, r, need in ((1, s - 1, half), (2, s - 2, half), (0, s, -(-s * size // (2 * (s - 1))))):
        if r <= len(falling):
            for places in reaching(falling, r, need):
                yield kind, places


def reached(W: np.ndarray, G: np.ndarray, on: list[int]) -> bool:
    """Whether features apart from a pair make its output 1/2 or more."""
    n = W[on].sum(0)
    work((len(on) + 4) * W.shape[1])
    return bool(2 * (G * np.maximum(n - 1, 0)).sum() >= G.sum())


def tried(W: np.ndarray, s: int) -> int:
    """Every input, every output."""
    m, d = W.shape
    i, j = np.triu_indices(m, 1)
    G = W[i] * W[j]
    size, right = G.sum(1), 0
    work(2 * G.size)
    every = combinations(range(m), s)
    for _ in range(0, comb(m, s), step := max(1, BLOCK // max(d, len(i)))):
        on = np.array([x for _, x in zip(range(step), every)])
        x = np.zeros((len(on), m))
        np.put_along_axis(x, on, 1.0, 1)
        h = np.maximum(x @ W - 1, 0)
        off = np.abs(h @ G.T - x[:, i] * x[:, j] * size)
        right += int((2 * off < size).all(1).sum())
        work(2 * len(on) * d * (m + len(i)) + 6 * off.size)
    return right
