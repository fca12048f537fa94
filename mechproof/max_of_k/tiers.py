"""How well a proof knows the score, direct and vote tables: multiplied out, or peeled and the rest bounded.

Problem: the three tables of v^2 numbers are most of a separable proof's cost and all of its v^2 d.  Idea: each is a
chain of factors.  Take the mean row and r advised directions out, multiply those out (thin products), and bound
how far a difference within a row of the rest may be off by a rung of `product_bounds` (`proof/peeling.py`):

    exact      the table                                                         v^2 d
    gram       first factors multiplied, norms of the rest's rows                v^2 r + v d^2
    spectral   the inner factors multiplied, their rest by its operator norm     v^2 r + v d r + d^3
    frobenius  nothing multiplied, every factor peeled and bounded by its norm   v^2 r + (v d + d^2) r
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import matmul

import torch

from ..proof.family import Advice, Parameters, Spec
from ..proof.peeling import Directions, Hints, Known, as_advice, as_hints, as_specs, columns, singular, telescope
from ..proof.product_bounds import Factors, RowBound, frobenius, gram, norms, operator_norm
from ..proof.rounding import Ball
from .paths import Paths, Stripped
from .terms import Circuits


def chains(paths: Paths) -> dict[str, list[Ball]]:
    """The factors of the three tables: scores (query, key), direct path (query, logit), votes (key, logit)."""
    w = paths.weight
    return {"qk": paths.score_chain, "eu": [paths.EPq, w("W_U")], "ov": [w("W_E"), w("W_V"), w("W_O"), w("W_U")]}


@dataclass(frozen=True)
class Tier:
    """Which inner dimensions of a chain are kept when it is multiplied out, which of its factors then are peeled, and
    the rung for the rest."""

    complexity: str
    kept: Callable[[int], Sequence[int]]
    peeled: Callable[[int], Sequence[int]]
    rung: RowBound

    def fold(self, chain: Factors) -> list[Ball]:
        """The chain between the dimensions that are kept."""
        cuts = sorted(self.kept(len(chain)))
        return [reduce(matmul, chain[i:j]) for i, j in zip(cuts, cuts[1:])]

    def sides(self, dims: Sequence[int]) -> dict[int, int]:
        """{peeled factor: length of its directions} for a chain with these dimensions."""
        cuts = sorted(self.kept(len(dims) - 1))
        n = len(cuts) - 1
        return {i: dims[cuts[i + 1] if 2 * i < n else cuts[i]] for i in self.peeled(n)}

    def known(self, chain: Factors, hints: Hints[int]) -> Known:
        """The table from peeled directions and the mean row, and its slack."""
        first, *others = self.fold(chain)
        mean = Ball(first.mid.mean(0))
        mean_row = reduce(matmul, others, mean)
        split = telescope([first - mean, *others], hints)
        return Known(split.kept + mean_row, self.rung(split.rest))

    def directions(self, chain: Factors, rank: int) -> Directions[int]:
        """Advice: for every peeled factor a, b [n, r]; where there are two, a product's own singular vectors."""
        first, *others = (x.mid for x in self.fold(chain))
        factors = [first - first.mean(0), *others]
        if len(factors) == 2 and self.peeled(2) == (0,):
            return {0: singular(*factors, factors[0] @ factors[1], rank)}
        sides = {i: factors[i] if 2 * i < len(factors) else factors[i].T for i in self.peeled(len(factors))}
        own = {i: columns(torch.linalg.svd(x, full_matrices=False).Vh.T, rank) for i, x in sides.items()}
        return {i: (V, V) for i, V in own.items()}


TIERS = {
    "exact": None,
    "gram": Tier("v^2 r + v d^2", lambda n: {0, n - 1, n}, lambda n: (0,), gram),
    "spectral": Tier("v^2 r + v d r + d^3", lambda n: {0, 1, n - 1, n}, lambda n: (0,) if n == 2 else (1,),
                     norms(operator_norm)),
    "frobenius": Tier("v^2 r + v d r + d^2 r", lambda n: range(n + 1), range, norms(frobenius)),
}
TABLES = {"qk": "A", "eu": "EU", "ov": "OV"}
NAMES = tuple(TIERS)
NAME = "_{side}{key}"                               # of directions in advice, after the table's


def chosen(parameters: Parameters) -> dict[str, tuple[Tier, int]]:
    """Tier and rank of each table that is not multiplied out."""
    tiers = {name: TIERS[NAMES[parameters[name]]] for name in TABLES}
    return {name: (tier, parameters[f"{name}_rank"]) for name, tier in tiers.items() if tier}


def specs(sizes: Mapping[str, int], parameters: Parameters) -> dict[str, Spec]:
    """Shapes of the directions."""
    v, d, h = (sizes[name] for name in ("d_vocab", "d_model", "d_head"))
    dims = {"qk": (v, d, h, d, v), "eu": (v, d, v), "ov": (v, d, h, d, v)}
    return {name: spec for table, (tier, rank) in chosen(parameters).items() for name, spec in
            as_specs({i: (n, rank) for i, n in tier.sides(dims[table]).items()}, table + NAME).items()}


def advise(paths: Paths, parameters: Parameters) -> Advice:
    """Directions for every table that is not multiplied out."""
    return {name: x for table, (tier, rank) in chosen(parameters).items()
            for name, x in as_advice(tier.directions(chains(paths)[table], rank), table + NAME).items()}


def exactly(paths: Paths, scores: Known | None = None) -> Circuits:
    """Every table multiplied out, or the scores as they are given.  Complexity: O(v^2 d)."""
    alike = slice(-2, None) if isinstance(paths, Stripped) else slice(None)
    return Circuits(paths.n_ctx, scores or Known(paths.A), paths.B[:, alike], Known(paths.EU),
                    Known(paths.OV), paths.PV[alike])


def circuits(paths: Paths, advice: Advice, parameters: Parameters) -> Circuits:
    """The circuits as the proof with these tiers knows them.  Complexity: that of the tiers."""
    tiers, weight = chosen(parameters), paths.weight
    tables = {name: Known(getattr(paths, TABLES[name])) for name in TABLES if name not in tiers}
    for name, (tier, _) in tiers.items():
        chain = chains(paths)[name]
        hints = as_hints(advice, tier.peeled(len(tier.kept(len(chain))) - 1), name + NAME)
        tables[name] = tier.known(chain, hints)
    places = ((weight("W_pos") @ weight("W_V")) @ weight("W_O")) @ weight("W_U") if "ov" in tiers else paths.PV
    return Circuits(paths.n_ctx, tables["qk"], paths.B, tables["eu"], tables["ov"], places)
