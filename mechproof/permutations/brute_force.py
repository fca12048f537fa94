"""Every pair of permutations: the opponent that explains nothing, and the truth that the proofs are tested against.

It is an honest opponent: what x and what y add to the neurons is a table over the K! permutations, made once.  What
float64 leaves undecided is decided in exact rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from math import factorial

import torch
from flint import fmpq, fmpq_mat
from jaxtyping import Float
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, InputError, Model, Parameters, Proved
from ..proof.rounding import Ball, stack
from .model import every, inputs

LARGEST = 7                                                              # points; with 8 there are 1.6e9 inputs


def operations(sizes: Mapping[str, int]) -> int:
    """What trying every input takes: sums and relu of n neurons, K^2 logits of n products each, K^2 leads."""
    K, n = sizes["K"], sizes["d_mlp"]
    return factorial(K) ** 2 * (2 * n + 2 * n * K * K + 6 * K * K) + 4 * factorial(K) * K * n


def gaps(model: Model) -> Float[Ball, "m m"]:
    """Largest lead of a wrong logit over the right one among the answers of each input [x, y]: right where negative.

    Complexity: O((K!)^2 n K^2).
    """
    K, w = model.sizes["K"], {name: Ball(tensor) for name, tensor in model.tensors.items()}
    with cost.addresses():
        all_, point = every(K), torch.arange(K)
    of_x, of_y = (w[name].pick(lambda W: W[all_, point]).sum(1) for name in ("W_X", "W_Y"))         # [K!, n]
    of_y, out, rows = of_y + w["b_in"], w["W_U"].pick(lambda U: U.view(-1, K * K)), []
    b_U = w["b_U"].pick(torch.flatten)
    for i, x in enumerate(all_):
        logit = ((of_y + of_x[i]).relu() @ out + b_U).pick(lambda t: t.view(-1, K, K))
        answer = x[all_][..., None]                                      # x(y(q)) of every y
        lead = logit - logit.pick(lambda t: t.gather(2, answer))
        rows.append(lead.pick(lambda t: t.scatter(2, answer, -torch.inf).amax((1, 2))))
    return stack(rows)


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """All inputs, exactly.  Errors: InputError for more than 7 points."""
    K, n = model.sizes["K"], model.sizes["d_mlp"]
    if K > LARGEST:
        raise InputError(f"K = {K} points have {factorial(K) ** 2} pairs of permutations, too many to try; "
                         f"take a network of at most {LARGEST} points, or another strategy")
    gap, place = gaps(model), {x: i for i, x in enumerate(permutations(range(K)))}
    right, open_ = gap.negative(), ~(gap.negative() | (-gap).negative())
    with cost.charge(open_.numel(), "reading off the result"):
        doubtful = open_.nonzero().tolist()
    # 16 words hold a logit times its denominator: sums of products of two float32 numbers
    with cost.charge(len(doubtful) * 16 * 2 * n * (K * K + K), "exact arithmetic, by words"):
        decide, all_ = exactly(model.tensors), list(place)
        for i, j in doubtful:
            right[i, j] = decide(all_[i], all_[j])
    with cost.charge(right.numel(), "inputs counted"):
        correct = int(right.sum())

    def case(tokens: Sequence[int]) -> Case:
        x, y = inputs(tokens, model.sizes)
        at = place[tuple(x)], place[tuple(y)]
        found = bool(right[at])
        return Case(found, "every answer's logit is largest" if found else "some answer's logit is not largest",
                    lambda: float(-gap.upper().mid[at]))

    return Proved(correct, right.numel(), case)


def exactly(tensors: Mapping[str, Tensor]) -> Callable[[Sequence[int], Sequence[int]], bool]:
    """Whether all K right logits are strictly largest at an input, in rational arithmetic on the float32 weights."""
    def rational(x: Tensor) -> list[fmpq]:
        return [fmpq(*value.as_integer_ratio()) for value in x.double().flatten().tolist()]

    K, n = tensors["b_U"].shape[0], len(tensors["b_in"])
    W_X, W_Y, b_in, b_U = (rational(tensors[name]) for name in ("W_X", "W_Y", "b_in", "b_U"))
    out = fmpq_mat(n, K * K, rational(tensors["W_U"]))

    def right(x: Sequence[int], y: Sequence[int]) -> bool:
        at = [(W, (p[k] * K + k) * n) for W, p in ((W_X, x), (W_Y, y)) for k in range(K)]
        before = [sum((W[first + i] for W, first in at), b_in[i]) for i in range(n)]
        on = fmpq_mat(1, n, [max(value, fmpq(0)) for value in before])
        logit = [value + bias for value, bias in zip((on * out).entries(), b_U)]
        return all(logit[q * K + x[y[q]]] > logit[q * K + j] for q in range(K) for j in range(K) if j != x[y[q]])

    return right
