"""The separable proof and the exact count: coarse cells first, and only what they leave open more finely.

    grouped query      (bucket of queries, group of wrong tokens), keys in buckets
    single queries     the cells left, query by query
    exact              ... wrong token by wrong token, and key by key

A cell that its worst combination certifies is settled.  Of the last cells, the combinations not certain to be
right are listed (boxes.py) or, for long sequences, counted (levels.py).  The exact strategy ends with single
sequences and single wrong tokens, so that what is left is wrong, but for ties and rounding, which balls decide.

What is not listed counts as right; ledger.py keeps the books.

Complexity: O(v^2 (d + b + g)) for the tables, and what is left open, which depends on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log2

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import InputError, Model, Parameters, Proved, check_tokens
from . import levels
from .boxes import AnyCells, Cells
from .ledger import Fault, Ledger, Masses, Sample, masses, open_cells
from .terms import AnyProof, AnyStage, Circuits, Groups, Layout, Separable, Stage

TABLE = 2**26           # marks in a block: rows of combinations that are told apart at once
LISTED = 2**33          # sequences up to which the open combinations are listed; beyond, they are counted by levels
NO_CODE = -(2**62)      # no combination's
OPEN = 2**26            # sequences that the exact strategy lists before it gives up


def refine(proof: Separable, each: bool) -> tuple[Stage, Ledger, Cells]:
    """The final stage, and its open cells."""
    grouped = proof.grouped()
    book, cells = open_cells(grouped, Ledger.begun(proof, grouped))
    if not each:
        return grouped, book, cells
    single = proof.each()
    book, cells = open_cells(single, book.by_query(proof.lay))
    return single, book, cells


@dataclass(frozen=True, eq=False)
class Open:
    """Combinations left open: row [n], choices [n, p], the sum [n], and a code [n] below `size`,
    the same for the same combination."""

    row: Int[Tensor, " n"]
    choices: Int[Tensor, "n p"]
    total: Float[Tensor, " n"]
    code: Int[Tensor, " n"]
    size: int

    @cached_property
    def mark(self) -> Int[Tensor, " size"]:
        """A place for every code.  Untouched, so that its pages cost nothing: read only where it was written,
        or to be verified."""
        return torch.empty(self.size, dtype=torch.int32)

    def distinct(self, which: Bool[Tensor, " n"] | None = None) -> Tensor:
        """Indices of one of each code (among `which`): everybody leaves a mark, and whose mark stays is kept."""
        at = torch.arange(len(self.code)) if which is None else which.nonzero()[:, 0]
        n = torch.arange(len(at), dtype=torch.int32)
        self.mark[self.code[at]] = n
        return at[self.mark[self.code[at]] == n]

    def apart_from(self, some: Tensor, others: Tensor) -> Tensor:
        """Those of `some` whose combination is none of `others`."""
        self.mark[self.code[some]] = 0
        self.mark[self.code[others]] = 1
        return some[self.mark[self.code[some]] == 0]

    def holds(self, code: Int[Tensor, " s"]) -> Bool[Tensor, " s"]:
        """Whether these combinations are listed; negative codes are not."""
        n = len(self.code)
        self.mark[self.code] = torch.arange(n, dtype=torch.int32)
        # whatever an unmarked place says, another code stands there
        found = self.mark[code.clamp_min(0)].long().clamp(0, n)
        return torch.cat([self.code, code.new_full((1,), NO_CODE)])[found] == code


def encoded(place: Int[Tensor, " n"], chosen: Int[Tensor, "n p"], choices: int) -> Int[Tensor, " n"]:
    """One number for a row's place in its block and a combination of choices."""
    for p in range(chosen.shape[1]):
        place = place * choices + chosen[:, p]
    return place


