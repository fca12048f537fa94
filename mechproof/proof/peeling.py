"""A table that is a product of factors: some directions multiplied out, and the rest bounded.

Problem: multiplying a chain M1 M2 ... Mn out is most of a proof's cost.  Idea: advice names directions a, b of some of
the factors.  F = (F a) b^T + F' for any a and b; put in one factor after another, the chain is a thin product
left right^T and the product of the rests F', which a rung of `product_bounds` bounds.  It is an identity, so wrong
directions only loosen what follows.  Ways to know the scores, tiers of tables and the peels of the noise chapter are
this with their own factors, directions and rung.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import matmul
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from .family import Advice, Spec
from .product_bounds import Factors, RowBound
from .rounding import Ball, cat

K = TypeVar("K")
Directions = dict[K, tuple[Tensor, Tensor]]         # a, b of the factors that are peeled, as found
Hints = dict[K, tuple[Ball, Ball]]                  # and as a check reads them


@dataclass(frozen=True)
class Known:
    """A table and by how much a difference within one of its rows may be off (None: exact)."""

    table: Float[Ball, "r c"]
    slack: Float[Ball, " r"] | None = None


@dataclass(frozen=True)
class Peeled:
    """A table = left right^T + the product of `rest`."""

    left: Float[Ball, "q r"]
    right: Float[Ball, "k r"]
    rest: Factors

    @property
    def kept(self) -> Float[Ball, "q k"]:
        return self.left @ self.right.T

    def known(self, rung: RowBound) -> Known:
        """The table as a rung knows it: what the directions say, and how far a difference in a row may be off."""
        return Known(self.kept, rung(self.rest))

    @property
    def numbers(self) -> list[Tensor]:
        """The factors of the rest as float64 numbers, for statistics."""
        return [factor.mid for factor in self.rest]

    @property
    def noise(self) -> Float[Tensor, "q k"]:
        """Their product."""
        return reduce(matmul, self.numbers)


def peel(factor: Float[Ball, "n d"], a: Float[Ball, "d r"],
         b: Float[Ball, "d r"]) -> tuple[Float[Ball, "n r"], Float[Ball, "n d"]]:
    """(F a, F - (F a) b^T): the part along the advice a, b [., r] and what is left, for any a and b."""
    along = factor @ a
    return along, factor - along @ b.T


def telescope(chain: Factors, hints: Hints[int]) -> Peeled:
    """The chain with these factors peeled: in the first half F = (F a) b^T + F', in the second F = b (F^T a)^T + F'.

    Complexity: O(r times the factors' sizes).
    """
    terms, rest = [], []
    for i, factor in enumerate(chain):
        if i not in hints:
            rest.append(factor)
            continue
        a, b = hints[i]
        first_half = 2 * i < len(chain)
        along, left_over = peel(factor if first_half else factor.T, a, b)
        left, right = (along, b) if first_half else (b, along)
        terms.append((reduce(lambda x, M: M @ x, reversed(rest), left),
                      reduce(lambda x, M: M.T @ x, chain[i + 1 :], right)))
        rest.append(left_over if first_half else left_over.T)
    left, right = (cat([term[side] for term in terms], 1) for side in (0, 1))
    return Peeled(left, right, rest)


def columns(x: Float[Tensor, "d r"], n: int) -> Float[Tensor, "d {n}"]:
    """The first n columns, filled up with zeros where there are fewer."""
    return pad(x[:, :n], (0, max(0, n - x.shape[1])))


def singular(left: Float[Tensor, "q d"], right: Float[Tensor, "d k"], product: Float[Tensor, "q k"],
             rank: int) -> tuple[Float[Tensor, "d {rank}"], Float[Tensor, "d {rank}"]]:
    """Directions a, b of `left` along the first singular vectors of left right: left a = U_r, and b^T a = I."""
    U, S, Vh = torch.linalg.svd(product, full_matrices=False)
    return columns(right @ Vh.T / above_zero(S), rank), columns(left.T @ U, rank)


def above_zero(S: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
    """Singular values that may be divided by."""
    return S.clamp_min(1e-12 * float(S[0]) + 1e-30)


def as_advice(directions: Directions, name: str = "{side}{key}") -> Advice:
    """Directions under their names."""
    return {name.format(side=side, key=key): x for key, ab in directions.items() for side, x in zip("ab", ab)}


def as_specs(shapes: Mapping[K, tuple[int, int]], name: str = "{side}{key}") -> dict[str, Spec]:
    """The shapes that a check wants of them."""
    return {name.format(side=side, key=key): Spec(shape) for key, shape in shapes.items() for side in "ab"}


def as_hints(advice: Advice, keys: Iterable[K], name: str = "{side}{key}") -> Hints[K]:
    """What advice holds under these names, as balls without a radius."""
    of = lambda side, key: Ball(advice[name.format(side=side, key=key)])
    return {key: (of("a", key), of("b", key)) for key in keys}
