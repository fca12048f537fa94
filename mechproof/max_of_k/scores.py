"""Ten ways to know the attention scores: what is multiplied out, and how the rest is bounded.

Problem: the exact score table costs O(v^2 d).  Idea: a way is a peel (`proof/peeling.py`) and a rung of
`product_bounds` for what is left.

    two    X Y^T with X = EPq W_Q, Y = EPk W_K; r directions from both
    four   EPq W_Q W_K^T EPk^T; r+1, r, r, r+1 directions from the four factors

Source: Gross et al. 2024 (subcubic proofs); the paper's ways are rank 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..proof import peeling
from ..proof import product_bounds as bounds
from ..proof.family import Advice, Spec
from ..proof.peeling import Directions, Hints, Known, Peeled
from ..proof.product_bounds import RowBound
from ..proof.rounding import Ball
from .paths import Paths

Sizes = dict[str, int]
FACTORS = ("EPq", "W_Q", "W_K", "EPk")


@dataclass(frozen=True)
class Peel:
    """Which factors give directions: their names and shapes in advice, how they are found, and the split they make."""

    name: str
    shapes: Callable[[Sizes, int], dict[str, tuple[int, int]]]
    directions: Callable[[Paths, int], Directions[str]]
    split: Callable[[Paths, Hints[str]], Peeled]


def of_two(paths: Paths, hints: Hints[str]) -> Peeled:
    """X Y^T = left right^T + X' Y'^T with left = (X a)(2 I - b^T a), right = Y b.  Complexity: O(v d r)."""
    a, b = hints[""]
    Xa, X = peeling.peel(paths.X, a, b)
    Yb, Y = peeling.peel(paths.Y, b, a)
    double = Ball(2 * torch.eye(a.shape[1], dtype=torch.float64))
    return Peeled(Xa @ (double - b.T @ a), Yb, [X, Y.T])


def of_four(paths: Paths, hints: Hints[str]) -> Peeled:
    """Each factor's part times the parts not yet split; what is left is the product of four rests.

    Complexity: O(r (v d + d^2)).
    """
    return peeling.telescope(paths.score_chain, {i: hints[name] for i, name in enumerate(FACTORS)})


def four_shapes(sizes: Sizes, rank: int) -> dict[str, tuple[int, int]]:
    """One direction more of the tokens than of the head."""
    d, head = sizes["d_model"], (sizes["d_head"], rank)
    token = (d, min(rank + 1, d) if rank else 0)
    return dict(zip(FACTORS, (token, head, head, token)))


def four_directions(paths: Paths, rank: int) -> Directions[str]:
    """Token sides: where the top singular vectors of A come from; heads: top singular directions of W_Q and W_K."""
    n = four_shapes(paths.model.sizes, rank)["EPq"][1]
    U, _, Vh = torch.linalg.svd(paths.A.mid)
    token = lambda x: peeling.columns(torch.linalg.qr(x).Q, n)
    head = lambda x: torch.linalg.svd(x.mid).Vh[:rank].T
    found = (token(paths.EPq.mid.T @ U[:, :n]), head(paths.scaled_W_Q), head(paths.weight("W_K")),
             token(paths.EPk.mid.T @ Vh[:n].T))
    return {name: (x, x) for name, x in zip(FACTORS, found)}


TWO = Peel("{side}", lambda sizes, rank: {"": (sizes["d_head"], rank)},
           lambda paths, rank: {"": peeling.singular(paths.X.mid, paths.Y.mid.T, paths.A.mid, rank)}, of_two)
FOUR = Peel("{side}_{key}", four_shapes, four_directions, of_four)


@dataclass(frozen=True)
class Way:
    """A peel (None: the exact table), the rung for the rest, and what the paper counts as unexplained."""

    peel: Peel | None
    rung: RowBound | None
    complexity: str
    unexplained: Callable[[int, int], int]

    def specs(self, sizes: Sizes, rank: int) -> dict[str, Spec]:
        return peeling.as_specs(self.peel.shapes(sizes, rank), self.peel.name) if self.peel else {}

    def hints(self, paths: Paths, rank: int) -> Advice:
        return peeling.as_advice(self.peel.directions(paths, rank), self.peel.name) if self.peel else {}

    def scores(self, paths: Paths, advice: Advice, rank: int) -> Known:
        """The score table from weights and advice."""
        if self.peel is None:
            return Known(paths.A, Ball(paths.A.mid.new_zeros(paths.d_vocab)))
        hints = peeling.as_hints(advice, self.peel.shapes(paths.model.sizes, rank), self.peel.name)
        return self.peel.split(paths, hints).known(self.rung)


def _four(rung: RowBound, complexity: str, means: bool = False) -> Way:
    return Way(FOUR, rung, complexity, lambda v, d: (3 if means else 2) * v + 2 * d)


WAYS = {
    "exact_EQKE+max_diff_exact": Way(None, None, "v^2 d", lambda v, d: v * v),
    "max_diff_exact": Way(TWO, bounds.exact, "v^2 d", lambda v, d: 4 * v),
    "svd": Way(TWO, bounds.spectral, "v^2 r + v d^2 + d^3", lambda v, d: 2 * v),
    "max_diff": Way(TWO, bounds.per_dimension, "v^2 r + v d^2", lambda v, d: 2 * v + 2 * d),
    "mean+max_diff": Way(TWO, bounds.with_mean(bounds.per_dimension), "v^2 r + v d^2", lambda v, d: 3 * v + 2 * d),
    "max_diff_subproduct": _four(bounds.per_dimension, "v^2 r + v d^2"),
    "mean+max_diff_subproduct": _four(bounds.with_mean(bounds.per_dimension), "v^2 r + v d^2", True),
    "max_diff_subproduct_recursive": _four(bounds.recursive, "v^2 r + v d + d^2"),
    "mean+max_diff_subproduct_recursive": _four(bounds.with_mean(bounds.recursive), "v^2 r + v d + d^2", True),
    "mean_recursive+max_diff_subproduct_recursive": _four(bounds.recursive_means, "v^2 r + v d + d^2", True),
}
