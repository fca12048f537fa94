"""The one recipe by which every Max-of-K model in the book was trained.

Problem: the book needs hundreds of models that anybody can make again.  Idea: one function of
(sizes, seed), in float32 on one thread, with a generator of its own, so that the same machine gives
the same bits and another machine a model of the same kind.

>>> weights = train({"n_ctx": 4, "d_vocab": 8, "d_model": 8}, seed=0, steps=2)
>>> weights["W_E"].shape
torch.Size([8, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..family import one_thread
from .model import last_logits, shapes

RECIPE = {"optimizer": "AdamW", "lr": 1e-3, "betas": [0.9, 0.999], "weight_decay": 0.01,
          "batch": 128, "steps": 3000, "init_std": "0.8 / sqrt(d_model)", "loss": "cross entropy, float64"}


def train(sizes: dict[str, int], seed: int, steps: int = RECIPE["steps"],
          progress: Callable[[Iterable], Iterable] = iter) -> dict[str, Tensor]:
    """Train one model by `RECIPE`; fresh uniform sequences at every step, loss on the last position only.

    `sizes` are the arguments of `shapes`; `progress` wraps the loop (tqdm on the command line).
    Source: Gross et al. 2024 (training details).  A few seconds on one core at the book's sizes.
    """
    generator = torch.Generator().manual_seed(seed)
    start = {name: torch.randn(shape, generator=generator) for name, shape in shapes(**sizes).items()}
    weights = {name: (tensor * 0.8 / start["W_E"].shape[1] ** 0.5).requires_grad_() for name, tensor in start.items()}
    optimizer = torch.optim.AdamW(weights.values(), lr=RECIPE["lr"], betas=RECIPE["betas"],
                                  weight_decay=RECIPE["weight_decay"], fused=True)
    with one_thread():
        for _ in progress(range(steps)):
            tokens = torch.randint(sizes["d_vocab"], (RECIPE["batch"], sizes["n_ctx"]), generator=generator)
            logits = last_logits(weights, tokens).double()
            loss = torch.nn.functional.cross_entropy(logits, tokens.amax(-1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: tensor.detach() for name, tensor in weights.items()}

