"""Networks of one attention layer that name the largest (or smallest) token, as the roof sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..max_of_k.exact import BUCKETS
from ..proof import names
from ..proof.family import BUFFERS, Family, InputError, Parameter, Strategy
from ..transformer import family as transformer
from ..transformer import settings
from . import proof


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """As of any transformer.  Errors: InputError for one that is not of this kind."""
    found, said = settings.sizes(tensors, metadata), settings.read(tensors, metadata)
    others = [name for name in tensors if ".mlp." in name or ".ln2." in name]
    if (found["n_layers"] != 1 or others or said.attention != "learned" or said.task not in ("max", "min")
            or found["n_free"] < 1 + (said.inputs[-1] is None)):
        raise InputError("this is no network of one layer of learned attention, without an MLP, for max or min of two "
                         "tokens or more")
    return found


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """Trying every input, and the proofs by sums of quotients."""
    v, h, n, out = (sizes[name] for name in ("d_input", "n_heads", "n_ctx", "d_out"))

    def split(id: str, cost: int, check: Callable, **parameters: Parameter) -> Strategy:
        return Strategy(id, names.STRATEGIES[id].label, id, cost, parameters,
                        "O(h K v^2 (d + b) + h v^3) and what is left open",
                        search=lambda model, parameters: proof.advise(model), check=check,
                        advice=lambda parameters: proof.specs(sizes), unexplained_dimensions=lambda parameters: None)

    return [*transformer.strategies(sizes), split("exact", 3000 * h * n * v * out, proof.check_exactly),
            split("separable", 1500 * h * n * v * out, proof.check, buckets=Parameter(min(BUCKETS, v), 2, v))]


FAMILIES = (
    Family(name="one_layer", tensors=(*settings.TENSORS, *(f"blocks.0.attn.W_{side}" for side in "QKVO")),
           optional=settings.OPTIONAL, foreign={}, ignored=BUFFERS, sizes=sizes, strategies=strategies, train=None,
           recipe={}, collections={}, numbers=lambda sizes: sizes["n_heads"] * sizes["n_ctx"] * sizes["d_out"]
           * sizes["d_input"] * (sizes["d_input"] + 64), means=settings.means, assumed=transformer.ASSUMED,
           sampled=transformer.sampled),
)
