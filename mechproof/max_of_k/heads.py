"""Several heads: as many networks of one head, and a split between them.

Problem: a softmax drops out of a proof because its denominator is positive, but two heads have two, and their product
is no sum of functions of single tokens.  Idea: logit differences add up.  Give every head a part of the direct path,

    lead of m over x  =  EU[q,m] - EU[q,x] + sum_h N_h / Z_h  =  sum_h F_h / Z_h,
    F_h = N_h + Z_h ((EU[q,m] - EU[q,x]) / H + split[h,m,x]),        sum_h split[h,m,x] = 0,

and each F_h is a sum of single-token functions as before (terms.py): of a network of one head.  Where all F_h are
positive so is the lead; where some are not, with f_h <= F_h and a range of Z_h,

    lead  >=  sum_h f_h / Z_h,   with the largest Z_h below f_h >= 0, the smallest below f_h < 0.

So the heads' lists of open combinations are looked through once more, by quotients.  The split is advice: any numbers
whose sum is zero are sound, and good ones give every head what it usually lacks.  Each head takes the worst token of a
group by itself, which costs most of a bound; so wrong tokens stand singly here (Steps in exact.py).

Source: book, "Several heads", theorem *Heads*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.family import Advice, Model, Parameters, Proved, Spec
from ..proof.peeling import Known
from ..proof.rounding import Ball, U, _up, inverse, stack
from . import exact, separable
from .boxes import AnyCells, Cells
from .exact import Steps
from .ledger import Ledger, open_cells
from .model import alone, one_head_models, written
from .paths import Paths
from .terms import AnyProof, AnyStage, Circuits, Groups, Separable, Stage, over_bucket

SAMPLES = 128           # sequences of each maximum that a split is made for
RIGHT, LIKELY = 2.0, 0.5                            # verdicts, against a slack of 1


@dataclass(frozen=True, eq=False)
class Part(Steps):
    """One head, with its part of the direct path; split [m, x]."""

    split: Float[Ball, "m x"]

    def direct(self, x: Tensor, r: Tensor) -> Ball:
        return super().direct(x, r) + self.split[self.lay.m[r], x]

    def by_token(self, grouped: Stage) -> Stage:
        """Buckets of queries, single wrong tokens."""
        with cost.addresses():
            x, pairs = torch.arange(self.lay.d_vocab)[:, None], torch.arange(len(self.lay.m))
        direct, own = (over_bucket(table(x, pairs), self.lay) for table in (self.direct, self.own))
        return replace(super().by_token(grouped), direct=lambda x, r: direct[x, r], own=lambda x, r: own[x, r])


@dataclass(frozen=True, eq=False)
class Divisors:
    """The range of one head's denominators.  own [e, row] of the query's weight, keys [f, row, p, b] of the others';
    of a cell the row is place [c]."""

    own: Float[Ball, "e row"]
    keys: Float[Ball, "f row p b"]
    place: Int[Tensor, " c"]
    positions: int

    def ends(self, keys: list[Float[Tensor, "c p"]], own: list[Float[Tensor, " c"]]) -> tuple[Tensor, Tensor]:
        """Smallest and largest, from the others' smallest and largest; NaN where the smallest may not be positive."""
        n, times = self.positions, self.positions // keys[0].shape[1]
        off = _up(self.own.rad + n * self.keys.rad + 2 * (n + 2) * U * _up(self.own.mag + n * self.keys.mag))
        lo, hi = (x + k.sum(1) * times for x, k in zip(own, keys))
        lo = lo - 2 * off
        return lo.masked_fill(~(lo > 0), torch.nan), hi + 2 * off

    def of_cells(self) -> tuple[Tensor, Tensor]:
        """Of every combination of each cell."""
        keys = [self.keys.mid[0].amin(2)[self.place], self.keys.mid[-1].amax(2)[self.place]]
        return self.ends(keys, [self.own.mid[e, self.place] for e in (0, -1)])

    def of(self, cell: Int[Tensor, " n"], choices: Int[Tensor, "n p"]) -> tuple[Tensor, Tensor]:
        """Of these combinations."""
        with cost.addresses():
            row, p = self.place[cell], torch.arange(choices.shape[1]).clamp_max(self.keys.shape[2] - 1)
        keys = [self.keys.mid[e][row[:, None], p, choices] for e in (0, -1)]
        return self.ends(keys, [self.own.mid[e, row] for e in (0, -1)])


