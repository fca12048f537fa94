"""Tables that are checked without being multiplied out, at a stated chance of being fooled (Freivalds 1977).

Problem: three tables of v^2 numbers cost v^2 d each, although a wrong one betrays itself cheaply.  Idea: float32
weights are whole numbers times powers of two, so each table is, exactly, a product of whole matrices.  The advice is
the whole tables T; the check draws a vector r of numbers in [0, 2^61) after it has read them and compares T r with
M1 (M2 (... r)), in whole numbers, no modulus.  A table that is wrong anywhere passes with probability at most 2^-61.

    scores  EPq W_Q W_K^T W_E^T        (what the mean position adds to a row does not differ within it)
    direct  EPq W_U                    votes   W_E W_V W_O W_U

Complexity: O(v^2 + v d + d^2) words.  Source: Freivalds, *Probabilistic machines can use less running time*.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ..proof import cost
from ..proof.family import Advice, Model, Spec
from ..proof.peeling import Known
from ..proof.rounding import Ball, U, _up, inverse_sqrt
from .model import biased, widened
from .paths import Paths
from .terms import Circuits

# an entry of a table: 4 signed words of 62 bits; a model that needs more is not certified
WORDS, BITS = 4, 62
CHANCE = 2.0**-61               # that a wrong table passes
TABLES = ("scores", "direct", "votes")


def whole(*tensors: Tensor) -> tuple[list[np.ndarray], int]:
    """float32 matrices as Python integers times 2^-e, with one e for all."""
    parts = [np.frexp(t.double().numpy()) for t in tensors]
    lowest = min((int(e[m != 0].min()) for m, e in parts if (m != 0).any()), default=0) - 24
    raised = [np.array([int(x * 2**24) << int(k - 24 - lowest) if x else 0 for x, k in zip(m.flat, e.flat)],
                       dtype=object).reshape(m.shape)
              for m, e in parts]
    return raised, -lowest


def chains(model: Model) -> dict[str, tuple[list[np.ndarray], int]]:
    """The whole factors of each table, and the power of two that divides their product."""
    w = model.tensors | (widened(model.tensors) if biased(model.tensors) else {})
    (W_E, last), e_q = whole(w["W_E"], w["W_pos"][-1])
    single = {name: whole(w[name]) for name in ("W_E", "W_Q", "W_K", "W_V", "W_O", "W_U")}
    W, e = {name: x[0] for name, (x, _) in single.items()}, {name: e for name, (_, e) in single.items()}
    if biased(model.tensors):
        W["W_U"], e["W_U"] = with_constant(w)
    EPq = W_E + last
    return {"scores": ([EPq, W["W_Q"], W["W_K"].T, W["W_E"].T], e_q + e["W_Q"] + e["W_K"] + e["W_E"]),
            "direct": ([EPq, W["W_U"]], e_q + e["W_U"]),
            "votes": ([W["W_E"], W["W_V"], W["W_O"], W["W_U"]], sum(e[name] for name in ("W_E", "W_V", "W_O", "W_U")))}


def with_constant(w: Mapping[str, Tensor]) -> tuple[np.ndarray, int]:
    """W_U and below it b_O W_U + b_U, as whole numbers."""
    (W_U, b_U), e = whole(w["W_U"], w.get("b_U", torch.zeros(w["W_U"].shape[1]))[None])
    # with a 1, so that its power of two is not below 0
    (b_O, _), more = whole(w.get("b_O", torch.zeros(len(w["W_U"])))[None], torch.ones(1, 1))
    return np.concatenate([W_U * 2**more, b_O.dot(W_U) + b_U * 2**more]), e + more


def specs(sizes: dict[str, int]) -> dict[str, Spec]:
    v = sizes["d_vocab"]
    return {name: Spec((WORDS, v, v), -(2**BITS), 2**BITS) for name in TABLES}


def advise(model: Model) -> Advice:
    """The tables themselves; zeros, which prove nothing, where an entry needs more than four words."""
    advice = {}
    for name, (chain, _) in chains(model).items():
        table = reduce(np.dot, chain)
        fits = max(abs(x) for x in table.flat) < 2 ** (BITS * WORDS)
        words = [[(abs(x) >> (BITS * i)) % 2**BITS * (1 if x >= 0 else -1) * fits for x in table.flat]
                 for i in range(WORDS)]
        advice[name] = torch.tensor(words, dtype=torch.long).view(WORDS, *table.shape)
    return advice


def joined(words: Tensor) -> np.ndarray:
    """Words of 62 bits back into Python integers."""
    parts = [np.array(word.tolist(), dtype=object) for word in words]
    return sum(part * 2 ** (BITS * i) for i, part in enumerate(parts))


def passes(table: np.ndarray, chain: list[np.ndarray]) -> bool:
    """Freivalds' test, with a vector drawn now."""
    r = np.array([secrets.randbits(61) for _ in range(table.shape[1])], dtype=object)
    return bool((table.dot(r) == reduce(lambda x, M: M.dot(x), reversed(chain), r)).all())


def circuits(model: Model, advice: Advice) -> Circuits | None:
    """The circuits from tables that passed, None if one did not.  Complexity: O(v^2 + v d + d^2) words, charged."""
    paths, tables = Paths(model), {}
    numbers = sum(tensor.numel() for tensor in model.tensors.values())
    with cost.charge(4 * numbers, "weights as whole numbers"):
        factors = chains(model)
    for name, (chain, e) in factors.items():
        entries, inner = advice[name][0].numel(), sum(M.size for M in chain)
        with cost.charge(WORDS * (3 * entries + 2 * inner), "Freivalds' test, per word"):
            table = joined(advice[name])
            if not passes(table, chain):
                return None
        with cost.charge(WORDS * entries, "whole numbers to floats, per word"):
            mid = torch.tensor([[scaled(x, e) for x in row] for row in table.tolist()], dtype=torch.float64)
        rough = Ball(mid)
        tables[name] = Ball(mid, _up(2 * U * rough.mag), rough.mag)
    scores = tables["scores"] * inverse_sqrt(model["W_Q"].shape[1])
    weight = paths.weight
    places = ((weight("W_pos") @ weight("W_V")) @ weight("W_O")) @ weight("W_U")
    return Circuits(paths.n_ctx, Known(scores), paths.B, Known(tables["direct"]), Known(tables["votes"]), places)


def scaled(x: int, e: int) -> float:
    """x 2^-e rounded to the nearest float; infinite beyond the range, which certifies nothing."""
    try:
        return x / 2**e if e >= 0 else float(x * 2**-e)
    except OverflowError:
        return float("inf")
