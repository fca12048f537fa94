"""Advice for the proofs: bases, keys and places on the wheel, read off the trained weights.
Nothing here is trusted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import Advice, Model, Parameters
from .circuits import balls, residual
from .fourier import Neurons, keys, read, tables


def bases(model: Model, parameters: Parameters) -> Advice:
    """The doors: where the residual stream lies before the MLP, and which directions of W_out W_U carry the logits.

    The latter are turned so that each key's neurons write to two of them.
    """
    w, table = {name: tensor.double() for name, tensor in model.tensors.items()}, tables(model)
    neurons, rank = read(table), parameters["rank"]
    inner = torch.linalg.svd(residual(balls(model)).mid)[2][: parameters["residual_rank"]]
    left = torch.linalg.svd(table.W, full_matrices=False)[0][:, :rank]
    every = torch.cat([w["W_out"].T @ left, torch.eye(w["W_out"].shape[1]).double()], 1)
    span = torch.linalg.qr(every)[0][:, :rank]                           # [d, rank], also of fewer neurons or classes
    written = w["W_out"] @ span * neurons.r[:, None]
    strongest = keys(neurons, rank // 2)
    planes = [torch.linalg.svd(written[neurons.key == k])[2][:2] for k in strongest]
    own = torch.cat(planes) if planes else written[:0]
    others = torch.linalg.svd(own)[2][own.shape[0]:]
    u, _, v = torch.linalg.svd(torch.cat([own, others]))                 # the orthonormal basis nearest to these planes
    return {"inner": inner, "outer": u @ v @ span.T,
            "keys": torch.tensor(strongest + [0] * (rank // 2 - len(strongest)), dtype=torch.int64)}


def places(neurons: Neurons, strongest: list[int]) -> Float[Tensor, " n"]:
    """The wheel of one key after the other, neurons by their phase; those of no key at the end."""
    rank = {k: i for i, k in enumerate(strongest)}
    key = torch.tensor([rank.get(k, len(strongest)) for k in neurons.key.tolist()])
    return neurons.phi + 7.0 * key


def on_the_wheel(model: Model, parameters: Parameters) -> Advice:
    """Bases and places."""
    neurons = read(tables(model))
    return bases(model, parameters) | {"place": places(neurons, keys(neurons, parameters["rank"] // 2))}
