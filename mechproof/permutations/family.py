"""Composition of permutations as the roof sees it: its tensors, its collections, and how the chapter proves it."""

from __future__ import annotations

from collections.abc import Mapping

from ..proof import names
from ..proof.family import BUFFERS, Family, Model, Spec, Strategy
from . import brute_force, model, proof, search
from .train import RECIPE, train

COLLECTIONS = {f"permutations-{K}": {"K": K} for K in (4, 5, 6, 7, 8, 9, 10, 12)}


def operations(sizes: Mapping[str, int]) -> dict[str, int]:
    """Operations of the two proofs, but for the small change."""
    K, n = sizes["K"], sizes["d_mlp"]
    return {"cells": 52 * n * K**2 + 92 * n + 7 * K**4,
            "rivals": 9 * n * K**4 + 9 * K**7 + 4 * K**6 + 40 * n * K**2}


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """Trying every input, each neuron at its cell, and rival by rival."""
    n, K, cost = sizes["d_mlp"], sizes["K"], operations(sizes)
    specs = {"row": Spec((n,), 0, K - 1), "column": Spec((n,), 0, K - 1)}

    def by(id: str, complexity: str, way: proof.Way) -> Strategy:
        return Strategy(id, names.STRATEGIES[id].label, id, cost[id], {}, complexity, search=search.lines,
                        check=lambda model, advice, chosen: proof.check(model, advice, way),
                        advice=lambda chosen: specs, unexplained_dimensions=lambda chosen: None)

    return [Strategy("brute_force", names.STRATEGIES["brute_force"].label, "brute_force",
                     brute_force.operations(sizes), {}, "O((K!)^2 n K^2)", search=lambda model, chosen: {},
                     check=brute_force.check, advice=lambda chosen: {}, unexplained_dimensions=lambda chosen: None),
            by("cells", "O(n K^2 + K^4)", proof.cells), by("rivals", "O(n K^4 + K^7)", proof.rivals)]


def numbers(sizes: Mapping[str, int]) -> int:
    """Tables of one position's outputs by neurons, and of leads, some of each."""
    return sizes["K"] ** 3 * (8 * sizes["d_mlp"] + 8 * sizes["K"] ** 3)


def sampled(network: Model, n: int) -> int:
    """Right ones of n random inputs, by the plain forward pass."""
    return int((model.sampled_margins(network.tensors, n) > 0).sum())


FAMILIES = (
    Family(name="permutations", tensors=tuple(model.shapes(3, 1)), foreign={}, ignored=BUFFERS, sizes=model.sizes,
           strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS, numbers=numbers,
           assumed={"act_fn": "relu", "task": "composition"}, sampled=sampled),
)
