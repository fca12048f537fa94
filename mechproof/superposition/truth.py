"""Single inputs in exact rational arithmetic: what float64 leaves undecided is decided here.

Problem: an output may be exactly 1/2 away, which is wrong.  Idea: sums, products, maxima and means of float32 numbers
are rational, so that every output is a fraction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flint import fmpq

from ..proof.family import Model
from .model import readout

HALF = fmpq(1, 2)
WORDS = 64                                          # of 64 bits, of a number on the way: sums of products of float32


def rational(x: float) -> fmpq:
    return fmpq(*float(x).as_integer_ratio())


class Exactly:
    """The outputs of one network as fractions."""

    def __init__(self, model: Model):
        self.w, self.kind = model.tensors, readout(model.tensors, model.metadata)
        self.m, self.s = model.sizes["m"], model.sizes["sparsity"]
        rows = lambda name: [[rational(x) for x in row] for row in self.w[name].double().tolist()]
        self.W, self.b = rows("W_in"), [rational(x) for x in self.w["b_in"].double().tolist()]
        self.E = rows("W_E") if "W_E" in self.w else None
        if self.kind == "own":
            self.R, self.c = rows("W_out"), [rational(x) for x in self.w["b_out"].double().tolist()]
        else:
            self.N = self.w.get("neurons", self.w["W_in"]).bool().tolist()
            self.share = fmpq(self.m * len(self.b), sum(not x for row in self.N for x in row) or 1) ** (self.s - 2)

    def hidden(self, on: Sequence[int]) -> list[fmpq]:
        """Every neuron."""
        if self.E is None:
            rows = [self.W[a] for a in on]
        else:
            x = [sum(column, fmpq(0)) for column in zip(*(self.E[a] for a in on))]
            rows = [[x_k * w for w in row] for x_k, row in zip(x, self.W)]
        return [max(sum(column, fmpq(0)), fmpq(0)) for column in zip(self.b, *rows)]

    def output(self, h: list[fmpq], i: int, j: int) -> fmpq:
        """r_ij, i < j."""
        if self.kind == "own":
            at = i * self.m - i * (i + 1) // 2 + j - i - 1
            return sum((x * row[at] for x, row in zip(h, self.R)), self.c[at])
        kinds: dict[tuple[bool, bool], list[int]] = {}
        for k, kind in enumerate(zip(self.N[i], self.N[j])):
            kinds.setdefault(kind, []).append(k)
        over = {kind: sum((h[k] for k in some), fmpq(0)) for kind, some in kinds.items()}
        if self.kind == "plain":
            return over[True, True] / sum((2 + self.b[k] for k in kinds[True, True]), fmpq(0))
        mean = {kind: total / len(kinds[kind]) for kind, total in over.items()}
        return self.share * (mean[True, True] - mean[True, False] - mean[False, True] + mean[False, False])

    def right(self, on: Sequence[int], pairs: Iterable[Sequence[int]]) -> bool:
        """Whether these outputs are all less than 1/2 away from what they should be."""
        h = self.hidden(on)
        return all(abs(self.output(h, i, j) - int(i in on and j in on)) < HALF for i, j in pairs)
