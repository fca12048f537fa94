"""Max-of-K as the roof sees it: its tensors, its collections, and the paper's 102 strategies.

The hundred subcubic ones are compositions: five ways to know the direct path, two to handle attention, ten to
know the scores.  Their ids are those of the authors' code, so that a reader of the paper finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from ..proof import names
from ..proof.family import ABSENT, BUFFERS, Family, Model, Parameter, Strategy, named
from . import brute_force, cubic, direct, edits, exact, gap_search, heads, model, monte_carlo, scores, tiers
from . import separable as proofs
from .paths import Paths, paths_of
from .subcubic import HANDLINGS, Skeleton
from .train import RECIPE, train

COLLECTIONS = {
    "max-of-4": {"n_ctx": 4, "d_vocab": 64}, "max-of-5": {"n_ctx": 5, "d_vocab": 64},
    "max-of-10": {"n_ctx": 10, "d_vocab": 64}, "max-of-20": {"n_ctx": 20, "d_vocab": 64},
    "max-of-10-v128": {"n_ctx": 10, "d_vocab": 128},
    "max-of-4-v128": {"n_ctx": 4, "d_vocab": 128}, "max-of-4-v256": {"n_ctx": 4, "d_vocab": 256},
    "max-of-4-uniform": {"n_ctx": 4, "d_vocab": 64, "uniform_maximum": True},
}
COLLECTIONS_OF_HEADS = {
    "max-of-4-h2": {"n_ctx": 4, "d_vocab": 64, "n_heads": 2}, "max-of-4-h4": {"n_ctx": 4, "d_vocab": 64, "n_heads": 4},
    "max-of-10-h2": {"n_ctx": 10, "d_vocab": 64, "n_heads": 2},
}
ASSUMED = {"normalization_type": "none", "n_heads": "1", "n_layers": "1", "attn_only": "true",
           "attn_scale": "sqrt(d_head)", "use_attn_scale": "true", "use_local_attn": "false",
           "attn_scores_soft_cap": "-1.0 or -1 or none", "final_rms": "false",
           "output_logits_soft_cap": "-1.0 or -1 or none", "positional_embedding_type": "standard",
           "task": "max or min", "attention": "learned", "layout": "xw"}
FOREIGN = dict.fromkeys(("W_in", "W_out", "b_E", "b_in", "b_out", "ln1", "ln2", "ln_final"), ABSENT)


def skeleton_id(skeleton: Skeleton) -> str:
    """The name that the authors' code gives to a composition."""
    return f"EUPU-{skeleton.direct}--attn-{skeleton.handling}--attn-err-{skeleton.error}".replace("_", "-")


def subcubic(skeleton: Skeleton, sizes: Mapping[str, int]) -> Strategy:
    """One of the hundred as a Strategy for models of these sizes."""
    v, d, n_ctx = sizes["d_vocab"], sizes["d_model"], sizes["n_ctx"]
    known, votes = scores.WAYS[skeleton.error], direct.WAYS[skeleton.direct]
    terms = f"{known.complexity} + {votes.complexity} + v^2 d + v^2 K + v K^2"
    ranks = {} if known.peel is None else {"rank": Parameter(1, 0, min(d, sizes["d_head"]))}
    return Strategy(
        id=skeleton_id(skeleton),
        label=" · ".join((names.DIRECT[skeleton.direct].label, names.SCORES[skeleton.error].label,
                          names.ATTENTION[skeleton.handling].label)),
        family="subcubic",
        cost=v * v * (6 * d + 40 * n_ctx + 100),
        parameters=ranks,
        complexity=f"O({' + '.join(dict.fromkeys(terms.split(' + ')))})",
        search=lambda model, parameters: gap_search.find(skeleton, model, parameters),
        check=skeleton.check,
        advice=lambda parameters: skeleton.specs(sizes, parameters),
        unexplained_dimensions=lambda parameters: v + v * v + votes.unexplained(v, d) + known.unexplained(v, d))


def _fixed(check: Callable, id: str, cost: int, complexity: str, dimensions: int | None) -> Strategy:
    return Strategy(id, names.STRATEGIES[id].label, id, cost, {}, complexity, lambda model, parameters: {}, check,
                    lambda parameters: {}, lambda parameters: dimensions)


