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
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Int
from torch import Tensor

from ..proof import cost
from ..proof.family import InputError, Model, Proved
from ..proof.rounding import Ball
from .boxes import Cells
from .brute_force import LIMIT as ENUMERABLE
from .brute_force import in_balls, tried
from .ledger import Ledger, masses, open_cells
from .separable import left_open
from .terms import AnyProof, Circuits, Groups, Separable, Stage, exponential, over_bucket, standing_in
from .truth import Truth

TRIED = 2**18                   # more sequences than this are not decided in balls
GROUPS, BUCKETS = 6, 9          # of the first step; they change the cost and nothing else


@dataclass(frozen=True, eq=False)
class Steps(AnyProof):
    """The proof's tables, and its stages with single wrong tokens as columns."""

    proof: Separable

    @classmethod
    def of(cls, circuits: Circuits) -> Steps:
        return cls(Separable(circuits.centred(), Groups(GROUPS), BUCKETS))

    lay = property(lambda self: self.proof.lay)
    n_ctx = property(lambda self: self.proof.circuits.n_ctx)

    def lead(self, table: Ball, row: Tensor, m: Tensor, x: Tensor) -> Ball:
        """table[row, m] - table[row, x]; one row may stand for all."""
        row = row if len(table.mid) > 1 else 0
        return table[row, m] - table[row, x]

    def direct(self, x: Tensor, r: Tensor) -> Ball:
        """By how much the direct path prefers the maximum of a pair to x."""
        return self.lead(self.proof.circuits.EU.table, self.lay.t[r], self.lay.m[r], x)

    def own(self, x: Tensor, r: Tensor) -> Ball:
        """The query's term in a pair."""
        c, t, m = self.proof.circuits, self.lay.t[r], self.lay.m[r]
        votes = (self.direct(x, r) + self.lead(c.OV.table, t, m, x)) + (c.PV[-1, m] - c.PV[-1, x])
        return self.proof.pairs.own(votes, r)

    def by_token(self, grouped: Stage) -> Stage:
        """Buckets of queries: what a group knows of the query, what a single wrong token knows of the keys."""
        proof, lay = self.proof, self.proof.lay
        v = proof.circuits.d_vocab
        all_x, n = torch.arange(v)[:, None], torch.arange(len(proof.circuits.PV.mid))
        rows = over_bucket(self.lead(proof.circuits.OV.table, lay.t, lay.m, all_x), lay)
        keys = standing_in(rows.pick(lambda x: x.unflatten(1, (v, -1))), lay.place)
        places = self.lead(proof.circuits.PV, n, torch.arange(v)[:, None], all_x[:, None])                  # [x, m, p]
        merged = (keys + places[..., :-1].amin(2)[..., None])[:, :, None]

        def votes(x: Tensor, m: Tensor, is_merged: bool) -> Ball:
            return merged[x, m] if is_merged else keys[x, m][:, None] + places[x, m, :-1][..., None]

        groups = proof.groups.by_offset(v)
        group = lambda x, r: groups[x - grouped.m[r]]
        return replace(grouped, direct=lambda x, r: grouped.direct(group(x, r), r),
                       own=lambda x, r: grouped.own(group(x, r), r), votes=votes)

    def by_query(self, coarse: Stage) -> Stage:
        """Single queries and wrong tokens."""
        return replace(self.proof.each(), direct=self.direct, own=self.own, votes=coarse.votes)

    def by_key(self, single: Stage) -> Stage:
        """Single queries, wrong tokens and keys: choice o is the token m - o, or m where there is none.

        No key's weight is cut off but where those of the query or of positions are.
        """
        c, lay = self.proof.circuits, self.proof.lay
        with cost.addresses():
            key = torch.arange(c.d_vocab)[:, None] - torch.arange(c.d_vocab)                     # [m, o]
            none = key < 0
            key = torch.where(none, torch.arange(c.d_vocab)[:, None], key)

        def keys(rows: Tensor) -> Ball:
            return exponential(c.A.table[lay.t[rows][:, None], key[lay.m[rows]]] - self.proof.pairs.top[rows][:, None])

        def votes(x: Tensor, m: Tensor, merged: bool) -> Ball:
            some, places = self.lead(c.OV.table, key[m], m[:, None], x[:, None]), (c.PV[:-1, m] - c.PV[:-1, x]).T
            return (some + places.amin(1)[:, None])[:, None] if merged else some[:, None] + places[..., None]

        return replace(single, keys=keys, votes=votes, positions=single.positions[:1], none=none)

    def taken(self) -> Iterator[tuple[Stage, int, Ledger, Cells]]:
        """Step by step: the stage, with how many cells it began, and those left open."""
        proof, stage = self.proof, self.proof.grouped()
        book = Ledger.begun(proof, stage)
        for finer in (lambda: (self.by_token(stage), book.by_token(proof, stage)),
                      lambda: (self.by_query(stage), book.by_query(proof.lay)), None):
            begun = len(book.r)
            book, cells = open_cells(stage, book, False)
            yield stage, begun, book, cells
            if finer:
                stage, book = finer()


