"""The sum over neurons by what they have in common: a series in the phases, cluster by cluster.

Problem: the wheel says which neurons are on, but nothing of why they add up to an integral.  Idea: a neuron of key k
with amplitude r and phase phi is nearly r (cos u + t (1 - cos 2u)), u = kappa a + phi, with t the same for many.  Then

    relu(x) = x / 2 + |x| / 2,   x = 2 r P(theta, kappa h + phi),   P = cos theta cos u + t (1 - cos 2 theta cos 2 u)

for a = h + g, b = h - g, theta = kappa g: the linear half is exact, and |P| is a cosine series in u whose terms meet
the neurons only through the moments sum_i r_i G_i exp(i m phi_i).  What a neuron does besides, and the tail of the
series, are bounded; the worst neurons are computed one by one.
"""

from __future__ import annotations

from math import pi
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Advice, Model, Parameters, Spec
from ..proof.product_bounds import row_norms
from ..proof.rounding import Ball, _up, cat, maximum, number, stack
from .circuits import HALF
from .fourier import keys, read, tables, turn
from .margins import angles
from .proof import Network, Sums
from .search import bases
from .wheel import Pairs, missed, one_by_one

EVERY = 4                       # terms for what a neuron writes outside its key's plane
TWO, FOUR = number(2.0), number(4.0)


class Curve(NamedTuple):
    """P(theta, u) = C cos u + t - B cos 2u, for each row of pairs; as a quadratic in x = cos u:
    -2 B x^2 + C x + t + B."""

    C: Float[Ball, " half"]
    B: Float[Ball, " half"]
    t: Float[Ball, ""]

    def at(self, x: Float[Ball, "half k"]) -> Float[Ball, "half k"]:
        return (self.C[:, None] - self.B[:, None] * x * TWO) * x + (self.t + self.B)[:, None]

    def breaks(self) -> Float[Tensor, "half 2"]:
        """Where P may change sign, in [0, pi], in order; any two numbers are sound.  Roots by the stable formula."""
        C, B, t = self.C.mid, self.B.mid, self.t.mid
        root = (C * C + 8 * B * (t + B)).clamp_min(0).sqrt()
        w = -(C + torch.where(C < 0, -root, root)) / 2
        x = torch.stack([w / (-2 * B), (t + B) / w], 1).nan_to_num(1.0).clamp(-1, 1)
        return x.acos().sort(1)[0]


class Series(NamedTuple):
    """|P| = sum_m c_m cos m u, off by at most `off` anywhere."""

    c: Float[Ball, "half terms"]
    off: Float[Ball, " half"]


def series(curve: Curve, terms: int) -> Series:
    """The first terms of |P|'s cosine series, and a bound on all that is left out.

    sigma P with sigma = +-1 between the breaks differs from |P| by at most twice the largest -sigma P, a quadratic's
    maximum over three intervals.  Tail: |c_m| <= 4 D1 / (pi m^2) + 2 (2 D2 + 2 |C| + 16 |B|) / (pi m^3) with D1, D2 the
    sums of |P'| and |P''| over the zeros of P in (0, pi), where |P'| <= sqrt(discriminant).  Complexity: O(p terms).
    Theorem: *Tail*.
    """
    u = curve.breaks()
    ends = torch.cat([torch.zeros_like(u[:, :1]), u, torch.full_like(u[:, :1], pi)], 1)
    # by the middles, [half, 3]
    sign = torch.where(curve.at(Ball((ends[:, 1:] + ends[:, :-1]) / 2).cos()).mid < 0, -1.0, 1.0).double()
    x = Ball(ends).cos()
    top = Ball((curve.C.mid / (4 * curve.B.mid)).nan_to_num(0.0)[:, None].clamp(min=x.mid[:, 1:], max=x.mid[:, :-1]))
    worst = maximum(maximum(-curve.at(x[:, 1:]) * Ball(sign), -curve.at(x[:, :-1]) * Ball(sign)),
                    -curve.at(top) * Ball(sign)).amax(1)
    wrong = worst.relu().upper() * TWO + number(2.0**-40)    # the last: corners of intervals, rounded
    j = torch.arange(terms + 2, dtype=torch.float64)
    # integrals of cos j u from 0 to the breaks
    S = (Ball(u[:, :, None]) * Ball(j)).sin() * Ball(1 / j.clamp_min(1.0))
    S = Ball(torch.where(j == 0, u[:, :, None], S.mid), _up(S.rad + 2.0**-40), S.mag + 4)
    jump = Ball(sign[:, :-1] - sign[:, 1:])
    weight = (jump[:, :, None] * S).sum(1)                               # [half, terms + 2]
    weight = Ball(torch.cat([weight.mid[:, :1] + sign[:, -1:] * pi, weight.mid[:, 1:]], 1),
                  _up(weight.rad + 2.0**-48), weight.mag + 4)
    def shift(by: int) -> Ball:
        return weight.pick(lambda y: y[:, (torch.arange(terms) + by).abs()])
    C, B = curve.C[:, None], curve.B[:, None]
    c = (C * (shift(1) + shift(-1)) - B * (shift(2) + shift(-2))) * HALF + curve.t * shift(0)
    scale = torch.full((terms,), 2 / pi, dtype=torch.float64)
    scale[0] = 1 / pi
    return Series(c * Ball(scale, number(2.0**-51).mid), tail(curve, terms - 1) + wrong * number(2.0 * terms + 1))


