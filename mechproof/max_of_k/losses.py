"""Where the percentage goes that a subcubic proof does not certify.

Idea: replace one piece after another by its exact version and see what comes back.  In this order: the scores,
the handling of attention (all lines instead of one reference), the direct path; what then separates the proof
from the truth is the grouping itself; the rest the model gets wrong.  Differences telescope, so that with what
rounding left undecided they sum to 1 - bound.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from ..proof.family import Model, Proved
from . import gap_search
from .paths import Paths
from .subcubic import Claims, Envelope, Skeleton, constant_sequences

EXACT_QK, EXACT_EU = "exact_EQKE+max_diff_exact", "max_diff_exact"
CAUSES = ("score error", "attention", "direct path", "grouping", "rounding", "model errors")


def exact_handling(skeleton: Skeleton, model: Model, parameters: dict[str, int]) -> Proved:
    """The proof with the envelope of all lines in place of its handling, on the same advice.  Complexity: O(v^3 K)."""
    paths, advice = Paths(model), gap_search.find(skeleton, model, parameters)
    votes, attention = skeleton.pieces(paths, advice, parameters.get("rank", 0))
    claims = Claims.of(advice["gaps"])
    return claims.tally(model, constant_sequences(paths), claims.worst(votes, attention, Envelope(votes)))


def losses(model: Model, skeleton: Skeleton, parameters: dict[str, int], right: int) -> dict[str, Fraction]:
    """Share of all inputs lost to each of `CAUSES`; sums to 1 - bound.  `right` is the exact number of right inputs."""
    def proved(s: Skeleton) -> Proved:
        return s.check(model, gap_search.find(s, model, parameters), parameters)

    start, exact_scores = proved(skeleton), replace(skeleton, error=EXACT_QK)
    undecided = start.undecided()
    steps = [start.correct + undecided, proved(exact_scores).correct,
             exact_handling(exact_scores, model, parameters).correct,
             exact_handling(replace(exact_scores, direct=EXACT_EU), model, parameters).correct, right]
    lost = [after - before for before, after in zip(steps, steps[1:])]
    counts = dict(zip(CAUSES, lost)) | {"rounding": undecided, "model errors": start.total - right}
    return {cause: Fraction(counts[cause], start.total) for cause in CAUSES}
