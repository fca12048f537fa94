"""The separable proofs and what goes with them: exact counts, tiers, levels, tables checked at random, edited models."""

from __future__ import annotations

import itertools
from collections import Counter
from statistics import mean

import pytest
import torch
from conftest import KINDS, from_tables, right_sequences, small_model
from test_soundness import any_setting, wrong_or_close

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k import brute_force, edits, exact, levels, monte_carlo, separable, terms, tiers
from mechproof.max_of_k.boxes import Cells
from mechproof.max_of_k.paths import Paths, paths_of
from mechproof.max_of_k.truth import Truth
from mechproof.proof.rounding import Ball
from mechproof.zoo import tables

OURS = ("separable", "separable-grouped", "separable-small", "compact-gram", "compact-spectral", "compact-frobenius", "monte_carlo", "exact")


def covered(bound, model) -> set:
    v, n = model.sizes["d_vocab"], model.sizes["n_ctx"]
    return {t for t in itertools.product(range(v), repeat=n) if bound.covers(t)}


@pytest.mark.slow
def test_levels_count_no_more_than_they_cover(monkeypatch):
    """The count for long sequences, forced on short ones: what it certifies is covered, what is covered is right. Attacks *Walks*."""
    monkeypatch.setattr(separable, "LISTED", 0)
    found = Counter()
    for seed in range(110):
        model = small_model(seed, KINDS[seed % len(KINDS)])
        strategy = next(s for s in mp.strategies(model) if s.id == OURS[seed % 4])
        bound, right = mp.prove(model, any_setting(strategy, seed)), right_sequences(model)
        inside = covered(bound, model)
        assert inside <= right and bound.correct <= len(inside), (seed, bound.strategy)
        found += Counter(counted=bound.correct, covered=len(inside), right=len(right))
    assert found["counted"] > 0.7 * found["covered"] > 0.1 * found["right"]


def test_walks_are_counted_exactly():
    """Certified combinations, by listing them, with levels cut off above and lost below."""
    g, reach = torch.Generator().manual_seed(0), levels.REACH
    for case in range(12):
        own, f = int(torch.randint(-110, 110, (), generator=g)), torch.randint(-90, 90, (3, 4), generator=g).tolist()
        size, need, expected = torch.randint(0, 9, (4,), generator=g).tolist(), bool(case % 2), 0
        size[0] = 1
        for chosen in itertools.product(range(4), repeat=3):
            level = min(own, reach - 1) if own > -reach else None
            for p, b in enumerate(chosen):
                level = None if level is None or level + f[p][b] < -reach else min(reach - 1, level + f[p][b])
            if level is not None and level >= 0 and (0 in chosen or not need):
                expected += size[chosen[0]] * size[chosen[1]] * size[chosen[2]]
        assert levels.walks(own, f, size, need, 40) == expected


def test_units_lie_strictly_below():
    """unit times a walk's level < the real sum, in exact arithmetic, for terms of any size and many next to nothing. Attacks *Walks*."""
    from fractions import Fraction
    g = torch.Generator().manual_seed(0)
    for scale in (1e-6, 1.0, 1e6):
        f = torch.randn(40, 3, 5, generator=g, dtype=torch.float64) * scale
        f[:, :, 2:] *= 1e-3
        f[:, :, 0] = f[:, :, 0].abs() + scale
        no = lambda *shape: torch.zeros(shape, dtype=torch.bool)
        cells = Cells(Ball(f[:, 0, 1]), Ball(f), no(40), 3, no(40, 5), ~no(40))
        own, u = levels.in_units(cells)
        units = [Fraction(x) for x in (f[:, :, 0].amin(1) / levels.UNITS).clamp_min(2.0**-40).tolist()]
        low, top, within = -2 * levels.REACH - 1, 2 * levels.REACH - 1, 0
        for c, chosen in itertools.product(range(40), itertools.product(range(5), repeat=3)):
            steps = [int(own[c]), *(int(u[c, p, b]) for p, b in enumerate(chosen))]
            if low < min(steps) and max(steps) < top:
                real = Fraction(float(f[c, 0, 1])) + sum(Fraction(float(f[c, p, b])) for p, b in enumerate(chosen))
                assert sum(steps) * units[c] < real < (sum(steps) + 5) * units[c]
                within += 1
        assert within > 1000


@pytest.mark.slow
def test_exact_equals_brute_force_in_every_cell():
    """(query, maximum) by (query, maximum), on shipped, stripped and nasty models. Attacks *A sum of single-token functions*."""
    models = [mp.load(f"max-of-4/{seed}") for seed in (0, 2, 17, 99)] + [mp.load(f"max-of-4-stripped/{seed}") for seed in (1, 5)]
    models += [small_model(seed, KINDS[seed % len(KINDS)]) for seed in range(60)]
    for model in models:
        right, _ = exact.count_right(model, exact.Steps.of(tiers.exactly(paths_of(model))))
        lay = terms.layout(model.sizes["d_vocab"], exact.BUCKETS)
        cells = torch.zeros_like(brute := brute_force.count_right(model)[0])
        cells[lay.t, lay.m] = right
        assert torch.equal(cells, brute), model.name


