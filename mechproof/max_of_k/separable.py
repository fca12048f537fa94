"""The separable proof and the exact count: coarse cells first, and only what they leave open more finely.

    grouped query      (bucket of queries, group of wrong tokens), keys in buckets
    single queries     the cells left, query by query
    exact              ... wrong token by wrong token, and key by key

A cell that its worst combination certifies is done with.  Of the last cells, the combinations not certain to be
right are listed (boxes.py) or, for long sequences, counted (levels.py).  The exact strategy ends with single
sequences and single wrong tokens, so that what is left is wrong, but for ties and rounding, which balls decide.

Complexity: O(v^2 (d + b + g)) for the tables, and what is left open, which depends on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log2

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .. import cost
from ..bound import Case
from ..family import InputError, Model, Parameters, Proved
from . import levels
from .boxes import Cells
from .terms import Circuits, Groups, Separable, Stage
from .truth import check_tokens

TABLE = 2**26           # marks in a block: rows of combinations that are told apart at once
LISTED = 2**33          # sequences up to which the open combinations are listed; beyond, they are counted by levels
OPEN = 2**26            # sequences that the exact strategy lists before it gives up


def open_cells(stage: Stage, r: Tensor, g: Tensor, resolve: bool = True) -> tuple[Tensor, Tensor, Cells]:
    """Rows, groups and terms of the cells that are not certified whole, positions merged and then, if asked for, apart."""
    apart = stage.positions.shape[2] > 1
    for merged in (True, False) if resolve and apart else (apart,):
        cells = stage.cells(r, g, merged)
        at = cells.undecided().nonzero()[:, 0]
        r, g, cells = r[at], g[at], cells[at]
    return r, g, cells


def refine(proof: Separable, each: bool) -> tuple[Stage, Tensor, Cells]:
    """The final stage, and its open cells by row."""
    grouped = proof.grouped()
    r, g, cells = open_cells(grouped, *proof.start())
    if not each:
        return grouped, r, cells
    single = proof.each()
    parent, r = proof.queries_of(r)
    r, _, cells = open_cells(single, r, g[parent])
    return single, r, cells


@dataclass(frozen=True, eq=False)
class Open:
    """Combinations left open: row [n], choices [n, p], the sum [n], and a code [n] below `size`, the same for the same combination."""

    row: Int[Tensor, " n"]
    choices: Int[Tensor, "n p"]
    total: Float[Tensor, " n"]
    code: Int[Tensor, " n"]
    size: int

    def distinct(self, which: Bool[Tensor, " n"] | None = None) -> Tensor:
        """Indices of one of each code (among `which`): everybody leaves a mark, and whose mark stays is kept."""
        at = torch.arange(len(self.code)) if which is None else which.nonzero()[:, 0]
        mark, n = torch.empty(self.size, dtype=torch.int32), torch.arange(len(at), dtype=torch.int32)
        mark[self.code[at]] = n
        return at[mark[self.code[at]] == n]

    def apart_from(self, some: Tensor, others: Tensor) -> Tensor:
        """Those of `some` whose combination is none of `others`."""
        mark = torch.empty(self.size, dtype=torch.int32)
        mark[self.code[some]] = 0
        mark[self.code[others]] = 1
        return some[mark[self.code[some]] == 0]


def row_blocks(r: Tensor, table: int, terms: int) -> Iterator[tuple[Tensor, Tensor, int]]:
    """(cells, their place among the block's rows, how many rows): cells in order of rows, so many rows at once as fit into memory."""
    order = r.sort(stable=True)
    _, place, count = order.values.unique_consecutive(return_inverse=True, return_counts=True)
    block = torch.maximum(count * (4 * terms), torch.tensor(table)).cumsum(0) // TABLE
    _, block, rows = block.unique_consecutive(return_inverse=True, return_counts=True)
    cells = torch.zeros_like(rows).scatter_add(0, block, count)
    with cost.charge(2 * len(rows), "sizes of blocks"):
        sizes, rows = cells.tolist(), rows.tolist()
    for index, at, n in zip(order.indices.split(sizes), place.split(sizes), rows):
        yield index, at - at[0], n


def left_open(r: Tensor, positions: int, choices: int, make: Callable[[Tensor], Cells]) -> Iterator[tuple[Open, Tensor]]:
    """The combinations of the cells of rows r that are not certain to be right, with their slack, block by block.

    `make(index)` gives the terms of some cells.  Errors: InputError when a block holds more than 2^26 combinations.
    """
    table = choices**positions
    for index, place, rows in row_blocks(r, table, positions * choices) if len(r) else ():
        cells, parts, held = make(index), [], 0
        for part in cells.survivors():
            parts.append(part)
            held += len(part[0])
            if held > OPEN:
                raise InputError(f"more than {OPEN} inputs are open at once; use `separable`, or `brute_force` if it can enumerate them")
        cell, chosen, total = (torch.cat(column) for column in zip(*parts))
        code = place[cell]
        for p in range(positions):
            code = code * choices + chosen[:, p]
        yield Open(r[index[cell]], chosen, total, code, rows * table), cells.slack


def mass(size: Int[Tensor, "m b"], m: Tensor, choices: Int[Tensor, "n p"]) -> Int[Tensor, " n"]:
    """Sequences of other tokens in each combination."""
    product = size[m, choices[:, 0]]
    for p in range(1, choices.shape[1]):
        product = product * size[m, choices[:, p]]
    return product


def count(proof: Separable, each: bool) -> tuple[int, Callable[[], int]]:
    """Certified sequences, and (asked afterwards) how many more real arithmetic would certify."""
    lay, n, v = proof.lay, proof.circuits.n_ctx - 1, proof.circuits.d_vocab
    stage, r, cells = refine(proof, each)
    copies = torch.ones_like(lay.m) if each else lay.size.flatten()
    if by_levels(proof):
        return v ** (n + 1) - open_by_levels(cells, r, stage, lay.size, copies), lambda: 0
    lost, kept = 0, []
    for block, _ in left_open(r, n, len(lay.edges), cells.__getitem__):
        at = block.distinct()
        amount = mass(lay.size, stage.m[block.row[at]], block.choices[at]) * copies[block.row[at]]
        with cost.charge(len(at), "sum of masses"):
            lost += int(amount.sum())
        kept.append((block, at, amount))

    def undecided() -> int:
        wrong = 0
        for block, _, _ in kept:
            at = block.distinct(~(block.total > 0))
            wrong += int((mass(lay.size, stage.m[block.row[at]], block.choices[at]) * copies[block.row[at]]).sum())
        return lost - wrong

    return v ** (n + 1) - lost, undecided


def by_levels(proof: Separable) -> bool:
    """Whether sequences are too long to list the open combinations."""
    return proof.circuits.d_vocab**proof.circuits.n_ctx > LISTED


def open_by_levels(cells: Cells, r: Tensor, stage: Stage, size: Tensor, copies: Tensor) -> int:
    """Open sequences: of every row the sum over its groups of wrong tokens, at most the whole row.

    Complexity: O(1) integers of K log2 v bits a cell, charged by the word.
    """
    n, m = cells.positions, stage.m[r]
    found = levels.certain_combinations(cells, size[m], len(size))
    words = 1 + int(n * log2(len(size))) // 64
    with cost.charge(8 * words * len(found), "sums of exact integers, at most the row"):
        lost: dict[int, int] = {}
        whole: dict[int, int] = {}
        for row, k, need, certain in zip(r.tolist(), m.tolist(), cells.need.tolist(), found):
            whole[row] = (k + 1) ** n - (k**n if need else 0)
            lost[row] = lost.get(row, 0) + whole[row] - certain
        return sum(min(some, whole[row]) * int(copies[row]) for row, some in lost.items())


@dataclass(frozen=True, eq=False)
class Explained:
    """Whether one input is certified, and by which cell: the last stage's sums for its tokens, group by group."""

    model: Model
    proof: Separable
    each: bool

    def __call__(self, tokens: Sequence[int]) -> Case:
        tokens = check_tokens(self.model, tokens)
        lay, q, m = self.proof.lay, tokens[-1], max(tokens)
        *chosen, own = (int((torch.tensor(lay.edges) <= m - t).sum()) - 1 for t in tokens)
        stage = self.proof.each() if self.each else self.proof.grouped()
        rows, groups = self.proof.start()
        groups = groups[rows == m * len(lay.edges) + own]
        row = torch.full_like(groups, lay.pair(m, q) if self.each else m * len(lay.edges) + own)
        cells = stage.cells(row, groups)
        sums = cells.own.mid + cells.f.mid[:, torch.arange(len(chosen)), chosen].sum(1)
        certain = sums > cells.slack
        covered = bool((certain | (levels.end(cells, chosen) >= 0) if by_levels(self.proof) else certain).all())
        where = f"maximum {m}, query {q}" if self.each else f"maximum {m}, query in bucket {own} below it"
        reason = f"{where}, other tokens in buckets {', '.join(map(str, chosen))}"
        reason += "" if covered else ": some wrong token might beat the maximum"

        def margin() -> float | None:
            weights = (stage.keys(row[:1])[-1, 0, chosen] * stage.positions[-1, row[0], torch.arange(len(chosen))]).sum(0)
            total = weights + self.proof.pairs.own_weights[-1, lay.pair(m, q)]
            return float((sums.amin() - cells.slack) / total.upper().mid) * (1 - 1e-12) if covered else None

        return Case(covered, reason, margin)


def check(model: Model, circuits: Circuits | None, parameters: Parameters) -> Proved:
    """The proof from the circuits as far as they are known; None certifies nothing."""
    total = model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    if circuits is None:
        return Proved(0, total, lambda tokens: Case(False, "the tables of the advice did not pass the test"))
    proof, each = Separable(circuits.centred(), Groups(parameters["groups"]), parameters["buckets"]), bool(parameters["query"])
    correct, undecided = count(proof, each)
    return Proved(correct, total, Explained(model, proof, each), undecided)