def row_blocks(r: Tensor, table: int, terms: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(cells, their place among the block's rows, how many rows): cells in order of rows,
    so many rows at once as fit into memory."""
    order = r.sort(stable=True)
    _, place, count = order.values.unique_consecutive(return_inverse=True, return_counts=True)
    block = torch.maximum(count * (4 * terms), torch.tensor(table)).cumsum(0) // TABLE
    _, block, rows = block.unique_consecutive(return_inverse=True, return_counts=True)
    cells = torch.zeros_like(rows).scatter_add(0, block, count)
    with cost.charge(2 * len(rows), "sizes of blocks"):
        sizes, rows = cells.tolist(), rows.tolist()
    for index, at, n in zip(order.indices.split(sizes), place.split(sizes), rows):
        yield index, at - at[0], n


def left_open(stage: AnyStage, r: Tensor, g: Tensor,
              make: Callable[[Tensor], AnyCells]) -> Iterator[tuple[Open, Tensor]]:
    """The combinations of the cells (r, g) that are not certain to be right, with their slack, block by block.

    `make(index)` gives the terms of some cells.  Errors: InputError when a block holds more than 2^26 combinations.
    """
    if not len(r):
        return
    positions, choices = stage.others, stage.none.shape[1]
    table, sample = choices**positions, Sample.drawn(stage, r, g)
    listed = torch.zeros_like(sample.sure)
    for index, place, rows in row_blocks(r, table, positions * choices):
        cells, parts, held = make(index), [], 0
        for part in cells.survivors():
            parts.append(part)
            held += len(part[0])
            if held > OPEN:
                raise InputError(f"more than {OPEN} inputs are open at once; "
                                 "use `separable`, or `brute_force` if it can enumerate them")
        cell, chosen, total = (torch.cat(column) for column in zip(*parts))
        found = Open(r[index[cell]], chosen, total, encoded(place[cell], chosen, choices), rows * table)
        here = torch.full_like(r, -1).index_put((index,), place)[sample.index]               # -1: in another block
        listed = listed | found.holds(encoded(here, sample.choices, choices))
        yield found, cells.slack
    sample.compare(listed)


def mass(size: Int[Tensor, "m b"], m: Tensor, choices: Int[Tensor, "n p"]) -> Int[Tensor, " n"]:
    """Sequences of other tokens in each combination."""
    product = size[m, choices[:, 0]]
    for p in range(1, choices.shape[1]):
        product = product * size[m, choices[:, p]]
    return product


def count(lay: Layout, each: bool, stage: AnyStage, book: Ledger, cells: AnyCells) -> tuple[int, Callable[[], int]]:
    """Certified sequences, and (asked afterwards) how many more real arithmetic would certify; of the last stage, whose
    rows are single queries (`each`) or buckets of them, and its open cells.

    Every row is passed (all of its wrong tokens are settled), given up whole, or listed.
    Theorem: *Sum and count*.
    """
    n = stage.others
    of = masses(lay, n, each)
    left, (known, at, given_up) = book.rows_left(of), book.given_up(cells.given_up)
    passed, dropped, listed = (of.sum(rows) for rows in (~left, given_up, left & ~given_up))
    if passed + listed + dropped != lay.sequences(n):
        raise Fault("rows passed, listed and given up are not all there are: a fault of the library")
    if by_levels(lay, stage):
        return passed + counted(stage, known, cells[at], of, lay), lambda: 0
    copies = torch.ones_like(lay.m) if each else lay.size.flatten()
    open_, undecided = listed_open(stage, known, cells[at], lay.size, copies)
    return passed + listed - open_, undecided


def listed_open(stage: AnyStage, book: Ledger, cells: AnyCells, size: Tensor,
                copies: Tensor) -> tuple[int, Callable[[], int]]:
    """Sequences in the open combinations of these cells, and (asked afterwards)
    how many of them rounding alone left open."""
    lost, kept = 0, []
    for block, _ in left_open(stage, book.r, book.g, cells.__getitem__):
        at = block.distinct()
        amount = mass(size, stage.m[block.row[at]], block.choices[at]) * copies[block.row[at]]
        with cost.charge(len(at), "sum of masses"):
            lost += int(amount.sum())
        kept.append(block)

    def undecided() -> int:
        wrong = 0
        for block in kept:
            at = block.distinct(~(block.total > 0))
            wrong += int((mass(size, stage.m[block.row[at]], block.choices[at]) * copies[block.row[at]]).sum())
        return lost - wrong

    return lost, undecided


def by_levels(lay: Layout, stage: AnyStage) -> bool:
    """Whether sequences are too long to list the open combinations."""
    return lay.sequences(stage.others) > LISTED


def lost(cells: AnyCells, choices: Int[Tensor, "c p"]) -> Bool[Tensor, " c"]:
    """Whether levels count a combination as open."""
    return torch.stack([levels.end(part, choices) < 0 for part in cells.parts]).any(0)


def counted(stage: AnyStage, book: Ledger, cells: AnyCells, of: Masses, lay: Layout) -> int:
    """Certified sequences in the rows of these cells: of every row what is left of it by each of its cells,
    at least nothing.

    Complexity: O(1) integers of K log2 v bits a cell, charged by the word.
    """
    if not len(book.r):
        return 0
    size = lay.size[stage.m[book.r]]
    found = [levels.certain_combinations(part, size, lay.d_vocab) for part in cells.parts]
    sample = Sample.drawn(stage, book.r, book.g)
    sample.compare(lost(cells[sample.index], sample.choices))
    words = 1 + int(cells.positions * log2(lay.d_vocab)) // 64
    with cost.charge(8 * words * len(found) * len(book.r), "sums of exact integers, at most the row"):
        gone: dict[int, int] = {}
        whole: dict[int, int] = {}
        for row, m, need, *certain in zip(book.r.tolist(), stage.m[book.r].tolist(), cells.need.tolist(), *found):
            whole[row] = (m + 1) ** cells.positions - (m**cells.positions if need else 0)
            gone[row] = gone.get(row, 0) + sum(whole[row] - some for some in certain)
        return sum(max(whole[row] - some, 0) * (of.of[row] // whole[row]) for row, some in gone.items())


@dataclass(frozen=True, eq=False)
class Explained:
    """Whether one input is certified, and by which cell: the last stage's sums for its tokens, group by group."""

    model: Model
    proof: AnyProof
    each: bool

    def __call__(self, tokens: Sequence[int]) -> Case:
        tokens = check_tokens(tokens, self.model.sizes)
        lay, q, m = self.proof.lay, tokens[-1], max(tokens)
        *chosen, own = (int((torch.tensor(lay.edges) <= m - t).sum()) - 1 for t in tokens)
        stage = self.proof.each() if self.each else self.proof.grouped()
        rows, groups = self.proof.start()
        groups = groups[rows == m * len(lay.edges) + own]
        pair = lay.pair(m, q)
        row = pair if self.each else m * len(lay.edges) + own
        cells = stage.cells(torch.full_like(groups, row), groups)
        choices = torch.tensor(chosen).expand(len(groups), -1)
        certain = cells.certain(choices)
        if by_levels(lay, stage):
            certain = certain | ~lost(cells, choices)
        covered = bool((certain & ~cells.given_up).all())
        where = f"maximum {m}, query {q}" if self.each else f"maximum {m}, query in bucket {own} below it"
        reason = f"{where}, other tokens in buckets {', '.join(map(str, chosen))}"
        reason += "" if covered else ": some wrong token might beat the maximum"

        def margin() -> float | None:
            lowest = self.proof.margin_lo(stage, cells, choices, row, pair)
            return float(lowest) * (1 - 1e-12) if covered else None

        return Case(covered, reason, margin)


def check(model: Model, circuits: Circuits | None, parameters: Parameters) -> Proved:
    """The proof from the circuits as far as they are known; None certifies nothing."""
    total = model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    if circuits is None:
        return Proved(0, total, lambda tokens: Case(False, "the tables of the advice did not pass the test"))
    proof = Separable(circuits.centred(), Groups(parameters["groups"]), parameters["buckets"])
    each = bool(parameters["query"])
    correct, undecided = count(proof.lay, each, *refine(proof, each))
    return Proved(correct, total, Explained(model, proof, each), undecided)
