"""Ten ways to know the attention scores: what is multiplied out, and how the rest is bounded.

Problem: the exact score table costs O(v^2 d).  Idea: peel a few directions off the factors, multiply those
out exactly (a product of thin matrices), and bound the row differences of what is left.  A way is therefore a
peel and a rung of `product_bounds`; any advice gives an identity, so wrong directions only loosen the rung.

    two    X Y^T with X = EPq W_Q, Y = EPk W_K; r directions from both
    four   EPq W_Q W_K^T EPk^T; r+1, r, r, r+1 directions from the four factors

Source: Gross et al. 2024 (subcubic proofs); the paper's ways are rank 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from ..proof import product_bounds as bounds
from ..proof.family import Advice, Spec
from ..proof.product_bounds import Factors, RowBound
from ..proof.rounding import Ball, cat
from .paths import Paths

Sizes = dict[str, int]
Hints = dict[int, tuple[Ball, Ball]]                # directions a, b of the factors of a chain that are peeled


@dataclass(frozen=True)
class Scores:
    """An approximate table and its error: |(A - Ahat)[q,k] - (A - Ahat)[q,k']| <= eps[q] for all k, k'."""

    Ahat: Float[Ball, "q k"]
    eps: Float[Ball, " q"]


def peel(factor: Float[Ball, "n d"], a: Float[Ball, "d r"],
         b: Float[Ball, "d r"]) -> tuple[Float[Ball, "n r"], Float[Ball, "n d"]]:
    """(F a, F - (F a) b^T): the part along the advice a, b [., r] and what is left, for any a and b."""
    along = factor @ a
    return along, factor - along @ b.T


def peel_two(paths: Paths, hints: dict[str, Ball]) -> tuple[Ball, Ball, Factors]:
    """X Y^T = left right^T + X' Y'^T with left = (X a)(2 I - b^T a), right = Y b.  Complexity: O(v d r)."""
    a, b = hints["a"], hints["b"]
    Xa, X = peel(paths.X, a, b)
    Yb, Y = peel(paths.Y, b, a)
    double = Ball(2 * torch.eye(a.shape[1], dtype=torch.float64))
    return Xa @ (double - b.T @ a), Yb, [X, Y.T]


def telescope(chain: Factors, hints: Hints) -> tuple[Ball, Ball, Factors]:
    """left right^T + the product of the rests = the product of the chain, for any hints {factor: (a, b)}.

    In the first half F = (F a) b^T + F', in the second F = b (F^T a)^T + F'.
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
    return left, right, rest


def peel_four(paths: Paths, hints: dict[str, Ball]) -> tuple[Ball, Ball, Factors]:
    """Each factor's part times the parts not yet split; what is left is the product of four rests.

    Complexity: O(r (v d + d^2)).
    """
    chain = [paths.EPq, paths.scaled_W_Q, paths.weight("W_K").T, paths.EPk.T]
    return telescope(chain, {i: (hints[f"a_{name}"], hints[f"b_{name}"])
                             for i, name in enumerate(("EPq", "W_Q", "W_K", "EPk"))})


def two_specs(sizes: Sizes, rank: int) -> dict[str, Spec]:
    return {name: Spec((sizes["d_head"], rank)) for name in ("a", "b")}


def four_specs(sizes: Sizes, rank: int) -> dict[str, Spec]:
    d, d_head = sizes["d_model"], sizes["d_head"]
    token = (d, min(rank + 1, d) if rank else 0)
    shapes = {"EPq": token, "W_Q": (d_head, rank), "W_K": (d_head, rank), "EPk": token}
    return {f"{side}_{name}": Spec(shape) for name, shape in shapes.items() for side in ("a", "b")}


def columns(x: Float[Tensor, "d r"], n: int) -> Float[Tensor, "d {n}"]:
    """The first n columns, filled up with zeros where there are fewer."""
    return pad(x[:, :n], (0, max(0, n - x.shape[1])))


def two_hints(paths: Paths, rank: int) -> Advice:
    """Singular vectors of X Y^T: X a = U_r and Y b = V_r S_r, so that b^T a = I."""
    U, S, Vh = torch.linalg.svd(paths.A.mid)
    scale = S.clamp_min(1e-12 * float(S[0]) + 1e-30)
    return {"a": columns(paths.Y.mid.T @ Vh.T / scale, rank), "b": columns(paths.X.mid.T @ U, rank)}


def four_hints(paths: Paths, rank: int) -> Advice:
    """Token sides: where the top singular vectors of A come from; heads: top singular directions of W_Q and W_K."""
    n = four_specs(paths.model.sizes, rank)["a_EPq"].shape[1]
    U, _, Vh = torch.linalg.svd(paths.A.mid)
    directions = {"EPq": columns(torch.linalg.qr(paths.EPq.mid.T @ U[:, :n]).Q, n),
                  "EPk": columns(torch.linalg.qr(paths.EPk.mid.T @ Vh[:n].T).Q, n),
                  "W_Q": torch.linalg.svd(paths.scaled_W_Q.mid).Vh[:rank].T,
                  "W_K": torch.linalg.svd(paths.weight("W_K").mid).Vh[:rank].T}
    return {f"{side}_{name}": direction for name, direction in directions.items() for side in ("a", "b")}


@dataclass(frozen=True)
class Way:
    """A peel (None: the exact table), the rung for the rest, and what the paper counts as unexplained."""

    specs: Callable[[Sizes, int], dict[str, Spec]] | None
    hints: Callable[[Paths, int], Advice] | None
    peeled: Callable[[Paths, dict[str, Ball]], tuple[Ball, Ball, Factors]] | None
    rung: RowBound | None
    complexity: str
    unexplained: Callable[[int, int], int]

    def scores(self, paths: Paths, advice: Advice, rank: int) -> Scores:
        """Ahat [v,v] and eps [v] from weights and advice."""
        if self.peeled is None:
            return Scores(paths.A, Ball(paths.A.mid.new_zeros(paths.d_vocab)))
        hints = {name: Ball(advice[name]) for name in self.specs(paths.model.sizes, rank)}
        left, right, rest = self.peeled(paths, hints)
        return Scores(left @ right.T, self.rung(rest))


def _two(rung: RowBound, complexity: str, unexplained: Callable[[int, int], int]) -> Way:
    return Way(two_specs, two_hints, peel_two, rung, complexity, unexplained)


def _four(rung: RowBound, complexity: str, means: bool = False) -> Way:
    return Way(four_specs, four_hints, peel_four, rung, complexity, lambda v, d: (3 if means else 2) * v + 2 * d)


WAYS = {
    "exact_EQKE+max_diff_exact": Way(None, None, None, None, "v^2 d", lambda v, d: v * v),
    "max_diff_exact": _two(bounds.exact, "v^2 d", lambda v, d: 4 * v),
    "svd": _two(bounds.spectral, "v^2 r + v d^2 + d^3", lambda v, d: 2 * v),
    "max_diff": _two(bounds.per_dimension, "v^2 r + v d^2", lambda v, d: 2 * v + 2 * d),
    "mean+max_diff": _two(bounds.with_mean(bounds.per_dimension), "v^2 r + v d^2", lambda v, d: 3 * v + 2 * d),
    "max_diff_subproduct": _four(bounds.per_dimension, "v^2 r + v d^2"),
    "mean+max_diff_subproduct": _four(bounds.with_mean(bounds.per_dimension), "v^2 r + v d^2", True),
    "max_diff_subproduct_recursive": _four(bounds.recursive, "v^2 r + v d + d^2"),
    "mean+max_diff_subproduct_recursive": _four(bounds.with_mean(bounds.recursive), "v^2 r + v d + d^2", True),
    "mean_recursive+max_diff_subproduct_recursive": _four(bounds.recursive_means, "v^2 r + v d + d^2", True),
}
