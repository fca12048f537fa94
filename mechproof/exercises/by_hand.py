"""Networks written down instead of trained: a Max-of-K model from its tables."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .. import zoo
from ..proof.family import Model


def from_tables(A: Float[Tensor, "v v"], EU: Float[Tensor, "v v"], OV: Float[Tensor, "v v"],
                PV: Float[Tensor, "K v"], name: str = "tables") -> Model:
    """A model whose tables are (near enough) the given ones, with attention scores that no position moves.

    Tokens and positions get a dimension each; attention copies them to a second half of the residual stream, from
    which W_U reads OV and PV while it reads EU from the first.
    """
    v, n_ctx = A.shape[0], PV.shape[0]
    n = v + n_ctx
    eye, zero = torch.eye(n), torch.zeros(n, n)
    score = zero.clone()
    score[:v, :v] = A
    first = torch.cat([eye, zero])
    w = {"W_E": torch.eye(v, 2 * n), "W_pos": torch.eye(n_ctx, 2 * n).roll(v, 1),
         "W_Q": torch.cat([score * n**0.5, zero]), "W_K": first, "W_V": first, "W_O": first.T.roll(n, 1),
         "W_U": torch.cat([EU, torch.zeros(n_ctx, v), OV, PV])}
    return zoo.model_from_tensors(name, {key: tensor.float() for key, tensor in w.items()})
