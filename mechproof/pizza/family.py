"""Modular addition as the roof sees it: its tensors, its collections, and how the chapter proves it.

All strategies but brute force are one proof with another way to know the sum over neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from ..proof import names
from ..proof.family import ABSENT, BUFFERS, Advice, Family, Model, Parameter, Parameters, Spec, Strategy
from . import brute_force, model, moments, proof, search, wheel
from .train import RECIPE, polished, train

COLLECTIONS = {
    "pizza-31": {"p": 31, "d_mlp": 256, "share": 0.8}, "pizza-59": {"p": 59}, "pizza-113": {"p": 113},
    "pizza-227": {"p": 227}, "pizza-113-biases": {"p": 113, "biases": True},
    "pizza-113-messy": {"p": 113, "decay": 0.0},
    "pizza-31-wd1": {"p": 31, "d_mlp": 256, "share": 0.8, "weight_decay": 1.0},
    "pizza-59-wd1": {"p": 59, "weight_decay": 1.0}, "pizza-59-wd05": {"p": 59, "weight_decay": 0.5},
}
ASSUMED = {"normalization_type": "none", "n_layers": "1", "act_fn": "relu", "positional_embedding_type": "standard",
           "attn_only": "false", "output_logits_soft_cap": "-1.0 or -1 or none", "final_rms": "false",
           "task": "sum", "attention": "mean", "layout": "xw"}
CONSTANT = "what would make attention depend on the tokens"
FOREIGN = (dict.fromkeys(("W_Q", "W_K", "b_Q", "b_K"), CONSTANT)
           | dict.fromkeys(("b_E", "b_V", "b_O", "b_U", "ln1", "ln2", "ln_final"), ABSENT))


class Knowing(NamedTuple):
    """A way to know the sums over neurons: its knobs, its search, what advice it takes besides the doors,
    and the sums."""

    complexity: str
    parameters: Mapping[str, Parameter]
    search: Callable[[Model, Parameters], Advice]
    specs: Callable[[Mapping[str, int], Parameters], Mapping[str, Spec]]
    sums: Callable[[Advice, Parameters], proof.Way]


def through_doors(id: str, cost: int, way: Knowing, rank: int = 11,
                  residual_rank: int = 20) -> Callable[[Mapping[str, int]], Strategy]:
    """A proof of the whole network that knows the sums in this way; cost is per p^2."""
    def of(sizes: Mapping[str, int]) -> Strategy:
        d = sizes["d_model"]
        knobs = {"rank": Parameter(min(rank, d), 2, d),
                 "residual_rank": Parameter(min(residual_rank, d), 1, d)} | dict(way.parameters)
        return Strategy(
            id=id, label=names.STRATEGIES[id].label, family=id.partition("-")[0], cost=cost * sizes["p"] ** 2,
            parameters=knobs, complexity=way.complexity, search=way.search,
            check=lambda model, advice, chosen: proof.check(model, advice, way.sums(advice, chosen)),
            advice=lambda chosen: proof.doors(sizes, chosen) | way.specs(sizes, chosen),
            unexplained_dimensions=lambda chosen: None)
    return of


ARCS = Knowing("O(p d^2 + (n + p) d q + p^2 (nodes + q)) and the turns", {"nodes": Parameter(64, 1, 1024)},
               search.on_the_wheel, lambda sizes, chosen: {"place": Spec((sizes["d_mlp"],))},
               lambda advice, chosen: lambda net, at: proof.Sums(
                   wheel.by_turns(net.H, net.G, advice["place"], chosen["nodes"], at), wheel.missed(net.H, net.G, at)))
EVERY = Knowing("O(p d^2 + (n + p) d q + p^2 n q)", {}, search.bases, lambda sizes, chosen: {},
                lambda advice, chosen: lambda net, at: proof.Sums(
                    wheel.one_by_one(net.H, net.G, at), wheel.missed(net.H, net.G, at)))


def series(clusters: int, alone: int, find: Callable[[Model, Parameters], Advice]) -> Knowing:
    """Moments of so many clusters a key, with so many neurons computed one by one."""
    knobs = {"clusters": Parameter(clusters, 1, 16), "terms": Parameter(80, 4, 400), "alone": Parameter(alone, 0, 1024)}
    return Knowing("O(p d^2 + (n + p) d q + n terms q + p^2 (q + terms))", knobs, find, moments.specs,
                   lambda advice, chosen: lambda net, at: moments.summed(net, advice, chosen["terms"], at))


PRESETS = (
    through_doors("wheel", 3200, ARCS),
    through_doors("wheel-short", 2100, ARCS, rank=6, residual_rank=14),
    through_doors("paper", 5000, series(1, 0, moments.bare)),
    through_doors("moments", 4500, series(3, 0, moments.clustered)),
    through_doors("moments_exact_neurons", 7000, series(3, 200, moments.clustered)),
    through_doors("exact_activations", 9000, EVERY),
)


def trying(sizes: Mapping[str, int]) -> Strategy:
    p, n, d = sizes["p"], sizes["d_mlp"], sizes["d_model"]
    return Strategy("brute_force", names.STRATEGIES["brute_force"].label, "brute_force",
                    p**3 * n + p * p * n + 4 * p * d * (d + n), {}, "O(p^3 n)", search=lambda model, chosen: {},
                    check=brute_force.check, advice=lambda chosen: {}, unexplained_dimensions=lambda chosen: None)


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """The named presets for models of these sizes."""
    return [trying(sizes), *(preset(sizes) for preset in PRESETS)]


def strategies_without_sign(sizes: Mapping[str, int]) -> list[Strategy]:
    """Those that do not need the network to be symmetric in its inputs; pairs are twice as many."""
    kept = ("brute_force", "wheel", "exact_activations")
    return [replace(s, cost=2 * s.cost) for s in strategies(sizes) if s.family in kept]


def numbers(sizes: Mapping[str, int]) -> int:
    """Tables of pairs, and of numbers by neurons, some dozens of each."""
    return sizes["p"] * (256 * sizes["p"] + 64 * sizes["d_mlp"])


def sampled(network: Model, n: int) -> int:
    """Right ones of n random pairs, by the plain forward pass."""
    p = network.sizes["p"]
    tokens = torch.randint(p, (n, 2), generator=torch.Generator().manual_seed(0))
    return int((model.logits(network.tensors, tokens).argmax(1) == tokens.sum(1) % p).sum())


FAMILIES = (
    Family(name="pizza", tensors=tuple(model.shapes(3)), foreign=FOREIGN, ignored=BUFFERS, sizes=model.sizes,
           strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS, optional=model.BIASES,
           edits={"polished": polished}, numbers=numbers, assumed=ASSUMED, asked=("normalization_type",),
           sampled=sampled),
    Family(name="pizza_without_sign", tensors=tuple(model.shapes(3)), foreign=FOREIGN, ignored=BUFFERS,
           sizes=model.sizes_without_sign, strategies=strategies_without_sign, train=None, recipe={}, collections={},
           optional=model.BIASES, numbers=lambda sizes: 2 * numbers(sizes), assumed=ASSUMED,
           asked=("normalization_type", "attention"), sampled=sampled),
)
