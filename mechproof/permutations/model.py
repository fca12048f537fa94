"""Composing two permutations: the network z = x after y, its inputs and the tensors of its files.

Two permutations of K points go in as K x K matrices with one 1 in every column, W_X[j, k] is seen where x(k) = j and
W_Y[l, q] where y(q) = l, and for every q the logits of q should be largest at z(q) = x(y(q)):

    h = relu(sum_k W_X[x(k), k] + sum_q W_Y[y(q), q] + b_in),        logits[q, j] = h W_U[:, q, j] + b_U[q, j].

An input is 2 K tokens, x(0) .. x(K - 1), y(0) .. y(K - 1); there are (K!)^2, and one is right if all K answers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from ..proof.family import InputError, check_tokens


def shapes(K: int, d_mlp: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors."""
    return {"W_X": (K, K, d_mlp), "W_Y": (K, K, d_mlp), "b_in": (d_mlp,), "W_U": (d_mlp, K, K), "b_U": (K, K)}


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """K, d_mlp, and what an input is: n_ctx = 2 K tokens below d_vocab = K.

    Errors: InputError for fewer than three points, no neurons, and tensors that do not fit together.
    """
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    K, d_mlp = (found["b_U"] + (0,))[0], (found["b_in"] + (0,))[0]
    for name, expected in shapes(K, d_mlp).items():
        if found[name] != expected:
            raise InputError(f"tensor {name} has shape {list(found[name])}; expected {list(expected)}")
    if K < 3 or d_mlp < 1:
        raise InputError(f"model has K = {K} points and {d_mlp} neurons; expected at least 3 points and 1 neuron")
    return {"K": K, "d_mlp": d_mlp, "n_ctx": 2 * K, "d_vocab": K}


def every(K: int) -> Int[Tensor, "m K"]:
    """All m = K! permutations in lexicographic order, a row each.  Complexity: O(K! K)."""
    return torch.tensor(list(permutations(range(K))))


def drawn(n: int, K: int, generator: torch.Generator) -> Int[Tensor, "n K"]:
    """Random permutations, all equally likely (but for ties of random numbers)."""
    return torch.rand(n, K, generator=generator).argsort(-1)


def inputs(tokens: Sequence[int], sizes: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """x and y of an input.  Errors: InputError for tokens that are no two permutations."""
    tokens, K = check_tokens(tokens, sizes), sizes["K"]
    x, y = tokens[:K], tokens[K:]
    if len({*x}) < K or len({*y}) < K:
        raise InputError(f"tokens {tokens} are no two permutations; expected each of 0 to {K - 1} once in either half")
    return x, y


def logits(weights: Mapping[str, Tensor], x: Int[Tensor, "b K"],
           y: Int[Tensor, "b K"]) -> Float[Tensor, "b K K"]:
    """Logits [b, q, j] of given pairs.  Complexity: O(b n K^2)."""
    K, n = x.shape[1], len(weights["b_in"])
    of_x, of_y = (embedding_bag(p * K + torch.arange(K), weights[name].reshape(-1, n), mode="sum")
                  for name, p in (("W_X", x), ("W_Y", y)))
    hidden = (of_x + of_y + weights["b_in"]).relu()
    return (hidden @ weights["W_U"].reshape(n, -1)).view(-1, K, K) + weights["b_U"]


def margins(weights: Mapping[str, Tensor], x: Int[Tensor, "b K"], y: Int[Tensor, "b K"]) -> Float[Tensor, " b"]:
    """The least of the K right logits' leads over their best rivals, by pair, in float64 without a radius.
    Complexity: O(b n K^2)."""
    found = logits({name: tensor.double() for name, tensor in weights.items()}, x, y)
    answer = x.gather(1, y)[..., None]
    return (found.gather(2, answer) - found.scatter(2, answer, -torch.inf).amax(2, True)).amin((1, 2))


def sampled_margins(weights: Mapping[str, Tensor], n: int, seed: int = 0) -> Float[Tensor, " n"]:
    """Margins of n random pairs.  Complexity: O(n d_mlp K^2)."""
    generator, K = torch.Generator().manual_seed(seed), len(weights["b_U"])
    x, y = (drawn(n, K, generator).split(1000) for _ in range(2))
    return torch.cat([margins(weights, *both) for both in zip(x, y)])
