"""Every sequence, fast: the strategy that explains nothing and the truth all others are tested against.

Idea: multiply the logit differences by the positive softmax denominator, and each becomes a sum over
positions of a function of one token,

    f_p(k)[i] = exp(A[q,k] + B[q,p]) (EU[q,m] - EU[q,i] + OV[k,m] - OV[k,i] + PV[p,m] - PV[p,i]).

A sequence with maximum m is right iff sum_p f_p(t_p)[i] > 0 for every i != m.  So tabulate f once for each
(q, m), and for all sequences add K numbers and keep the smallest over i, in blocks that stay in the cache.
Heads have a denominator each, so that with several such a sum is made for every head, and its quotient.
Sequences whose maximum is exactly m are a cube (q = m), or shells: m first occurs at position j, smaller
tokens before it, any up to m after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.balls import PRECISIONS
from ..proof.bound import Case
from ..proof.family import InputError, Model, Proved, check_tokens
from ..proof.rounding import Ball, U, _up
from .model import one_head_models
from .paths import Paths, paths_of
from .truth import Truth

BLOCK = 32_768          # float64 numbers in a block: 256 kB, inside the second-level cache
LIMIT = 2**33           # more sequences than this are not enumerated


@dataclass
class Axis:
    """Consecutive free positions: values [i, q, n] to add, and the tokens [n, positions] they stand for."""

    values: Float[Tensor, "i q n"]
    tokens: Int[Tensor, "n positions"]

    def merge(self, other: Axis) -> Axis:
        values = (self.values[..., :, None] + other.values[..., None, :]).flatten(-2)
        with cost.charge(values.numel(), "merged axes"):
            pass
        pairs = torch.cat([self.tokens.repeat_interleave(len(other.tokens), 0),
                           other.tokens.repeat(len(self.tokens), 1)], 1)
        return Axis(values, pairs)


def _two_axes(axes: list[Axis]) -> Iterator[tuple[Axis, Axis]]:
    """The same sums as pairs of axes: the smallest neighbours merged while they fit a block, the rest looped over."""
    while len(axes) > 2:
        j = min(range(len(axes) - 1), key=lambda j: (len(axes[j].tokens) * len(axes[j + 1].tokens), -j))
        if len(axes[j].tokens) * len(axes[j + 1].tokens) * axes[0].values.shape[1] > BLOCK:
            break
        axes = [*axes[:j], axes[j].merge(axes[j + 1]), *axes[j + 2 :]]
    if len(axes) == 2:
        yield axes[0], axes[1]
        return
    first, second, *rest = axes
    for j in range(len(first.tokens)):
        fixed = Axis(first.values[..., j : j + 1], first.tokens[j : j + 1])
        yield from _two_axes([fixed.merge(second), *rest])


def blocks(axes: list[Axis], least: Callable) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor, Axis, Axis]]:
    """Blocks of `least` (the smallest over i, and how far it may be off), [q, a, b], with the offset of the first query
    and both axes."""
    for a, b in _two_axes(axes):
        n_q, n_a, n_b = a.values.shape[1], len(a.tokens), len(b.tokens)
        q_step = max(1, BLOCK // (n_a * n_b))
        a_step = max(1, BLOCK // (q_step * n_b))
        for q in range(0, n_q, q_step):
            right = b.values[:, q : q + q_step, None, :].unbind(0)
            for start in range(0, n_a, a_step):
                chunk = Axis(a.values[:, q : q + q_step, start : start + a_step], a.tokens[start : start + a_step])
                left = chunk.values[..., None].unbind(0)
                yield least(left, right), q, chunk, b


def functions(paths: Paths, m: int, direct: bool = True) -> tuple[Float[Ball, "q p k"], Float[Ball, "i q p k"], Ball]:
    """Weights of every query at or below a maximum m, the functions f of one head (with the direct path, or without),
    and the votes that they weigh.
    Theorem: *A sum of single-token functions*."""
    wrong = torch.tensor([i for i in range(paths.d_vocab) if i != m])
    scores = paths.A[: m + 1, None, : m + 1] + paths.B[: m + 1, :, None]                        # [q, p, k]
    shifted = scores - Ball(scores.mid.amax((1, 2), keepdim=True))                              # any shift will do
    weights = shifted.exp()
    gain = (paths.OV[:, None] + paths.PV)[: m + 1]                                              # [k, p, i]
    votes = (gain[..., m : m + 1] - gain[..., wrong]).pick(lambda x: x.permute(2, 1, 0).contiguous()[:, None])
    if direct:
        EU = paths.EU[: m + 1]
        lead = (EU[:, m : m + 1] - EU[:, wrong]).pick(lambda x: x.expand(m + 1, -1))            # [q, i]
        votes = lead.pick(lambda x: x.T.contiguous())[:, :, None, None] + votes
    return weights, weights.pick(lambda x: x[None]) * votes, votes


def of_sum(x: Ball, n: int) -> Tensor:
    """How far a sum of n entries may be off."""
    return _up(n * x.rad + n**2 * U * x.mag)


class Cells:
    """The functions f of every query at or below one maximum m, and the shells that partition its sequences."""

    def __init__(self, paths: Paths, m: int):
        _, f, _ = functions(paths, m)
        self.tabulate(paths.n_ctx, m, f.mid)
        self.error = of_sum(f, self.n_ctx)

    def tabulate(self, n_ctx: int, m: int, f: Float[Tensor, "i q p k"]) -> None:
        self.n_ctx, self.m, self.f = n_ctx, m, f
        self.own = f[:, torch.arange(m + 1), -1, torch.arange(m + 1)]                           # [i, q], the last token

    def least(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The smallest sum, and how far it may be off."""
        best = left[0] + right[0]
        sums = torch.empty_like(best)
        for x, y in zip(left[1:], right[1:]):
            torch.add(x, y, out=sums)
            torch.minimum(best, sums, out=best)
        return best, self.error

    def operations(self) -> int:
        """A sequence's: an addition and a comparison a wrong token, and the last sums, twice compared."""
        return 2 * len(self.f) + 3

    def axis(self, p: int, tokens: range, queries: slice) -> Axis:
        return Axis(self.f[:, queries, p, tokens.start : tokens.stop], torch.arange(tokens.start, tokens.stop)[:, None])

    def shells(self) -> Iterator[tuple[slice, list[Axis]]]:
        """(queries, axes of positions 0..K-2 and the query's own) covering every sequence with maximum m once."""
        m, others = self.m, self.n_ctx - 1
        upto, below, at = range(m + 1), range(m), range(m, m + 1)
        cells = [(slice(m, m + 1), [upto] * others)]
        cells += [(slice(0, m), [below] * j + [at] + [upto] * (others - 1 - j)) for j in range(others if m else 0)]
        for queries, tokens in cells:
            own = Axis(self.own[:, queries, None], torch.empty(1, 0, dtype=torch.long))
            yield queries, [own] + [self.axis(p, t, queries) for p, t in enumerate(tokens)]


