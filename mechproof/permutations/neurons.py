"""What a neuron can do, once all of it but one row of x and one column of y is bounded.

Each neuron is told (by advice, any will do) a main row j and a main column q.  Whatever x is, it meets every row of W_X
in one place, and in every place one row.  So r_j may be taken off each row, if the sum of all r is put on, and then

    sum_i W_X[x(i), i] = W_X[j, k] + one entry W_X[j', i], j' != j, in every place i != k,        k = x^-1(j).

Each such entry lies between the least and the largest in its place outside row j; with r the middle of each row that is
close.  The same holds of W_Y turned, with l = y(q) for k.  So the neuron lies between two tables over (k, l).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Advice, Model
from ..proof.rounding import Ball, largest_but, maximum, minimum, smallest_but


class Neurons(NamedTuple):
    """Activations between lo and hi, where the main row is met at k and the main column holds l; what they write to
    outputs q K + j, less what all j share; and the output that is a neuron's own, of its main row and column."""

    lo: Float[Ball, "n k l"]
    hi: Float[Ball, "n k l"]
    out: Float[Ball, "n outputs"]
    own: Int[Tensor, " n"]


def side(W: Float[Ball, "line place n"], main: Int[Tensor, " n"]) -> tuple[Float[Ball, "K n"], Float[Ball, "K n"]]:
    """At least and at most what one permutation adds to a neuron, where it meets the main line in each place.

    Complexity: O(K^2 n).  Theorem: *One row of a permutation*.
    """
    rows = (W.amax(1) + W.amin(1)) * 0.5
    W = W - rows[:, None]
    mine = (torch.arange(W.shape[0])[:, None] == main)[:, None]          # [line, 1, n]
    met = W.pick(lambda x: x.gather(0, main.expand(1, x.shape[1], -1))[0]) + rows.sum(0)[None]
    # in every other place an entry of another line
    lo, hi = (met + others.sum(0)[None] - others for others in (
        W.pick(lambda x: smallest_but(x, mine, 0)), W.pick(lambda x: largest_but(x, mine, 0))))
    return lo, hi


def neurons(model: Model, advice: Advice) -> Neurons:
    """Both tables of every neuron, and its outputs.  Complexity: O(n K^2)."""
    K, b_in = model.sizes["K"], Ball(model["b_in"])
    of_x = side(Ball(model["W_X"]), advice["row"])
    of_y = side(Ball(model["W_Y"].transpose(0, 1)), advice["column"])
    lo, hi = ((a[:, None] + (b + b_in)[None]).relu().pick(lambda x: x.permute(2, 0, 1)) for a, b in zip(of_x, of_y))
    own, U = advice["column"] * K + advice["row"], Ball(model["W_U"])
    mine = (own[:, None] == torch.arange(K * K)).view(-1, K, K)
    largest, smallest = U.pick(lambda x: largest_but(x, mine, 2)), U.pick(lambda x: smallest_but(x, mine, 2))
    out = U - ((largest + smallest) * 0.5)[..., None]
    return Neurons(lo, hi, out.pick(lambda x: x.reshape(-1, K * K)), own)


def between(lo: Ball, hi: Ball, factor: Ball) -> tuple[Ball, Ball]:
    """Least and largest of factor times anything between lo and hi."""
    ends = lo * factor, hi * factor
    return minimum(*ends), maximum(*ends)
