"""The network: neuron i sees W_L[x, i] + W_R[y, i], and its ReLU votes for every product z by W_U[i, z].

Embeddings and the linear maps after them are folded into one table a side, as one-hot inputs allow without loss.  The
group is in the file, as the table of its products: `answers` [x, y] is the element that is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError, Model
from ..proof.rounding import Ball

TENSORS = ("W_L", "W_R", "W_U", "answers")
OPTIONAL = ("b_in", "b_U")


def shapes(G: int, d_mlp: int) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, those that a file may leave out too."""
    return {"W_L": (G, d_mlp), "W_R": (G, d_mlp), "W_U": (d_mlp, G), "answers": (G, G), "b_in": (d_mlp,), "b_U": (G,)}


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """Sizes, read off the tensors.  Errors: InputError where they do not fit together."""
    G, n = (list(tensors["W_L"].shape) + [0, 0])[:2]
    for name, tensor in tensors.items():
        if G < 2 or n < 1 or tuple(tensor.shape) != shapes(G, n)[name]:
            raise InputError(f"tensor {name} has shape {list(tensor.shape)}; expected "
                             f"{list(shapes(max(G, 2), n)[name])}, as W_L is [elements, neurons] and a group has "
                             "two elements or more")
    answers = tensors["answers"]
    if not bool(((answers == answers.round()) & (answers >= 0) & (answers < G)).all()):
        raise InputError(f"tensor answers is no table of products; expected whole numbers from 0 to {G - 1}")
    return {"n_ctx": 2, "d_vocab": G, "d_mlp": n}


class Network(NamedTuple):
    """logit_z(x, y) = sum_i relu(L[x, i] + b_i + R[y, i]) U[i, z] + b_z, of the neurons that vote for anything."""

    L: Float[Ball, "G n"]
    R: Float[Ball, "G n"]
    b_in: Float[Ball, " n"]
    U: Float[Ball, "n G"]
    b_U: Float[Ball, " G"]
    answers: Int[Tensor, "G G"]
    live: Int[Tensor, " n"]                                              # which neurons of the file these are


def network(model: Model) -> Network:
    """The tables of a model; dead neurons cost nobody more than it takes to see that they are dead.
    Complexity: O(G n)."""
    U = model["W_U"]
    live = (U != 0).any(1).nonzero().flatten()
    b_in, b_U = (model.tensors.get(name, torch.zeros(size)) for name, size in zip(OPTIONAL, U.shape))
    return Network(Ball(model["W_L"][:, live]), Ball(model["W_R"][:, live]), Ball(b_in[live]), Ball(U[live]), Ball(b_U),
                   model["answers"].long(), live)