class HeadCells(Cells):
    """The same of several heads: after the functions of each head (the first with the direct path) its weights, whose
    sum they are divided by.

    A quotient of sums that are off by e and z is off by at most (e + V z) / (Z - z), V the largest vote.
    """

    def __init__(self, heads: Sequence[Paths], m: int):
        rows, n = [], heads[0].n_ctx
        self.errors, self.largest = [], []
        for h, paths in enumerate(heads):
            weights, f, votes = functions(paths, m, direct=h == 0)
            rows += [f.mid, weights.mid[None]]
            largest, z = _up(1.01 * votes.mag + votes.rad), of_sum(weights, n)
            self.errors.append((_up(2 * (of_sum(f, n) + largest * z)), z))
            self.largest.append(largest)
        self.tabulate(n, m, torch.cat(rows))

    def least(self, left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The smallest sum of quotients, and how far it may be off."""
        heads = len(self.errors)
        size = len(left) // heads
        over = [1 / (left[h * size - 1] + right[h * size - 1]) for h in range(1, heads + 1)]
        off = sum(e * x for (e, _), x in zip(self.errors, over)) + 8 * heads * U * sum(self.largest)
        for (_, z), x in zip(self.errors, over):
            off = off.masked_fill(~(z * x < 0.5), torch.inf)
        best = torch.full_like(off, torch.inf)
        total, term = torch.empty_like(best), torch.empty_like(best)
        for i in range(size - 1):
            torch.add(left[i], right[i], out=total).mul_(over[0])
            for h in range(1, heads):
                torch.add(left[h * size + i], right[h * size + i], out=term).mul_(over[h])
                total.add_(term)
            torch.minimum(best, total, out=best)
        return best, _up(off)

    def operations(self) -> int:
        """A sequence's: three a head and wrong token, ten a head for the divisors, and comparisons."""
        heads = len(self.errors)
        return 3 * (len(self.f) - heads) + 10 * heads + 6


def cells_of(model: Model) -> Callable[[int], Cells]:
    """The cells of every maximum."""
    if "n_heads" in model.sizes:
        heads = [Paths(one) for one in one_head_models(model)]
        return lambda m: HeadCells(heads, m)
    paths = paths_of(model)
    return lambda m: Cells(paths, m)


def undecided_sequences(block: Float[Tensor, "q a b"], error: Tensor, q0: int, a: Axis, b: Axis) -> list[list[int]]:
    """The sequences of a block that float64 cannot decide (NaN included)."""
    at = (~((block > error) | (block < -error))).nonzero().tolist()
    return [a.tokens[x].tolist() + b.tokens[y].tolist() + [q0 + q] for q, x, y in at]


def count_right(model: Model) -> tuple[Int[Tensor, "q m"], int]:
    """Right sequences in every (query, maximum) cell, [v, v] int64, and how many needed balls.

    Errors: InputError when there are more than 2^33 sequences.  Complexity: O(v^(K+1)).
    """
    tables, truth = cells_of(model), Truth(model)
    n_ctx, d_vocab = model.sizes["n_ctx"], model.sizes["d_vocab"]
    if d_vocab**n_ctx > LIMIT:
        raise InputError(f"model {model.name!r} has {d_vocab}^{n_ctx} inputs, "
                         "more than brute force enumerates (2^33); try cubic")
    right, doubtful = torch.zeros(d_vocab, d_vocab, dtype=torch.long), 0
    for m in range(d_vocab):
        cells = tables(m)
        sequences = sum(q_n * _size(axes) for q_n, axes in ((s.stop - s.start, a) for s, a in cells.shells()))
        with cost.charge(sequences * cells.operations(), "sums of tables"):
            for queries, axes in cells.shells():
                for (block, error), q, a, b in blocks(axes, cells.least):
                    sure = (block > error).sum((1, 2))
                    q0 = queries.start + q
                    right[q0 : q0 + len(sure), m] += sure
                    if int(sure.sum() + (block < -error).sum()) < block.numel():
                        unsure = undecided_sequences(block, error, q0, a, b)
                        doubtful += len(unsure)
                        for tokens in unsure:
                            right[tokens[-1], m] += truth.right(tokens)
    with cost.charge(in_balls(model, doubtful), "decided in balls"):
        return right, doubtful


def _size(axes: list[Axis]) -> int:
    n = 1
    for axis in axes:
        n *= len(axis.tokens)
    return n


def tried(model: Model) -> Callable[[Sequence[int]], Case]:
    """The case of an input by trying it, in balls."""
    truth = Truth(model)

    def case(tokens: Sequence[int]) -> Case:
        tokens = check_tokens(tokens, model.sizes)
        covered = truth.right(tokens)
        reason = "this very sequence was tried" + ("" if covered else ", and it is wrong")
        return Case(covered, reason, lambda: truth.margin_lo(tokens))

    return case


def in_balls(model: Model, doubtful: int) -> int:
    """Operations, per 64-bit word, of deciding this many sequences in balls: the tables and the sums."""
    v, n_ctx = model.sizes["d_vocab"], model.sizes["n_ctx"]
    tables = 8 * v * sum(t.numel() for t in model.tensors.values())
    return (doubtful * n_ctx * v + (tables if doubtful else 0)) * sum(PRECISIONS) // 64


def check(model: Model, advice: dict, parameters: dict) -> Proved:
    """The exact number of right sequences."""
    right, _ = count_right(model)
    with cost.charge(right.numel(), "total"):
        return Proved(int(right.sum()), model.sizes["d_vocab"] ** model.sizes["n_ctx"], tried(model))