def of(collection: str, strategy: str):
    """The rows of one strategy in a shipped table."""
    bounds = tables.shipped(collection)
    return bounds[bounds.strategy == strategy]


def test_exact_agrees_with_every_shipped_accuracy():
    """The counts by branch and bound that the table holds for all 151 models are brute force's."""
    mine = of("max-of-4", "exact")
    flops = sorted(mine.flops)
    assert (mine.correct == mine.right).all() and len(flops) == 151
    assert flops[75] <= 17e6 and flops[143] <= 70e6


MUST = {   # strategy: (least mean bound, most operations on average), over all 151 models
    "separable": (0.9973, 8e6), "separable-grouped": (0.995, 3.5e6), "separable-small": (0.978, 2.3e6),
    "compact-gram": (0.98, 1e9), "compact-spectral": (0.98, 1e9), "compact-frobenius": (0.98, 1e9), "monte_carlo": (0.995, 2.3e6)}


@pytest.mark.parametrize("strategy", MUST)
def test_what_each_setting_reaches(strategy):
    mine, (bound, flops) = of("max-of-4", strategy), MUST[strategy]
    assert mean(mine.accuracy_lower_bound) >= bound and mean(mine.flops) <= flops


def test_stripped_models_are_proved_for_less():
    mine = of("max-of-4-stripped", "separable-small")
    assert len(mine) == 151 and mean(mine.accuracy_lower_bound) >= 0.998 and mean(mine.flops) <= 0.7e6
    parent, child = mp.load("max-of-4/3"), mp.load("max-of-4-stripped/3")
    assert child.metadata["parent_sha256"] == parent.sha256 != child.sha256


def test_edits_are_models_of_their_own(tmp_path):
    parent = mp.load("max-of-4/3")
    for name, edit in edits.EDITS.items():
        tensors, note = edit(parent)
        zoo.save_atomically(tmp_path / f"{name}.safetensors", tensors, note)
        model = mp.load(tmp_path / f"{name}.safetensors")
        assert model.metadata["parent_sha256"] == parent.sha256 and model.sizes["n_ctx"] == 4
        assert mp.prove(model, "exact").correct == mp.prove(mp.load(f"max-of-4-{name}/3"), "exact").correct >= 0.99 * 64**4


@pytest.mark.parametrize("tier", ["gram", "spectral", "frobenius"])
def test_a_tier_is_within_its_slack(tier):
    """|difference within a row of the table - of what the tier knows| <= slack, with searched and spoiled directions, and
    the slack is not much larger than it must be."""
    model, g = small_model(3, "random"), torch.Generator().manual_seed(0)
    model = mp.load("max-of-4/0")
    parameters = {key: value for name in tiers.TABLES for key, value in ((name, tiers.NAMES.index(tier)), (f"{name}_rank", 4))}
    for spoil in (0, 0.3):
        advice = {k: x + spoil * torch.randn(x.shape, generator=g) for k, x in tiers.advise(Paths(model), parameters).items()}
        known, true = tiers.circuits(Paths(model), advice, parameters), tiers.exactly(Paths(model))
        for name in tiers.TABLES.values():
            rest = getattr(true, name).table.mid - getattr(known, name).table.mid
            off, slack = rest.amax(1) - rest.amin(1), getattr(known, name).slack.mid
            assert bool((off <= slack).all())
            assert spoil or tier != "gram" or float((off / slack).amax()) > 0.4


def test_a_table_wrong_in_one_bit_does_not_pass():
    model = mp.load("max-of-4/0")
    advice = mp.search(model, "monte_carlo")
    assert mp.check(model, "monte_carlo", advice).correct > 0.99 * 64**4
    for name in monte_carlo.TABLES:
        wrong = {key: x.clone() for key, x in advice.items()}
        wrong[name][0, 5, 7] += 1
        bound = mp.check(model, "monte_carlo", wrong)
        assert bound.correct == 0 and not bound.covers([1, 2, 3, 4]) and 0 < bound.failure_probability < 1e-17


def test_whole_numbers_are_the_weights():
    g = torch.Generator().manual_seed(0)
    for scale in (1e-30, 1.0, 1e30):
        W = torch.randn(7, 5, generator=g) * scale
        W[0, 0] = 0
        (numbers,), e = monte_carlo.whole(W)
        assert all(monte_carlo.scaled(x, e) == y for x, y in zip(numbers.flat, W.double().flatten().tolist()))


