"""Small models of every kind that should break a bound, and the truth about them by exhaustion."""

from __future__ import annotations

import itertools

import pytest
import torch

from mechproof import zoo
from mechproof.exercises.by_hand import from_tables
from mechproof.max_of_k.model import shapes
from mechproof.max_of_k.truth import Truth


def small_model(seed: int, kind: str = "able"):
    """A random or adversarial Max-of-K model, v <= 6 and K <= 4; `kind` says in which way it is nasty."""
    g = torch.Generator().manual_seed(seed)
    pick = lambda *options: options[int(torch.randint(len(options), (), generator=g))]
    n_ctx, d_vocab = pick(2, 3, 3, 4), pick(2, 3, 4, 5, 6)
    if n_ctx == 4:
        d_vocab = min(d_vocab, 5)
    if kind == "trap":                    # token 0 is right unless the maximum suppresses it, which takes attention
        g_noise = lambda *shape: 0.1 * torch.randn(shape, generator=g)
        OV, PV = g_noise(d_vocab, d_vocab), g_noise(n_ctx, d_vocab)
        OV[:-1] += torch.eye(d_vocab)[-1]
        OV[-1, 0] -= 10
        PV += torch.tensor([pick(4.0, 5.0, 6.0)] + [-20.0] * (d_vocab - 2) + [0.0])
        A = torch.arange(d_vocab).float().expand(d_vocab, -1).clamp_max(d_vocab - 2) * pick(0.0, 4.0)
        return from_tables(A, g_noise(d_vocab, d_vocab), OV, PV, f"trap-{seed}")
    if kind in ("able", "exact ties", "steep"):
        noise = lambda *shape: torch.randn(shape, generator=g) * pick(0.3, 1.0, 2.0)
        token = torch.arange(d_vocab).float()
        A = token * pick(0.0, 1.0, 3.0) + noise(d_vocab, d_vocab) * 0.3
        OV = pick(2.0, 4.0, 8.0) * torch.eye(d_vocab) + noise(d_vocab, d_vocab)
        EU, PV = noise(d_vocab, d_vocab) * pick(0.1, 1.0), noise(n_ctx, d_vocab) * pick(0.1, 1.0)
        if kind == "exact ties":
            A, OV, EU, PV = A.round(), OV.round(), EU.round(), PV.round()
        return from_tables(A * (1e4 if kind == "steep" else 1), EU, OV, PV, f"{kind}-{seed}")
    if kind == "biases":
        w = dict(small_model(seed, pick("able", "exact ties", "random", "trap", "repeated")).tensors)
        lengths = {"b_Q": w["W_Q"].shape[1], "b_V": w["W_V"].shape[1], "b_O": len(w["W_U"]), "b_U": len(w["W_E"])}
        some = {name: torch.randn(n, generator=g) * pick(0.1, 1.0, 3.0) for name, n in lengths.items() if pick(0, 1, 1)}
        return zoo.model_from_tensors(f"biases-{seed}", w | some)
    d_model, d_head = pick(1, 3, 5), pick(2, 4)
    w = {name: torch.randn(shape, generator=g) for name, shape in shapes(n_ctx, d_vocab, d_model, d_head).items()}
    if kind == "huge scores":
        w["W_Q"], w["W_K"] = w["W_Q"] * 300, w["W_K"] * 300
    elif kind == "tiny":
        w = {name: t * 1e-12 for name, t in w.items()}
    elif kind == "repeated":
        w["W_E"][1:] = w["W_E"][0]
        w["W_pos"][:] = w["W_pos"][0]
        w["W_U"][:, -1] = w["W_U"][:, 0]
    elif kind == "zeros":
        w["W_Q"] *= 0
        w["W_V"][:, 0] = 0
    return zoo.model_from_tensors(f"{kind}-{seed}", w)


KINDS = ("able", "able", "able", "exact ties", "steep", "trap", "huge scores", "tiny", "repeated", "zeros", "random", "biases", "biases")


def right_sequences(model) -> set[tuple[int, ...]]:
    """Every sequence that the model gets right, each decided in balls."""
    truth, sizes = Truth(model), model.sizes
    return {t for t in itertools.product(range(sizes["d_vocab"]), repeat=sizes["n_ctx"]) if truth.right(t)}


@pytest.fixture(scope="session")
def reference():
    return zoo.load("max-of-4-reference/123")
