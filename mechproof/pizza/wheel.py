"""The sum over neurons, done exactly and cheaply: on the wheel of phases, neighbours fire together.

Problem: relu(H[a] + H[b]) for every pair and neuron is most of what trying every input costs.  Idea: put
neurons into nodes (advice: arcs of the wheel).  A node whose smallest pre-activation, over its neurons, at a and
at b add to something positive is on as a whole, one whose largest add to something negative is off.  What is on
is linear, so its sum over neurons is a difference of prefix sums, looked up at the ends of the arc; only nodes
that are neither are gone through neuron by neuron, to find where the arc ends.  Any nodes are sound, and with
any nodes the sum is the same; good ones leave little to go through.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.product_bounds import row_norms
from ..proof.rounding import Ball, U, _largest, _up, stack
from .circuits import Table


class Pairs(NamedTuple):
    """All unordered pairs as (g, h): a = h + g, b = h - g mod p, g = 0 .. (p - 1) / 2; or all ordered ones, with
    g = 0 .. p - 1 and the rows of b p below those of a."""

    a: Int[Tensor, "half p"]
    b: Int[Tensor, "half p"]
    answer: Int[Tensor, "half p"]                                        # s = a + b = 2 h mod p


def pairs(p: int, ordered: bool = False) -> Pairs:
    """Each unordered pair once (or every ordered one), those with one difference in one row."""
    with cost.addresses():
        g, h = torch.arange(p if ordered else (p + 1) // 2)[:, None], torch.arange(p)
        a, b = (h + g) % p, (h - g) % p
        return Pairs(a, b + p * ordered, (a + b) % p)


def one_by_one(H: Table, G: Float[Ball, "n q"], at: Pairs) -> Float[Ball, "half p q"]:
    """sum_i relu(H_i(a) + H_i(b)) G_i of every pair, neuron by neuron.  Complexity: O(p^2 n q)."""
    # a row of pairs at a time, for the memory
    return stack([(H.mid[a] + H.mid[b]).relu() @ G for a, b in zip(at.a, at.b)])


def missed(H: Table, G: Float[Ball, "n q"], at: Pairs) -> Float[Ball, "half p"]:
    """How far the errors of H can move these sums, in Euclidean norm: relu moves no more than its argument."""
    reach = H.u * (H.v * row_norms(G)).sum(0)
    return reach[at.a] + reach[at.b]


def sides(h: Float[Tensor, "p nodes m"]) -> tuple[Float[Tensor, "p nodes"], Float[Tensor, "p nodes"]]:
    """Lower and upper bounds on the neurons of each node, each to a scale of its own."""
    scaled = h * (1 / (h.abs().mean(0) + 2.0**-900))                     # any positive numbers are sound
    # one product each, so rounded by U of its own size
    size = _largest(scaled.abs())
    scaled = Ball(scaled, _up(U * size), size)
    return -(-scaled).amax(-1).upper().mid, scaled.amax(-1).upper().mid


class Turns(NamedTuple):
    """Where, along the order of neurons, a pair's neurons go from off to on or back."""

    pair: Int[Tensor, " turns"]
    at: Int[Tensor, " turns"]                                            # the first neuron of the new kind
    on: Bool[Tensor, " turns"]


def turns(h: Float[Tensor, "p nodes m"], at: Pairs) -> Turns:
    """All of them.  Comparisons x > -y say exactly whether x + y > 0: no sum is rounded.

    Complexity: O(p^2 nodes), and one comparison a neuron of nodes that are neither on nor off.
    """
    (_, n_nodes, m), (lo, hi) = h.shape, sides(h)
    with cost.addresses():
        pair = torch.arange(at.a.numel()).view(at.a.shape)
        neuron = torch.arange((n_nodes + 1) * m).view(n_nodes + 1, m)
    below, above, against = -lo, -hi, -h
    first, maybe = lo[at.a] > below[at.b], hi[at.a] >= above[at.b]       # [half, p, nodes]
    g, s, j = (maybe > first).nonzero().unbind(-1)                       # neither on nor off: neuron by neuron
    on = h[at.a[g, s], j] > against[at.b[g, s], j]                       # [.., m]
    entry, i = (on[:, 1:] != on[:, :-1]).nonzero().unbind(-1)
    last = first.clone()
    first[g, s, j], last[g, s, j] = on[:, 0], on[:, -1]
    edge = first.new_zeros(*first.shape[:2], 1)
    first, last = torch.cat([first, edge], -1), torch.cat([edge, last], -1)
    G, S, J = (first != last).nonzero().unbind(-1)                       # from one node to the next
    return Turns(torch.cat([pair[g, s][entry], pair[G, S]]), torch.cat([neuron[:, 1:][j[entry], i], neuron[J, 0]]),
                 torch.cat([on[:, 1:][entry, i], first[G, S, J]]))


def by_turns(H: Table, G: Float[Ball, "n q"], place: Float[Tensor, " n"], n_nodes: int,
             at: Pairs) -> Float[Ball, "half p q"]:
    """The same sums as `one_by_one`: prefix sums where a run of neurons that are on ends, less those where it begins.

    Complexity: O(p n q + p^2 nodes + q turns).
    Theorem: *Arcs*.
    """
    order, (rows, n), (half, p) = place.argsort(stable=True), H.mid.shape, at.a.shape
    m = -(-n // n_nodes)                                                 # neurons a node; the last may lack some
    h = H.mid[:, order]
    none = h.mid.new_zeros(rows, m * n_nodes - n)                           # neurons that write nothing
    padded = torch.cat([h.mid, none], 1)
    prefix = (h[:, :, None] * G[order]).cumsum(1)
    prefix = prefix.pick(lambda x: torch.cat([torch.zeros_like(x[:, :1]), x,
                                              x[:, -1:].expand(-1, m * n_nodes - n, -1)], 1))
    found = turns(padded.view(rows, n_nodes, m), at)
    z = []
    for kind in ((~found.on).nonzero().flatten(), found.on.nonzero().flatten()):
        pair, i = found.pair[kind], found.at[kind]
        each = prefix[at.a.flatten()[pair], i] + prefix[at.b.flatten()[pair], i]
        z.append(each.sum_by(pair, half * p, m * n_nodes + 1))           # at most one a neuron
    return (z[0] - z[1]).pick(lambda x: x.view(half, p, -1))
