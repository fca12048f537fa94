"""The network's tables as a proof sees them: multiplied out, or through narrow doors.

Problem: folding the linear maps of one model, H = R W_in and W = W_out W_U, costs more than everything a short
proof does afterwards.  Idea: weight decay has left these products with a rank of a dozen.  A product A B is
taken through a basis Q of a dozen directions (advice), and what does not pass is bounded from norms of what is
left of A times what is left of B: small times small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import Model
from ..proof.product_bounds import row_norms
from ..proof.rounding import Ball, cat, inverse, number
from .model import POSITIONS

HALF = inverse(2)


def balls(model: Model) -> dict[str, Ball]:
    """The tensors as exact numbers."""
    return {name: Ball(tensor) for name, tensor in model.tensors.items()}


def residual(w: Mapping[str, Ball]) -> Float[Ball, "p d"]:
    """Half of what reaches `=` before the MLP, x(a, b) = R[a] + R[b]:
    R[a] = W_E[a] OV / 3 + half of what every input adds.

    Without the sign the rows of b, which has a path of its own, stand p below those of a.
    The heads side by side are one product: W_V as [d, heads d_head], W_O as [heads d_head, d].  Complexity: O(p d^2).
    """
    n_heads, d, d_head = w["W_V"].shape
    W_V = w["W_V"].pick(lambda x: x.permute(1, 0, 2).reshape(d, n_heads * d_head))
    W_O = w["W_O"].pick(lambda x: x.reshape(n_heads * d_head, d))
    if len(w["W_pos"].mid) < POSITIONS:
        through = ((cat([w["W_E"], w["W_pos"].sum(0)[None]], 0) @ W_V) @ W_O) * HALF
        first = through[:-1] + (w["W_pos"][1:2] + through[-1:]) * HALF
        return cat([first, first + w["W_E"]], 0)
    sign = w["W_E"][-1:]
    shared = sign + w["W_pos"].sum(0)[None]                              # goes through OV once for every input
    through = ((cat([w["W_E"][:-1], shared], 0) @ W_V) @ W_O) * inverse(POSITIONS)
    return through[:-1] + (sign + w["W_pos"][2:3] + through[-1:]) * HALF


def bias(w: Mapping[str, Ball], name: str, size: int) -> Float[Ball, " size"]:
    """Half of a bias: it enters once an input, and every table once for a and once for b."""
    return w[name] * HALF if name in w else Ball(torch.zeros(size))


class Side(NamedTuple):
    """One factor of a product as a basis Q sees it: rows x = inside Q + rest, with |rest| <= over."""

    inside: Float[Ball, "rows q"]                                        # x Q^T
    over: Float[Ball, " rows"]


class Door:
    """A basis Q [q, d] through which products A B^T are taken.  Theorem: *Narrow door*. With D = Q Q^T - 1:

        A B^T = (A Q^T)(B Q^T)^T - (A Q^T) D (B Q^T)^T + (A - A Q^T Q)(B - B Q^T Q)^T,

    for any Q whatever; D is rounding alone where its rows are orthonormal.
    """

    def __init__(self, Q: Float[Tensor, "q d"]):
        self.Q = Ball(Q)
        self.gram = self.Q @ self.Q.T
        D = self.gram - Ball(torch.eye(Q.shape[0]))
        # as small as it is: its square would keep the magnitude of 1
        D = Ball(D.mid, D.rad)
        self.tilt = (D * D).sum(1).sum(0).sqrt_upper().sqrt_upper()      # |D| = tilt^2, shared by the two sides

    def side(self, x: Float[Ball, "rows d"]) -> Side:
        """A factor, by rows.  |rest|^2 = |x|^2 - 2 |inside|^2 + inside Q Q^T inside^T.  Complexity: O(rows d q)."""
        inside = x @ self.Q.T
        rest = (x * x).sum(1) - ((inside * number(2.0) - inside @ self.gram) * inside).sum(1)
        return Side(inside, (rest.sqrt_upper() + row_norms(inside) * self.tilt).upper())


class Table(NamedTuple):
    """Exact numbers, each off by at most u[i] v[j]."""

    mid: Float[Ball, "rows cols"]
    u: Float[Ball, " rows"]
    v: Float[Ball, " cols"]


def table(left: Side, right: Side, shift: Float[Ball, " cols"]) -> Table:
    """The product of two sides, and a row added to each of its rows.

    The radius of rounding is shared by both sides of the error: u v + rad <= (u + sqrt rad)(v + sqrt rad).
    Complexity: O(rows cols q).
    """
    x = left.inside @ right.inside.T + shift
    half = Ball(x.rad).sqrt_upper()
    return Table(Ball(x.mid, mag=x.mag), (left.over + half).upper(), (right.over + half).upper())
