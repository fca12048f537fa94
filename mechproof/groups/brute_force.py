"""Every pair of elements: the opponent that explains nothing, and the truth that all others are tested against.

It is an honest opponent: embeddings are folded, dead neurons are left out, and what float64 leaves undecided is decided
in exact rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from flint import fmpq
from jaxtyping import Bool, Float
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, Model, Parameters, Proved, check_tokens
from ..proof.rounding import Ball, cat
from .model import Network, network


def behind(logits: Float[Ball, "... G"], answers: Tensor) -> Float[Ball, "..."]:
    """The best wrong logit less the right one: right where it is negative.  Complexity: O(pairs G)."""
    right = logits.pick(lambda x: x.gather(-1, answers[..., None]).squeeze(-1))
    return logits.pick(lambda x: x.scatter(-1, answers[..., None], -torch.inf).amax(-1)) - right


def gaps(net: Network) -> Float[Ball, "G G"]:
    """`behind` of every pair.  Complexity: O(G^3 n)."""
    return cat([behind(((net.L[x] + net.b_in) + net.R).relu() @ net.U + net.b_U, net.answers[x])[None]
                for x in range(len(net.answers))], 0)


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """All pairs, exactly."""
    gap = gaps(network(model))
    right, open_ = gap.negative(), ~(gap.negative() | (-gap).negative())
    with cost.charge(open_.numel(), "reading off the result"):
        doubtful = open_.nonzero().tolist()
    # a sum of n products of two sums is a fraction of some 10 words, and there are G of them
    with cost.charge(len(doubtful) * 20 * model["W_U"].numel(), "exact arithmetic, by words"):
        for x, y in doubtful:
            right[x, y] = exactly_right(model, x, y)
    return proved(right, lambda x, y: float(-gap.upper().mid[x, y]))


def exactly_right(model: Model, x: int, y: int) -> bool:
    """Whether the right logit is strictly largest at one pair, in exact rational arithmetic on the float32 weights."""
    exact = lambda tensor: [fmpq(*value.as_integer_ratio()) for value in tensor.double().tolist()]
    G, n = model.sizes["d_vocab"], model.sizes["d_mlp"]
    bias = [exact(model.tensors.get(name, torch.zeros(size))) for name, size in (("b_in", n), ("b_U", G))]
    on = [max(sum(parts, fmpq(0)), fmpq(0)) for parts in zip(exact(model["W_L"][x]), exact(model["W_R"][y]), bias[0])]
    logits = [b + sum((h * u for h, u in zip(on, exact(votes))), fmpq(0)) for b, votes in zip(bias[1], model["W_U"].T)]
    answer = int(model["answers"][x, y])
    return all(logits[answer] > logit for z, logit in enumerate(logits) if z != answer)


def proved(certified: Bool[Tensor, "G G"], margin: Callable[[int, int], float]) -> Proved:
    """The count of certified pairs, and the case of any one."""
    G = len(certified)

    def case(tokens: Sequence[int]) -> Case:
        x, y = check_tokens(tokens, {"n_ctx": 2, "d_vocab": G})
        found = bool(certified[x, y])
        return Case(found, "the product's logit is largest" if found else "another element's logit is not ruled out",
                    lambda: margin(x, y))
    with cost.charge(certified.numel(), "pairs counted"):
        return Proved(int(certified.sum()), G * G, case)
