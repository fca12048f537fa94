"""The Max-of-K transformer: one layer, attention only, with one head or several.

K uniform tokens go in; the logits at the last position should be largest at their maximum.

    x = W_E[t] + W_pos;   a = softmax((x[K-1] W_Q) (x W_K)^T / sqrt(d_head))
    logits = (x[K-1] + (a x) W_V W_O) W_U

A network with biases is one without whose vectors are one longer: a coordinate that is 1 in every embedding and 0 in
every position, below which stand b_Q, b_V and b_O W_U + b_U (`widened`).  b_K adds the same to all scores of a query,
and no softmax sees it.

Several heads add what each of them would alone: W_Q, W_K, W_V, W_O, b_Q, b_V have a first axis for them, and `alone` is
the list of networks of one head, all with the same direct path, that such a network is made of (heads.py).

`sizes` reads the architecture off the tensors of a file and refuses what is not this network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.family import InputError, Model

BIASES = ("b_Q", "b_V", "b_O", "b_U")
PER_HEAD = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_V")


def shapes(n_ctx: int, d_vocab: int, d_model: int = 32, d_head: int | None = None,
           n_heads: int = 1) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the seven tensors, in TransformerLens' layout; several heads share d_model if d_head is not
    said."""
    d_head = d_head or d_model // n_heads
    one = {"W_E": (d_vocab, d_model), "W_pos": (n_ctx, d_model), "W_Q": (d_model, d_head), "W_K": (d_model, d_head),
           "W_V": (d_model, d_head), "W_O": (d_head, d_model), "W_U": (d_model, d_vocab)}
    return one if n_heads == 1 else {name: (n_heads, *x) if name in PER_HEAD else x for name, x in one.items()}


def alone(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors of each head as a network of one head."""
    if tensors["W_Q"].dim() == 2:
        return [dict(tensors)]
    return [{name: x[h] if name in PER_HEAD else x for name, x in tensors.items()} for h in range(len(tensors["W_Q"]))]


def one_head_models(model: Model) -> list[Model]:
    """Each head of a model as a model of one head; the direct path is in each."""
    family = replace(model.family, sizes=sizes)
    with cost.charge(0, "heads side by side, one by one"):
        return [Model(model.name, family, tensors, model.metadata) for tensors in alone(model.tensors)]


def sizes_of_heads(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_heads, at least two, and what `sizes` says of one of them.

    Errors: InputError as there, and for tensors without the heads' axis.
    """
    n_heads, names = tensors["W_Q"].shape[0], [name for name in PER_HEAD if name in tensors]
    for name in names:
        if tensors[name].dim() != (2 if name.startswith("b") else 3) or len(tensors[name]) != n_heads or n_heads < 2:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected one axis more, with the "
                             "two heads or more that W_Q has")
    return {"n_heads": n_heads} | sizes(alone(tensors)[0], metadata)


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """n_ctx, d_vocab, d_model, d_head of a file's tensors; d_model with the coordinate that biases take.

    Errors: InputError for fewer than two positions or tokens, and for a tensor of another shape (expected and found).
    """
    for name in ("W_E", "W_pos", "W_Q"):
        if tensors[name].dim() != 2:
            if name == "W_Q" and tensors[name].dim() == 3:
                # which says what is wrong, if something is
                sizes_of_heads(tensors, metadata)
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
    """The matrices that hold biases, but for W_U, whose last row is b_O W_U + b_U and no number of the file.

    Theorem: *A network with biases is one without*.
    """
    bias = lambda name, like: w.get(name, torch.zeros_like(like[0]))[None]
    beside = lambda x, one: torch.cat([x, torch.full_like(x[:, :1], one)], 1)
    return {"W_E": beside(w["W_E"], 1.0), "W_pos": beside(w["W_pos"], 0.0), "W_O": beside(w["W_O"], 0.0),
            "W_K": torch.cat([w["W_K"], torch.zeros_like(w["W_K"][:1])])} | {
        name: torch.cat([w[name], bias("b" + name[1:], w[name])]) for name in ("W_Q", "W_V")}


def last_logits(weights: Mapping[str, Tensor], tokens: Int[Tensor, "batch n_ctx"]) -> Float[Tensor, "batch v"]:
    """Logits at the last position, [batch, d_vocab], of the model as written, in the weights' precision.

    Shapes: tokens [batch, n_ctx] integer.  Complexity: O(batch (h K d^2 + d v)).
    """
    x, bias = weights["W_E"][tokens] + weights["W_pos"], lambda name: weights.get(name, 0)   # [batch, n_ctx, d_model]
    heard = sum(written(head, x) for head in alone(weights))
    return (x[:, -1] + heard + bias("b_O")) @ weights["W_U"] + bias("b_U")


def written(w: Mapping[str, Tensor], x: Float[Tensor, "batch n d"]) -> Float[Tensor, "batch d"]:
    """What one head writes at the last position."""
    query = x[:, -1] @ w["W_Q"] + w.get("b_Q", 0)                        # [batch, d_head]
    scores = torch.einsum("bh,bkh->bk", query, x @ w["W_K"]) / w["W_Q"].shape[1] ** 0.5
    mixed = torch.einsum("bk,bkd->bd", scores.softmax(-1), x)            # residual stream under attention
    return (mixed @ w["W_V"] + w.get("b_V", 0)) @ w["W_O"]
