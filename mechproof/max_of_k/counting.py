"""Exact counts of the sequences in accepted groups, in Python integers, also at 64^20."""

from __future__ import annotations

from math import comb, log2

from jaxtyping import Int
from torch import Tensor

from ..proof import cost


def count_sequences(groups: Int[Tensor, "n c"], n_ctx: int) -> int:
    """Sum of groups[n, c] C(K-1, n) c^n: n of the K-1 other positions hold one of c tokens each, the rest the maximum.

    Shapes: groups [<= K, v + 1] integer, how many groups have this n and c.
    Complexity: O(K v) integers of K log2 v bits; charged per 64-bit word, for the power, two products and the sum.
    """
    words = 1 + int(n_ctx * log2(groups.shape[1] + 1)) // 64
    with cost.charge(groups.numel() * 4 * words, "exact integer counts"):
        return sum(int(count) * comb(n_ctx - 1, n) * c**n
                   for n, row in enumerate(groups.tolist()) for c, count in enumerate(row) if count)
