"""Layer after layer without blurring: superposed states that neurons read, decide and write anew.

Problem: m features on, or off, as a vector y = x Phi of D < m numbers; whatever reads them back and writes them again
adds noise, and depth multiplies it.  Idea: each feature has some neurons (W, zeros and ones) and neuron k asks
whether any of its features is on,

    z = y Phi^T W,  g = clip((z - LOW)/(HIGH - LOW), 0, 1) (two ReLUs),  x^_i = (mean of g over N_i - mu) / (1 - mu),

mu = 1 - (1 - p)^s with p the share of ones: what is expected of a feature that is off.  The next state is x^ Phi'
with other Phi'.

*Theorem (Layers).* The first state is x Phi with x of zeros and ones.  Suppose that for every input z is at most LOW
for the neurons none of whose features is on, and at least HIGH for the others, both where the first layer reads the
first state and, for every two consecutive layers, where the second reads what the first writes from exact gates.  Then
g is exactly that OR in every layer, and each layer writes what it writes from exact ORs, whatever came before: errors
do not add up.  *Proof.* Induction: a gate in its dead zone forgets z.

The two suppositions are bounded over all C(m, s) inputs feature by feature.  With OR_l <= n_l = sum of W_al and OR_l
>= n_l - (pairs of features that are on and share l), what was written and is read is

    z_k = const_k + sum_a U_ka - (shared),  M = (W'^T Phi' Phi'^T) C,  C_il = W_il / |N_i| / (1 - mu),  U = M W^T,

and a pair a, b shares at most o_ka = max over b of sum over l in N_a and N_b of |M_kl|, by sign; each feature is in s
- 1 pairs.

Source: Haenni et al. 2024 (layers that correct errors); the certificate and the dead zone are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import Ball, number, stack

LOW, HIGH = 0.6, 0.65
LARGEST = 1e9                                                            # in the place of a feature that is not meant
F8 = torch.float64


class Layer(NamedTuple):
    """The neurons of every feature, and the directions in which the state that it reads is written."""

    W: Float[Tensor, "m d"]
    Phi: Float[Tensor, "m D"]


def directions(m: int, D: int, generator: torch.Generator) -> Float[Tensor, "m D"]:
    """m unit vectors: up to 2 D from a Hadamard basis and the axes, in any order; else random."""
    order = torch.randperm(max(m, 2 * D), generator=generator)[:m]
    if m > 2 * D or D & (D - 1):
        x = torch.randn(m, D, generator=generator, dtype=F8)
        return x / x.norm(dim=1, keepdim=True)
    bits = torch.arange(D)[:, None] >> torch.arange(D.bit_length()) & 1
    hadamard = (1 - 2 * ((bits @ bits.T) % 2)).double() / D**0.5
    return torch.cat([hadamard, torch.eye(D, dtype=F8)])[order]


def wires(m: int, d: int, each: int, generator: torch.Generator, spread: bool = True) -> Float[Tensor, "m d"]:
    """So many neurons for every feature: at random, or one by one those with fewest features and nobody met twice."""
    W = torch.zeros(m, d, dtype=F8)
    for i in range(m):
        if not spread:
            W[i, torch.randperm(d, generator=generator)[:each]] = 1
            continue
        load, met = W.sum(0) + 0.9 * torch.rand(d, generator=generator, dtype=F8), torch.zeros(d, dtype=F8)
        for _ in range(each):
            k = int((load + 3 * met + 1e6 * W[i]).argmin())
            met += W[:i][W[:i, k] > 0].sum(0)
            W[i, k] = 1
    return W


def tower(shape: tuple[int, int, int, int], depth: int, seed: int, spread: bool = True) -> list[Layer]:
    """Layers of m features in D numbers with d neurons, so many for each feature; all drawn anew."""
    (m, D, d, each), generator = shape, torch.Generator().manual_seed(seed)
    return [Layer(wires(m, d, each, generator, spread), directions(m, D, generator)) for _ in range(depth)]


def level(W: Float[Tensor, "m d"], s: int) -> float:
    """mu: a formula of sizes and sparsity, which knows nothing of the input."""
    with cost.charge(W.numel(), "the share of ones"):
        return 1 - (1 - float(W.mean())) ** s


class Zone(NamedTuple):
    """What neurons read: at most so much where none of their features is on, at least so much where one is."""

    off_hi: float
    on_lo: float

    @property
    def dead(self) -> bool:
        return self.off_hi <= LOW and self.on_lo >= HIGH


def zone(reader: Layer, written: Float[Tensor, "m d"] | None, s: int) -> Zone:
    """Over all inputs, of a layer that reads what neurons `written` wrote, or the first state itself.

    Theorem: *Layers*.
    Complexity: O(m d D + m d^2 + m^2 d each), where C(m, s) inputs cost O(m d) each.
    """
    G = Ball(reader.W.T.contiguous()) @ (Ball(reader.Phi) @ Ball(reader.Phi.T.contiguous()))
    up = down = G
    const = G.sum(1) * 0.0
    if written is not None:
        mu = level(written, s)
        gain = number(1 / (1 - mu), 4e-16 / (1 - mu))
        C = Ball(written) * Ball(1 / written.sum(1, keepdim=True)) * gain
        M = G @ C
        U = M @ Ball(written.T.contiguous())
        over, under = (shared(part, written) * number((s - 1) / 2) for part in (M.relu(), (-M).relu()))
        up, down = U + under, U - over
        const = G.sum(1) * number(-mu / (1 - mu), 4e-16 * mu / (1 - mu))
    none, one = highest(up, reader.W.T > 0, s), lowest(down, reader.W.T > 0, s)
    ends = (none + const).upper().mid.amax(), -(-(one + const)).upper().mid.amax()
    with cost.charge(2, "the zone leaves torch"):
        return Zone(*map(float, ends))


def shared(M: Float[Ball, "k l"], W: Float[Tensor, "m l"]) -> Float[Ball, "k m"]:
    """The most that a feature shares with another one, by neuron that reads."""
    parts = []
    for a in range(len(W)):
        own, others = W[a].nonzero()[:, 0], W.clone()
        others[a] = 0
        parts.append((M[:, own] @ Ball(others[:, own].T.contiguous())).amax(1))
    return stack(parts).T


def highest(table: Float[Ball, "k m"], on: Tensor, s: int) -> Float[Ball, " k"]:
    """The s largest numbers of features that a neuron does not have, added up."""
    return table.pick(lambda x: x.masked_fill(on, -LARGEST).sort(1).values[:, -s:]).sum(1)


def lowest(table: Float[Ball, "k m"], on: Tensor, s: int) -> Float[Ball, " k"]:
    """The smallest number of a feature that a neuron has, and the s - 1 smallest of others."""
    first = table.pick(lambda x: x.masked_fill(~on, LARGEST).amin(1))
    return first + table.pick(lambda x: x.sort(1).values[:, : s - 1]).sum(1)


def certified(layers: Sequence[Layer], s: int) -> list[Zone]:
    """What every layer reads: the first one the clean state, the others what the layer before wrote."""
    return [zone(layer, layers[t - 1].W if t else None, s) for t, layer in enumerate(layers)]


def run(layers: Sequence[Layer], on: Int[Tensor, "n s"], correct: bool = True) -> list[Float[Tensor, "n m"]]:
    """x^ after every layer, as written; without correction what is read of the state is written again as it is."""
    m = len(layers[0].W)
    x, found = torch.zeros(len(on), m, dtype=F8).scatter(1, on, 1.0), []
    for W, Phi in layers:
        x = x @ Phi @ Phi.T
        if correct:
            g = ((x @ W - LOW) / (HIGH - LOW)).clamp(0, 1)
            mu = level(W, on.shape[1])
            x = (g @ (W / W.sum(1, keepdim=True)).T - mu) / (1 - mu)
        found.append(x)
    return found
