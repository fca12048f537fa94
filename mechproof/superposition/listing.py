"""Which sets of features a bound leaves open: a sum over their members that may reach what is needed.

Problem: there are C(m, s) inputs, and a bound of the form "const + sum over the other features that are on" should
not be asked about each.  Idea: sort a row's numbers.  The r largest tell whether any set reaches what is needed; if
some does, sets grow member by member in falling order, and one that cannot reach it any more, even with the largest
numbers that are left, is dropped with everything after it.

No set that reaches what is needed is missed: sums are compared with a slack for rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.rounding import U

LIMIT = 2**22                                                            # sets that are listed, of one proof
BLOCK = 2**20


class Rows(NamedTuple):
    """Bounds of one kind: row n says that what is `fixed` is on, that the features `apart` are not among the r others,
    and that an output is far enough off only where the others' numbers add up to `need` or more.  Numbers are upper
    ends, the needs lower ends."""

    fixed: Int[Tensor, "n on"]
    apart: Int[Tensor, "n 2"]                                            # the output
    table: Float[Tensor, "n m"]
    need: Float[Tensor, " n"]
    r: int


class Open(NamedTuple):
    """Inputs and outputs that are left open, a row each; features in rising order."""

    inputs: Int[Tensor, "n s"]
    output: Int[Tensor, "n 2"]


class TooMany(ArithmeticError):
    """More is open than is listed."""


def listed(rows: Rows) -> Open:
    """All that the rows leave open.  Errors: TooMany, also where a number is not finite.

    Complexity: O(n m log m), and O(m) a set that is begun.
    """
    r = rows.r
    if not possible(rows):
        return Open(rows.fixed.new_zeros(0, rows.fixed.shape[1] + r), rows.apart[:0])
    with cost.charge(rows.table.numel() + len(rows.need), "whether numbers are finite"):
        if not bool(rows.table.isfinite().all() & rows.need.isfinite().all()):
            raise TooMany
    value, feature = falling(rows)
    least = rows.need - slack(rows)
    at = (~(value[:, :r].sum(1) < least)).nonzero()[:, 0]
    members = at.new_zeros(len(at), 0)
    for left in range(r - 1, -1, -1):
        at, members = grown(at, members, value, least, left)
    inputs = torch.cat([rows.fixed[at], feature[at[:, None], members]], 1).sort(1).values
    return Open(inputs, rows.apart[at])


def falling(rows: Rows) -> tuple[Float[Tensor, "n others"], Int[Tensor, "n others"]]:
    """The others' numbers and features, the largest first.  Complexity: O(n m log m)."""
    value, feature = rows.table.scatter(1, rows.apart, -torch.inf).sort(1, descending=True)
    return value[:, :-2], feature[:, :-2]


def possible(rows: Rows) -> bool:
    """Whether there is any such input."""
    return len(rows.table) > 0 and rows.r <= rows.table.shape[1] - 2


def favourites(rows: Rows) -> Open:
    """Of every row the set whose numbers are largest.  Complexity: O(n m log m)."""
    if not possible(rows):
        return Open(rows.fixed.new_zeros(0, rows.fixed.shape[1] + rows.r), rows.apart[:0])
    return Open(torch.cat([rows.fixed, falling(rows)[1][:, : rows.r]], 1).sort(1).values, rows.apart)


def excess(rows: Rows) -> Float[Tensor, ""]:
    """By how much any sum may be more than is needed, at most.  Complexity: O(n m log m)."""
    if not possible(rows):
        return torch.tensor(-torch.inf)
    return (falling(rows)[0][:, : rows.r].sum(1) - rows.need).amax() + slack(rows)


def slack(rows: Rows) -> Float[Tensor, ""]:
    """At least what rounding does to a sum of r numbers of a row, and to the comparison.  Complexity: O(n m)."""
    return 8 * (rows.r + 1) * U * ((rows.r + 1) * rows.table.abs().amax() + rows.need.abs().amax()) + 2.0**-1000


def grown(at: Int[Tensor, " n"], members: Int[Tensor, "n k"], value: Float[Tensor, "rows m"],
          least: Float[Tensor, " rows"], left: int) -> tuple[Int[Tensor, " new"], Int[Tensor, "new k1"]]:
    """Sets with one member more, which may still reach the least sum with the `left` largest numbers after it.

    Errors: TooMany.
    """
    others, k, found, total = value.shape[1], members.shape[1], [], 0
    reach = value.clone()
    for ahead in range(1, left + 1):
        reach[:, :-ahead] += value[:, ahead:]
    with cost.addresses():
        place = torch.arange(others)
    for start in range(0, len(at), max(1, BLOCK // others)):
        row, so_far = (x[start : start + max(1, BLOCK // others)] for x in (at, members))
        sums = value[row[:, None], so_far].sum(1)[:, None] + reach[row]
        fits = (place < others - left) & ~(sums < least[row][:, None])
        parent, child = (fits & (place > so_far[:, -1:]) if k else fits).nonzero().unbind(1)
        found.append((row[parent], torch.cat([so_far[parent], child[:, None]], 1)))
        total += len(parent)
        if total > LIMIT:
            raise TooMany
    return (torch.cat([at[:0], *(x for x, _ in found)]),
            torch.cat([members.new_zeros(0, k + 1), *(x for _, x in found)]))


def codes(inputs: Int[Tensor, "n s"], m: int) -> Int[Tensor, " n"]:
    """A number for every set of features, which are in rising order."""
    with cost.addresses():
        weight = torch.tensor([m**k for k in range(inputs.shape[1])])
    return (inputs * weight).sum(1)


def distinct(parts: Iterable[Int[Tensor, "_ s"]], m: int) -> Int[Tensor, " distinct"]:
    """The codes of some inputs, in rising order, none twice."""
    every = torch.cat([torch.zeros(0, dtype=torch.long), *(codes(part, m) for part in parts)])
    return every.sort().values.unique_consecutive()
