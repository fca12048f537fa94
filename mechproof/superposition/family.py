"""Computation in superposition as the roof sees it: its tensors, its collections, and how it is proved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import comb

from ..proof import names
from ..proof.family import Family, Model, Proved, Strategy
from . import certify, model
from .train import COLLECTIONS, RECIPE, tells, train


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """Every input; feature by feature; and with what that leaves open settled."""
    s, m, d = sizes["sparsity"], sizes["m"], sizes["d_mlp"]
    pairs, inputs = m * (m - 1) // 2, comb(m, s)
    short = 8 * m**3 * d + 2 * m * d * sizes["d_model"]

    def strategy(id: str, cost: int, complexity: str, check: Callable[[Model], Proved]) -> Strategy:
        return Strategy(id, names.STRATEGIES[id].label, id, cost, {}, complexity, search=lambda model, chosen: {},
                        check=lambda model, advice, chosen: check(model), advice=lambda chosen: {},
                        unexplained_dimensions=lambda chosen: None)
    return [strategy("brute_force", inputs * pairs * (2 * d + 8), "O(C(m, s) m^2 d)", certify.every_input),
            strategy("features", short, "O(m^3 d)", lambda model: certify.check(model, settle=False)),
            strategy("exact", 2 * short, "O(m^3 d), and O(d) an output that is left open",
                     lambda model: certify.check(model, settle=True))]


def numbers(sizes: Mapping[str, int]) -> int:
    """The readout of all outputs, some tables of it, and blocks."""
    m, d = sizes["m"], sizes["d_mlp"]
    return m * m * (d + 64) + 16 * m * d + 2**25


FAMILIES = (Family(
    name="superposition", tensors=("W_in", "b_in"), optional=model.OPTIONAL, foreign={}, ignored=(), sizes=model.sizes,
    strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS, tells=tells, numbers=numbers,
    described=("sparsity",), means=lambda tensors, said: {"readout": model.readout(tensors, said)},
    sampled=certify.sampled),)