def count_right(model: Model, steps: AnyProof,
                decide: Callable[[list[int]], bool] | None = None) -> tuple[Int[Tensor, " pair"], int]:
    """Right sequences of every (maximum, query) pair, int64 in the order of `Layout`,
    and how many rounding left to `decide`.

    Without `decide` they are decided in balls, from the model's weights: then the circuits must be the model's own.
    """
    lay, n = steps.lay, steps.n_ctx - 1
    if lay.d_vocab ** (n + 1) > ENUMERABLE:
        raise InputError(f"model {model.name!r} has {lay.d_vocab}^{n + 1} inputs, more than `exact` "
                         "tells apart (2^33); try separable")
    of = masses(lay, n, True)
    with cost.charge(4 * len(lay.m), "sequences of every pair"):
        wrong, all_ = torch.zeros_like(lay.m), torch.tensor(of.of)
    *_, (stage, _, book, cells) = steps.taken()
    book.rows_left(of)
    known, _, given_up = book.given_up(cells.given_up)
    most = TRIED if decide is None else ENUMERABLE
    stage, decide, doubtful = steps.by_key(stage), decide or Truth(model).right, at_most(most, of.sum(given_up))
    for block, slack in left_open(stage, known.r, known.g, lambda at: stage.cells(known.r[at], known.g[at])):
        sure = block.total < -slack
        at = block.distinct(sure)
        wrong.scatter_add_(0, block.row[at], torch.ones_like(at))
        unsure = block.apart_from(block.distinct(~sure), at)
        doubtful = at_most(most, doubtful + len(unsure))
        with cost.charge(in_balls(model, len(unsure)), "decided in balls"):
            for row, offsets in zip(block.row[unsure].tolist(), block.choices[unsure].tolist()):
                m = int(lay.m[row])
                wrong[row] += not decide([m - o for o in offsets] + [int(lay.t[row])])
    with cost.charge(in_balls(model, of.sum(given_up)), "decided in balls"):
        for row in given_up.nonzero()[:, 0].tolist():
            wrong[row] = sum(not decide(tokens) for tokens in sequences(int(lay.m[row]), int(lay.t[row]), n))
    return all_ - wrong, doubtful


def at_most(most: int, doubtful: int) -> int:
    """The number.  Errors: InputError where so many sequences would take too long in balls."""
    if doubtful > most:
        raise InputError(f"{doubtful} inputs are too close to call in float64, more than `exact` decides in balls "
                         f"({most}); try separable")
    return doubtful


def sequences(m: int, q: int, n: int) -> Iterator[list[int]]:
    """All of maximum m and query q, with n tokens before it."""
    return ([*tokens, q] for tokens in product(range(m + 1), repeat=n) if max(*tokens, q) == m)


def check(model: Model, steps: AnyProof) -> Proved:
    """The exact number of right sequences.  Complexity: see the module docstring."""
    right, _ = count_right(model, steps)
    with cost.charge(right.numel(), "total"):
        return Proved(int(right.sum()), steps.lay.d_vocab**steps.n_ctx, tried(model))
