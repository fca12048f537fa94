"""Any small transformer as the roof sees it: what its files may hold, and the one proof that it has."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..proof import names
from ..proof.family import BUFFERS, Family, Model, Strategy
from . import settings, trying
from .forward import Network

ASSUMED = {key: " or ".join(value.lower() for value in values) for key, values in settings.CHOICES.items()}


def forward_cost(sizes: Mapping[str, int]) -> int:
    """About the operations of one forward pass with its radius."""
    n, d, h, k, m = (sizes[name] for name in ("n_ctx", "d_model", "n_heads", "d_head", "d_mlp"))
    layer = n * (8 * h * d * k + 4 * h * n * k + 4 * d * m + 20 * d)
    return sizes["n_layers"] * layer + 3 * d * sizes["d_out"]


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """Trying every input."""
    total = sizes["d_input"] ** sizes["n_free"]
    predicted = total * forward_cost(sizes)
    return [Strategy(
        "brute_force", names.STRATEGIES["brute_force"].label, "brute_force", predicted, {},
        "O(inputs times a forward pass)", search=lambda model, parameters: {},
        check=lambda model, advice, parameters: trying.check(model, predicted), advice=lambda parameters: {},
        unexplained_dimensions=lambda parameters: None)]


def sampled(network: Model, n: int) -> int:
    """Right ones of n random inputs, by the same forward pass."""
    run, g = Network(network), torch.Generator().manual_seed(0)
    free = torch.randint(run.settings.d_input, (n, len(run.settings.free)), generator=g)
    answer = settings.answers(run.settings, network.tensors.get("answers"), free)
    return int((run.logits(trying.whole_inputs(run.settings, free)).mid.argmax(1) == answer).sum())


FAMILIES = (
    Family(name="transformer", tensors=settings.TENSORS, optional=settings.OPTIONAL, foreign={}, ignored=BUFFERS,
           sizes=settings.sizes, strategies=strategies, train=None, recipe={}, collections={},
           numbers=lambda sizes: 64 * trying.BLOCK, means=settings.means, assumed=ASSUMED, sampled=sampled),
)
