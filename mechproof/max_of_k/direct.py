"""Five ways to know the direct path, the query token's own vote for every logit.

Each splits EU = 1 b^T + rest and bounds what the rest may add to a wrong logit over the right one:
u[q,m] >= max_{i != m} rest[q,i] - rest[q,m].  Source: Gross et al. 2024 (subcubic proofs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import Advice, Spec
from ..proof.product_bounds import row_range
from ..proof.rounding import Ball, largest_but
from .paths import Paths

Split = tuple[Float[Ball, " v"], Float[Ball, "q_or_1 m_or_1"]]      # b, and u that broadcasts to [query, maximum]


def best_other(x: Float[Tensor, "*r v"]) -> Float[Tensor, "*r v"]:
    """max over i != m of x[r,i], for every m, from the two largest entries of each row.  Complexity: O(r v)."""
    at = x.argmax(-1, keepdim=True)
    is_top = torch.arange(x.shape[-1]) == at
    second = largest_but(x, is_top, keepdim=True)
    return torch.where(is_top, second, x.amax(-1, keepdim=True))


def wrong_over_right(x: Float[Ball, "*r v"]) -> Float[Ball, "*r v"]:
    """max_{i != m} x[r,i] - x[r,m], [r, m]: by how much a wrong logit may beat m."""
    return x.pick(best_other) - x


def _no_base(paths: Paths) -> Ball:
    return Ball(torch.zeros(paths.d_vocab, dtype=torch.float64))


def max_diff_exact(paths: Paths, advice: Advice) -> Split:
    """The table itself.  Complexity: O(v^2 d)."""
    return _no_base(paths), wrong_over_right(paths.EU)


def global_max_diff_exact(paths: Paths, advice: Advice) -> Split:
    """One number for all queries, the largest row range of the table.  Complexity: O(v^2 d)."""
    return _no_base(paths), row_range(paths.EU).amax(0)[None, None]


def _per_dimension(queries: Ball, paths: Paths) -> Ball:
    return (queries.abs() @ row_range(paths.weight("W_U")))[:, None]


def max_diff(paths: Paths, advice: Advice) -> Split:
    """Each dimension of EPq at its worst over W_U.  Complexity: O(v d)."""
    return _no_base(paths), _per_dimension(paths.EPq, paths)


def mean_query(paths: Paths, advice: Advice) -> Split:
    """The mean query exactly, deviations from it per dimension.  Complexity: O(v d)."""
    mean = paths.EPq.mean(0)
    return mean @ paths.weight("W_U"), _per_dimension(paths.EPq - mean, paths)


def svd_query(paths: Paths, advice: Advice) -> Split:
    """As mean_query, with the mean's projection on an advised direction; any vector is sound, so z may be rounded.

    Complexity: O(v d).
    """
    z, mean = advice["query_direction"], paths.EPq.mean(0).mid
    along = Ball((mean @ z) / (z @ z) * z)
    return along @ paths.weight("W_U"), _per_dimension(paths.EPq - along, paths)


def top_query_direction(paths: Paths) -> Advice:
    return {"query_direction": torch.linalg.svd(paths.EPq.mid)[2][0]}


@dataclass(frozen=True)
class Direct:
    """A way to split the direct path, with its advice and what the paper counts as unexplained."""

    split: Callable[[Paths, Advice], Split]
    complexity: str
    unexplained: Callable[[int, int], int]
    specs: Callable[[dict[str, int]], dict[str, Spec]] = lambda sizes: {}
    hints: Callable[[Paths], Advice] = lambda paths: {}


WAYS = {
    "max_diff_exact": Direct(max_diff_exact, "v^2 d", lambda v, d: 2 * v),
    "global_max_diff_exact": Direct(global_max_diff_exact, "v^2 d", lambda v, d: 2),
    "max_diff": Direct(max_diff, "v d", lambda v, d: v * d + 2),
    "mean_query+max_diff": Direct(mean_query, "v d", lambda v, d: v + v * d + 2),
    "svd_query+max_diff": Direct(svd_query, "v d", lambda v, d: v + v * d + 2,
                                 lambda sizes: {"query_direction": Spec((sizes["d_model"],))}, top_query_direction),
}
