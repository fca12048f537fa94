"""The books of a proof that certifies what it does not list.

Problem: such a proof counts v^K less what it found open, so that whatever gets lost on the way is certified.  Once a
term that had overflowed was taken for a choice that does not exist: nothing was listed, and 94% of a network was
"certified" that is right on one input in a million (book, "How a proof went wrong").  Idea: the count is tied to two
statements that do not rest on lists.

    Every row's wrong tokens, settled and left, are all there are;
    the sequences of rows passed, listed and given up add up to v^K.
    A combination drawn at random from what is left and added up by itself is listed, unless its sum is certain.

Where two statements differ there is no proof (`Fault`).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ..proof import cost
from .boxes import AnyCells, children
from .terms import AnyStage, Layout, Separable

SAMPLE = 16                                                              # combinations drawn in every proof


class Fault(ArithmeticError):
    """Two statements of a proof differ, so that it proves nothing: a fault of the library."""


@dataclass(frozen=True, eq=False)
class Ledger:
    """How many wrong tokens are settled in every row [row]; of the cells left their row, their column, and how many
    wrong tokens they stand for [c]."""

    settled: Int[Tensor, " row"]
    r: Int[Tensor, " c"]
    g: Int[Tensor, " c"]
    tokens: Int[Tensor, " c"]

    @classmethod
    def begun(cls, proof: Separable, stage: AnyStage) -> Ledger:
        """Every cell of the first stage."""
        r, g = proof.start()
        with cost.addresses():
            tokens = proof.groups.members(proof.lay.d_vocab)[1][g, stage.m[r]]
        return cls(torch.zeros_like(stage.m), r, g, tokens)

    def less(self, sure: Bool[Tensor, " c"]) -> tuple[Ledger, Int[Tensor, " left"]]:
        """The cells that are not sure, with the tokens of the others entered; and which of the cells those are."""
        at = (~sure).nonzero()[:, 0]
        return Ledger(self.settled.index_add(0, self.r, self.tokens * sure), self.r[at], self.g[at],
                      self.tokens[at]), at

    def by_token(self, proof: Separable, stage: AnyStage) -> Ledger:
        """Single wrong tokens in place of groups."""
        parent, x = children(*(table[self.g, stage.m[self.r]] for table in proof.groups.members(proof.lay.d_vocab)))
        return Ledger(self.settled, self.r[parent], x, torch.ones_like(x))

    def by_query(self, lay: Layout) -> Ledger:
        """Single queries in place of buckets."""
        parent, r = children(lay.first[self.r], lay.size.flatten()[self.r])
        return Ledger(self.settled[lay.segment], r, self.g[parent], self.tokens[parent])

    def given_up(self, cells: Bool[Tensor, " c"]) -> tuple[Ledger, Int[Tensor, " c"], Bool[Tensor, " row"]]:
        """The cells in rows that have none of these, which cells that are, and the rows that have."""
        rows = torch.zeros_like(self.settled, dtype=torch.bool)
        rows[self.r[cells]] = True
        at = (~rows[self.r]).nonzero()[:, 0]
        return Ledger(self.settled, self.r[at], self.g[at], self.tokens[at]), at, rows

    def rows_left(self, masses: Masses) -> Bool[Tensor, " row"]:
        """The rows with cells left.  Raises `Fault` where wrong tokens of a row are neither settled nor left."""
        left = torch.zeros_like(self.settled).index_add(0, self.r, self.tokens)
        lacking = (self.settled + left != masses.rivals).any()
        with cost.charge(1, "is every wrong token accounted for"):
            if lacking:
                raise Fault("wrong tokens are neither settled nor left open: a fault of the library")
        return left > 0


def open_cells(stage: AnyStage, book: Ledger, resolve: bool = True) -> tuple[Ledger, AnyCells]:
    """The cells that are not settled whole, positions merged and then, if asked for, apart."""
    apart = stage.positions.shape[2] > 1
    for merged in (True, False) if resolve and apart else (apart,):
        cells = stage.cells(book.r, book.g, merged)
        book, at = book.less(cells.settled())
        cells = cells[at]
    return book, cells


@dataclass(frozen=True, eq=False)
class Masses:
    """How many sequences of n other tokens every row has, exact integers,
    and wrong tokens it has to be certain of [row]."""

    of: tuple[int, ...]
    rivals: Int[Tensor, " row"]

    def sum(self, rows: Bool[Tensor, " row"]) -> int:
        with cost.charge(len(self.of), "sums of masses"):
            return sum(mass for mass, here in zip(self.of, rows.tolist()) if here)


@lru_cache(maxsize=16)
def masses(lay: Layout, n: int, each: bool) -> Masses:
    """Of pairs, or of rows (maximum, bucket of queries).  Raises `Fault` where they are not all v^(n + 1)."""
    whole = lay.sequences(n)
    with cost.addresses():
        pair = [(m + 1) ** n - (m**n if need else 0) for m, need in zip(lay.m.tolist(), lay.need.tolist())]
        size, first = lay.size.flatten().tolist(), lay.first.tolist()
        of = pair if each else [count * pair[at + count - 1] if count else 0 for at, count in zip(first, size)]
        if sum(of) != whole:
            raise Fault(f"rows hold {sum(of)} of {whole} sequences: a fault of the library")
        return Masses(tuple(of), torch.tensor([lay.rivals * (mass > 0) for mass in of]))


@dataclass(frozen=True, eq=False)
class Sample:
    """Combinations drawn at random, each from a cell that is left: index [s] among the cells, choices [s, p], and
    whether the sum is certain [s].

    The lister adds in another order, so that its sum may be off by the slack's part for rounding,
    which is less than half.
    """

    index: Int[Tensor, " s"]
    choices: Int[Tensor, "s p"]
    sure: Bool[Tensor, " s"]

    @classmethod
    def drawn(cls, stage: AnyStage, r: Int[Tensor, " c"], g: Int[Tensor, " c"]) -> Sample:
        """From the cells (r, g), of which there is one at least.  Complexity: O(p b) a combination."""
        n, source = stage.others, torch.Generator().manual_seed(secrets.randbits(63))
        with cost.addresses():
            few = (~stage.none).sum(1)                                   # choices that a maximum has
        # products, a choice between two, and whole numbers of them
        with cost.charge(SAMPLE * (n + 2), "a sample drawn"):
            index = torch.randint(len(r), (SAMPLE,), generator=source)
            choices = (torch.rand(SAMPLE, n, generator=source, dtype=torch.float64)
                       * few[stage.m[r[index]]][:, None]).long()
            held = torch.randint(n, (SAMPLE, 1), generator=source)       # who holds the maximum, if somebody has to
            choices = choices.scatter(1, held, torch.where(stage.need[r[index]][:, None], 0, choices.gather(1, held)))
        # every row by itself: the cost does not depend on the draw
        cells = stage.terms(r[index], torch.arange(SAMPLE), g[index])
        return cls(index, choices, cells.certain(choices, 1 / 2))

    def compare(self, listed: Bool[Tensor, " s"]) -> None:
        """Raises `Fault` where a combination is neither certain nor listed."""
        missed = ~(self.sure | listed)
        with cost.charge(SAMPLE, "is the sample in order"):
            if missed.any():
                raise Fault("an input drawn at random is neither certified nor listed as open: a fault of the library")