def test_two_tokens_without_positions_lose_nothing():
    """With two tokens every bucket is a token and every group one wrong token: the separable proof is exact."""
    g = torch.Generator().manual_seed(1)
    for _ in range(20):
        table = lambda *shape: torch.randn(shape, generator=g)
        model = from_tables(table(2, 2), table(2, 2), table(2, 2), torch.zeros(3, 2))
        assert mp.prove(model, "separable").correct == mp.prove(model, "exact").correct == len(right_sequences(model))


def test_finer_proofs_are_better(reference):
    """Queries singly, more groups, more buckets: each certifies at least as much, up to a hair where buckets regroup."""
    prove = lambda **p: mp.prove(reference, "separable:" + ",".join(f"{k}={v}" for k, v in p.items())).correct
    assert prove(query="grouped") <= prove(query="each") <= 16_763_235
    assert prove(groups=1) <= prove(groups=2) <= prove(groups=8) <= prove(groups=16)
    assert prove(buckets=5) <= prove(buckets=9) <= prove(buckets=64)


def test_long_sequences_are_counted_in_exact_integers():
    bound = mp.prove(mp.load("max-of-20/0"), "separable-grouped")
    assert bound.total == 64**20 and 0.998 < bound.accuracy_lower_bound < 0.9994
    assert bound.covers([5] * 19 + [60]) in (True, False) and bound.why([3] * 10 + [63] * 10).covered


def test_counts_beyond_64_bits_do_not_wrap():
    """128^10 inputs in few buckets: their products exceed an int64."""
    bound = mp.prove(mp.load("max-of-10-v128/0"), "separable:buckets=3,query=grouped")
    assert 0 < bound.correct < bound.total == 128**10
    with pytest.raises(ArithmeticError, match="counts 5 of 4 inputs"):
        mp.Bound("m", "s", correct=5, total=4, flops=0)


def test_exact_says_where_it_stops():
    with pytest.raises(mp.InputError, match="^model 'max-of-10/0' has 64.10 inputs, more than .exact. tells apart.*separable$"):
        mp.prove(mp.load("max-of-10/0"), "exact")


def test_parameters_have_names_and_ranges():
    model = mp.load("max-of-4/0")
    assert mp.prove(model, "separable:groups=6,buckets=9,query=grouped").strategy == "separable:groups=6,query=grouped"
    assert mp.prove(model, "compact-gram", rank=2).strategy == "compact-gram:qk_rank=2,eu_rank=2,ov_rank=2"
    for wrong, says in (("query=each_one", "grouped or each"), ("groups=0", "from 1 to 64"), ("size=3", "it takes: groups")):
        with pytest.raises(mp.InputError, match=says):
            mp.prove(model, f"separable:{wrong}")


WITHIN = {"max-of-20": (0.001, 15), "max-of-10": (0.012, 20), "max-of-5": (0.012, 20)}


@pytest.mark.parametrize("collection", WITHIN)
def test_longer_sequences_are_certified_near_the_truth(collection):
    """How many of 25 models are within so much of their accuracy, which is sampled above K = 5."""
    mine, (near, count) = of(collection, "separable:groups=12,buckets=12"), WITHIN[collection]
    assert (mine.truth - mine.accuracy_lower_bound <= near).sum() >= count and len(mine) == 25


@pytest.mark.parametrize("collection, bound", [("max-of-4-v128", 0.975), ("max-of-4-v256", 0.90)])
def test_larger_vocabularies(collection, bound):
    assert mean(of(collection, "separable:groups=24,buckets=16").accuracy_lower_bound) >= bound


@pytest.mark.slow
@pytest.mark.parametrize("name", ["max-of-4/7", "max-of-5/0", "max-of-10/0", "max-of-20/0", "max-of-10-v128/0", "max-of-4-v256/0"])
def test_covered_sequences_are_right(name):
    """Random and hard sequences at full size: none covered is wrong, and the covered share is the certified one, or, where
    losses of groups are added up, at least that.
    Attacks *Sum and count*."""
    model, g, n = mp.load(name), torch.Generator().manual_seed(0), 600
    v, n_ctx = model.sizes["d_vocab"], model.sizes["n_ctx"]
    near = torch.randint(v, (n, 1), generator=g) - torch.randint(0, 3, (n, n_ctx), generator=g)
    weights, truth = {k: t.double() for k, t in model.tensors.items()}, Truth(model)
    bound = mp.prove(model, "separable-grouped")
    for batch, uniform in ((torch.randint(v, (n, n_ctx), generator=g), True), (near.clamp_min(0), False)):
        covered = torch.tensor([bound.covers(t) for t in batch.tolist()])
        assert all(truth.right(t) for t in wrong_or_close(weights, batch[covered]))
        if uniform:
            p = bound.accuracy_lower_bound
            spread = 4 * (p * (1 - p) / n) ** 0.5 + 1 / n
            assert covered.double().mean() >= p - spread and (v**n_ctx > separable.LISTED or covered.double().mean() <= p + spread)
