"""The exact number of right sequences, by proving nearly all of them at once and trying the rest.

Problem: brute force tries v^K sequences although a box of them is decided by one inequality.  Idea: branch and
bound on the cells of the separable proof, each step on what the one before left open:

    groups of wrong tokens x buckets of queries  ->  single wrong tokens  ->  single queries  ->  single keys

At the end stand single sequences with a single wrong token, whose sum is certainly positive, certainly negative
or, within rounding, decided in balls; a sequence is wrong if any of its sums is.  Equal to brute force in every
(query, maximum) cell.

Complexity: O(v^2 d + v^3) before the last step, which lists wrong sequences one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from .. import cost
from ..family import InputError, Model, Proved
from ..rounding import Ball
from .boxes import HOPELESS, children
from .brute_force import LIMIT as ENUMERABLE
from .brute_force import in_balls, tried
from .separable import left_open, open_cells
from .terms import Circuits, Groups, Separable, Stage, exponential, over_bucket
from .truth import Truth

GROUPS, BUCKETS = 6, 9          # of the first step; they change the cost and nothing else


@dataclass(frozen=True, eq=False)
class Steps:
    """The proof's tables, and its stages with single wrong tokens as columns."""

    proof: Separable

    def lead(self, table: Ball, row: Tensor, m: Tensor, x: Tensor) -> Ball:
        """table[row, m] - table[row, x]; one row may stand for all."""
        row = row if len(table.mid) > 1 else 0
        return table[row, m] - table[row, x]

    def by_token(self, grouped: Stage) -> Stage:
        """Buckets of queries: what a group knows of the query, what a single wrong token knows of the keys."""
        proof, lay = self.proof, self.proof.lay
        v = proof.circuits.d_vocab
        all_x, n = torch.arange(v)[:, None], torch.arange(len(proof.circuits.PV.mid))
        keys = over_bucket(self.lead(proof.circuits.OV.table, lay.t, lay.m, all_x), lay).pick(lambda x: x.unflatten(1, (v, -1)))
        places = self.lead(proof.circuits.PV, n, torch.arange(v)[:, None], all_x[:, None])                  # [x, m, p]
        merged = (keys + places[..., :-1].amin(2)[..., None])[:, :, None]

        def votes(x: Tensor, m: Tensor, is_merged: bool) -> Ball:
            return merged[x, m] if is_merged else keys[x, m][:, None] + places[x, m, :-1][..., None]

        groups = proof.groups.by_offset(v)
        group = lambda x, r: groups[x - grouped.m[r]]
        return Stage(grouped.others, grouped.m, grouped.need, lambda x, r: grouped.direct(group(x, r), r),
                     lambda x, r: grouped.own(group(x, r), r), grouped.keys, grouped.positions, votes)

    def by_query(self, coarse: Stage) -> Stage:
        """Single queries and wrong tokens."""
        proof, lay, c = self.proof, self.proof.lay, self.proof.circuits
        single = proof.each()
        direct = lambda x, r: self.lead(c.EU.table, lay.t[r], lay.m[r], x)

        def own(x: Tensor, r: Tensor) -> Ball:
            t, m = lay.t[r], lay.m[r]
            votes = (direct(x, r) + self.lead(c.OV.table, t, m, x)) + (c.PV[-1, m] - c.PV[-1, x])
            return proof.pairs.own(votes, r)

        return Stage(single.others, single.m, single.need, direct, own, single.keys, single.positions, coarse.votes)

    def by_key(self, single: Stage) -> Stage:
        """Single queries, wrong tokens and keys: choice o is the token m - o."""
        c, lay = self.proof.circuits, self.proof.lay
        with cost.addresses():
            key = torch.arange(c.d_vocab)[:, None] - torch.arange(c.d_vocab)                     # [m, o]
            key, none = key.clamp_min(0), key < 0

        def keys(rows: Tensor) -> Ball:
            t, m = lay.t[rows], lay.m[rows]
            ends = c.A.table[t[:, None], key[m]] - self.proof.pairs.top[rows][:, None]
            return exponential(ends.pick(lambda x: x.masked_fill(none[m], 0.0)))

        def votes(x: Tensor, m: Tensor, merged: bool) -> Ball:
            some = self.lead(c.OV.table, key[m], m[:, None], x[:, None]).pick(lambda t: t.masked_fill(none[m], torch.inf))
            places = (c.PV[:-1, m] - c.PV[:-1, x]).T
            return (some + places.amin(1)[:, None])[:, None] if merged else some[:, None] + places[..., None]

        return Stage(single.others, single.m, single.need, single.direct, single.own, keys, single.positions[:1], votes)

    def taken(self) -> Iterator[tuple[Stage, int, Tensor, Tensor]]:
        """Step by step: the stage, with how many cells it began, and those left open (rows, groups or wrong tokens)."""
        proof, stage = self.proof, self.proof.grouped()
        begun, g = proof.start()
        r, g, _ = open_cells(stage, begun, g, False)
        yield stage, len(begun), r, g
        parent, x = children(*(table[g, stage.m[r]] for table in proof.groups.members(proof.circuits.d_vocab)))
        stage = self.by_token(stage)
        r, x, _ = open_cells(stage, r[parent], x, False)
        yield stage, len(parent), r, x
        parent, r = proof.queries_of(r)
        stage = self.by_query(stage)
        r, x, _ = open_cells(stage, r, x[parent], False)
        yield self.by_key(stage), len(parent), r, x


def count_right(model: Model, circuits: Circuits, decide: Callable[[list[int]], bool] | None = None) -> tuple[Int[Tensor, " pair"], int]:
    """Right sequences of every (maximum, query) pair, int64 in the order of `Layout`, and how many rounding left to `decide`.

    Without `decide` they are decided in balls, from the model's weights: then the circuits must be the model's own.
    """
    if circuits.d_vocab**circuits.n_ctx > ENUMERABLE:
        raise InputError(f"model {model.name!r} has {circuits.d_vocab}^{circuits.n_ctx} inputs, more than `exact` tells apart (2^33); try separable")
    proof = Separable(circuits.centred(), Groups(GROUPS), BUCKETS)
    lay, n = proof.lay, circuits.n_ctx - 1
    with cost.charge(4 * len(lay.m), "sequences of every pair"):
        wrong = torch.zeros_like(lay.m)
        all_ = (lay.m + 1) ** n - torch.where(lay.t < lay.m, lay.m**n, 0)
    *_, (stage, _, r, x) = Steps(proof).taken()
    decide, doubtful = decide or Truth(model).right, 0
    for block, slack in left_open(r, n, circuits.d_vocab, lambda at: stage.cells(r[at], x[at])):
        sure = (block.total < -slack) & (block.total > HOPELESS / 2)
        at = block.distinct(sure)
        wrong.scatter_add_(0, block.row[at], torch.ones_like(at))
        unsure = block.apart_from(block.distinct(~sure), at)
        with cost.charge(in_balls(model, len(unsure)), "decided in balls"):
            for row, offsets in zip(block.row[unsure].tolist(), block.choices[unsure].tolist()):
                m = int(lay.m[row])
                wrong[row] += not decide([m - o for o in offsets] + [int(lay.t[row])])
            doubtful += len(unsure)
    return all_ - wrong, doubtful


def check(model: Model, circuits: Circuits) -> Proved:
    """The exact number of right sequences.  Complexity: see the module docstring."""
    right, _ = count_right(model, circuits)
    with cost.charge(right.numel(), "total"):
        return Proved(int(right.sum()), circuits.d_vocab**circuits.n_ctx, tried(model))
