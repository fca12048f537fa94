"""The Max-of-K transformer: one layer, one head, attention only, no biases.

K uniform tokens go in; the logits at the last position should be largest at their maximum.

    x = W_E[t] + W_pos;   a = softmax((x[K-1] W_Q) (x W_K)^T / sqrt(d_head))
    logits = (x[K-1] + (a x) W_V W_O) W_U

`sizes` reads the architecture off the tensors of a file and refuses what is not this network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError


def shapes(n_ctx: int, d_vocab: int, d_model: int = 32, d_head: int | None = None) -> dict[str, tuple[int, int]]:
    """Names and shapes of the seven tensors, in TransformerLens' layout."""
    d_head = d_head or d_model
    return {"W_E": (d_vocab, d_model), "W_pos": (n_ctx, d_model), "W_Q": (d_model, d_head), "W_K": (d_model, d_head),
            "W_V": (d_model, d_head), "W_O": (d_head, d_model), "W_U": (d_model, d_vocab)}


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx, d_vocab, d_model, d_head of a file's tensors.

    Errors: InputError for fewer than two positions or tokens, and for a tensor of another shape (expected and found).
    """
    for name in ("W_E", "W_pos", "W_Q"):
        if tensors[name].dim() != 2:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected two dimensions")
    (d_vocab, d_model), n_ctx, d_head = tensors["W_E"].shape, tensors["W_pos"].shape[0], tensors["W_Q"].shape[1]
    found = {"n_ctx": n_ctx, "d_vocab": d_vocab, "d_model": d_model, "d_head": d_head}
    if min(found.values()) < 1 or n_ctx < 2 or d_vocab < 2:
        raise InputError(f"model has sizes {found}; expected at least two positions and two tokens")
    for name, shape in shapes(**found).items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected {list(shape)}")
    return found


def last_logits(weights: Mapping[str, Tensor], tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch v"]:
    """Logits at the last position, [batch, d_vocab], of the model as written, in the weights' precision.

    Shapes: tokens [batch, n_ctx] integer.  Complexity: O(batch (K d^2 + d v)).
    """
    w = weights
    x = w["W_E"][tokens] + w["W_pos"]                                    # [batch, n_ctx, d_model]
    query = x[:, -1] @ w["W_Q"]                                          # [batch, d_head]
    scores = torch.einsum("bh,bkh->bk", query, x @ w["W_K"]) / w["W_Q"].shape[1] ** 0.5
    mixed = torch.einsum("bk,bkd->bd", scores.softmax(-1), x)            # residual stream under attention
    return (x[:, -1] + mixed @ w["W_V"] @ w["W_O"]) @ w["W_U"]
