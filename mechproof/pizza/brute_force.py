"""Every pair of numbers: the opponent that explains nothing, and the truth that all others are tested against.

It is an honest opponent: the linear maps are folded once, and since the network is symmetric in a and b, each
unordered pair is tried once (without the sign it is not, and every pair is).  What float64 leaves undecided is decided
in exact rational arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from flint import fmpq, fmpq_mat
from jaxtyping import Float
from torch import Tensor

from ..proof import cost
from ..proof.family import Advice, Model, Parameters, Proved
from ..proof.product_bounds import centred_columns
from ..proof.rounding import Ball, cat
from .circuits import balls, bias, residual
from .model import POSITIONS
from .proof import pairs_of, proved


def opened(model: Model) -> tuple[Ball, Ball, Ball, Ball]:
    """H [p, n], W_out [n, d], W_U [d, p] centred, S [p, p] in balls.  Complexity: O(p d^2 + p d n)."""
    w, sizes = balls(model), model.sizes
    W_U, R = centred_columns(w["W_U"]), residual(w)
    return (R @ w["W_in"] + bias(w, "b_in", sizes["d_mlp"]), w["W_out"], W_U,
            R @ W_U + bias(w, "b_out", sizes["d_model"]) @ W_U)


def folded(model: Model) -> tuple[Ball, Ball, Ball]:
    """H [p, n], W = W_out W_U [n, p], S [p, p] in balls, multiplied out.  Complexity: O(p d^2 + p d n + n d p)."""
    H, W_out, W_U, S = opened(model)
    return H, W_out @ W_U, S


def gaps(model: Model) -> Float[Ball, "half p"]:
    """Largest wrong logit less the right one, by pair: rows of one difference, [half, p], right where negative.

    Complexity: O(p^3 n).
    """
    H, W, S = folded(model)
    at, rows = pairs_of(model), []
    for a, b, answer in zip(at.a, at.b, at.answer[..., None]):
        logit = (H[a] + H[b]).relu() @ W + S[a] + S[b]
        gap = logit - logit.pick(lambda x: x.gather(1, answer))
        rows.append(gap.pick(lambda x: x.scatter(1, answer, -torch.inf).amax(1))[None])
    return cat(rows, 0)


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """All pairs, exactly."""
    gap, at, p = gaps(model), pairs_of(model), model.sizes["p"]
    right, open_ = gap.negative(), ~(gap.negative() | (-gap).negative())
    with cost.charge(open_.numel(), "reading off the result"):
        doubtful = open_.nonzero().tolist()
    # 64 words hold what five products of float32 numbers and their sums can need
    words = 64 * (2 * model.sizes["d_model"] ** 2 + 2 * model.sizes["d_mlp"] * model.sizes["d_model"]
                  + model.sizes["d_model"] * model.sizes["p"])
    with cost.charge(len(doubtful) * words, "exact arithmetic, by words"):
        for g, h in doubtful:
            right[g, h] = exactly_right(model.tensors, int(at.a[g, h]), int(at.b[g, h]) % p)
    return proved(p, right, lambda g, h: float(-gap.upper().mid[g, h]))


def exactly_right(tensors: Mapping[str, Tensor], a: int, b: int) -> bool:
    """Whether the right logit is strictly largest at one pair, in exact rational arithmetic on the float32 weights."""
    def rational(x: Tensor) -> fmpq_mat:
        rows = x.double().reshape(-1, x.shape[-1]).tolist()
        return fmpq_mat([[fmpq(*value.as_integer_ratio()) for value in row] for row in rows])
    w = tensors
    p = w["W_U"].shape[1]
    n = len(w["W_pos"])
    last = p if n == POSITIONS else b
    seen = rational(w["W_E"][[a]]) + rational(w["W_E"][[b]])
    for row in [*w["W_pos"], *([w["W_E"][p]] if n == POSITIONS else [])]:
        seen += rational(row[None])
    x = rational(w["W_E"][[last]]) + rational(w["W_pos"][-1:])
    for W_V, W_O in zip(w["W_V"], w["W_O"]):
        x += seen * rational(W_V) * rational(W_O) * fmpq(1, n)
    hidden = x * rational(w["W_in"])
    if "b_in" in w:
        hidden += rational(w["b_in"][None])
    on = fmpq_mat([[max(value, fmpq(0)) for value in hidden.entries()]])
    out = x + on * rational(w["W_out"])
    if "b_out" in w:
        out += rational(w["b_out"][None])
    logit = (out * rational(w["W_U"])).entries()
    right = logit[(a + b) % p]
    return all(right > value for c, value in enumerate(logit) if c != (a + b) % p)
