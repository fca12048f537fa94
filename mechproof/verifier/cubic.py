"""The cubic proof: one token below the maximum at a time.

Fix a query q, a maximum m, and let n of the K-1 other positions hold tokens below m, the rest m.  Write e_p =
exp(B[q,p]) and G[x] = exp(A[q,x]) (U[q,m] + V[m,x]), U and V the worst lead of a wrong logit in the direct path and in
the vote of token x (at its worst position).  Softmax's denominator multiplied out, wrong minus right is at most

    N = e_{K-1} G[q] + P_m G[m] + sum over the other positions of e_p G[t_p],       P_m = sum of e_p where m stands.

If all n tokens are one k this is linear in P_m (P_k is the rest), so it is negative for every arrangement if it is for
the two extreme ones; and N of mixed tokens is a mean of those of single ones, weighted by e_p.  So with S the tokens k
that pass, all C(K-1, n) |S|^n sequences are right.  Sequences with n = 0 are tried logit by logit.
"""

from __future__ import annotations

from math import comb

import numpy as np

from .circuits import Circuits
from .numbers import Real, best_other, most, reduced, work


def wrong_over_right(x: Real) -> Real:
    """[.., m]: the largest other entry minus entry m."""
    return x.pick(best_other) - x


class Tables:
    """slot [q,p] = e_p, U [q,m], V [m,x]; P_m, P_k [q, n-1, arrangement]: m in the lowest positions,
    m in the highest."""

    def __init__(self, circuits: Circuits):
        c = circuits
        self.A, B, self.EU, self.OV, self.PV = (table.real() for table in (c.A, c.B, c.EU, c.OV, c.PV))
        self.v, self.n_ctx = len(self.A.mid), circuits.n_ctx
        self.U = wrong_over_right(self.EU)
        self.slot = (B - Real(reduced(np.max, B.mid, 1)[:, None])).exp()
        votes = [self.votes(m) for m in range(self.v)]
        self.V = Real(np.stack([vote.mid for vote in votes]), most(vote.rad for vote in votes),
                      most(vote.mag for vote in votes))
        others = self.slot[:, :-1].pick(lambda a: reduced(np.sort, a, 1)[:, None, None])
        n, at = np.arange(1, self.n_ctx)[:, None], np.arange(self.n_ctx - 1)
        # [n-1, 2, position]
        held = np.stack([at < self.n_ctx - 1 - n, at >= n], 1) * 1.0
        self.P_m, self.P_k = ((others * Real(share)).sum(3) for share in (held, 1 - held))

    def votes(self, m: int) -> Real:
        """[x]: by how much token x and a position may vote for another logit over m."""
        places = (self.PV - self.PV[:, m : m + 1]).pick(lambda a: reduced(np.max, a, 0))
        lead = (self.OV - self.OV[:, m : m + 1]) + places
        return lead.pick(lambda a: reduced(np.max, np.delete(a, m, 1), 1))

    def token(self, q: np.ndarray) -> Real:
        """exp(A[q,x]) [q, m, x] for x <= m, shifted by the largest of them; 1, and never looked at, for others."""
        largest = reduced(np.maximum.accumulate, self.A.mid[q], 1)[:, :, None]
        every = np.arange(self.v)
        shifted = self.A[q][:, None] - Real(largest)
        return shifted.pick(lambda a: np.where(every > every[:, None], 0.0, a)).exp()

    def mixed(self, q: np.ndarray, token: Real) -> Real:
        """N [q, m, k, n-1, arrangement]."""
        every = np.arange(self.v)
        G = token * (self.U[q][:, :, None] + self.V)
        G_q = self.slot[q, -1][:, None] * G[np.arange(len(q)), :, q]
        P_m, P_k = self.P_m[q][:, None, None], self.P_k[q][:, None, None]
        fixed = G_q[:, :, None, None, None] + P_m * G[:, every, every][:, :, None, None, None]
        return fixed + P_k * G[..., None, None]

    def plain(self, q: np.ndarray, token: Real) -> Real:
        """Wrong minus right times the denominator of m, ..., m, q, [q, m]."""
        every, others = np.arange(self.v), self.slot[q, :-1]
        query = self.slot[q, -1][:, None] * (self.EU[q] + self.OV[q] + self.PV[-1])                     # [q, i]
        mass = others.sum(1)[:, None]
        places = mass * self.EU[q] + (others[:, :, None] * self.PV[:-1]).sum(1)
        rest = mass[:, None] * self.OV + places[:, None]                                                # [q, m, i]
        total = token[np.arange(len(q)), :, q][..., None] * query[:, None] + token[:, every, every][..., None] * rest
        return wrong_over_right(total)[:, every, every]


def certified(circuits: Circuits) -> int:
    """How many sequences the cubic proof certifies."""
    tables = Tables(circuits)
    v, n_ctx, correct = tables.v, tables.n_ctx, 0
    step = max(1, 2**21 // (v * v * 2 * n_ctx))
    for q in (np.arange(k, min(k + step, v)) for k in range(0, v, step)):
        token = tables.token(q)
        N, plain = tables.mixed(q, token), tables.plain(q, token)
        passed = reduced(np.max, N.mid, -1) < -N.rad                                                    # [q, m, k, n-1]
        passed &= (np.arange(v) < np.arange(v)[:, None])[:, :, None]
        S = reduced(np.sum, passed, 2)
        single = (plain.mid < -plain.rad) & (np.arange(v) >= q[:, None])
        work(2 * passed.size + 2 * single.size)
        correct += int(single.sum())
        for n in range(1, n_ctx):
            m = np.arange(v)
            # else no position is left for m
            exists = (m == q[:, None]) | ((m > q[:, None]) & (n <= n_ctx - 2))
            counts = np.bincount(S[:, :, n - 1][exists], minlength=v)
            correct += sum(int(k) * comb(n_ctx - 1, n) * s**n for s, k in enumerate(counts) if s)
    return correct
