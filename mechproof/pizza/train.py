"""The one recipe by which every modular-addition model in the book was trained.

Problem: clean single-frequency neurons that anybody can make again.  Idea: full batch, strong weight decay, and
a learning rate that falls to zero over the last half of the run: without it spikes of the loss leave the
weights messy.  Pairs are drawn unordered, since (b, a) would give away a test pair (a, b).

>>> weights = train({"p": 5, "d_mlp": 8}, seed=0, steps=2)
>>> weights["W_E"].shape
torch.Size([6, 128])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..proof.family import Model, one_thread
from .model import BIASES, logits, shapes, unordered

RECIPE = {"optimizer": "AdamW", "lr": 2e-3, "betas": [0.9, 0.98], "weight_decay": 2.0, "warmup": 10, "steps": 2500,
          "decay": 0.5, "share": 0.6, "init_std": "1 / sqrt(fan in)", "loss": "cross entropy, float64"}


def train_pairs(p: int, seed: int, share: float = RECIPE["share"]) -> Tensor:
    """The unordered pairs, [N, 2], that a model of this seed was trained on: this share of all."""
    generator = torch.Generator().manual_seed(seed)
    pairs = unordered(p)
    return pairs[torch.randperm(len(pairs), generator=generator)[: round(share * len(pairs))]]


def start(settings: Mapping, seed: int) -> dict[str, Tensor]:
    """Weights before training: N(0, 1 / fan in), biases zero."""
    generator = torch.Generator().manual_seed(seed + 10**6)              # apart from the generator that splits
    own = {key: settings[key] for key in ("p", "d_mlp", "biases") if key in settings}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes(**own).items()}
    d_model = weights["W_E"].shape[1]
    fans = {"W_O": d_model, "W_out": weights["W_out"].shape[0]}
    return {name: tensor * (0 if name in BIASES else fans.get(name, d_model) ** -0.5)
            for name, tensor in weights.items()}


def rate(step: int, steps: int, decay: float) -> float:
    """Learning rate at a step, as a share of the highest: warm-up, constant, linear to zero over the last part."""
    falling = (steps - step) / (decay * steps) if decay else 1.0
    return min(1.0, (step + 1) / RECIPE["warmup"], falling)


def descend(weights: dict[str, Tensor], pairs: Tensor, steps: int, decay: float,
            weight_decay: float) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Full-batch training on these pairs, in place; yields (steps done, weights) before every step and at the end."""
    p, twice = weights["W_U"].shape[1], 1.0 + (pairs[:, 0] != pairs[:, 1]).double()
    answers = pairs.sum(-1) % p
    optimizer = torch.optim.AdamW(weights.values(), lr=RECIPE["lr"], betas=RECIPE["betas"],
                                  weight_decay=weight_decay, fused=True)
    for step in range(steps):
        yield step, weights
        for group in optimizer.param_groups:
            group["lr"] = RECIPE["lr"] * rate(step, steps, decay)
        loss = cross_entropy(logits(weights, pairs).double(), answers, reduction="none") @ twice / twice.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    yield steps, weights


def train(settings: Mapping, seed: int, steps: int | None = None, progress: Callable[[Iterable], Iterable] = iter,
          watch: Callable[[int, Mapping[str, Tensor]], None] = lambda step, weights: None) -> dict[str, Tensor]:
    """Train one model by `RECIPE`; `settings` are p, d_mlp, biases and what of the recipe they change.

    `progress` wraps the loop, `watch` sees every step.
    Source: Zhong et al. 2023 (the task), Yip et al. 2024 (the model).  Complexity: O(steps p^3 n).
    """
    recipe = RECIPE | dict(settings)
    weights = {name: tensor.requires_grad_() for name, tensor in start(settings, seed).items()}
    steps = recipe["steps"] if steps is None else steps
    with one_thread():
        pairs = train_pairs(recipe["p"], seed, recipe["share"])
        for step, now in progress(descend(weights, pairs, steps, recipe["decay"], recipe["weight_decay"])):
            watch(step, now)
    return {name: tensor.detach() for name, tensor in weights.items()}


def polished(model: Model, steps: int = 2000) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model after these further steps on all pairs, the learning rate falling from the start;
    tensors and metadata."""
    weights = {name: tensor.clone().requires_grad_() for name, tensor in model.tensors.items()}
    with one_thread():
        for _ in descend(weights, unordered(model.sizes["p"]), steps, 1.0, RECIPE["weight_decay"]):
            pass
    return {name: tensor.detach() for name, tensor in weights.items()}, model.lineage("polished")
