"""The Max-of-K transformer: one layer, one head, attention only.

K uniform tokens go in; the logits at the last position should be largest at their maximum.

    x = W_E[t] + W_pos;   a = softmax((x[K-1] W_Q) (x W_K)^T / sqrt(d_head))
    logits = (x[K-1] + (a x) W_V W_O) W_U

A network with biases is one without whose vectors are one longer: a coordinate that is 1 in every embedding and 0 in
every position, below which stand b_Q, b_V and b_O W_U + b_U (`widened`).  b_K adds the same to all scores of a query,
and no softmax sees it.

`sizes` reads the architecture off the tensors of a file and refuses what is not this network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError

BIASES = ("b_Q", "b_V", "b_O", "b_U")


def shapes(n_ctx: int, d_vocab: int, d_model: int = 32, d_head: int | None = None) -> dict[str, tuple[int, int]]:
    """Names and shapes of the seven tensors, in TransformerLens' layout."""
    d_head = d_head or d_model
    return {"W_E": (d_vocab, d_model), "W_pos": (n_ctx, d_model), "W_Q": (d_model, d_head), "W_K": (d_model, d_head),
            "W_V": (d_model, d_head), "W_O": (d_head, d_model), "W_U": (d_model, d_vocab)}


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx, d_vocab, d_model, d_head of a file's tensors; d_model with the coordinate that biases take.

    Errors: InputError for fewer than two positions or tokens, and for a tensor of another shape (expected and found).
    """
    for name in ("W_E", "W_pos", "W_Q"):
        if tensors[name].dim() != 2:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected two dimensions")
    (d_vocab, d_model), n_ctx, d_head = tensors["W_E"].shape, tensors["W_pos"].shape[0], tensors["W_Q"].shape[1]
    found = {"n_ctx": n_ctx, "d_vocab": d_vocab, "d_model": d_model, "d_head": d_head}
    if min(found.values()) < 1 or n_ctx < 2 or d_vocab < 2:
        raise InputError(f"model has sizes {found}; expected at least two positions and two tokens")
    expected = shapes(**found) | {"b_Q": (d_head,), "b_V": (d_head,), "b_O": (d_model,), "b_U": (d_vocab,)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise InputError(f"tensor {name} has shape {list(tensor.shape)}; expected {list(expected[name])}")
    return found | {"d_model": d_model + biased(tensors)}


def biased(tensors: Mapping[str, Tensor]) -> bool:
    """Whether there are biases."""
    return any(name in tensors for name in BIASES)


def widened(w: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices that hold biases, but for W_U, whose last row is b_O W_U + b_U and no number of the file."""
    bias = lambda name, like: w.get(name, torch.zeros_like(like[0]))[None]
    beside = lambda x, one: torch.cat([x, torch.full_like(x[:, :1], one)], 1)
    return {"W_E": beside(w["W_E"], 1.0), "W_pos": beside(w["W_pos"], 0.0), "W_O": beside(w["W_O"], 0.0),
            "W_K": torch.cat([w["W_K"], torch.zeros_like(w["W_K"][:1])])} | {
        name: torch.cat([w[name], bias("b" + name[1:], w[name])]) for name in ("W_Q", "W_V")}


def last_logits(weights: Mapping[str, Tensor], tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch v"]:
    """Logits at the last position, [batch, d_vocab], of the model as written, in the weights' precision.

    Shapes: tokens [batch, n_ctx] integer.  Complexity: O(batch (K d^2 + d v)).
    """
    w, bias = weights, lambda name: weights.get(name, 0)
    x = w["W_E"][tokens] + w["W_pos"]                                    # [batch, n_ctx, d_model]
    query = x[:, -1] @ w["W_Q"] + bias("b_Q")                            # [batch, d_head]
    scores = torch.einsum("bh,bkh->bk", query, x @ w["W_K"]) / w["W_Q"].shape[1] ** 0.5
    mixed = torch.einsum("bk,bkd->bd", scores.softmax(-1), x)            # residual stream under attention
    return (x[:, -1] + (mixed @ w["W_V"] + bias("b_V")) @ w["W_O"] + bias("b_O")) @ w["W_U"] + bias("b_U")
