"""From what bounds leave open to a count, and the case of every input.

An input is open iff some output of it is.  Open ones are left out of the count (*feature by feature*), or the outputs
in question are computed, and where float64 cannot tell, as fractions (*exact*): then the count is the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import comb
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import InputError, Model, Proved
from ..proof.rounding import Ball, cat, number
from ..proof.state import own_state
from . import bounds, plain
from .listing import LIMIT, Open, Rows, TooMany, codes, distinct, excess, favourites, listed
from .model import Network, opened
from .truth import WORDS, Exactly

BLOCK = 2**21
HALF = number(0.5)
Blocks = Callable[[int], Iterator[Rows]]                                 # what is known of the outputs of a feature


def blocks(model: Model, net: Network) -> Blocks:
    """The exact theorem where it is about this network, else bounds."""
    if plain.is_plain(model):
        W = model["W_in"].double()
        return lambda i: plain.rows(W, net.s, i)
    return lambda i: bounds.rows(net, i)


def features(tokens: Sequence[int], sizes: dict[str, int]) -> list[int]:
    """The features that are on, in rising order.  Errors: InputError for what is no input."""
    m, s = sizes["m"], sizes["sparsity"]
    tokens = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    listed = isinstance(tokens, (list, tuple)) and all(isinstance(t, int) and 0 <= t < m for t in tokens)
    if not listed or len(set(tokens)) != s or len(tokens) != s:
        raise InputError(f"tokens {tokens} are no input of this model; "
                         f"expected the {s} features that are on, of 0 to {m - 1}, none twice")
    return sorted(tokens)


def counted(net: Network, bad: Int[Tensor, " n"] | None, says: tuple[str, str]) -> Proved:
    """All inputs but those with these codes; none, if there are too many to be listed."""
    sizes = {"m": len(net.A.mid), "sparsity": net.s}
    total, left_out = comb(sizes["m"], sizes["sparsity"]), None
    if bad is not None:
        with cost.charge(len(bad), "inputs left out"):
            left_out = set(bad.tolist())

    def case(tokens: Sequence[int]) -> Case:
        on = features(tokens, sizes)
        covered = left_out is not None and int(codes(torch.tensor([on]), sizes["m"])) not in left_out
        return Case(covered, says[not covered], lambda: margin_lo(net, on))
    return Proved(0 if left_out is None else total - len(left_out), total, case)


def check(model: Model, settle: bool) -> Proved:
    """The inputs that bounds certify; with `settle` also what they leave open, one by one.

    Complexity: O(m^3 d), and O(d) an output that is left open and settled.
    """
    net, exact, open_ = opened(model), Settled(model), []
    m, known = len(net.A.mid), blocks(model, net)
    try:
        for i in range(m):
            for found in map(listed, known(i)):
                open_.append((exact(net, i, found) if settle else found).inputs)
                if sum(map(len, open_)) > (LIMIT if m**net.s < 2**62 else 0):     # which have no codes
                    raise TooMany
        bad = distinct(open_, m)
    except TooMany:
        bad = None
    says = ("every output is less than 1/2 away", "an output is 1/2 away or more") if settle and bad is not None else (
        "no output can be 1/2 away", "an output may be 1/2 away, as far as the bound knows")
    return counted(net, bad, says)


def off(net: Network, on: Int[Tensor, "n s"], output: Int[Tensor, "n 2"],
        R: Float[Ball, "d n"]) -> Float[Ball, " n"]:
    """How far these outputs are from what they should be.  Complexity: O(n s d)."""
    h = (net.A.pick(lambda x: x[on]).sum(1) + net.b).relu()
    both = (on[:, :, None] == output[:, None]).any(1).all(1)
    return (h * R.T).sum(1) + net.c.pick(lambda x: x[output[:, 0], output[:, 1]]) - Ball(both)


def pieces(net: Network, i: int, found: Open) -> Iterator[tuple[Tensor, Tensor, Ball]]:
    """Inputs, outputs of feature i, and how far these are off, so many at a time as fit.  Complexity: O(n s d)."""
    R, d = net.column(i) if len(found.inputs) else None, len(net.b.mid)
    for start in range(0, len(found.inputs), step := max(1, BLOCK // (net.s * d))):
        on, output = (x[start : start + step] for x in found)
        yield on, output, off(net, on, output, R.pick(lambda x: x[:, output[:, 1]])).abs()


class Settled:
    """What is open, without the outputs that turn out to be right."""

    def __init__(self, model: Model):
        self.model, self.exactly = model, None

    def __call__(self, net: Network, i: int, found: Open) -> Open:
        """Outputs of feature i, each computed.  Complexity: O(n s d), and more where float64 cannot tell."""
        wrong = []
        for on, output, error in pieces(net, i, found):
            far = error - HALF
            wrong.append(~far.negative())
            doubtful = wrong[-1] & ~(-far).negative()
            with cost.charge(len(on), "which are undecided"):
                at = doubtful.nonzero()[:, 0].tolist()
            with cost.charge(len(at) * WORDS * len(net.b.mid) * (net.s + 2), "exact arithmetic, by words"):
                for n in at:
                    wrong[-1][n] = not self.right(on[n].tolist(), [output[n].tolist()])
        keep = torch.cat([torch.zeros(0, dtype=torch.bool), *wrong])
        return Open(found.inputs[keep], found.output[keep])

    def right(self, on: list[int], pairs: list[list[int]]) -> bool:
        """Whether these outputs are right beyond doubt of rounding."""
        self.exactly = self.exactly or Exactly(self.model)
        return self.exactly.right(on, pairs)


def margin_lo(net: Network, on: list[int]) -> float:
    """At most 1/2 less the largest error of one input."""
    m, least = len(net.A.mid), 0.5
    for i in range(m - 1):
        output = torch.stack([torch.full((m - 1 - i,), i), torch.arange(i + 1, m)], 1)
        R = net.column(i).pick(lambda x: x[:, i + 1 :])
        far = off(net, torch.tensor([on] * len(output)), output, R).abs() - HALF
        least = min(least, -float(far.upper().mid.amax()))
    return least


def every_input(model: Model) -> Proved:
    """All C(m, s) inputs, each run.  Complexity: O(C(m, s) m^2 d)."""
    net, settled = opened(model), Settled(model)
    m, d = net.A.shape
    with cost.addresses():
        inputs = torch.combinations(torch.arange(m), net.s)
        i, j = torch.triu_indices(m, m, 1)
    R = together(net, m)
    wrong, step = [], max(1, BLOCK // max(d, len(i)))
    for start in range(0, len(inputs), step):
        on = inputs[start : start + step]
        wrong.append(wrong_of(net, settled, R, on, (i, j)))
    return counted(net, codes(inputs[torch.cat(wrong)], m),
                   ("every output is less than 1/2 away", "an output is 1/2 away or more"))


def together(net: Network, m: int) -> Float[Ball, "d pairs"]:
    """R of all outputs, in their order."""
    return cat([net.column(i).pick(lambda x: x[:, i + 1 :]) for i in range(m - 1)], 1)


def wrong_of(net: Network, settled: Settled, R: Float[Ball, "d pairs"], on: Int[Tensor, "n s"],
             pairs: tuple[Tensor, Tensor]) -> Bool[Tensor, " n"]:
    """Which of these inputs have an output that is 1/2 away or more.  Complexity: O(n m^2 d)."""
    i, j = pairs
    is_on = torch.zeros(len(on), len(net.A.mid)).scatter(1, on, 1.0)
    h = (net.A.pick(lambda x: x[on]).sum(1) + net.b).relu()
    far = (h @ R + net.c.pick(lambda x: x[i, j]) - Ball(is_on[:, i] * is_on[:, j])).abs() - HALF
    wrong = (-far).negative().any(1)
    doubtful = ~far.negative() & ~wrong[:, None]
    with cost.charge(doubtful.numel(), "which are undecided"):
        at = doubtful.any(1).nonzero()[:, 0].tolist()
        asked = {n: doubtful[n].nonzero()[:, 0] for n in at}
    words = sum(map(len, asked.values())) * WORDS * len(net.b.mid) * (net.s + 2)
    with cost.charge(words, "exact arithmetic, by words"):
        for n, some in asked.items():
            wrong[n] = not settled.right(on[n].tolist(), torch.stack([i[some], j[some]], 1).tolist())
    return wrong


def sampled(model: Model, n: int) -> int:
    """Right ones of n random inputs."""
    net, settled, g = opened(model), Settled(model), torch.Generator().manual_seed(0)
    m, right = len(net.A.mid), 0
    R, pairs = together(net, m), tuple(torch.triu_indices(m, m, 1))
    for size in [1000] * (n // 1000) + [n % 1000]:
        on = torch.rand(size, m, generator=g).argsort(1)[:, : net.s].sort(1).values
        right += size - int(wrong_of(net, settled, R, on, pairs).sum())
    return right


class Worst(NamedTuple):
    """The largest error of all inputs lies between these, and is that of `on` at `output` but for rounding."""

    lo: float
    hi: float
    on: list[int]
    output: list[int]


def error_hi(model: Model) -> float:
    """At most the largest error of all inputs, feature by feature.  Complexity: O(m^3 d)."""
    net = opened(model)
    with own_state():
        return max(0.5 + float(excess(rows)) for i in range(len(net.A.mid)) for rows in bounds.rows(net, i))


def worst(model: Model) -> Worst:
    """The worst input by branch and bound: the bounds' own favourites first, then all that might be worse.

    Errors: InputError where too many might be.  Complexity: O(m^3 d), and O(d) an output that is tried.
    """
    net, best = opened(model), Worst(0.0, 0.0, [], [])

    def tried(i: int, found: Open) -> None:
        nonlocal best
        for on, output, error in pieces(net, i, found):
            n = int(error.mid.argmax())
            mid, rad = float(error.mid[n]), 2 * float(error.rad) + 1e-15
            best = best._replace(hi=max(best.hi, mid + rad))
            if mid - rad > best.lo:
                best = best._replace(lo=mid - rad, on=on[n].tolist(), output=sorted(output[n].tolist()))
    with own_state():
        for i in range(len(net.A.mid)):
            for rows in bounds.rows(net, i):
                tried(i, favourites(rows))
        try:
            for i in range(len(net.A.mid)):
                for rows in bounds.rows(net, i, best.lo):
                    tried(i, listed(rows))
        except TooMany:
            raise InputError(f"model {model.name!r} has too many inputs that may be the worst; "
                             "take a smaller one") from None
    return best
