"""Max-of-K as the roof sees it: its tensors, its collections, and the paper's 102 strategies.

The hundred subcubic ones are compositions: five ways to know the direct path, two to handle attention, ten to
know the scores.  Their ids are those of the authors' code, so that a reader of the paper finds them.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..family import Family, Parameter, Strategy
from . import brute_force, cubic, direct, gap_search, model, scores
from .subcubic import HANDLINGS, Skeleton
from .train import RECIPE, train

COLLECTIONS = {
    "max-of-4": {"n_ctx": 4, "d_vocab": 64}, "max-of-5": {"n_ctx": 5, "d_vocab": 64},
    "max-of-10": {"n_ctx": 10, "d_vocab": 64}, "max-of-20": {"n_ctx": 20, "d_vocab": 64},
    "max-of-10-v128": {"n_ctx": 10, "d_vocab": 128},
    "max-of-4-v128": {"n_ctx": 4, "d_vocab": 128}, "max-of-4-v256": {"n_ctx": 4, "d_vocab": 256},
}
FOREIGN = ("W_in", "W_out", "b_E", "b_Q", "b_K", "b_V", "b_O", "b_U", "b_in", "b_out", "ln1", "ln2", "ln_final")
IGNORED = ("mask", "IGNORE", "train_pairs")


def skeleton_id(skeleton: Skeleton) -> str:
    """The name that the authors' code gives to a composition."""
    return f"EUPU-{skeleton.direct}--attn-{skeleton.handling}--attn-err-{skeleton.error}".replace("_", "-")


def subcubic(skeleton: Skeleton, sizes: Mapping[str, int]) -> Strategy:
    """One of the hundred as a Strategy for models of these sizes."""
    v, d, n_ctx = sizes["d_vocab"], sizes["d_model"], sizes["n_ctx"]
    known, votes = scores.WAYS[skeleton.error], direct.WAYS[skeleton.direct]
    ranks = {} if known.specs is None else {"rank": Parameter(1, 0, min(d, sizes["d_head"]))}
    return Strategy(
        id=skeleton_id(skeleton),
        label=f"{votes.label} · {known.label} · {HANDLINGS[skeleton.handling].label}",
        family="subcubic",
        cost=v * v * (6 * d + 40 * n_ctx + 100),
        parameters=ranks,
        complexity="O(" + " + ".join(dict.fromkeys(f"{known.complexity} + {votes.complexity} + v^2 d + v^2 K + v K^2".split(" + "))) + ")",
        search=lambda model, parameters: gap_search.find(skeleton, model, parameters),
        check=skeleton.check,
        advice=lambda parameters: skeleton.specs(sizes, parameters),
        unexplained_dimensions=lambda parameters: v + v * v + votes.unexplained(v, d) + known.unexplained(v, d))


def _fixed(module, id: str, label: str, cost: int, complexity: str, dimensions: int) -> Strategy:
    return Strategy(id, label, id, cost, {}, complexity, lambda model, parameters: {}, module.check,
                    lambda parameters: {}, lambda parameters: dimensions)


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """The 102 named presets for models of these sizes."""
    v, d, n_ctx = sizes["d_vocab"], sizes["d_model"], sizes["n_ctx"]
    fixed = [_fixed(brute_force, "brute_force", "every sequence", 2 * v**n_ctx * (v + 1), "O(v^(K+1))", v ** (n_ctx + 1)),
             _fixed(cubic, "cubic", "cubic", v**3 * (8 * n_ctx + 20) + 10 * v * v * d, "O(v^3 K^2)", 3 * v * v + 2 * n_ctx * v)]
    compositions = [Skeleton(d, h, e) for d in direct.WAYS for h in HANDLINGS for e in scores.WAYS]
    return fixed + [subcubic(skeleton, sizes) for skeleton in compositions]


FAMILY = Family(
    name="max_of_k", tensors=tuple(model.shapes(2, 2)), foreign=FOREIGN, ignored=IGNORED, sizes=model.sizes,
    strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS)