def least_quotients(f: Sequence[Tensor], slack: Sequence[Tensor], ends: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """At least the sum over heads of F / Z, where F >= f - slack; NaN where nothing is known."""
    terms = []
    for x, off, (lo, hi) in zip(f, slack, ends):
        low = x - off
        terms.append(low / torch.where(low < 0, lo, hi))
    total, size = terms[0], terms[0].abs()
    for term in terms[1:]:
        total, size = total + term, size + term.abs()
    # two roundings of every term, and one of each sum
    return total - _up(2.0**-40 * size)


@dataclass(frozen=True, eq=False)
class HeadCells(AnyCells):
    """The cells of all heads; sums are verdicts here: above 1 right, below -1 wrong, and in between by the sign of what
    was computed.
    Theorem: *Heads*."""

    parts: tuple[Cells, ...]
    divisors: tuple[Divisors, ...]

    need = property(lambda self: self.parts[0].need)
    positions = property(lambda self: self.parts[0].positions)
    slack = property(lambda self: torch.ones((), dtype=torch.float64))

    @cached_property
    def given_up(self) -> Bool[Tensor, " c"]:
        return torch.stack([part.given_up for part in self.parts]).any(0)

    def __getitem__(self, index: Tensor) -> HeadCells:
        return HeadCells(tuple(part[index] for part in self.parts),
                         tuple(replace(z, place=z.place[index]) for z in self.divisors))

    def settled(self) -> Bool[Tensor, " c"]:
        """Cells that the heads' worst combinations certify, were they one."""
        least = least_quotients([part.least() for part in self.parts], [2 * part.slack for part in self.parts],
                                [z.of_cells() for z in self.divisors])
        return (least > 0) & ~self.given_up

    def leads(self, cell: Int[Tensor, " n"], choices: Int[Tensor, "n p"], slack: float, sign: float = 1.0) -> Tensor:
        """At least the leads of these combinations with this part of the slack; with sign -1, and where weights have
        one end, at least minus the leads."""
        return least_quotients([sign * part.of(cell, choices) for part in self.parts],
                               [slack * part.slack for part in self.parts],
                               [z.of(cell, choices) for z in self.divisors])

    def certain(self, choices: Int[Tensor, "c p"], part: float = 1.0) -> Bool[Tensor, " c"]:
        """Whether a combination a cell is certified, with this part of the slack."""
        with cost.addresses():
            cell = torch.arange(len(choices))
        return (self.leads(cell, choices, part) > 0) & ~self.given_up

    def survivors(self) -> Iterator[tuple[Int[Tensor, " n"], Int[Tensor, "n p"], Float[Tensor, " n"]]]:
        """Blocks of (cell, choices, verdict) that one head leaves open and the quotients do not certify; a combination
        may come once a head."""
        for part in self.parts:
            for cell, choices, _ in part.survivors():
                low = self.leads(cell, choices, 1.0)
                at = (~(low > 0) | self.given_up[cell]).nonzero()[:, 0]
                cell, choices = cell[at], choices[at]
                most = -self.leads(cell, choices, 1.0, -1.0)
                computed = torch.where(self.leads(cell, choices, 0.0) > 0, LIKELY, -LIKELY)
                yield cell, choices, torch.where(most < 0, -RIGHT, computed)


@dataclass(frozen=True, eq=False)
class HeadStage(AnyStage):
    """The stages of all heads, of the same rows and columns; own_weights [e, row] of each."""

    stages: tuple[Stage, ...]
    own_weights: tuple[Float[Ball, "e row"], ...]

    others = property(lambda self: self.stages[0].others)
    m = property(lambda self: self.stages[0].m)
    need = property(lambda self: self.stages[0].need)
    none = property(lambda self: self.stages[0].none)
    positions = property(lambda self: self.stages[0].positions)

    def cells(self, r: Tensor, g: Tensor, merged: bool = False) -> HeadCells:
        """The terms of cells (r, g)."""
        return self.terms(*(r.unique_consecutive(return_inverse=True) if len(r) else (r, r)), g, merged)

    def terms(self, rows: Tensor, place: Tensor, g: Tensor, merged: bool = False) -> HeadCells:
        """The same of cells whose rows are rows[place]."""
        return HeadCells(tuple(stage.terms(rows, place, g, merged) for stage in self.stages),
                         tuple(Divisors(own[:, rows], stage.weights(rows, merged), place, self.others)
                               for own, stage in zip(self.own_weights, self.stages)))


@dataclass(frozen=True, eq=False)
class Heads(AnyProof):
    """The steps of a network's proof, and what `Steps` and `Separable` are asked for."""

    parts: tuple[Part, ...]

    lay = property(lambda self: self.parts[0].lay)
    n_ctx = property(lambda self: self.parts[0].n_ctx)

    @classmethod
    def of(cls, model: Model, split: Float[Tensor, "others m x"], buckets: int) -> Heads:
        """Complexity: O(h v^2 d)."""
        paths = [Paths(one) for one in one_head_models(model)]
        EU, rest = Known(paths[0].EU * inverse(len(paths))), Ball(split)
        splits = [*(rest[h] for h in range(len(split))), -rest.sum(0)]
        return cls(tuple(Part(Separable(Circuits(p.n_ctx, Known(p.A), p.B, EU, Known(p.OV), p.PV).centred(), Groups(2),
                                        buckets), x) for p, x in zip(paths, splits)))

    @cached_property
    def begun(self) -> tuple[Ledger, HeadStage]:
        """Buckets of queries and single wrong tokens."""
        proof, grouped = self.parts[0].proof, [part.proof.grouped() for part in self.parts]
        stages = tuple(part.by_token(stage) for part, stage in zip(self.parts, grouped))
        own = tuple(stack([over_bucket(part.proof.pairs.own_weights[e], self.lay, better)
                           for e, better in ((0, torch.minimum), (-1, torch.maximum))]) for part in self.parts)
        return Ledger.begun(proof, grouped[0]).by_token(proof, grouped[0]), HeadStage(stages, own)

    def by_query(self, stage: HeadStage) -> HeadStage:
        return HeadStage(tuple(part.by_query(x) for part, x in zip(self.parts, stage.stages)), self.own_weights)

    def by_key(self, stage: HeadStage) -> HeadStage:
        return HeadStage(tuple(part.by_key(x) for part, x in zip(self.parts, stage.stages)), self.own_weights)

    @property
    def own_weights(self) -> tuple[Float[Ball, "e pair"], ...]:
        return tuple(part.proof.pairs.own_weights for part in self.parts)

    def taken(self) -> Iterator[tuple[HeadStage, int, Ledger, HeadCells]]:
        """Step by step: the stage, with how many cells it began, and those left open."""
        book, stage = self.begun
        begun = len(book.r)
        book, cells = open_cells(stage, book)
        yield stage, begun, book, cells
        stage, book = self.last, book.by_query(self.lay)
        begun = len(book.r)
        book, cells = open_cells(stage, book)
        yield stage, begun, book, cells

    @cached_property
    def last(self) -> HeadStage:
        """Single queries, keys in buckets."""
        return self.by_query(self.begun[1])

    def each(self) -> HeadStage:
        """The last stage of the separable proof."""
        return self.last

    def start(self) -> tuple[Tensor, Tensor]:
        """(row of a bucket of queries, wrong token) of every cell that holds sequences."""
        book, _ = self.begun
        return book.r, book.g

    def margin_lo(self, stage: HeadStage, cells: HeadCells, choices: Int[Tensor, "c p"], row: int, pair: int) -> Tensor:
        """At least by how many logits the maximum leads, of one combination of one row in all its cells."""
        return cells.leads(torch.arange(len(choices)), choices, 1.0).amin()


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """The separable proof.  Complexity: O(h v^2 (d + v b)) and what is left open."""
    proof = Heads.of(model, advice["split"], parameters["buckets"])
    *_, (stage, _, book, cells) = proof.taken()
    correct, undecided = separable.count(proof.lay, True, stage, book, cells)
    return Proved(correct, model.sizes["d_vocab"] ** model.sizes["n_ctx"], separable.Explained(model, proof, True),
                  undecided)


def check_exactly(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """The exact number of right sequences, by the same steps and single keys."""
    return exact.check(model, Heads.of(model, advice["split"], exact.BUCKETS))


def specs(sizes: Mapping[str, int]) -> dict[str, Spec]:
    """The split: a part of the direct path for every head but the last, of every maximum and wrong token."""
    return {"split": Spec((sizes["n_heads"] - 1, sizes["d_vocab"], sizes["d_vocab"]))}


def advise(model: Model) -> Advice:
    """What levels the heads' leads on the sequences, of some drawn at random, that are nearest to going wrong."""
    return {"split": levelling(torch.stack([sampled_leads(model, m) for m in range(model.sizes["d_vocab"])]))}


def levelling(leads: Float[Tensor, "m h s x"]) -> Float[Tensor, "others m x"]:
    """The split that gives every head the same lead on the sequences that are nearest to going wrong."""
    near = (-leads.sum(1).abs()).softmax(1)
    typical = (leads * near[:, None]).sum(2).movedim(1, 0)                                    # [h, m, x]
    return (typical.mean(0) - typical)[:-1].nan_to_num(0.0, 0.0, 0.0)


def sequences(m: int, n: int) -> Int[Tensor, "s n"]:
    """Random ones of n tokens with this maximum, the same at every call."""
    generator = torch.Generator().manual_seed(m)
    tokens = (torch.rand(SAMPLES, n, generator=generator) * (m + 1)).long()
    return tokens.scatter(1, torch.randint(n, (SAMPLES, 1), generator=generator), m)


def sampled_leads(model: Model, m: int) -> Float[Tensor, "h s x"]:
    """Each head's lead over every token, the direct path shared, on sequences of this maximum."""
    tokens = sequences(m, model.sizes["n_ctx"])
    heads = [{name: x.double() for name, x in head.items()} for head in alone(model.tensors)]
    x = heads[0]["W_E"][tokens] + heads[0]["W_pos"]
    direct = ((x[:, -1] + heads[0].get("b_O", 0)) @ heads[0]["W_U"] + heads[0].get("b_U", 0)) / len(heads)
    logits = torch.stack([direct + written(head, x) @ head["W_U"] for head in heads])
    return logits[..., m : m + 1] - logits
