"""Networks that compose in a finite group, as the roof sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..proof import names
from ..proof.family import Family, Model, Parameter, Parameters, Spec, Strategy, named
from . import brute_force, coset_search, cosets, directions
from .model import OPTIONAL, TENSORS, network
from .model import sizes as sizes_of
from .train import RECIPE, train

COLLECTIONS = {
    "group-s5": {"group": "S5", "start": 192, "d_mlp": 112},
    "group-s5-decay": {"group": "S5", "start": 256, "d_mlp": 256, "l2": 5e-5, "votes": 0.0},
    "group-s4": {"group": "S4", "start": 96, "d_mlp": 64},
    "group-a5": {"group": "A5", "start": 256, "d_mlp": 144, "share": 0.9},
    "group-d12": {"group": "D12", "start": 96, "d_mlp": 64},
}
MOST_PARTS = 64


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """Trying every pair, and the proofs by cosets and by directions of the output."""
    G, n = sizes["d_vocab"], sizes["d_mlp"]

    def one(id: str, cost: int, complexity: str, check: Callable, search: Callable = lambda model, parameters: {},
            advice: Callable[[Parameters], Mapping[str, Spec]] = lambda parameters: {},
            **parameters: Parameter) -> Strategy:
        return Strategy(id, names.STRATEGIES[id].label, id, cost, parameters, complexity, search, check, advice,
                        unexplained_dimensions=lambda parameters: None)

    rank = G // 3
    return [
        one("brute_force", 2 * n * G**2 * (G + 1), "O(G^3 n)", brute_force.check),
        # as it would be if cells were a tenth of the group
        one("cosets", G**2 * (12 * G + 4 * n) + 30 * n * G, "O(G^2 n + G^3 log parts) where cells are few",
            cosets.check, coset_search.advise, lambda parameters: cosets.specs(G, n, parameters["parts"]),
            parts=Parameter(20, 1, MOST_PARTS), aim=Parameter(99, 1, 100)),
        one("directions", G**2 * (2 * rank * (n + G) + 13 * n + 6 * G), "O(G^2 (n + G) rank)", directions.check,
            directions.advise, lambda parameters: directions.specs(sizes, parameters),
            rank=Parameter(rank, 0, G), basis=named("irreps", "singular", "irreps")),
    ]


def sampled(model: Model, count: int) -> int:
    """Right ones of so many random pairs."""
    net, g = network(model), torch.Generator().manual_seed(0)
    x, y = torch.randint(len(net.answers), (2, count), generator=g)
    logits = torch.relu(net.L.mid[x] + net.b_in.mid + net.R.mid[y]) @ net.U.mid + net.b_U.mid
    return int((logits.argmax(1) == net.answers[x, y]).sum())


FAMILIES = (
    Family(name="group", tensors=TENSORS, optional=OPTIONAL, foreign={}, ignored=(), sizes=sizes_of,
           strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS, silent=OPTIONAL, sampled=sampled,
           numbers=lambda sizes: 6 * sizes["d_vocab"] ** 2 * (sizes["d_vocab"] + sizes["d_mlp"])),
)