def tail(curve: Curve, m: int) -> Float[Ball, " half"]:
    """At least the sum of |c_j| over j > m. Theorem: *Tail*."""
    C, B, t = curve.C, curve.B, curve.t
    root = (C * C + B * (t + B) * number(8.0)).sqrt_upper()
    once = ((t - B + C) * (t - B - C)).negative()                        # signs differ at 0 and pi: one zero
    zeros = Ball(torch.where(once, 1.0, 2.0))
    D1, D2 = zeros * root, zeros * (C.abs() + B.abs() * FOUR)
    rest = D2 * TWO + C.abs() * TWO + B.abs() * number(16.0)
    return (D1 * number(4 / (pi * m) * (1 + 2.0**-40)) + rest * number(1 / (pi * m * m) * (1 + 2.0**-40))).upper()


def model_of(angle: Float[Ball, " p"], phase: Float[Tensor, " k"], r: Float[Tensor, " k"],
             t: Float[Ball, ""]) -> Float[Ball, "p k"]:
    """r (cos u + t (1 - cos 2u)) for u = kappa a + phase, with 1 - cos 2u = 2 - 2 cos^2 u."""
    cos = (angle[:, None] + Ball(phase)).cos()
    return (cos + (number(1.0) - cos * cos) * (t * TWO)) * Ball(r)


