"""Some directions of the output exactly, and the rest by an inequality: what an account in irreps certifies by itself.

Problem: to say that a network computes in certain irreps is to say in which directions of the output its votes lie.
Idea: take r directions B as advice.  What the votes W_U write along them is kept, and so is, everywhere, the part of
the activations that adds a share of x to a share of y; what is left is a product of two remainders, of the activations
and of the votes, and is at most the product of their lengths (Cauchy and Schwarz), each neuron at a weight of its own:

    |sum_i h'_i (V'_iz - V'_is)| <= |w h'(x, y)| |(V'_z - V'_s) / w|.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import Advice, Model, Parameters, Proved, Spec
from ..proof.product_bounds import centred_columns
from ..proof.rounding import Ball, U
from .brute_force import proved
from .group import is_group, isotypic
from .model import Network, network


def activations(net: Network) -> Float[Ball, "G G n"]:
    """Of every pair.  Complexity: O(G^2 n)."""
    return (net.L[:, None] + net.b_in + net.R).relu()


def apart(h: Float[Ball, "G G n"]) -> tuple[Ball, Ball, Ball]:
    """A share of x, a share of y, and what is left: they add up to h whatever rounding did to the shares.
    Complexity: O(G^2 n)."""
    of_x, of_y = h.mean(1), h.mean(0)
    half = of_x.mean(0) * 0.5
    # as numbers of their own, which are exact: the remainder is then what is left of h
    of_x, of_y = Ball((of_x - half).mid), Ball((of_y - half).mid)
    return of_x, of_y, h - of_x[:, None] - of_y


def quotients(w: Float[Tensor, " n"]) -> Float[Ball, " n"]:
    """1 / w, each rounded once; of a weight that is 0, or next to it, nothing finite."""
    found = 1 / w
    largest = found.amax() if len(w) else found.new_zeros(())
    return Ball(found, largest * (2 * U) + 2.0**-1000)


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """Pairs whose margin along the directions is above what the rest may do.  Theorem: *Directions*.
    Complexity: O(G^2 n rank + G^3 rank)."""
    net, B = network(model), Ball(advice["directions"])
    V = centred_columns(net.U)                                           # what all products share decides nothing
    inside = V @ B.T
    outside = V - inside @ B
    h = activations(net)
    of_x, of_y, left = apart(h)
    logits = (h @ inside) @ B + (of_x @ outside)[:, None] + of_y @ outside + net.b_U
    w = advice["weights"][net.live].abs()
    weighted = left * Ball(w)
    size = (weighted * weighted).sum(2).sqrt_upper()
    scaled = outside * quotients(w)[:, None]
    gram = scaled.T @ scaled
    own = gram.pick(lambda x: x.diagonal())
    far = (own[:, None] + own - gram * 2.0).sqrt_upper()                 # [s, z]
    answers = net.answers
    right = logits.pick(lambda x: x.gather(2, answers[..., None]))
    gap = logits - right + size[..., None] * far[answers]
    worst = gap.pick(lambda x: x.scatter(2, answers[..., None], -torch.inf).amax(2))
    return proved(worst.negative(), lambda x, y: float(-worst.upper().mid[x, y]))


def specs(sizes: dict[str, int], parameters: Parameters) -> dict[str, Spec]:
    """Directions of the output, orthonormal if they are to be of use, and a weight a neuron."""
    return {"directions": Spec((parameters["rank"], sizes["d_vocab"])), "weights": Spec((sizes["d_mlp"],))}


def advise(model: Model, parameters: Parameters) -> Advice:
    """The irreps with most of the votes, within one its strongest directions first; or singular vectors of all."""
    net = network(model)
    V = net.U.mid - net.U.mid.mean(1, keepdim=True)
    irreps = parameters["basis"] == 1 and is_group(net.answers)
    bases = isotypic(net.answers)[1:] if irreps else [torch.eye(V.shape[1], dtype=V.dtype)]
    bases.sort(key=lambda basis: -float((V @ basis.T).square().sum()) / len(basis))
    B = torch.cat([torch.linalg.svd(V @ basis.T)[2] @ basis for basis in bases])[: parameters["rank"]]
    B = torch.cat([B, B.new_zeros(parameters["rank"] - len(B), B.shape[1])])
    left = apart(activations(net))[2].mid.square().mean((0, 1)).sqrt()
    weights = ((V - V @ B.T @ B).norm(dim=1) / left.clamp_min(1e-9)).sqrt().clamp_min(1e-9)
    whole = torch.ones(model.sizes["d_mlp"], dtype=V.dtype)
    return {"directions": B, "weights": whole.scatter(0, net.live, weights)}
