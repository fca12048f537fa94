"""What the neurons do, read off a trained model: advice for proofs, and the figures of the chapter.

Nothing here is trusted by a check.  Every neuron listens to one frequency, its key k: with kappa = 2 pi k / p,

    H_i(a) = beta_i + r_i cos(kappa a + phi_i) + second harmonic + ...,   W_ic = omega_i cos(kappa c + psi_i) + ...
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ..proof.family import Model
from .model import Tables, fold


class Neurons(NamedTuple):
    """Amplitudes and phases of every neuron on its own key, the largest frequency of its input."""

    key: Int[Tensor, " n"]
    r: Float[Tensor, " n"]
    phi: Float[Tensor, " n"]
    omega: Float[Tensor, " n"]
    psi: Float[Tensor, " n"]
    beta: Float[Tensor, " n"]                                            # mean over a
    # of H at 2 key, relative to r and with phase 2 phi taken out
    second: Complex[Tensor, " n"]


def tables(model: Model) -> Tables:
    """H, W, S in float64, W and S centred over the classes; without the sign the means of both inputs' tables."""
    H, W, S = fold({name: tensor.double() for name, tensor in model.tensors.items()})
    H, S = (x.unflatten(0, (-1, W.shape[1])).mean(0) for x in (H, S))
    return Tables(H, W - W.mean(1, keepdim=True), S - S.mean(1, keepdim=True))


def turn(j: Int[Tensor, "*shape"], p: int) -> Float[Tensor, "*shape"]:
    """2 pi j / p for whole numbers j, taken mod p first: the angle of a wave, in float64."""
    return (j % p).double() * (2 * pi / p)


def spectrum(x: Float[Tensor, "*rows p"]) -> Complex[Tensor, "*rows half"]:
    """Coefficients c_k of x(j) = Re sum_k c_k exp(2 pi i j k / p), k = 0 .. (p - 1) / 2."""
    c = torch.fft.rfft(x) * (2 / x.shape[-1])
    return torch.cat([c[..., :1] / 2, c[..., 1:]], -1)


def read(table: Tables) -> Neurons:
    """Amplitude-phase form of every neuron.  Complexity: O(n p log p)."""
    p, n = table.H.shape
    ins, outs, each = spectrum(table.H.T), spectrum(table.W), torch.arange(n)
    key = ins[:, 1:].abs().argmax(1) + 1
    first, out = ins[each, key], outs[each, key]
    twice = (2 * key) % p
    folded = twice > p // 2                                              # frequencies k and p - k are conjugates
    second = ins[each, torch.where(folded, p - twice, twice)]
    # 0 of dead ones
    second = torch.where(folded, second.conj(), second) * torch.exp(-2j * first.angle()) / first.abs().clamp_min(1e-300)
    return Neurons(key, first.abs(), first.angle(), out.abs(), out.angle(), ins[:, 0].real, second)


def phase_gap(neurons: Neurons) -> float:
    """Mean of |psi - 2 phi| over neurons, by weight, in radians."""
    weight = neurons.r * neurons.omega
    return float((torch.angle(torch.exp(1j * (neurons.psi - 2 * neurons.phi))).abs() * weight).sum() / weight.sum())


def keys(neurons: Neurons, most: int) -> list[int]:
    """The frequencies that carry the logits, strongest first: at most so many,
    those with a thousandth of the weight or more."""
    weight = torch.zeros(int(neurons.key.max()) + 1).double().index_add(0, neurons.key, neurons.r * neurons.omega)
    ranked = weight.argsort(descending=True)[:most].tolist()
    return [k for k in ranked if weight[k] > 1e-3 * weight.sum()]
