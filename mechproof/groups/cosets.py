"""Coset by coset: a neuron is told of its inputs only in which cell they lie, and cells are few.

Problem: trying all pairs costs |G|^2 n |G| operations.  Idea: a neuron that learned to compose reads of x only which
point it sends to j, and of y only where it sends j', which are cosets of those points' stabilisers.  Let neurons share
partitions of the group into cells, q of x and p of y; then what they add to the logits is a table of *cells*, and all
logits are sums of such tables,

    logit_z(x, y) = sum_{p, q} table[cell_p(y), cell_q(x), z],   table[c, d, z] = sum_i relu(l_i[d] + r_i[c]) U[i, z].

Sums are shared as well: of all tables with one p first those are added whose joint cells of x are fewest, and when one
table a p is left, those whose joint cells of y are fewest.  Nothing is assumed of the cells, which are advice; that
they are cosets is what search tries.

Within a cell L[x, i] and R[y, i] differ, and are taken from the side where that does least harm.  With l and r the
least of their cells the activation is larger than relu(l + r) by some t in [0, L - l + R - r], by which z gains on the
right product s at most (U[i, z] - U[i, s]) t.  The best z for all neurons at once is no better than the best for each:

    margin >= main_s - max_z main_z - sum_i (L[x, i] - l_i + R[y, i] - r_i) (max U_i - U[i, s]).

With the largest of the cells it is the mirror image, and (U[i, s] - min U_i).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.family import Advice, Model, Parameters, Proved, Spec
from ..proof.rounding import Ball
from .brute_force import behind, proved
from .model import Network, network

Cells = Int[Tensor, " G"]                                                # of each element, counted from 0


class Part(NamedTuple):
    """A share of the logits that knows one side of the input by its cell alone."""

    cell: Cells
    table: Float[Ball, "cells other G"]


def renumbered(cell: Int[Tensor, " G"]) -> tuple[Cells, Int[Tensor, " cells"]]:
    """The same cells, named by whole numbers from 0 on, and an element of each.  Complexity: O(G log G)."""
    with cost.charge(cell.numel() * max(cell.numel() - 1, 1).bit_length(), "cells sorted"):
        names, cell = cell.unique(return_inverse=True)
        return cell, cell.new_zeros(len(names)).scatter(0, cell, torch.arange(len(cell)))


def joined(parts: list[Part]) -> Part:
    """The sum of all parts, two at a time, first those with the fewest joint cells.

    Complexity: O(parts^2 G log G) for the order, and O(other G) a joint cell for the sums.
    """
    pair = lambda a, b: renumbered(a.cell * len(b.table.mid) + b.cell)
    live = dict(enumerate(parts))
    joint = {(a, b): pair(live[a], live[b]) for b in live for a in range(b)}
    for name in range(len(parts), 2 * len(parts) - 1):
        a, b = min(joint, key=lambda at: (len(joint[at][1]), at))
        cell, one = joint[a, b]
        left, right = live.pop(a), live.pop(b)
        new = Part(cell, left.table[left.cell[one]] + right.table[right.cell[one]])
        joint = {at: found for at, found in joint.items() if not {a, b} & set(at)}
        joint |= {(c, name): pair(part, new) for c, part in live.items()}
        live[name] = new
    return live.popitem()[1]


def ends(x: Float[Tensor, "G n"], cell: Int[Tensor, "G n"], least: Bool[Tensor, " n"]) -> Float[Tensor, "G n"]:
    """The least number in the cell that an element has for a neuron, for the other neurons the largest.
    Complexity: O(G n)."""
    turned = torch.where(least, x, -x)
    low = turned.new_full(x.shape, torch.inf).scatter_reduce(0, cell, turned, "amin").gather(0, cell)
    return torch.where(least, low, -low)


def summed(net: Network, left: Float[Tensor, "G n"], right: Float[Tensor, "G n"], advice: Advice) -> Part:
    """All logits of inputs that are replaced by the ends of their cells, [cell of y, x, z].

    Complexity: O(n cells^2 G) for the tables, O(G^2) a table for most sums and O(G^3) for the last.
    """
    x_cells, y_cells = ([renumbered(cell) for cell in advice[name]] for name in ("x_cells", "y_cells"))
    with cost.charge(2 * len(net.live), "neurons sorted by their partitions"):
        where = list(zip(advice["y_of"][net.live].tolist(), advice["x_of"][net.live].tolist()))
    # what no neuron adds is one cell for all
    rows = [Part(torch.zeros_like(net.answers[0]), net.b_U.pick(lambda x: x.expand(1, len(x), -1)))]
    for p in sorted({p for p, _ in where}):
        columns, (cell, y) = [], y_cells[p]
        for q in sorted({q for at, q in where if at == p}):
            mine, (across, x) = torch.tensor([i for i, at in enumerate(where) if at == (p, q)]), x_cells[q]
            seen = Ball(left[x][:, mine]) + net.b_in[mine]
            on = (seen[:, None] + Ball(right[y][:, mine])).relu()        # [cell of x, cell of y, neuron]
            columns.append(Part(across, on @ net.U[mine]))
        row = joined(columns)
        rows.append(Part(cell, row.table[row.cell].pick(lambda table: table.transpose(0, 1))))
    return joined(rows)


class Told(NamedTuple):
    """What a network is told of its inputs: numbers of each neuron, and how much a wrong product may gain by what it is
    not told, for every element of a side and every right product."""

    left: Float[Tensor, "G n"]
    right: Float[Tensor, "G n"]
    slack_x: Float[Ball, "G G"]
    slack_y: Float[Ball, "G G"]


def told(net: Network, advice: Advice) -> Told:
    """The ends of all cells.  Complexity: O(G^2 n)."""
    highest, lowest = net.U.amax(1)[:, None], net.U.amin(1)[:, None]
    ahead, behind_ = highest - net.U, net.U - lowest
    least = ahead.mid.sum(1) < behind_.mid.sum(1)                        # either is sound
    reach = ahead.pick(lambda x: torch.where(least[:, None], x, behind_.mid))
    left, right = (ends(side.mid, advice[f"{name}_cells"][advice[f"{name}_of"][net.live]].T, least)
                   for side, name in ((net.L, "x"), (net.R, "y")))
    slack = [(side - Ball(end)).abs() @ reach for side, end in ((net.L, left), (net.R, right))]
    return Told(left, right, *slack)


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """Pairs whose margin is above what their cells leave open.

    Theorem: *Cosets*.
    Complexity: O(G^2 n + G^3 log parts) where cells are few.
    """
    net = network(model)
    known = told(net, advice)
    whole, answers = summed(net, known.left, known.right, advice), net.answers.T                 # [y, x]
    slack_x, slack_y = (table.pick(lambda x: x.gather(1, index))
                        for table, index in ((known.slack_x, net.answers), (known.slack_y, answers)))
    gap = behind(whole.table[whole.cell], answers) + (slack_x.T + slack_y)
    return proved(gap.negative().T, lambda x, y: float(-gap.upper().mid[y, x]))


def specs(G: int, n: int, parts: int) -> dict[str, Spec]:
    """For every partition, of x and of y, the cell of each element, and for every neuron its two partitions."""
    return {f"{side}_cells": Spec((parts, G), 0, G - 1) for side in "xy"} | {
        f"{side}_of": Spec((n,), 0, parts - 1) for side in "xy"}