def knobs(sizes: Mapping[str, int], values: Mapping[str, str | int]) -> dict[str, Parameter]:
    """What every separable proof can be asked for."""
    v = sizes["d_vocab"]
    return {"groups": Parameter(values.get("groups", 8), 1, 64),
            "buckets": Parameter(min(values.get("buckets", 9), v), 2, v),
            "query": named(values.get("query", "each"), "grouped", "each")}


def separable(id: str, cost: int, **values: str | int) -> Callable[[Mapping[str, int]], Strategy]:
    """A named setting of the separable proof: its parameters with these defaults; cost is per v^2."""
    def of(sizes: Mapping[str, int]) -> Strategy:
        d, parameters = min(sizes["d_model"], sizes["d_head"]), knobs(sizes, values)
        for table in tiers.TABLES:
            parameters[table] = named(values.get(table, "exact"), *tiers.NAMES)
            parameters[f"{table}_rank"] = Parameter(min(values.get(f"{table}_rank", 0), d), 0, d)
        return Strategy(
            id=id, label=names.STRATEGIES[id].label, family="separable", cost=cost * sizes["d_vocab"] ** 2,
            parameters=parameters, complexity="O(v^2 (d + b + g)) and what is left open",
            search=lambda model, parameters: tiers.advise(Paths(model), parameters),
            check=lambda model, advice, parameters: proofs.check(
                model, tiers.circuits(Paths(model), advice, parameters), parameters),
            advice=lambda parameters: tiers.specs(sizes, parameters), unexplained_dimensions=lambda parameters: None)
    return of


def of_tables(id: str, cost: int, **values: str | int) -> Callable[[Mapping[str, int]], Strategy]:
    """The same for a stripped model, whose tables are cheap as they are."""
    return lambda sizes: Strategy(
        id, names.STRATEGIES[id].label, "separable", cost * sizes["d_vocab"] ** 2, knobs(sizes, values),
        "O(v^2 (s + b + g)) and what is left open", search=lambda model, parameters: {}, advice=lambda parameters: {},
        unexplained_dimensions=lambda parameters: None,
        check=lambda model, advice, parameters: proofs.check(model, tiers.exactly(paths_of(model)), parameters))


def checked_by_chance(sizes: Mapping[str, int]) -> Strategy:
    """The separable proof on tables that are advice."""
    of = of_tables("monte_carlo", 350, groups=6, buckets=8, query="grouped")
    return replace(
        of(sizes), family="monte_carlo", complexity="O(v^2 + v d + d^2) words and what is left open",
        search=lambda model, parameters: monte_carlo.advise(model), advice=lambda parameters: monte_carlo.specs(sizes),
        check=lambda model, advice, parameters: proofs.check(model, monte_carlo.circuits(model, advice), parameters),
        failure_probability=len(monte_carlo.TABLES) * monte_carlo.CHANCE)


PRESETS = (
    separable("separable", 800),
    separable("separable-grouped", 530, groups=6, buckets=8, query="grouped"),
    separable("separable-small", 470, groups=4, buckets=6, query="grouped"),
    separable("compact-gram", 1400, qk="gram", eu="gram", ov="gram", qk_rank=8, eu_rank=8, ov_rank=16),
    separable("compact-spectral", 1800, qk="spectral", eu="spectral", ov="spectral",
              qk_rank=20, eu_rank=20, ov_rank=24),
    separable("compact-frobenius", 1900, qk="frobenius", eu="frobenius", ov="frobenius",
              qk_rank=16, eu_rank=16, ov_rank=20),
    checked_by_chance,
)


def strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """The paper's 102 and ours, as named presets for models of these sizes."""
    v, d, n_ctx = sizes["d_vocab"], sizes["d_model"], sizes["n_ctx"]
    by_trying, counted = exact_counts(v, n_ctx)
    third = _fixed(cubic.check, "cubic", v**3 * (8 * n_ctx + 20) + 10 * v * v * d, "O(v^3 K^2)",
                   3 * v * v + 2 * n_ctx * v)
    compositions = [Skeleton(d, h, e) for d in direct.WAYS for h in HANDLINGS for e in scores.WAYS]
    return [by_trying, third, counted, *(preset(sizes) for preset in PRESETS),
            *(subcubic(skeleton, sizes) for skeleton in compositions)]


