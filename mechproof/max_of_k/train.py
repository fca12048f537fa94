"""The one recipe by which every Max-of-K model in the book was trained.

Problem: the book needs hundreds of models that anybody can make again.  Idea: one function of
(sizes, seed), in float32 on one thread, with a generator of its own, so that the same machine gives
the same bits and another machine a model of the same kind.

>>> weights = train({"n_ctx": 4, "d_vocab": 8, "d_model": 8}, seed=0, steps=2)
>>> weights["W_E"].shape
torch.Size([8, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..proof.family import Model, one_thread
from .model import last_logits, shapes

RECIPE = {"optimizer": "AdamW", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.01,
          "batch": 128, "steps": 3000, "init_std": "0.8 / sqrt(d_model)", "loss": "cross entropy, float64"}


def sequences(n_ctx: int, d_vocab: int, generator: torch.Generator,
              uniform_maximum: bool) -> Int[Tensor, "batch n_ctx"]:
    """A batch to train on: every sequence is equally likely, or else every maximum, at every place."""
    size = (RECIPE["batch"], n_ctx)
    if not uniform_maximum:
        return torch.randint(d_vocab, size, generator=generator)
    top = torch.randint(d_vocab, (size[0], 1), generator=generator)
    smaller = (torch.rand(size, generator=generator) * (top + 1)).long()
    return smaller.scatter(1, torch.randint(n_ctx, (size[0], 1), generator=generator), top)


def descend(weights: Mapping[str, Tensor], draw: Callable[[], Tensor], steps: Iterable[int],
            weight_decay: float) -> dict[str, Tensor]:
    """The weights after so many steps, each on a fresh batch; the loss is on the last position only."""
    weights = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=RECIPE["lr"], betas=RECIPE["betas"],
                                  weight_decay=weight_decay, fused=True)
    with one_thread():
        for _ in steps:
            tokens = draw()
            loss = cross_entropy(last_logits(weights, tokens).double(), tokens.amax(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: tensor.detach() for name, tensor in weights.items()}


def train(settings: Mapping[str, int], seed: int, steps: int = RECIPE["steps"],
          progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Tensor]:
    """Train one model by `RECIPE`.

    `settings` are the arguments of `shapes`, and `uniform_maximum` if so;
    `progress` wraps the loop (tqdm on the command line).
    Source: Gross et al. 2024 (training details).  A few seconds on one core at the book's sizes.
    """
    sizes = dict(settings)
    uniform_maximum = bool(sizes.pop("uniform_maximum", False))
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(shape, generator=generator) for name, shape in shapes(**sizes).items()}
    weights = {name: tensor * 0.8 / start["W_E"].shape[1] ** 0.5 for name, tensor in start.items()}
    return descend(weights, lambda: sequences(sizes["n_ctx"], sizes["d_vocab"], generator, uniform_maximum),
                   progress(range(steps)), RECIPE["weight_decay"])


def decayed(model: Model, steps: int = 4000, weight_decay: float = 1.0) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model after these further steps with a hundred times the weight decay; tensors and metadata."""
    generator, sizes = torch.Generator().manual_seed(0), model.sizes
    draw = lambda: sequences(sizes["n_ctx"], sizes["d_vocab"], generator, False)
    return descend(model.tensors, draw, range(steps), weight_decay), model.lineage("decayed")
