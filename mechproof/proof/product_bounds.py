"""What can be proved about a product of matrices without multiplying it out.

Problem: attention sees only differences within a row of the scores, and after the understood part is
peeled off, those scores are a product of several noisy factors M1 M2 ... Mn, [q,.] ... [.,k].  Idea: a ladder
of bounds on the row differences, eps[q] >= max_k P[q,k] - min_k P[q,k], from multiplying everything out to
multiplying nothing.  Each takes the factors as balls and returns a ball [q]; each is sound for any factors.

    exact            all products                                        q k a
    gram             exact norms of the rows, by the last Gram matrix    q a b + (q + k) b^2
    per_dimension    |left| times the ranges of right, best break point  q a b, no product over q and k
    norms(size)      norms of rows, of the factors between, of columns   q a + a b + b k; a^3 for operator norms
    spectral         sqrt2 sigma_1 of the product, by traces of powers   (q + k) a^2 + a^3
    products(size)   sqrt2 times the sizes of all factors                the same, and (q + k) a^2 for operator norms
    recursive        |M1| (|M2| ... range(Mn)): matrix-vector only       q a + a b + b k

`with_mean(bound)` first takes the mean row out of M1 and multiplies that one row out; `folded(bound)` first multiplies
the factors between the first and the last.  `RUNGS` is the ladder of the noise chapter, for any two to eight factors.

>>> ones = Ball(torch.ones(2, 3)), Ball(torch.arange(12.0).reshape(3, 4))
>>> exact(ones).mid.tolist(), recursive(ones).mid.tolist()
([9.0, 9.0], [9.0, 9.0])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from operator import matmul, mul

import torch
from jaxtyping import Float

from .rounding import Ball, _up, inverse_sqrt, minimum

Factors = Sequence[Ball]                           # M1 [q, a], M2 [a, b], ..., Mn [z, k]
Rows = Float[Ball, " q"]
RowBound = Callable[[Factors], Rows]

SQUARINGS = 5
SQRT2 = inverse_sqrt(2) * 2.0


def row_range(x: Float[Ball, "*rows k"]) -> Float[Ball, "*rows"]:
    """Largest minus smallest entry of each row."""
    return x.amax(-1) - x.amin(-1)


def exact(factors: Factors) -> Rows:
    """The row ranges of the product itself.  Complexity: one matmul a factor, O(q a k). Theorem: *Rungs*."""
    return row_range(list(accumulate(factors, matmul))[-1])


def per_dimension(factors: Factors) -> Rows:
    """min over break points of |M1..Mj| range(Mj+1..Mn): each inner dimension at its worst.

    Complexity: every partial product, O(q a b) each.  Source: Gross et al. 2024 ("max row diff").
    Theorem: *Rungs*.
    """
    lefts = list(accumulate(factors[:-1], matmul))
    rights = list(accumulate(reversed(factors[1:]), lambda right, left: left @ right))[::-1]
    bounds = [left.abs() @ row_range(right) for left, right in zip(lefts, rights)]
    return list(accumulate(bounds, minimum))[-1]


def recursive(factors: Factors) -> Rows:
    """|M1| |M2| ... range(Mn), from right to left.  Complexity: O(sum of the factors' sizes). Theorem: *Rungs*."""
    bound = row_range(factors[-1])
    for factor in reversed(factors[:-1]):
        bound = factor.abs() @ bound
    return bound


def with_mean(bound: RowBound) -> RowBound:
    """Multiply the mean row of M1 out, and bound what remains of M1 times the rest.

    Complexity: that of `bound`, and one vector through all factors.
    """
    def bounded(factors: Factors) -> Rows:
        first, *rest = factors
        mean = first.mean(0)
        through = list(accumulate([mean, *rest], matmul))[-1]
        return bound([first - mean, *rest]) + row_range(through)
    return bounded


def recursive_means(factors: Factors) -> Rows:
    """`recursive` with the mean row taken out at every level.  Complexity: as `recursive`, times the factors."""
    first, *rest = factors
    if not rest:
        return row_range(first)
    mean = first.mean(0)
    through = list(accumulate([mean, *rest], matmul))[-1]
    return (first - mean).abs() @ recursive_means(rest) + row_range(through)


def root_hi(G: Float[Ball, "a a"]) -> Float[Ball, ""]:
    """At least the square root of the largest eigenvalue of G, whose eigenvalues are nonnegative, [].

    Theorem *Spectral rung*: lambda_1 <= tr(G^(2^j))^(1/2^j).  G is rescaled before each squaring; a numerical
    eigenvalue would prove nothing.  Complexity: O(j a^3).
    """
    scales = []
    for _ in range(SQUARINGS):
        trace = G.pick(torch.diagonal).sum(0)
        scales.append(1 / (trace.mid.abs() + trace.rad + 2.0**-900))     # any positive number will do
        G = G * Ball(scales[-1])
        G = G @ G
    power = G.pick(torch.diagonal).sum(0).upper().mid.abs()
    for scale in reversed(scales):
        power = _up(power.sqrt()) / scale * (1 + 2.0**-50)
    return Ball(_up(power.sqrt()))


def sigma_hi(factors: Factors) -> Float[Ball, ""]:
    """At least the largest singular value of the product, [];
    its square is an eigenvalue of (C^T M1^T M1 C)(Mn Mn^T), C between.

    Complexity: O((q + k) a^2 + j a^3).
    """
    first, *middle, last = factors
    left = first.T @ first
    if middle:
        C = reduce(matmul, middle)
        left = (C.T @ left) @ C
    return root_hi(left @ (last @ last.T))


def alike(bound: Float[Ball, ""], factors: Factors) -> Rows:
    """One bound for every row."""
    return bound.pick(lambda x: x.expand(factors[0].shape[0]))


def spectral(factors: Factors) -> Rows:
    """sqrt2 sigma_1, the same for every row: a difference is e_q^T P (e_k - e_k'), and |e_k - e_k'| = sqrt2.

    Theorem: *Rungs*.
    """
    return alike(sigma_hi(factors) * SQRT2, factors)


def products(size: Callable[[Ball], Ball]) -> RowBound:
    """sqrt2 |M1| |M2| ... |Mn|, the same for every row; size is `operator_norm` or `frobenius`.
    Complexity: that of the sizes.
    Theorem: *Rungs*."""
    return lambda factors: alike(reduce(mul, map(size, factors)) * SQRT2, factors)


def folded(bound: RowBound) -> RowBound:
    """Multiply the factors between the first and the last out before bounding.  Complexity: O(n a^3) besides."""
    def bounded(factors: Factors) -> Rows:
        first, *middle, last = factors
        return bound([first, reduce(matmul, middle), last] if middle else factors)
    return bounded


def gram(factors: Factors) -> Rows:
    """sqrt2 times the exact norms of the product's centred rows, from the Gram matrix of the last factor.

    Complexity: O(q a b) for the partial product, O((q + k) b^2) for the norms; no product over q and k.
    Theorem: *Rungs*.
    """
    left, right = list(accumulate(factors[:-1], matmul))[-1], centred_columns(factors[-1])
    squares = ((left @ (right @ right.T)) * left).sum(1)
    return squares.sqrt_upper() * SQRT2


def norms(size: Callable[[Ball], Ball]) -> RowBound:
    """|row of M1| size(M2) ... times twice the longest centred column of Mn; size is `operator_norm` or `frobenius`.

    Complexity: O(sum of the factors' sizes), and what the sizes take.
    Theorem: *Rungs*.
    """
    def bounded(factors: Factors) -> Rows:
        first, *middle, last = factors
        right = centred_columns(last)
        bound = row_norms(first) * ((right * right).sum(0).sqrt_upper().amax(0) * 2.0)
        for factor in middle:
            bound = bound * size(factor)
        return bound
    return bounded


def row_norms(x: Float[Ball, "rows cols"]) -> Float[Ball, " rows"]:
    """At least the norms of the rows, as exact numbers.  Complexity: O(rows cols)."""
    return (x * x).sum(1).sqrt_upper()


def centred_columns(x: Float[Ball, "a k"]) -> Float[Ball, "a k"]:
    """x minus its mean column, which no difference within a row of a product sees; any column would do."""
    return x - Ball(x.mid.mean(1))[:, None]


def operator_norm(x: Float[Ball, "a b"]) -> Float[Ball, ""]:
    """At least the largest singular value.  Complexity: O(a b^2 + j b^3) for b <= a, and likewise for a < b."""
    return root_hi(x.T @ x if x.shape[1] <= x.shape[0] else x @ x.T)


def frobenius(x: Float[Ball, "a b"]) -> Float[Ball, ""]:
    """At least the Frobenius norm.  Complexity: O(a b)."""
    return (x * x).sum(1).sum(0).sqrt_upper()


# from the one that knows all of the product to those that know a number a factor
RUNGS: dict[str, RowBound] = {
    "exact": exact, "gram": gram, "per_dimension": per_dimension, "norms": folded(norms(operator_norm)),
    "spectral": spectral, "operator": products(operator_norm), "recursive": recursive, "frobenius": products(frobenius),
}
