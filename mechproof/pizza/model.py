"""The pizza: modular addition by one layer of constant attention and a ReLU MLP.

Two numbers and a sign go in, `a b =`; the logits at `=` should be largest at (a + b) mod p.  Attention looks
at the three positions alike, so the network is symmetric in a and b:

    x = W_E[=] + W_pos[2] + (sum of the three embeddings) (sum_h W_V[h] W_O[h]) / 3
    logits = (x + relu(x W_in + b_in) W_out + b_out) W_U

Some train it without the sign: two positions, and the answer at the second,

    x = W_E[b] + W_pos[1] + (sum of the two embeddings) (sum_h W_V[h] W_O[h]) / 2

where b has a path of its own, so that the two inputs have tables of their own (below each other in `Tables`).

`sizes` reads the architecture off the tensors of a file and refuses what is not this network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError

POSITIONS = 3                                                            # a, b, = (or a, b alone)
BIASES = ("b_in", "b_out")


def shapes(p: int, d_mlp: int = 512, d_model: int = 128, n_heads: int = 4,
           biases: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, in TransformerLens' layout; row p of W_E is the sign `=`."""
    d_head = d_model // n_heads
    every = {"W_E": (p + 1, d_model), "W_pos": (POSITIONS, d_model), "W_V": (n_heads, d_model, d_head),
             "W_O": (n_heads, d_head, d_model), "W_in": (d_model, d_mlp), "W_out": (d_mlp, d_model),
             "W_U": (d_model, p)}
    return every | ({"b_in": (d_mlp,), "b_out": (d_model,)} if biases else {})


def sizes_without_sign(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """The same of a network with two positions.  Errors: as `sizes`."""
    if tensors["W_pos"].dim() != 2 or len(tensors["W_pos"]) != 2:
        raise InputError(f"tensor W_pos has shape {list(tensors['W_pos'].shape)}; expected two positions")
    padded = {name: torch.cat([x, x[:1]]) if name in ("W_E", "W_pos") else x for name, x in tensors.items()}
    return sizes(padded, metadata) | {"positions": 2}


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """p, d_mlp, d_model, d_head, n_heads of a file's tensors.

    Errors: InputError for a modulus that is not an odd prime, and for a tensor of another shape (expected and found).
    """
    for name, dim in (("W_E", 2), ("W_V", 3), ("W_in", 2)):
        if tensors[name].dim() != dim:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected {dim} dimensions")
    (rows, d_model), (n_heads, _, d_head), d_mlp = tensors["W_E"].shape, tensors["W_V"].shape, tensors["W_in"].shape[1]
    p = rows - 1
    found = {"p": p, "d_mlp": d_mlp, "d_model": d_model, "n_heads": n_heads, "d_head": d_head}
    if p < 3 or any(p % q == 0 for q in range(2, int(p**0.5) + 1)):
        raise InputError(f"tensor W_E has {rows} rows, so p = {p}; "
                         "expected an odd prime and one row more, for the sign =")
    if min(found.values()) < 1 or d_model < 2:
        raise InputError(f"model has sizes {found}; expected at least one of each, and d_model of two or more")
    expected = shapes(p, d_mlp, d_model, 1, biases=True)
    expected |= {"W_V": (n_heads, d_model, d_head), "W_O": (n_heads, d_head, d_model)}
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise InputError(f"tensor {name} has shape {list(tensor.shape)}; expected {list(expected[name])}")
    return found


class Tables(NamedTuple):
    """The network with its linear maps folded: logits(a, b) = S[a] + S[b] + relu(H[a] + H[b]) W; without the sign the
    rows of b stand p below those of a."""

    H: Float[Tensor, "p n"]
    W: Float[Tensor, "n p"]
    S: Float[Tensor, "p p"]


def fold(weights: Mapping[str, Tensor]) -> Tables:
    """The three tables, in the weights' precision.  Complexity: O(p d n + n d p + p d^2)."""
    w = weights
    b_in, b_out = w.get("b_in", 0), w.get("b_out", 0)
    n = len(w["W_pos"])
    ov = torch.einsum("hdk,hke->de", w["W_V"], w["W_O"]) / n             # [d_model, d_model]
    if n == POSITIONS:
        sign = w["W_E"][-1]
        constant = sign + w["W_pos"][2] + (sign + w["W_pos"].sum(0)) @ ov    # what every input adds to the residual
        each = w["W_E"][:-1] @ ov + constant / 2                         # [p, d_model]: half the residual at =
    else:
        first = w["W_E"] @ ov + (w["W_pos"][1] + w["W_pos"].sum(0) @ ov) / 2
        each = torch.cat([first, first + w["W_E"]])
    return Tables(each @ w["W_in"] + b_in / 2, w["W_out"] @ w["W_U"], (each + b_out / 2) @ w["W_U"])


def logits(weights: Mapping[str, Tensor], pairs: Int[Tensor, "n_pairs 2"]) -> Float[Tensor, "n_pairs p"]:
    """Logits at `=` of given pairs (a, b).  Complexity: O(n_pairs n p) after folding."""
    H, W, S = fold(weights)
    a, b = pairs.unbind(-1)
    b = b + (len(H) - W.shape[1])
    return S[a] + S[b] + torch.relu(H[a] + H[b]) @ W


def unordered(p: int) -> Int[Tensor, "n_pairs 2"]:
    """All pairs a <= b below p."""
    return torch.triu_indices(p, p).T
