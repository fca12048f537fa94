"""What is left of a table when the directions that we understand are peeled off: a product of noisy factors.

Problem: "the rest looks like noise" says nothing until it is said what was taken away, and from what.  Idea: a table is
a chain of factors, and a peel names directions a, b of some of them; the telescope splits the chain into what the
directions say, multiplied out, and a product of rests, the same for any a and b.

    QK      r singular directions of W_Q W_K^T, out of both sides: EPq and W_Q, W_K and EPk
    four    r directions of each factor: of W_Q and W_K their own,
            of the tokens those that make the singular vectors of the scores
    query   r singular directions of W_Q W_K^T, out of EPq alone

The MLP's chain is in mlp.py.  Source: Gross et al. 2024, appendix H.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..max_of_k import separable
from ..max_of_k.paths import Paths
from ..max_of_k.scores import four_directions
from ..max_of_k.tiers import chains, exactly
from ..proof import cost, names, peeling, proving
from ..proof.bound import Bound
from ..proof.family import Advice, InputError, Model, Proved, Strategy
from ..proof.peeling import Directions, Known, Peeled
from ..proof.product_bounds import RUNGS, RowBound

SETTING = {"groups": 6, "buckets": 9, "query": 1}                        # of the separable proof: query by query


def of_both(paths: Paths, rank: int) -> Directions[int]:
    """W_Q W_K^T = U S V^T: U out of EPq and W_Q, V out of W_K and EPk."""
    W_Q, W_K = paths.scaled_W_Q.mid, paths.weight("W_K").mid
    U, S, Vh = torch.linalg.svd(W_Q @ W_K.T)
    U, S, V = U[:, :rank], peeling.above_zero(S)[:rank], Vh[:rank].T
    return {0: (U, U), 1: (W_K.T @ V / S, W_Q.T @ U), 2: (W_Q.T @ U / S, W_K.T @ V), 3: (V, V)}


def of_each(paths: Paths, rank: int) -> Directions[int]:
    """Each factor's own directions."""
    found = four_directions(paths, rank).values()
    return {i: (peeling.columns(a, rank), peeling.columns(b, rank)) for i, (a, b) in enumerate(found)}


PEELS: dict[str, Callable[[Paths, int], Directions[int]]] = {
    "QK": of_both, "four": of_each, "query": lambda paths, rank: {0: of_both(paths, rank)[0]}}
SIDES = dict.fromkeys(PEELS, (0, 1, 2, 3)) | {"query": (0,)}             # the factors that a peel touches


def one_of(kind: str, value: str, known: Mapping) -> str:
    """The value, if it is known.  Errors: InputError."""
    if value not in known:
        raise InputError(f"{kind} {value!r} is not known; expected one of: {', '.join(known)}")
    return value


def of_family(model: Model, family: str) -> None:
    """Errors: InputError for a model that has not the chain asked for."""
    if model.family.name != family:
        raise InputError(f"model {model.name!r} is of family {model.family.name}, whose chain this is not; "
                         f"take a model of family {family}")


def in_range(rank: int, most: int) -> None:
    """Errors: InputError for a rank that a peel cannot take."""
    if not 0 <= rank <= most:
        raise InputError(f"rank {rank} is out of range; expected a whole number from 0 to {most}")


def advise(model: Model, peel: str, rank: int) -> Advice:
    """The directions of a peel of the scores.
    Errors: InputError for another kind of network, an unknown peel, or a rank that is too large."""
    of_family(model, "max_of_k")
    in_range(rank, min(model.sizes["d_model"], model.sizes["d_head"]))
    return peeling.as_advice(PEELS[one_of("peel", peel, PEELS)](Paths(model), rank))


def peeled(paths: Paths, peel: str, advice: Advice) -> Peeled:
    """The scores split by these directions, whatever they are.  Complexity: O(r (v d + d^2))."""
    return peeling.telescope(chains(paths)["qk"], peeling.as_hints(advice, SIDES[peel]))


def residual(model: Model, peel: str, rank: int) -> Peeled:
    """The scores of a model with so many directions peeled.  Errors: as `advise`."""
    return peeled(Paths(model), peel, advise(model, peel, rank))


def strategy(model: Model, rung: str, peel: str, rank: int) -> Strategy:
    """The separable proof with the scores known up to the rung's bound on the rest; it is listed nowhere.

    Complexity: the rung's, O(v^2 r) for the scores, and the separable proof's.  Errors: as `advise`,
    and for an unknown rung.
    """
    of_family(model, "max_of_k")
    one_of("peel", peel, PEELS)
    sizes = model.sizes
    length = dict(enumerate((sizes["d_model"], sizes["d_head"], sizes["d_head"], sizes["d_model"])))
    bound = RUNGS[one_of("rung", rung, RUNGS)]
    return Strategy(
        id=f"{rung}:peel={peel},rank={rank}", label=names.RUNGS[rung].label, family="noise", cost=0, parameters={},
        complexity="O(v^2 (d + r)) and the rung's",
        search=lambda model, chosen: advise(model, peel, rank),
        check=lambda model, advice, chosen: with_scores(model, known(model, bound, peel, advice)),
        advice=lambda chosen: peeling.as_specs({i: (length[i], rank) for i in SIDES[peel]}),
        unexplained_dimensions=lambda chosen: None)


def certify(model: Model, rung: str, peel: str, rank: int) -> Bound:
    """The bound of that strategy.  Errors and complexity: as `strategy`."""
    return proving.run(model, strategy(model, rung, peel, rank), {})


def known(model: Model, bound: RowBound, peel: str, advice: Advice) -> Known:
    """The scores as a rung knows them: what the directions say,
    and for every query how far a difference in its row may be off."""
    return peeled(Paths(model), peel, advice).known(bound)


def scores_flops(model: Model, rung: str, peel: str, rank: int) -> int:
    """Operations of `known`: the part of the proof that the rung decides."""
    advice = advise(model, peel, rank)
    with cost.count() as counted:
        known(model, RUNGS[rung], peel, advice)
    return counted.flops + sum(x.numel() for x in advice.values())       # and the advice read


def with_scores(model: Model, scores: Known) -> Proved:
    """The separable proof with these scores in place of the model's own.
    Complexity: O(v^2 d) for the other tables, and its own."""
    return separable.check(model, exactly(Paths(model), scores), SETTING)
