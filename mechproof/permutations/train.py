"""The one recipe by which every network that composes permutations was trained.

Problem: a network that is right on every pair may still mix rows and columns in each neuron, and then nothing short
proves it.  Idea: fresh random pairs, and a penalty on the sum of absolute weights; the learning rate
falls to zero over the last half of the run.  The smaller the K, the stronger the penalty that the network bears.

>>> weights = train({"K": 3}, seed=0, steps=2)
>>> weights["W_X"].shape
torch.Size([3, 3, 180])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding_bag

from ..proof.family import one_thread
from .model import drawn

RECIPE = {"optimizer": "Adam", "d_mlp": "60 K", "steps": "1000 K", "batch": 512, "lr": "0.1 / K", "decay": 0.5,
          "l1": "0.09 / K^3.75, on W_X, W_Y and W_U", "loss": "cross entropy, mean of K answers",
          "init_std": "1 / sqrt(2 K), 1 / sqrt(d_mlp)", "silent": 1e-3, "kept": "6 K^2", "rounded": "float16"}


def recipe(settings: Mapping) -> dict[str, int | float]:
    """What of the recipe depends on K, but for what the settings change."""
    K = settings["K"]
    return {"d_mlp": 60 * K, "steps": 1000 * K, "lr": 0.1 / K, "l1": 0.09 / K**3.75} | dict(settings)


def start(K: int, d_mlp: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Weights before training, biases zero; W_X and W_Y as one table, a row for every entry, 2 K of which are seen."""
    W_in, W_U = (torch.randn(shape, generator=generator) for shape in ((2 * K * K, d_mlp), (d_mlp, K * K)))
    found = {"W_in": W_in * (2 * K) ** -0.5, "b_in": torch.zeros(d_mlp),
             "W_U": W_U * d_mlp**-0.5, "b_U": torch.zeros(K * K)}
    return {name: tensor.requires_grad_() for name, tensor in found.items()}


def loss(w: Mapping[str, Tensor], x: Int[Tensor, "b K"], y: Int[Tensor, "b K"]) -> Float[Tensor, ""]:
    """Cross entropy of the K answers; only the rows of entries that are 1 are read.  Complexity: O(b n K^2)."""
    K, point = x.shape[1], torch.arange(x.shape[1])
    ones = torch.cat([x * K + point, (y + K) * K + point], 1)
    hidden = (embedding_bag(ones, w["W_in"], mode="sum") + w["b_in"]).relu()
    return cross_entropy((hidden @ w["W_U"] + w["b_U"]).view(-1, K), x.gather(1, y).flatten())


def train(settings: Mapping, seed: int, steps: int | None = None,
          progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Tensor]:
    """Train one network by `RECIPE`; `settings` are K and what of the recipe they change.

    Source: Chughtai, Chan and Nanda 2023 (the task, on one-hot inputs).  Complexity: O(steps batch n K^2).
    """
    r, generator = recipe(settings), torch.Generator().manual_seed(seed)
    K, steps = r["K"], r["steps"] if steps is None else steps
    w = start(K, r["d_mlp"], generator)
    optimizer = torch.optim.Adam(w.values(), fused=True)
    with one_thread():
        for step in progress(range(steps)):
            for group in optimizer.param_groups:
                group["lr"] = r["lr"] * min(1.0, (steps - step) / (RECIPE["decay"] * steps))
            x, y = (drawn(RECIPE["batch"], K, generator) for _ in range(2))
            penalty = w["W_in"].abs().sum() + w["W_U"].abs().sum()
            optimizer.zero_grad()
            (loss(w, x, y) + r["l1"] * penalty).backward()
            optimizer.step()
    return pruned({name: tensor.detach() for name, tensor in w.items()}, K)


def pruned(w: Mapping[str, Tensor], K: int) -> dict[str, Tensor]:
    """The network in float16, without neurons that died: those that write nothing above 1e-3 are zeros at the end of
    6 K^2 neurons (or of more, if more are alive)."""
    alive = w["W_U"].abs().amax(1) > RECIPE["silent"]
    first = alive.int().argsort(descending=True, stable=True)[: max(6 * K * K, int(alive.sum()))]
    W_in, b_in = w["W_in"] * alive, w["b_in"] * alive
    W_X, W_Y = W_in[:, first].view(2, K, K, -1)
    found = {"W_X": W_X, "W_Y": W_Y, "b_in": b_in[first], "b_U": w["b_U"].view(K, K),
             "W_U": (w["W_U"] * alive[:, None])[first].view(-1, K, K)}
    return {name: tensor.half().float() for name, tensor in found.items()}
