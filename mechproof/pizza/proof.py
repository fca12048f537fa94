"""The whole network's proof: tables through narrow doors, a sum over neurons, margins, and the pairs they certify.

The strategies of the chapter differ in one thing, how they know sum_i relu(x_i) G_i for every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, Model, Parameters, Proved, Spec, check_tokens
from ..proof.product_bounds import centred_columns, row_norms
from ..proof.rounding import Ball, cat, number
from .circuits import Door, Table, balls, bias, residual, table
from .margins import Logits, lowest, right
from .wheel import Pairs, pairs

TWO = number(2.0)


class Network(NamedTuple):
    """logit_c = S[a, c] + S[b, c] + sum_i relu(H_i(a) + H_i(b)) (G_i T_c + rest), |rest| <= over_i v_c;
    S off by direct[a] + direct[b]."""

    H: Table
    G: Float[Ball, "n q1"]                                               # q outputs through the door, and `over`
    T: Float[Ball, "q p"]
    v: Float[Ball, " p"]
    S: Float[Ball, "p p"]
    direct: Float[Ball, " p"]


def network(model: Model, advice: Advice) -> Network:
    """The tables of a model, through the two doors of the advice.  Complexity: O(p d^2 + (n + p) d q + p n q)."""
    w, n, d = balls(model), model.sizes["d_mlp"], model.sizes["d_model"]
    W_U = centred_columns(w["W_U"])                                      # what all classes share decides nothing
    inner, outer = Door(advice["inner"]), Door(advice["outer"])
    before, classes = inner.side(residual(w)), inner.side(W_U.T)
    H = table(before, inner.side(w["W_in"].T), bias(w, "b_in", n))
    S = before.inside @ classes.inside.T + bias(w, "b_out", d) @ W_U
    written, read = outer.side(w["W_out"]), outer.side(W_U.T)
    return Network(H, cat([written.inside, written.over[:, None]], 1), read.inside.T, read.over,
                   S, before.over * classes.over.amax(0))


class Sums(NamedTuple):
    """The sums, off by at most `off` in Euclidean norm, and besides by `astray` in each of the first planes
    of two outputs."""

    z: Float[Ball, "half p q1"]
    off: Float[Ball, "half p"]
    astray: Float[Ball, "half p planes"] = Ball(torch.zeros(1, 1, 0, device="cpu"))


Way = Callable[[Network, Pairs], Sums]


def logits(net: Network, sums: Sums, at: Pairs) -> Logits:
    """What is known of the logits of every pair.  Complexity: O(p^2)."""
    z, off, astray = sums
    each = net.direct * TWO
    slack = each[at.a] + each[at.b] + off * (row_norms(net.T.T).amax(0) * TWO)
    aside = astray.upper().pick(lambda x: x.expand(*off.shape, -1))     # no planes: none for every pair
    return Logits(z[..., :-1], net.T, net.S, (z[..., -1] + off).upper(), net.v, slack.upper(), aside)


def check(model: Model, advice: Advice, way: Way) -> Proved:
    """Certified pairs, both orders, out of p^2."""
    p, keys = model.sizes["p"], advice["keys"]
    at, net = pairs_of(model), network(model, advice)
    known = logits(net, way(net, at), at)
    return proved(p, right(known, keys[keys.nonzero().flatten()], at), lambda g, h: lowest(known, at, g, h))


def pairs_of(model: Model) -> Pairs:
    """Unordered pairs, where the network takes them for one; else ordered ones."""
    return pairs(model.sizes["p"], "positions" in model.sizes)


def proved(p: int, certified: Bool[Tensor, "half p"], margin: Callable[[int, int], float]) -> Proved:
    """Counts of ordered pairs: of unordered ones those with a = b once, all others twice; and the case of any one."""
    ordered = len(certified) == p

    def case(tokens: Sequence[int]) -> Case:
        g, h = place(p, *check_tokens(tokens, {"n_ctx": 2, "d_vocab": p}), ordered)
        found = bool(certified[g, h])
        return Case(found, "the right answer's logit is largest" if found else "a wrong answer is not ruled out",
                    lambda: margin(g, h))
    with cost.charge(certified.numel(), "pairs counted"):
        once = int(certified.sum())
        return Proved(once if ordered else 2 * once - int(certified[0].sum()), p * p, case)


def place(p: int, a: int, b: int, ordered: bool = False) -> tuple[int, int]:
    """Where `pairs` holds this pair: half of the difference and half of the sum."""
    half = (p + 1) // 2                                                  # one half mod p
    g = (a - b) * half % p
    return g if ordered else min(g, p - g), (a + b) * half % p


def doors(sizes: Mapping[str, int], parameters: Parameters) -> dict[str, Spec]:
    """The advice that every proof through doors takes: two bases and the key frequencies (0 for none)."""
    return {"inner": Spec((parameters["residual_rank"], sizes["d_model"])),
            "outer": Spec((parameters["rank"], sizes["d_model"])),
            "keys": Spec((parameters["rank"] // 2,), 0, sizes["p"] // 2)}
