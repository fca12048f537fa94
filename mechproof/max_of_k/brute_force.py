"""Every sequence, fast: the strategy that explains nothing and the truth all others are tested against.

Idea: multiply the logit differences by the positive softmax denominator, and each becomes a sum over
positions of a function of one token,

    f_p(k)[i] = exp(A[q,k] + B[q,p]) (EU[q,m] - EU[q,i] + OV[k,m] - OV[k,i] + PV[p,m] - PV[p,i]).

A sequence with maximum m is right iff sum_p f_p(t_p)[i] > 0 for every i != m.  So tabulate f once for each
(q, m), and for all sequences add K numbers and keep the smallest over i, in blocks that stay in the cache.
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


def least_sums(axes: list[Axis]) -> Iterator[tuple[Tensor, Tensor, Axis, Axis]]:
    """Blocks of min over i of the sums, [q, a, b], with the offset of the first query and both axes."""
    for a, b in _two_axes(axes):
        n_q, n_a, n_b = a.values.shape[1], len(a.tokens), len(b.tokens)
        q_step = max(1, BLOCK // (n_a * n_b))
        a_step = max(1, BLOCK // (q_step * n_b))
        for q in range(0, n_q, q_step):
            right = b.values[:, q : q + q_step, None, :].unbind(0)
            for start in range(0, n_a, a_step):
                chunk = Axis(a.values[:, q : q + q_step, start : start + a_step], a.tokens[start : start + a_step])
                left = chunk.values[..., None].unbind(0)
                best = left[0] + right[0]
                sums = torch.empty_like(best)
                for x, y in zip(left[1:], right[1:]):
                    torch.add(x, y, out=sums)
                    torch.minimum(best, sums, out=best)
                yield best, q, chunk, b


class Cells:
    """The functions f of every query at or below one maximum m, and the shells that partition its sequences."""

    def __init__(self, paths: Paths, m: int):
        self.n_ctx, self.m = paths.n_ctx, m
        wrong = torch.tensor([i for i in range(paths.d_vocab) if i != m])
        scores = paths.A[: m + 1, None, : m + 1] + paths.B[: m + 1, :, None]                    # [q, p, k]
        shifted = scores - Ball(scores.mid.amax((1, 2), keepdim=True))                          # any shift will do
        weights = shifted.exp()
        gain = (paths.OV[:, None] + paths.PV)[: m + 1]                                          # [k, p, i]
        gain = gain[..., m : m + 1] - gain[..., wrong]
        EU = paths.EU[: m + 1]
        direct = (EU[:, m : m + 1] - EU[:, wrong]).pick(lambda x: x.expand(m + 1, -1))          # [q, i]
        direct, gain = direct.pick(lambda x: x.T.contiguous()), gain.pick(lambda x: x.permute(2, 1, 0).contiguous())
        f = weights.pick(lambda x: x[None]) * (direct[:, :, None, None] + gain[:, None])
        self.f = f.mid                                                                          # [i, q, p, k]
        self.own = f.mid[:, torch.arange(m + 1), -1, torch.arange(m + 1)]                       # [i, q], the last token
        self.error = _up(self.n_ctx * f.rad + self.n_ctx**2 * U * f.mag)                        # of a sum over p

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


def undecided_sequences(block: Float[Tensor, "q a b"], error: Tensor, q0: int, a: Axis, b: Axis) -> list[list[int]]:
    """The sequences of a block that float64 cannot decide (NaN included)."""
    at = (~((block > error) | (block < -error))).nonzero().tolist()
    return [a.tokens[x].tolist() + b.tokens[y].tolist() + [q0 + q] for q, x, y in at]


def count_right(model: Model) -> tuple[Int[Tensor, "q m"], int]:
    """Right sequences in every (query, maximum) cell, [v, v] int64, and how many needed balls.

    Errors: InputError when there are more than 2^33 sequences.  Complexity: O(v^(K+1)).
    """
    paths, truth = paths_of(model), Truth(model)
    n_ctx, d_vocab = paths.n_ctx, paths.d_vocab
    if d_vocab**n_ctx > LIMIT:
        raise InputError(f"model {model.name!r} has {d_vocab}^{n_ctx} inputs, "
                         "more than brute force enumerates (2^33); try cubic")
    right, doubtful = torch.zeros(d_vocab, d_vocab, dtype=torch.long), 0
    for m in range(d_vocab):
        cells = Cells(paths, m)
        sequences = sum(q_n * _size(axes) for q_n, axes in ((s.stop - s.start, a) for s, a in cells.shells()))
        with cost.charge(sequences * (2 * (d_vocab - 1) + 3), "sums of tables"):
            for queries, axes in cells.shells():
                for block, q, a, b in least_sums(axes):
                    sure = (block > cells.error).sum((1, 2))
                    q0 = queries.start + q
                    right[q0 : q0 + len(sure), m] += sure
                    if int(sure.sum() + (block < -cells.error).sum()) < block.numel():
                        unsure = undecided_sequences(block, cells.error, q0, a, b)
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
