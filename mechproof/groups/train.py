"""The one recipe by which every network in the book that composes in a group was trained.

Problem: networks that solve the task, each neuron of which reads cosets, that anybody can make again.  Idea: Adam on
random batches with a weak penalty on weights (added to the gradient) and a weaker one on the absolute votes, from more
neurons than are needed; those that die on the way are left out.  `votes` = 0 is plain weight decay.

>>> weights = train({"group": "S3", "start": 16, "d_mlp": 8}, seed=0, steps=2)
>>> weights["W_L"].shape, weights["answers"].shape
(torch.Size([6, 8]), torch.Size([6, 6]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..proof.family import one_thread
from .group import multiplication

RECIPE = {"optimizer": "Adam", "lr": 1e-2, "betas": [0.9, 0.98], "steps": 8000, "decay": 0.4, "l2": 2e-5, "votes": 2e-5,
          "share": 0.8, "init_std": 0.3, "dead": 1e-3, "loss": "cross entropy, float32", "rounded": "float16"}


def batch(G: int) -> int:
    """Pairs in a batch: a tenth of all, and 512 at least."""
    return max(G * G // 10, 512)


def train_pairs(G: int, seed: int, share: float = RECIPE["share"]) -> Tensor:
    """The pairs, [N, 2], that a model of this seed was trained on: this share of all."""
    order = torch.randperm(G * G, generator=torch.Generator().manual_seed(seed))[: round(share * G * G)]
    return torch.stack([order // G, order % G], 1)


def start(G: int, n: int, seed: int) -> dict[str, Tensor]:
    """Weights before training."""
    g = torch.Generator().manual_seed(seed + 10**6)                      # apart from the generator that splits
    return {name: torch.randn(shape, generator=g) * RECIPE["init_std"]
            for name, shape in {"W_L": (G, n), "W_R": (G, n), "W_U": (n, G)}.items()}


def train(settings: Mapping, seed: int, steps: int = RECIPE["steps"],
          progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Tensor]:
    """Train one model by `RECIPE`.

    `settings` are the group, the neurons at the start and those that are kept, and what of the recipe they change.
    Complexity: O(steps |G|^3 n).
    """
    recipe = RECIPE | dict(settings) | {"steps": steps}
    answers = multiplication(recipe["group"])
    G = len(answers)
    w = {name: x.requires_grad_() for name, x in start(G, recipe["start"], seed).items()}
    pairs, g = train_pairs(G, seed, recipe["share"]), torch.Generator().manual_seed(seed + 2 * 10**6)
    adam = torch.optim.Adam(w.values(), lr=recipe["lr"], betas=recipe["betas"], weight_decay=recipe["l2"])
    with one_thread():
        for step in progress(range(steps)):
            for group in adam.param_groups:
                group["lr"] = recipe["lr"] * min(1.0, (steps - step) / (recipe["decay"] * steps))
            x, y = pairs[torch.randint(len(pairs), (batch(G),), generator=g)].unbind(1)
            loss = cross_entropy(torch.relu(w["W_L"][x] + w["W_R"][y]) @ w["W_U"], answers[x, y])
            loss = loss + recipe["votes"] * w["W_U"].abs().sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return kept({name: x.detach() for name, x in w.items()}, recipe["d_mlp"]) | {"answers": answers.float()}


def kept(w: Mapping[str, Tensor], n: int) -> dict[str, Tensor]:
    """The n neurons with the largest weights, rounded to float16; those next to nothing of the largest are zero."""
    size = w["W_U"].norm(dim=1) * (w["W_L"].square().sum(0) + w["W_R"].square().sum(0)).sqrt()
    order = size.argsort(descending=True)[:n]
    live = size[order] > RECIPE["dead"] * size.max()
    return {"W_L": (w["W_L"][:, order] * live).half().float(), "W_R": (w["W_R"][:, order] * live).half().float(),
            "W_U": (w["W_U"][order] * live[:, None]).half().float()}