def of_cluster(net: Network, advice: Advice, i: Int[Tensor, " k"], g: int,
               terms: int) -> tuple[Ball, Ball, Ball, Series]:
    """(errors, cosines, sines, series) of one cluster's neurons i: what its model misses at a,
    and its moments by column of G."""
    p, key = net.S.shape[0], advice["keys"][g // advice["t"].shape[1], None]
    angle, t, r, phase = angles(key, p)[:, 0], Ball(advice["t"].flatten()[g]), advice["r"][i].abs(), advice["phase"][i]
    G = net.G[i]
    miss = (net.H.mid[:, i] - model_of(angle, phase, r, t)).abs()
    m = Ball(torch.arange(terms, dtype=torch.float64))
    turned = m[:, None] * Ball(phase)                                    # [terms, k]
    weighted = G * Ball(r)[:, None]
    half = angle[: (p + 1) // 2]                                         # theta = kappa g for every row of pairs
    cos = half.cos()
    curve = Curve(cos, (cos * cos * TWO - number(1.0)) * t, t)
    return miss, turned.cos() @ weighted, turned.sin() @ weighted, series(curve, terms)


def summed(net: Network, advice: Advice, terms: int, at: Pairs) -> Sums:
    """The sums over neurons, and how far off they may be.

    Of a neuron's outputs those in its key's plane meet all terms of the series, the others the first few.
    Complexity: O(p n q + n terms q + p^2 terms keys), and O(p^2 q) an exact neuron.
    """
    (p, q1), clusters, K = (net.S.shape[0], net.G.shape[1]), advice["t"].shape[1], advice["keys"].shape[0]
    group, half = advice["group"], at.a.shape[0]
    alone, others = (group == K * clusters).nonzero().flatten(), (group < K * clusters).nonzero().flatten()
    linear = net.H.mid[:, others] @ net.G[others] * HALF
    z, off, astray = linear[at.a] + linear[at.b], missed(net.H, net.G, at), []
    for k in range(K):
        own, few = torch.arange(2 * k, 2 * k + 2), min(EVERY + 1, terms)
        inside, first, more = Ball(torch.zeros(half, p)), [], []
        for g in range(k * clusters, (k + 1) * clusters):
            i = (group == g).nonzero().flatten()
            if not i.shape[0]:
                continue
            miss, cosines, sines, known = of_cluster(net, advice, i, g, terms)
            G, r = net.G[i], Ball(advice["r"][i].abs())
            written, elsewhere = row_norms(G[:, own]), row_norms(G.pick(lambda y: y.index_fill(1, own, 0.0)))
            seen, unseen = (miss @ written) * HALF, (miss @ elsewhere) * HALF
            inside = inside + seen[at.a] + seen[at.b] + (known.off * (written @ r))[:, None]
            lost = (known.off + known.c[:, few:].abs().sum(1)) * (elsewhere @ r)
            off = off + unseen[at.a] + unseen[at.b] + lost[:, None]
            for parts, columns, span in ((first, torch.arange(q1), slice(few)), (more, own, slice(few, terms))):
                both = cat([cosines[span, columns], -sines[span, columns]], 0)                # [2 terms, columns]
                parts.append(cat([known.c[:, span], known.c[:, span]], 1)[:, :, None] * both)
        astray.append(inside)
        if first:
            angle = angles(advice["keys"][k, None], p)[:, 0]
            high = waves_of(more, few, angle)
            z = z + waves_of(first, 0, angle) + high.pick(lambda y: y.new_zeros(half, p, q1).index_copy(2, own, y))
    if alone.shape[0]:
        z = z + one_by_one(net.H._replace(mid=net.H.mid[:, alone]), net.G[alone], at)
    return Sums(z, off, stack(astray).pick(lambda y: y.movedim(0, -1)))


def waves_of(parts: list[Float[Ball, "half terms2 q"]], first: int,
             angle: Float[Ball, " p"]) -> Float[Ball, "half p q"]:
    """Cosine series of a key's clusters, added up and evaluated at every h: coefficients of cos m u,
    then of sin m u, from m = first on."""
    total = sum(parts[1:], parts[0])
    turned = Ball(torch.arange(first, first + total.shape[1] // 2, dtype=torch.float64)) * angle[:, None]
    return cat([turned.cos(), turned.sin()], 1) @ total


def clustered(model: Model, parameters: Parameters) -> Advice:
    """Bases; clusters of t by quantiles within each key; the neurons that a cluster describes worst are left alone."""
    neurons, K, J = read(tables(model)), parameters["rank"] // 2, parameters["clusters"]
    advice, strongest = bases(model, parameters), keys(neurons, K)
    t, weight = (neurons.beta / neurons.r - neurons.second.real) / 2, neurons.r * neurons.omega
    t = t.nan_to_num(0.0, 0.0, 0.0)                                      # of neurons that nothing moves
    group, centre = torch.full_like(neurons.key, K * J), torch.zeros(K, J, dtype=torch.float64)
    for k, key in enumerate(strongest):
        i = (neurons.key == key).nonzero().flatten()
        i = i[t[i].argsort()]
        part = (torch.arange(len(i)) * J) // max(len(i), 1)
        for j in range(J):
            mine = i[part == j]
            if len(mine):
                centre[k, j] = (t[mine] * weight[mine]).sum() / weight[mine].sum().clamp_min(1e-300)
                group[mine] = k * J + j
    described = torch.where(group < K * J, centre.flatten()[group.clamp_max(K * J - 1)], 0.0)
    H = tables(model).H
    u = turn(torch.outer(torch.arange(H.shape[0]), neurons.key), H.shape[0]) + neurons.phi
    error = (H - neurons.r * (u.cos() + described * (1 - (2 * u).cos()))).abs().mean(0) * neurons.omega
    group[error.argsort(descending=True)[: parameters["alone"]]] = K * J
    return advice | {"group": group, "phase": neurons.phi, "r": neurons.r, "t": centre}


def bare(model: Model, parameters: Parameters) -> Advice:
    """The paper's form: no bias and no second harmonic, t = 0."""
    advice = clustered(model, parameters)
    return advice | {"t": torch.zeros_like(advice["t"])}


def specs(sizes: dict[str, int], chosen: Parameters) -> dict[str, Spec]:
    """What the search hands over besides the doors."""
    n, K, J = sizes["d_mlp"], chosen["rank"] // 2, chosen["clusters"]
    return {"group": Spec((n,), 0, K * J), "phase": Spec((n,)), "r": Spec((n,)), "t": Spec((K, J))}
