"""Finite groups as their tables: products, subgroups, cosets, and the spaces of the irreps.

Problem: a network that composes knows the elements of a group by number alone.  Idea: so does the library: a group is
the table of its products, and everything else (which sets are subgroups, which functions an irrep spans) is computed
from that table.  None of it is trusted: a proof takes what is found here as advice.

>>> table = multiplication("S3")
>>> len(subgroups(table)), [len(basis) for basis in isotypic(table)]
(6, [1, 1, 4])
"""

from __future__ import annotations

import re
from functools import cache
from itertools import permutations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import InputError

Table = Int[Tensor, "G G"]
MOST_SUBGROUPS = 1000


def elements(name: str) -> list[tuple[int, ...]]:
    """The elements of S_n or A_n (all, or the even permutations of n points), D_n (of a polygon's n corners) or C_n
    as permutations, the identity first.  Errors: InputError for another name."""
    said = re.fullmatch("([SADC])([1-9][0-9]?)", name)
    if not said or (said[1] in "SA" and int(said[2]) > 6):
        raise InputError(f"group {name!r} is not known; expected S or A with 1 to 6, or D or C with 1 to 99: S5, D12")
    n = int(said[2])
    turns = [tuple((i + t) % n for i in range(n)) for t in range(n)]
    if said[1] in "CD":
        # of two corners or fewer a polygon has no flips that the corners show
        return turns if said[1] == "C" else turns + [tuple((t - i) % n for i in range(n)) for t in range(n)]
    return [x for x in permutations(range(n)) if said[1] == "S" or not odd(x)]


def odd(x: tuple[int, ...]) -> bool:
    """Whether a permutation has an odd number of pairs out of order."""
    return sum(x[i] > x[j] for j in range(len(x)) for i in range(j)) % 2 == 1


@cache
def multiplication(name: str) -> Table:
    """[x, y]: the element that does y first and then x.  Errors: as `elements`.  Complexity: O(G^2)."""
    all_ = elements(name)
    if len(set(all_)) < len(all_):
        raise InputError(f"group {name!r} has flips that its corners do not show; expected D3 or larger")
    at = {x: i for i, x in enumerate(all_)}
    return torch.tensor([[at[tuple(x[i] for i in y)] for y in all_] for x in all_])


def generated(table: Table, generators: frozenset[int]) -> frozenset[int]:
    """The products of these elements; in a finite group inverses are among them."""
    rows, found = table.tolist(), set(generators)
    fresh = set(generators)
    while fresh:
        fresh = {rows[a][g] for a in fresh for g in generators} - found
        found |= fresh
    return frozenset(found)


def subgroups(table: Table) -> list[frozenset[int]]:
    """All subgroups, small ones first (of a group with very many, some).  Complexity: O(subgroups cyclic G)."""
    cyclic = {generated(table, frozenset([g])) for g in range(len(table))}
    found, fresh = set(cyclic), set(cyclic)
    while fresh and len(found) < MOST_SUBGROUPS:
        fresh = {generated(table, small | large) for large in fresh for small in cyclic if not small <= large} - found
        found |= fresh
    return sorted(found, key=lambda one: (len(one), sorted(one)))


def cosets(table: Table, subgroup: frozenset[int]) -> Int[Tensor, " G"]:
    """For each y the number of its coset y H, in order of their first elements."""
    least = table[:, sorted(subgroup)].amin(1)
    return least.unique(return_inverse=True)[1]


def is_group(table: Table) -> bool:
    """Whether these are the products of a group: they associate, and every line has every element.
    Complexity: O(G^3)."""
    every = torch.arange(len(table))
    lines = torch.cat([table, table.T]).sort(1).values
    return bool((lines == every).all()) and torch.equal(table[table], table[every[:, None, None], table])


def isotypic(table: Table) -> list[Float[Tensor, "d2 G"]]:
    """Orthonormal bases of the spaces of functions on the group that each irrep spans (two complex-conjugate irreps
    together), the constants first: eigenspaces of a random central element.  Complexity: O(G^3)."""
    G, g = len(table), torch.Generator().manual_seed(0)
    identity = int((table.diagonal() == torch.arange(G)).nonzero()[0])
    inverse = (table == identity).long().argmax(1)
    # of all conjugates x g x^-1 the least names the class, together with that of the inverse
    conjugates = table[table, inverse[:, None]]
    classes = torch.minimum(conjugates.amin(0), conjugates.amin(0)[inverse])
    weight = torch.rand(G, generator=g, dtype=torch.float64)[classes]
    values, vectors = torch.linalg.eigh(weight[table[:, inverse]])
    splits = ((values.diff() > 1e-8 * values.abs().amax()).nonzero().flatten() + 1).tolist()
    return [part.T.contiguous() for part in vectors.flip(1).tensor_split([G - i for i in reversed(splits)], 1)]