def exact_counts(v: int, n_ctx: int) -> list[Strategy]:
    """The two that are exact, for every kind of Max-of-K model."""
    return [_fixed(brute_force.check, "brute_force", 2 * v**n_ctx * (v + 1), "O(v^(K+1))", v ** (n_ctx + 1)),
            _fixed(lambda model, advice, parameters:
                   exact.check(model, exact.Steps.of(tiers.exactly(paths_of(model)))), "exact",
                   # wrong sequences: larger vocabularies have more of them
                   1300 * v * v + v**n_ctx // 20 * v**4 // 64**4,
                   "O(v^2 d + v^3) and the wrong sequences", None)]


def strategies_of_heads(sizes: Mapping[str, int]) -> list[Strategy]:
    """Those of a network of several heads; the split between heads is advice."""
    v, n_ctx, h = sizes["d_vocab"], sizes["n_ctx"], sizes["n_heads"]
    tried = _fixed(brute_force.check, "brute_force", v**n_ctx * (3 * h * v + 7 * h + 6), "O(h v^(K+1))",
                   v ** (n_ctx + 1))
    buckets = Parameter(min(9, v), 2, v)

    def split(id: str, cost: int, complexity: str, check: Callable, **parameters: Parameter) -> Strategy:
        return Strategy(id, names.STRATEGIES[id].label, id, cost, parameters, complexity,
                        search=lambda model, parameters: heads.advise(model), check=check,
                        advice=lambda parameters: heads.specs(sizes), unexplained_dimensions=lambda parameters: None)

    return [tried,
            split("exact", 2000 * (h * v) ** 2 + v**n_ctx // 20, "O(h v^2 (d + v b)) and the wrong sequences",
                  heads.check_exactly),
            split("separable", 1200 * (h * v) ** 2, "O(h v^2 (d + v b)) and what is left open", heads.check,
                  buckets=buckets)]


def numbers(sizes: Mapping[str, int]) -> int:
    """Tables of pairs of tokens, a few dozen, and those of positions by positions."""
    v, n_ctx = sizes["d_vocab"], sizes["n_ctx"]
    return v * v * (n_ctx + 64) + 12 * v * n_ctx**2


def stripped_strategies(sizes: Mapping[str, int]) -> list[Strategy]:
    """What proves a stripped model: exactly, and the separable proof at three settings."""
    settings = (of_tables("separable", 250),
                of_tables("separable-grouped", 170, groups=6, buckets=8, query="grouped"),
                of_tables("separable-small", 125, groups=5, buckets=6, query="grouped"))
    return [*exact_counts(sizes["d_vocab"], sizes["n_ctx"]), *(of(sizes) for of in settings)]


def sampled(network: Model, n: int) -> int:
    """Right ones of n random sequences, by the plain forward pass."""
    generator, shape = torch.Generator().manual_seed(0), (n, network.sizes["n_ctx"])
    tokens = torch.randint(network.sizes["d_vocab"], shape, generator=generator)
    return int((model.last_logits(network.tensors, tokens).argmax(1) == tokens.amax(1)).sum())


FAMILIES = (
    Family(name="max_of_k", tensors=tuple(model.shapes(2, 2)), foreign=FOREIGN, sizes=model.sizes,
           # no softmax sees the keys' biases
           ignored=(*BUFFERS, "b_K"), optional=model.BIASES, silent=model.BIASES,
           strategies=strategies, train=train, recipe=RECIPE, collections=COLLECTIONS, edits=edits.EDITS,
           numbers=numbers, assumed=ASSUMED, asked=("normalization_type", "n_heads"), sampled=sampled),
    Family(name="max_of_k_heads", tensors=tuple(model.shapes(2, 2)), foreign=FOREIGN, sizes=model.sizes_of_heads,
           ignored=(*BUFFERS, "b_K"), optional=model.BIASES, silent=model.BIASES, strategies=strategies_of_heads,
           train=train, recipe=RECIPE, collections=COLLECTIONS_OF_HEADS,
           numbers=lambda sizes: sizes["n_heads"] * (numbers(sizes) + sizes["d_vocab"] ** 3),
           assumed=ASSUMED | {"n_heads": "n_heads"}, asked=("normalization_type",),
           sampled=sampled),
    Family(name="max_of_k_stripped", tensors=("QK_left", "QK_right", "EU", "OV_left", "OV_right"), foreign=FOREIGN,
           ignored=BUFFERS, sizes=edits.sizes, strategies=stripped_strategies, train=None, recipe={"edit": "stripped"},
           collections={}, numbers=numbers, described=("n_ctx",)),
)
