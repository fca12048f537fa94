"""The cubic proof: one non-maximal token at a time.

Group (q, m, k, n): query q, maximum m, n of the K-1 other positions hold k < m and the rest hold m.  Times the
softmax denominator, wrong minus right is at most

    e_q G[q,m,q] + P_m G[q,m,m] + P_k G[q,m,k],      G[q,m,x] = exp(A[q,x]) (U[q,m] + V[m,x]),

U, V the worst wrong logits of the direct path and of token x (with the worst position), P_m and P_k the sums of
exp(B[q,p]) over the positions of m and of k.  Dividing by the denominator gives a linear-fractional function of
P_m, monotone, so its two extreme arrangements suffice.  With S = {k < m : negative in both}, every sequence
whose n other tokens all lie in S is right: its sum is a convex combination of those of its tokens.  That counts
C(K-1,n) |S|^n sequences; the v^2 sequences with n = 0 are tried logit by logit.

Source: Gross et al. 2024 (cubic proof).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof.bound import Case
from ..proof.family import Model, Proved, check_tokens
from ..proof.rounding import Ball, cat
from .counting import count_sequences
from .direct import best_other, wrong_over_right
from .paths import Paths

CHUNK = 2**20       # groups in a block of queries


@dataclass(frozen=True, eq=False)
class Tables:
    """What every group is put together from.

    slot [q,p] = exp(B), shifted by the query's largest; U [q,m]; V [m,x]; P_m, P_k [q, n-1, (m in the lowest
    slots, m in the highest)].
    """

    paths: Paths
    slot: Float[Ball, "q p"]
    U: Float[Ball, "q m"]
    V: Float[Ball, "m x"]
    P_m: Float[Ball, "q n 2"]
    P_k: Float[Ball, "q n 2"]

    @classmethod
    def of(cls, model: Model) -> Tables:
        """Complexity: O(v^3 + v^2 (d + K) + v K^2)."""
        paths = Paths(model)
        votes = [(paths.OV - paths.OV[:, m : m + 1] + paths.worst_position[m]).pick(lambda x: best_other(x)[:, m])
                 for m in range(paths.d_vocab)]
        slot = (paths.B - Ball(paths.B.mid.amax(1, keepdim=True))).exp()
        others = slot[:, :-1].pick(lambda x: x.sort(-1).values[:, None, None])
        n, at = torch.arange(1, paths.n_ctx)[:, None], torch.arange(paths.n_ctx - 1)
        held = torch.stack([at < paths.n_ctx - 1 - n, at >= n], 1).double()                     # [n-1, 2, slot]
        P_m, P_k = ((others * Ball(share)).sum(3) for share in (held, 1 - held))
        return cls(paths, slot, wrong_over_right(paths.EU), cat([vote[None] for vote in votes], 0), P_m, P_k)

    def token(self, q: Int[Tensor, " q"]) -> Float[Ball, "q m x"]:
        """exp(A[q,x]) for x <= m, [q, m, x], shifted by the largest of them: nothing overflows,
        nothing needed vanishes.

        1, and never looked at, for x > m.
        """
        A, every = self.paths.A[q], torch.arange(self.paths.d_vocab)
        shifted = A[:, None] - Ball(A.mid.cummax(1).values[:, :, None])
        return shifted.pick(lambda a: a.masked_fill(every > every[:, None], 0.0)).exp()

    def mixed(self, q: Int[Tensor, " q"]) -> Float[Ball, "q m k n 2"]:
        """Wrong minus right times the denominator, [q, m, k, n-1, arrangement], for queries q.
        Complexity: O(v^2 K) a query."""
        every = torch.arange(self.paths.d_vocab)
        G = self.token(q) * (self.U[q][:, :, None] + self.V)                                    # [q, m, x]
        G_q = self.slot[q, -1][:, None] * G[torch.arange(len(q)), :, q]                         # [q, m]
        G_m = G[:, every, every]
        P_m, P_k = self.P_m[q][:, None, None], self.P_k[q][:, None, None]
        return (G_q[:, :, None, None, None] + P_m * G_m[:, :, None, None, None]) + P_k * G[..., None, None]

    def denominator(self, q: int, m: int) -> Float[Ball, "k n 2"]:
        """The softmax denominator of the groups of (q, m), [k, n-1, arrangement]."""
        token = self.token(torch.tensor([q]))[0, m]
        return self.slot[q, -1] * token[q] + self.P_m[q] * token[m] + self.P_k[q] * token[:, None, None]

    def plain(self, q: Int[Tensor, " q"]) -> Float[Ball, "q m"]:
        """Wrong minus right times the denominator of the sequences m, ..., m, q, [q, m].
        Complexity: O(v^2) a query."""
        EU, OV, PV, every = self.paths.EU, self.paths.OV, self.paths.PV, torch.arange(self.paths.d_vocab)
        token, others = self.token(q), self.slot[q, :-1]
        query = self.slot[q, -1][:, None] * (EU[q] + OV[q] + PV[-1])                            # [q, i]
        mass = others.sum(1)[:, None]
        places = mass * EU[q] + others @ PV[:-1]                                                # [q, i]
        rest = mass[:, None] * OV + places[:, None]                                             # [q, m, i]
        total = token[torch.arange(len(q)), :, q][..., None] * query[:, None] + token[:, every, every][..., None] * rest
        return wrong_over_right(total).pick(lambda x: x.diagonal(dim1=1, dim2=2))


def check(model: Model, advice: dict, parameters: dict) -> Proved:
    """The proof of the module docstring.  Complexity: O(v^3 K^2)."""
    tables = Tables.of(model)
    v, n_ctx = tables.paths.d_vocab, tables.paths.n_ctx
    token = torch.arange(v)
    below = token < token[:, None]                                                              # [m, k]: k < m
    safe, plain = [], []
    for q in token.split(max(1, CHUNK // (v * v * n_ctx))):
        safe.append(tables.mixed(q).amax(-1).negative() & below[:, :, None])                    # [q, m, k, n-1]
        plain.append(tables.plain(q).negative())
    S, single = torch.cat(safe), torch.cat(plain) & ~below
    n = torch.arange(1, n_ctx)
    exists = torch.where(below.T[..., None], n <= n_ctx - 2, token[:, None, None] == token[:, None])
    cells = torch.cat([torch.zeros(v, v, 1, dtype=torch.long), n * (v + 1) + S.sum(2)], 2)      # c^0 = 1 at n = 0
    cells = cells[torch.cat([single[..., None], exists], 2)]
    groups = torch.bincount(cells, minlength=n_ctx * (v + 1)).reshape(n_ctx, v + 1)
    return Proved(count_sequences(groups, n_ctx), v**n_ctx, Explained(model, tables, S, single))


@dataclass(frozen=True, eq=False)
class Explained:
    """Which groups an input's tokens belong to and what became of them."""

    model: Model
    tables: Tables
    safe: Bool[Tensor, "q m k n"]
    single: Bool[Tensor, "q m"]

    def __call__(self, tokens: Sequence[int]) -> Case:
        tokens = check_tokens(tokens, self.model.sizes)
        q, m = tokens[-1], max(tokens)
        others = sorted({t for t in tokens[:-1] if t < m})
        n = sum(t < m for t in tokens[:-1])
        group = f"query {q}, maximum {m}, {n} other token{'s' * (n != 1)} below it"
        if n == 0:
            covered = bool(self.single[q, m])
            return Case(covered, f"group ({group}), tried logit by logit",
                        lambda: self._margin(q, m, None, 0) if covered else None)
        outside = [k for k in others if not self.safe[q, m, k, n - 1]]
        if outside:
            return Case(False, f"group ({group}) does not admit {', '.join(map(str, outside))}: "
                               f"it might be wrong with {n} of them")
        return Case(True, f"group ({group}), each of them admitted: {', '.join(map(str, others))}",
                    lambda: min(self._margin(q, m, k, n) for k in others))

    def _margin(self, q: int, m: int, k: int | None, n: int) -> float:
        """At least (right - wrong): the numerator's certain part over the largest denominator."""
        row, tables = torch.tensor([q]), self.tables
        if k is None:
            wrong = tables.plain(row)[0, m]
            token = tables.token(row)[0, m]
            below = tables.slot[q, -1] * token[q] + tables.slot[q, :-1].sum(0) * token[m]
        else:
            wrong, below = tables.mixed(row)[0, m, k, n - 1], tables.denominator(q, m)[k, n - 1]
        return float(((-wrong.mid - wrong.rad) / (below.mid + below.rad)).min()) * (1 - 1e-12)
