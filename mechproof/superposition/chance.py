"""What chance alone says of the worst input: the extreme value of the random model, with nothing measured from W.

Problem: is the certified worst error of a random construction an accident of its weights?  Idea: for every pair and
every s - 1 other features the sum of their q (plain.py) is Bin((s - 1) g, p) / g with g ~ Bin(d, p^2), as if all were
drawn anew and independently. There are C(m, 2) C(m - 2, s - 1) of them; the prediction is the t at which the expected
number of sums that are at least t is 1.

Source: the first moment of the number of sums above t, as usual for extreme values; that it is met is measured in the
book.
"""

from __future__ import annotations

from math import comb, log

import torch
from jaxtyping import Float
from torch import Tensor

F8 = torch.float64


def log_binomial(n: Float[Tensor, "..."], k: Float[Tensor, "..."], p: float) -> Float[Tensor, "..."]:
    """log P(Bin(n, p) = k); -inf where k > n."""
    choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp_min(0) + 1)
    return torch.where(k > n, -torch.inf, choose + k * log(p) + (n - k) * log(1 - p))


def worst(m: int, d: int, p: float, s: int) -> float:
    """The predicted worst error of a random plain construction; inf where some pair is expected to have no neuron.

    Complexity: O(d s) a size of the neurons of a pair that is at all likely.
    """
    g = torch.arange(1, d + 1, dtype=F8)
    weight = log_binomial(torch.tensor(float(d), dtype=F8), g, p * p)
    likely = weight > weight.amax() - 60
    g, weight = g[likely], weight[likely]
    if comb(m, 2) * (1 - p * p) ** d >= 1:
        return float("inf")
    k = torch.arange((s - 1) * int(g[-1]) + 1, dtype=F8)
    at_least = log_binomial((s - 1) * g[:, None], k[None], p).flip(1).logcumsumexp(1).flip(1)
    ways, low, high = log(comb(m, 2) * comb(m - 2, s - 1)), 0.0, float(s - 1)
    for _ in range(40):
        t = (low + high) / 2
        place = (t * g).ceil().long()
        rest = at_least.gather(1, place[:, None])[:, 0]
        low, high = (t, high) if float((weight + rest).logsumexp(0)) + ways > 0 else (low, t)
    return low


def typical(p: float, s: int) -> float:
    """The expected error with one of the pair on: the bias of the plain readout."""
    return (s - 1) * p
