"""The same ladder for an MLP: what the neurons of modular addition write besides the directions that are understood.

Problem: the scores of attention are a product of weights, an MLP is not.  Idea: once the activations of every pair are
there, what follows is one:  X W_out W_U with X = relu(H[a] + H[b]), a row a pair.  Peel r directions of the logits out
of W_out, bound how far the rest may move two logits of one pair apart, and certify the pairs whose margin is larger.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..pizza.brute_force import opened
from ..pizza.proof import proved
from ..pizza.wheel import pairs
from ..proof import names, proving
from ..proof.bound import Bound
from ..proof.family import Advice, Model, Proved, Strategy
from ..proof.peeling import Peeled, as_advice, as_hints, as_specs, singular, telescope
from ..proof.product_bounds import RUNGS, RowBound
from ..proof.rounding import Ball
from .ablation import redrawn
from .residual import in_range, of_family, one_of
from .surrogate import ranges

NAME = "{side}"                                     # of directions in advice: of one factor alone


def activations(H: Float[Ball, "p n"]) -> Float[Ball, "pairs n"]:
    """Row g p + h is the pair a = h + g, b = h - g.  Complexity: O(p^2 n)."""
    at = pairs(H.shape[0])
    return (H[at.a] + H[at.b]).relu().pick(lambda x: x.flatten(0, 1))


def advise(model: Model, rank: int) -> Advice:
    """W_out a and b, so that r singular directions of the MLP's logits leave W_out.
    Errors: InputError for a rank that is too large."""
    of_family(model, "pizza")
    in_range(rank, min(model.sizes["p"] - 1, model.sizes["d_model"]))
    H, W_out, W_U, _ = opened(model)
    hidden = activations(H).mid @ W_out.mid
    return as_advice({1: singular(hidden, W_U.mid, hidden @ W_U.mid, rank)}, NAME)


def split(model: Model, advice: Advice) -> tuple[Peeled, Float[Ball, "pairs p"]]:
    """The MLP's logits as a peeled chain, and what the direct path adds.  Complexity: O(p^2 n + p d (n + p))."""
    H, W_out, W_U, S = opened(model)
    at = pairs(model.sizes["p"])
    known = telescope([activations(H), W_out, W_U], as_hints(advice, [1], NAME))
    return known, (S[at.a] + S[at.b]).pick(lambda x: x.flatten(0, 1))


def lead(logits: Float[Ball, "pairs p"]) -> Float[Ball, " pairs"]:
    """The right logit less the largest wrong one.  Complexity: O(p^3)."""
    answer = pairs(logits.shape[1]).answer.flatten()[:, None]
    right = logits.pick(lambda x: x.gather(1, answer)[:, 0])
    return right - logits.pick(lambda x: x.scatter(1, answer, -torch.inf).amax(1))


def strategy(model: Model, rung: str, rank: int) -> Strategy:
    """The pairs whose margin is larger than the rung's bound on the rest; it is listed nowhere.

    Complexity: the rung's (O(p^2 n d) where it multiplies out, O(p^2 n^2) by singular values), and O(p^2 n r + p^3 r).
    Errors: as `advise`, and for an unknown rung.
    """
    of_family(model, "pizza")
    shape, bound = (model.sizes["d_model"], rank), RUNGS[one_of("rung", rung, RUNGS)]
    return Strategy(id=f"mlp-{rung}:rank={rank}", label=names.RUNGS[rung].label, family="noise", cost=0, parameters={},
                    complexity="O(p^2 n d + p^3)", search=lambda model, chosen: advise(model, rank),
                    check=lambda model, advice, chosen: check(bound, model, advice),
                    advice=lambda chosen: as_specs({1: shape}, NAME),
                    unexplained_dimensions=lambda chosen: None)


def certify(model: Model, rung: str, rank: int) -> Bound:
    """The bound of that strategy.  Errors and complexity: as `strategy`."""
    return proving.run(model, strategy(model, rung, rank), {})


def check(bound: RowBound, model: Model, advice: Advice) -> Proved:
    """Certified pairs, both orders, out of p^2."""
    known, direct = split(model, advice)
    gap, p = bound(known.rest) - lead(known.kept + direct), model.sizes["p"]
    table = lambda x: x.reshape(-1, p)
    return proved(p, table(gap.negative()), lambda g, h: float(table(-gap.upper().mid)[g, h]))


def facts(model: Model, rank: int, seed: int) -> dict[str, float]:
    """Each rung's mean bound (`exact` is the truth), the mean row difference of turned factors in the rest's place,
    and the share right with them."""
    known, direct = split(model, advise(model, rank))
    noise = redrawn(known, "haar", seed).noise
    size = {rung: float(bound(known.rest).mid.mean()) for rung, bound in RUNGS.items()}
    return size | {"noise": float(ranges([noise]).mean()), "noisy": right(known.kept.mid + direct.mid + noise)}


def right(logits: Float[Tensor, "pairs p"]) -> float:
    """Share of all ordered pairs whose answer is largest, as float64 finds it."""
    p = logits.shape[1]
    found = (lead(Ball(logits)).mid > 0).reshape(-1, p)
    return float(2 * found.sum() - found[0].sum()) / p**2
