"""The hundred subcubic proofs as one skeleton: direct path x attention handling x attention error.

Group (q, m, n): query q, maximum m, n tokens below m (the query among them if q < m), all of them at most
m - g.  With total attention a on the copies of m,

    wrong_i - right <= L_m[i] + a R_m[i] + (1 - a) W[m,n] + u[q,m]                                    (*)

L the direct path and positions, R the OV vote of m, W the worst OV vote of a token <= m - g.  The proof
bounds a from both sides, accepts the group iff (*) is negative for every wrong i and every such a, and counts
C(K-1,n') c^n' sequences, c = m - g + 1 and n' = n - [q < m].  A group with n >= 1 exists only if c >= 1 and
the query is covered (q = m or q <= m - g); without that condition the proof would be unsound.

Gaps g, directions and reference attentions are advice; g = 0 says that a group is not claimed.
Source: Gross et al. 2024 (subcubic proofs); what differs is listed in the book.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nextafter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, Model, Parameters, Proved, Spec, check_tokens
from ..proof.peeling import Known
from ..proof.rounding import Ball, cat, largest_but, maximum, smallest_but
from . import direct, scores
from .counting import count_sequences
from .paths import Paths


@dataclass(frozen=True)
class Line:
    """An upper bound on max_i L_m[i] + a R_m[i], convex in a: at + the larger of (a - ref) up and (a - ref) down."""

    at: Ball
    ref: Ball
    up: Ball
    down: Ball

    def __call__(self, a: Ball, index: tuple | slice) -> Ball:
        step = a - self.ref[index]
        return self.at[index] + maximum(step * self.up[index], step * self.down[index])


@dataclass(frozen=True, eq=False)
class Votes:
    """What the tokens vote, wrong minus right, for every maximum m.

    L, R [m,i] (diagonal meaningless), W [k,m] the running maximum over keys of r_m[k], u [q,m].
    """

    L: Ball
    R: Ball
    W: Ball
    u: Ball

    @classmethod
    def of(cls, paths: Paths, way: direct.Direct, advice: Advice) -> Votes:
        """Complexity: O(v^2 K), after OV and the direct path."""
        base, u = way.split(paths, advice)
        OV = paths.OV
        R = OV - OV.pick(torch.diagonal)[:, None]
        W = direct.wrong_over_right(OV).pick(lambda x: x.cummax(0).values)
        v = paths.d_vocab
        return cls(base - base[:, None] + paths.worst_position, R, W, u.pick(lambda x: x.expand(v, v)))


def _over_wrong(x: Ball, largest: bool = True) -> Ball:
    """Maximum (minimum) over i != m of [m, i]."""
    among = largest_but if largest else smallest_but
    return x.pick(lambda t: among(t, torch.eye(len(t), dtype=torch.bool)))


def drop_average(votes: Votes, reference: Float[Tensor, "m n"]) -> Line:
    """max_i L + a max_i R: forgets that the same wrong token must be worst in both.  Complexity: O(v^2)."""
    at, slope = _over_wrong(votes.L), _over_wrong(votes.R)
    n = reference.shape[1]
    wide = lambda x: x.pick(lambda t: t[:, None].expand(-1, n))
    return Line(wide(at), Ball(torch.zeros_like(reference)), wide(slope), wide(slope))


def mean_query(votes: Votes, reference: Float[Tensor, "m n"]) -> Line:
    """Exact at a reference attention, and from there the steepest slope upwards, the flattest downwards.

    Complexity: O(v^2 K).
    """
    ref = Ball(reference)
    tilted = [votes.L + votes.R * ref[:, j][:, None] for j in range(reference.shape[1])]
    at = [_over_wrong(x).pick(lambda t: t[:, None]) for x in tilted]
    up, down = (_over_wrong(votes.R, largest).pick(lambda t: t[:, None].expand(-1, len(at)))
                for largest in (True, False))
    return Line(cat(at, 1), ref, up, down)


@dataclass(frozen=True)
class Envelope:
    """max_i L_m[i] + a R_m[i] itself, all v lines for every group: O(v^3 K), no compact proof but a yardstick."""

    votes: Votes

    def __call__(self, a: Ball, index: tuple[Tensor, Tensor]) -> Ball:
        m = index[0]
        lines = self.votes.L[m] + a[:, None] * self.votes.R[m]
        return lines.pick(lambda x: largest_but(x, torch.arange(x.shape[1]) == m[:, None]))


@dataclass(frozen=True)
class Handling:
    """How the maximum over wrong tokens meets the attention interval."""

    line: Callable[[Votes, Tensor], Line]


HANDLINGS = {"mean_query+diff": Handling(mean_query),
             "drop_average_query_per_output_logit_reasoning": Handling(drop_average)}


def holds_maximum(n_ctx: int) -> Bool[Tensor, "{n_ctx-1} 2 2 {n_ctx}"]:
    """Which slots hold the maximum, [n-1, (q = m, q < m), (lowest, highest), slot]: K-1 sorted slots, then the query's.

    The query's slot is fixed, to m if q = m and else not; the other copies of m take the lowest or highest slots.
    """
    n, kind, slot = torch.arange(1, n_ctx)[:, None, None], torch.arange(2)[:, None], torch.arange(n_ctx - 1)
    copies = n_ctx - 1 - n + kind
    lowest, highest = slot < copies, slot >= n_ctx - 1 - copies
    query = (kind == 0).expand(n_ctx - 1, 2, 1)
    return torch.stack([torch.cat([arrangement, query], 2) for arrangement in (lowest, highest)], 2)


def position_odds(B: Float[Ball, "q p"]) -> Float[Ball, "q p-1 2 2"]:
    """Log odds against the maximum from positions alone, [q, n-1, (q = m, q < m), (worst, best)].

    Total attention to m is logistic(score difference - odds).  Complexity: O(v K^2).
    """
    slots = (B[:, :-1] - B[:, -1:]).pick(lambda x: x.sort(-1).values)
    slots = cat([slots, Ball(slots.mid.new_zeros(len(slots.mid), 1))], 1).pick(lambda x: x[:, None, None, None])
    held = holds_maximum(B.shape[1])
    others, copies = (slots.pick(lambda x: x.expand(-1, *held.shape)).logsumexp(4, mask) for mask in (held, ~held))
    return others - copies


@dataclass(frozen=True)
class Attention:
    """Score differences and position odds, from which follows the attention to the maximum."""

    own: Ball         # Ahat [q, k]
    highest: Ball     # running maximum of Ahat over keys, plus eps
    lowest: Ball      # running minimum, minus eps
    odds: Ball        # [q, n-1, kind, (worst, best)]

    @classmethod
    def of(cls, paths: Paths, known: Known) -> Attention:
        eps = known.slack[:, None]
        highest = known.table.pick(lambda x: x.cummax(1).values) + eps
        lowest = known.table.pick(lambda x: x.cummin(1).values) - eps
        return cls(known.table, highest, lowest, position_odds(paths.B))


@dataclass(frozen=True)
class Skeleton:
    """One of the hundred: three names, three pieces."""

    direct: str
    handling: str
    error: str

    def pieces(self, paths: Paths, advice: Advice, rank: int) -> tuple[Votes, Attention]:
        known = scores.WAYS[self.error].scores(paths, advice, rank)
        return Votes.of(paths, direct.WAYS[self.direct], advice), Attention.of(paths, known)

    def line(self, votes: Votes, reference: Tensor) -> Line:
        return HANDLINGS[self.handling].line(votes, reference)

    def specs(self, sizes: dict[str, int], parameters: Parameters) -> dict[str, Spec]:
        """Shapes and ranges of the advice this composition reads."""
        way = scores.WAYS[self.error]
        v, n_ctx = sizes["d_vocab"], sizes["n_ctx"]
        specs = {"gaps": Spec((v, v, n_ctx), 0, v), "reference_attention": Spec((v, n_ctx - 1))}
        of_scores = way.specs(sizes, parameters.get("rank", 0))
        return specs | direct.WAYS[self.direct].specs(sizes) | of_scores

    def check(self, model: Model, advice: Advice, parameters: Parameters) -> Proved:
        """The proof: see the module docstring.  Complexity: O(v^2 K^2) after the pieces."""
        paths = Paths(model)
        votes, attention = self.pieces(paths, advice, parameters.get("rank", 0))
        line = self.line(votes, advice["reference_attention"])
        claims = Claims.of(advice["gaps"])
        return claims.tally(model, constant_sequences(paths), claims.worst(votes, attention, line))


def constant_sequences(paths: Paths) -> Float[Ball, " m"]:
    """Wrong minus right of the v sequences m, m, ..., m, [m]: so few that they are tried.
    Complexity: O(v^2 (d + K))."""
    alpha = (paths.B - paths.B.logsumexp(1)[:, None]).exp()
    logits = paths.EU + paths.OV + alpha @ paths.PV
    return direct.wrong_over_right(logits).pick(torch.diagonal)


@dataclass(frozen=True, eq=False)
class Claims:
    """The claimed groups that exist, n >= 1, as columns; the smallest gap of each (m, n); which n = 0 are claimed."""

    gaps: Int[Tensor, "q m n"]        # the advice
    rows: Int[Tensor, "group 4"]      # (q, m, n, g)
    nearest: Int[Tensor, "m n"]       # W must hold up to this close to the maximum, for every group that uses it

    @classmethod
    def of(cls, gaps: Tensor) -> Claims:
        """A group exists iff q <= m, c >= 1, and the query is the maximum or covered.  Complexity: O(v^2 K)."""
        v, _, n_ctx = gaps.shape
        q, m, n = torch.arange(v)[:, None, None], torch.arange(v)[:, None], torch.arange(n_ctx)
        exists = (gaps >= 1) & (n >= 1) & (gaps <= m) & ((q == m) | (q <= m - gaps))
        q, m, n = exists.nonzero().unbind(1)
        return cls(gaps, torch.stack([q, m, n, gaps[q, m, n]], 1), torch.where(exists, gaps, v).amin(0))

    def interval(self, attention: Attention) -> tuple[Ball, Ball]:
        """Least and most attention to the maximum in every group, each [group]."""
        q, m, n, g = self.rows.unbind(1)
        odds = attention.odds[q, n - 1, (q < m).long()]
        lo, hi = ((attention.own[q, m] - running[q, m - g] - odds[:, end]).logistic()
                  for end, running in enumerate((attention.highest, attention.lowest)))
        return lo, hi

    def worst(self, votes: Votes, attention: Attention, line: Line | Envelope) -> Float[Ball, " group"]:
        """(*) at both ends of the attention interval, the larger; convex in a, so that no a between is worse.

        Theorem: *Subcubic bound*.
        """
        q, m, n, _ = self.rows.unbind(1)
        wrong = votes.W[m - self.nearest[m, n], m]
        one = Ball(torch.ones((), dtype=torch.float64))
        ends = [line(a, (m, n - 1)) + (one - a) * wrong for a in self.interval(attention)]
        return maximum(*ends) + votes.u[q, m]

    def tally(self, model: Model, alone: Float[Ball, " m"], worst: Float[Ball, " group"]) -> Proved:
        """Counts what is certain; undecided is what real arithmetic might still have accepted.

        Theorem: *Subcubic bound*.
        """
        v, n_ctx = self.gaps.shape[0], self.gaps.shape[2]
        q, m, n, g = self.rows.unbind(1)
        claimed_alone = torch.diagonal(self.gaps[:, :, 0]) >= 1

        def correct(groups: Tensor, single: Tensor) -> int:
            cell = ((n - (q < m).long()) * (v + 1) + m - g + 1)[groups]
            single = (claimed_alone & single).sum()
            counts = torch.bincount(cell, minlength=n_ctx * (v + 1)).reshape(n_ctx, v + 1)
            with cost.charge(1, "one more sum"):
                return count_sequences(counts, n_ctx) + int(single)

        proved = correct(worst.negative(), alone.negative())
        return Proved(proved, v**n_ctx, Explained(model, self, alone, worst),
                      lambda: correct(worst.mid < worst.rad, alone.mid < alone.rad) - proved)


class Explained:
    """Which group an input belongs to and what became of it."""

    def __init__(self, model: Model, claims: Claims, alone: Ball, worst: Ball):
        self.model, self.claims = model, claims
        self.alone, self.worst = alone.mid + alone.rad, worst.mid + worst.rad
        self.row = None

    def __call__(self, tokens: Sequence[int]) -> Case:
        tokens = check_tokens(tokens, self.model.sizes)
        q, m, n = tokens[-1], max(tokens), sum(t < max(tokens) for t in tokens)
        group = f"query {q}, maximum {m}, {n} smaller token{'s' * (n != 1)}"
        gap = int(self.claims.gaps[q, m, n])
        if gap < 1:
            return Case(False, f"group ({group}) is not claimed: no gap makes it provable")
        if n == 0:
            return self._verdict(group, float(self.alone[m]))
        second = max(t for t in tokens if t < m)
        if second > m - gap:
            return Case(False, f"group ({group}) needs a gap of {gap} below the maximum; {second} is closer")
        if self.row is None:
            self.row = {tuple(key): i for i, key in enumerate(self.claims.rows[:, :3].tolist())}
        return self._verdict(f"{group}, all at most {m - gap}", float(self.worst[self.row[q, m, n]]))

    @staticmethod
    def _verdict(group: str, upper: float) -> Case:
        reason = f"group ({group})" + ("" if upper < 0 else " was claimed but the check does not accept it")
        # the sum with the radius was rounded to nearest
        return Case(upper < 0, reason, lambda: nextafter(-upper, -inf))
