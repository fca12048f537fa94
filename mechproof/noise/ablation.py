"""What happens to the network when its noise is taken out, averaged, shuffled, drawn anew,
or assumed to be as bad as it can be.

Problem: an explanation calls a part unimportant and tests it by removing it; a proof has to assume the worst
of it.  Idea: these are one experiment.  Replace the rest of the scores by something, and count exactly the
inputs that are then right:

    zero       nothing
    mean       of every query the same row, the mean
    resample   the row of another query, drawn at random
    noise      a draw of a null
    pessimal   for every input the worst that a bound on the rest allows: what `residual.certify` proves

The network with other scores is a network of tables; right means right in real arithmetic on those float64 numbers.
Source: Gross et al. 2024 for the last; the others are the field's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..max_of_k import exact
from ..max_of_k.paths import Paths
from ..max_of_k.tiers import exactly
from ..proof.family import Model
from ..proof.peeling import Known, Peeled
from ..proof.product_bounds import RUNGS
from ..proof.rounding import Ball
from .residual import with_scores
from .surrogate import NULLS, generator_of

Rest = Float[Tensor, "q k"]


def resampled(rest: Rest, generator: torch.Generator) -> Rest:
    """Each row the row of another query."""
    shift = torch.randint(1, len(rest), (len(rest),), generator=generator)
    return rest[(torch.arange(len(rest)) + shift) % len(rest)]


ABLATIONS: dict[str, Callable[[Rest, torch.Generator], Rest]] = {
    "zero": lambda rest, generator: torch.zeros_like(rest),
    "mean": lambda rest, generator: rest.mean(0, keepdim=True).expand_as(rest),
    "resample": resampled,
}


class Accuracy(NamedTuple):
    """Inputs that are right, and how many more rounding leaves open."""

    correct: int
    open: int
    total: int


def accuracy(model: Model, scores: Float[Tensor, "q k"]) -> Accuracy:
    """Exact count of right inputs with these scores in place of the model's.
    Complexity: that of the exact strategy."""
    circuits = exactly(Paths(model), Known(Ball(scores)))
    right, doubtful = exact.count_right(model, exact.Steps.of(circuits), lambda tokens: False)
    return Accuracy(int(right.sum()), doubtful, circuits.d_vocab**circuits.n_ctx)


def redrawn(split: Peeled, null: str, seed: int) -> Peeled:
    """The same directions, and one draw of the null in place of the rest."""
    return replace(split, rest=[Ball(M[0]) for M in NULLS[null](split.numbers, 1, generator_of(seed))])


def ablated(model: Model, split: Peeled, null: str, seed: int) -> dict[str, Accuracy]:
    """Right inputs of the model itself and under each replacement of the rest."""
    rest = split.noise
    tables = {"itself": rest} | {name: make(rest, generator_of(seed)) for name, make in ABLATIONS.items()}
    tables["noise"] = redrawn(split, null, seed).noise
    return {name: accuracy(model, split.kept.mid + table) for name, table in tables.items()}


def certified(model: Model, split: Peeled, rung: str) -> float:
    """Share certified for the network whose scores are these, known up to the rung; of the model itself,
    if they are its own."""
    proved = with_scores(model, split.known(RUNGS[rung]))
    return proved.correct / proved.total


def under_slack(model: Model, slack: float) -> float:
    """Share certified when the scores are known up to one slack for all rows:
    the curve on which every rung has its place."""
    paths = Paths(model)
    proved = with_scores(model, Known(paths.A, Ball(torch.full((paths.d_vocab,), slack, dtype=torch.float64))))
    return proved.correct / proved.total
