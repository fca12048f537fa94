"""The noise chapter: peels that are identities, nulls that keep what they say, rungs that prove no more than is true."""

from __future__ import annotations

import itertools
from math import pi, sqrt

import pytest
import test_pizza
import torch
from conftest import KINDS, right_sequences, small_model
from test_soundness import disturbed, faults

import mechproof as mp
from mechproof import zoo
from mechproof.explorable import plots
from mechproof.figures import noise_limits as figures
from mechproof.max_of_k.paths import Paths
from mechproof.noise import ablation, compounding, mlp, residual, surrogate
from mechproof.proof import product_bounds, proving
from mechproof.proof.family import InputError
from mechproof.proof.peeling import Known
from mechproof.proof.product_bounds import RUNGS
from mechproof.proof.rounding import Ball

F8 = torch.float64


def chain_of(seed: int, n: int) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    dims = [9, *torch.randint(2, 7, (n - 1,), generator=g).tolist(), 8]
    return [torch.randn(a, b, generator=g, dtype=F8) for a, b in zip(dims, dims[1:])]


# what is peeled

@pytest.mark.parametrize("peel", residual.PEELS)
def test_kept_and_rest_are_the_scores_whatever_the_directions(peel):
    models = [mp.load("max-of-4/5"), mp.load("max-of-4-v128/0"), *(small_model(seed, kind) for seed, kind in enumerate(KINDS))]
    for i, model in enumerate(models):
        A, most = Paths(model).A.mid, min(model.sizes["d_model"], model.sizes["d_head"])
        for rank in sorted({0, 1, min(3, most), most}):
            advice = residual.advise(model, peel, rank)
            for given in (advice, disturbed(advice, i)):
                split = residual.peeled(Paths(model), peel, given)
                size = A.abs().amax() + (split.kept.mid.abs().amax() if rank else 0) + split.noise.abs().amax()
                assert (split.kept.mid + split.noise - A).abs().amax() <= 1e-11 * size + 1e-300
            if rank == 0:
                assert split.kept.mid.abs().amax() == 0


def test_peels_take_out_what_they_say():
    model = mp.load("max-of-4/3")
    of = {peel: residual.residual(model, peel, 2) for peel in residual.PEELS}
    assert (of["QK"].noise - of["query"].noise).abs().amax() < 1e-10                          # the same table, in other factors
    assert (of["query"].numbers[1] - Paths(model).scaled_W_Q.mid).abs().amax() == 0
    U, _, Vh = torch.linalg.svd(Paths(model).scaled_W_Q.mid @ model["W_K"].double().T)
    E_q, W_Q, W_K, E_k = of["QK"].numbers
    assert max(float(x.abs().amax()) for x in (E_q @ U[:, :2], U[:, :2].T @ W_Q, W_K @ Vh[:2].T, Vh[:2] @ E_k)) < 1e-9
    full = residual.residual(model, "QK", 32)
    assert full.noise.abs().amax() < 1e-20 and surrogate.ranges(of["four"].numbers).amax() < surrogate.ranges([Paths(model).A.mid]).amax() / 100


# noise to compare with

@pytest.mark.parametrize("n", [2, 3, 4, 7])
def test_nulls_keep_what_they_say_and_change_the_rest(n):
    chain = chain_of(n, n)
    draws = {null: draw(chain, 300, surrogate.generator_of(1)) for null, draw in surrogate.NULLS.items()}
    for null, drawn in draws.items():
        assert [x.shape for x in drawn] == [(300, *M.shape) for M in chain]
        assert all(torch.equal(x, y) for x, y in zip(drawn, surrogate.NULLS[null](chain, 300, surrogate.generator_of(1))))
        assert not torch.equal(drawn[0], surrogate.NULLS[null](chain, 300, surrogate.generator_of(2))[0])
        assert (surrogate.ranges(drawn) - surrogate.ranges(chain)).abs().amin() > 1e-6
    for i, M in enumerate(chain):
        named = (lambda x: x) if 2 * i < n else (lambda x: x.mT)                              # rows as the matrices are named
        squares = {null: named(drawn[i]).square().sum(2) for null, drawn in draws.items()}
        own = named(M).square().sum(1)
        assert all((squares[null] / own - 1).abs().amax() < 1e-12 for null in ("rows", "haar"))
        assert abs(float(squares["gaussian"].sum(1).mean() / own.sum()) - 1) < 0.1 and squares["gaussian"].std(0).amin() > 0.05 * own.mean()
        gram = named(M) @ named(M).T
        x = named(draws["haar"][i])
        assert (x @ x.mT - gram).abs().amax() < 1e-12 * gram.abs().amax()                     # lengths, angles, singular values
        y = named(draws["rows"][i])
        assert (y @ y.mT - gram).abs().amax() > 0.1 * gram.abs().amax()


def test_rotations_are_orthogonal_and_uniform():
    turned = surrogate.rotation(4000, 3, surrogate.generator_of(0))
    assert (turned @ turned.mT - torch.eye(3, dtype=F8)).abs().amax() < 1e-12
    assert turned.mean(0).abs().amax() < 5 / sqrt(3 * 4000) and (turned.square().mean(0) - 1 / 3).abs().amax() < 0.02
    assert abs(float(torch.linalg.det(turned).mean())) < 0.08                                # both orientations, equally often
    raw = torch.linalg.qr(torch.randn(4000, 3, 3, generator=surrogate.generator_of(0), dtype=F8)).Q
    assert raw.mean(0).abs().amax() > 0.2                                                    # without the signs it is not uniform


@pytest.mark.parametrize("null", surrogate.NULLS)
@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_the_invariant_rungs_are_those_and_no_others(null, n):
    chain = chain_of(11, n)
    draws = surrogate.NULLS[null](chain, 20, surrogate.generator_of(0))
    for rung in RUNGS:
        found = surrogate.against(surrogate.of_rung(rung), chain, draws)
        assert (found.sd < 1e-9 * found.mean and abs(found.real / found.mean - 1) < 1e-9) == (rung in surrogate.invariant(null, n)), rung


def test_a_standard_score_is_what_it_says():
    draws = [torch.tensor([[[1.0]], [[2.0]], [[3.0]], [[6.0]]], dtype=F8), torch.tensor([[[0.0, 1.0]]] * 4, dtype=F8)]
    found = surrogate.against(surrogate.largest, [torch.tensor([[5.0]], dtype=F8), draws[1][0]], draws)
    assert found[:2] == (5.0, 3.0) and found.above == 1 and abs(found.z - 2 / sqrt(14 / 3)) < 1e-12 and found.n == 4
    assert "1 of 4 draws" in str(found)
    chain = chain_of(3, 4)
    assert torch.equal(surrogate.largest_within(2, 5)(chain), surrogate.largest([*chain[:-1], chain[-1][:, 2:5]]))


# proofs with a rung

def attack(seeds) -> dict[str, int]:
    """Every rung on small and nasty models, with its own and with disturbed advice; certified sequences by rung."""
    certified = dict.fromkeys(RUNGS, 0)
    for seed in seeds:
        model = small_model(seed, KINDS[seed % len(KINDS)])
        right, most = right_sequences(model), min(model.sizes["d_model"], model.sizes["d_head"])
        for i, (rung, peel) in enumerate(itertools.product(RUNGS, residual.PEELS)):
            preset = residual.strategy(model, rung, peel, (0, 1, 2, most)[(seed + i) % 4] % (most + 1))
            advice = preset.search(model, {})
            bound = proving.checked(model, preset, {}, disturbed(advice, seed) if (seed + i) % 2 else advice)
            assert faults(bound, model, right, covers=(seed + i) % 5 == 0) == [], model.name
            certified[rung] += bound.correct
    return certified


def test_no_rung_certifies_a_sequence_that_is_wrong():
    certified = attack(range(2 * len(KINDS)))
    assert all(n > 0 for n in certified.values()) and certified["exact"] >= max(certified.values())


@pytest.mark.slow
def test_no_rung_certifies_a_sequence_that_is_wrong_on_many_models():
    attack(range(100, 100 + 4 * len(KINDS)))


def too_small(factors):
    return product_bounds.exact(factors) * 0.1


def test_a_rung_that_is_too_small_is_caught(monkeypatch):
    """Planted: a tenth of the true differences; the truth must deny something it claims, for scores and for an MLP."""
    monkeypatch.setitem(RUNGS, "exact", too_small)
    found, astray = [], []
    for seed in range(120):
        model = small_model(seed, ("able", "trap", "random")[seed % 3])
        preset = residual.strategy(model, "exact", "four", 0)
        found += faults(proving.checked(model, preset, {}, preset.search(model, {})), model, right_sequences(model)) if not found else []
    for seed, rank in itertools.product(range(2 * len(test_pizza.KINDS)), (1, 2)):
        net = test_pizza.network(seed, test_pizza.KINDS[seed % len(test_pizza.KINDS)])
        astray += test_pizza.faults(mlp.certify(net, "exact", rank), net, False) if not astray else []
    assert found and astray


def test_no_rung_certifies_a_pair_that_is_wrong():
    certified = dict.fromkeys(RUNGS, 0)
    for seed in range(2 * len(test_pizza.KINDS)):
        net = test_pizza.network(seed, test_pizza.KINDS[seed % len(test_pizza.KINDS)])
        for i, rung in enumerate(RUNGS):
            most = min(net.sizes["p"] - 1, net.sizes["d_model"])
            preset = mlp.strategy(net, rung, min((0, 1, 3, most)[(seed + i) % 4], most))
            advice = preset.search(net, {})
            bound = proving.checked(net, preset, {}, disturbed(advice, seed) if (seed + i) % 2 else advice)
            assert test_pizza.faults(bound, net, seed % 3 == 0) == []
            certified[rung] += bound.correct
    assert min(certified.values()) > 20 and certified["exact"] > 100


def test_shipped_proofs_stay_below_the_truth_and_the_finest_is_near():
    for name in ("max-of-4/0", "max-of-4-uniform/3", "max-of-4-decayed/2", "max-of-5/1"):
        model = mp.load(name)
        bounds = {rung: residual.certify(model, rung, "QK", 4) for rung in ("exact", "gram", "norms")}
        truth = model.metadata["accuracy"]["correct"]
        assert bounds["norms"].correct <= bounds["gram"].correct <= bounds["exact"].correct <= truth
        assert bounds["exact"].correct > 0.97 * truth and bounds["exact"].strategy == "exact:peel=QK,rank=4"
        assert 0 < residual.scores_flops(model, "exact", "QK", 4) < bounds["exact"].flops
    net = mp.load("pizza-31/5")
    assert mlp.certify(net, "exact", 8).correct <= mp.prove(net, "brute_force").correct


def test_the_mlp_is_a_chain():
    net = mp.load("pizza-31/0")
    known, direct = mlp.split(net, mlp.advise(net, 3))
    total = known.kept.mid + known.noise + direct.mid
    p = net.sizes["p"]
    at = mlp.pairs(p)
    both = torch.stack([at.a.flatten(), at.b.flatten()], 1)
    from mechproof.pizza.model import logits
    found = logits({name: x.double() for name, x in net.tensors.items()}, both)
    centred = lambda x: x - x.mean(1, keepdim=True)
    assert (centred(total) - centred(found)).abs().amax() < 1e-9 * found.abs().amax()
    share = mp.prove(net, "brute_force")
    assert mlp.right(total) == share.correct / share.total


# what replaces the rest

def right_with(model, scores: torch.Tensor) -> set[tuple[int, ...]]:
    """Inputs that are right with these scores, one by one in float64."""
    paths = Paths(model)
    B, EU, OV, PV = (x.mid for x in (paths.B, paths.EU, paths.OV, paths.PV))
    n, found = paths.n_ctx, set()
    for tokens in itertools.product(range(paths.d_vocab), repeat=n):
        q, t = tokens[-1], torch.tensor(tokens)
        alpha = (scores[q, t] + B[q]).softmax(0)
        logit = EU[q] + alpha @ (OV[t] + PV)
        best = max(tokens)
        if (logit[best] > torch.cat([logit[:best], logit[best + 1 :]])).all():
            found.add(tokens)
    return found


def test_replaced_scores_are_counted_exactly():
    for seed in range(24):
        model = small_model(seed, ("able", "trap", "random")[seed % 3])
        split = residual.residual(model, "four", 0)
        found = ablation.ablated(model, split, "rows", seed)
        assert found["itself"].correct == len(right_sequences(model))
        rest = split.noise
        noise = ablation.redrawn(split, "rows", seed).noise
        assert rest.abs().amax() == 0 or (noise - rest).abs().amax() > 1e-3 * rest.abs().amax()
        other = ablation.resampled(rest, surrogate.generator_of(seed))
        for kind, table in (("zero", torch.zeros_like(rest)), ("mean", rest.mean(0).expand_as(rest)), ("resample", other), ("noise", noise)):
            right = len(right_with(model, table))
            assert found[kind].correct <= right <= found[kind].correct + found[kind].open, (model.name, kind)


def test_resampling_takes_other_queries_rows():
    rest = torch.arange(20.0, dtype=F8)[:, None].expand(20, 3)
    new = ablation.resampled(rest, surrogate.generator_of(0))
    assert (new != rest).all() and set(new[:, 0].tolist()) <= set(rest[:, 0].tolist())


def test_slack_costs_and_noise_is_not_certified_beyond_its_truth():
    model = mp.load("max-of-4/9")
    shares = [ablation.under_slack(model, slack) for slack in (0.0, 0.1, 1.0, 5.0, 50.0)]
    separable = mp.prove(model, "separable")
    assert abs(shares[0] - separable.correct / separable.total) < 1e-4
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[2] > shares[4]
    for rank, null in ((1, "haar"), (2, "gaussian"), (1, "rows")):
        noisy = ablation.redrawn(residual.residual(model, "QK", rank), null, 3)
        truth = ablation.accuracy(model, noisy.kept.mid + noisy.noise)
        assert all(ablation.certified(model, noisy, rung) <= (truth.correct + truth.open) / truth.total for rung in ("exact", "gram", "norms"))


def worst_tables(A: torch.Tensor, slack: float):
    """Tables whose differences are off by at most `slack`: each maximum m a little less attended, or more, than all others."""
    for m, sign in itertools.product(range(len(A)), (-1, 1)):
        off = torch.full_like(A, -sign * slack / 2)
        off[:, m] = sign * slack / 2
        yield A + off


def test_a_slack_bounds_every_table_within_it():
    """No sequence that is certified under a slack is wrong for the worst tables that it allows; with twice the slack some are."""
    beyond = 0
    for seed in range(40):
        model = small_model(seed, ("able", "trap")[seed % 2])
        A, slack = Paths(model).A, (0.2, 1.0, 3.0)[seed % 3]
        proved = residual.with_scores(model, Known(A, Ball(torch.full((len(A.mid),), slack, dtype=F8))))
        every = itertools.product(range(model.sizes["d_vocab"]), repeat=model.sizes["n_ctx"])
        covered = {t for t in every if proved.case(t).covered}
        assert len(covered) == proved.correct
        assert all(covered <= right_with(model, table) for table in worst_tables(A.mid, slack))
        beyond += any(not covered <= right_with(model, table) for table in worst_tables(A.mid, 2 * slack))
    assert beyond > 0


# factors at random

def test_ranges_and_growth_are_reckoned():
    assert abs(compounding.mean_range(2) - 2 / sqrt(pi)) < 1e-9 and abs(compounding.mean_range(3) - 3 / sqrt(pi)) < 1e-9
    assert compounding.sigma(0) == 1 and compounding.sigma(1) == 2 and abs(compounding.sigma(2) - sqrt(27 / 4)) < 1e-12
    for depth in (2, 5, 8):
        law, found = compounding.reckoned(depth, 256), compounding.measured(depth, 256, 0)
        assert list(law) == list(RUNGS) == list(found)
        assert all(abs(found[rung] / law[rung] - 1) < 0.16 for rung in RUNGS), (depth, law, found)
    assert compounding.measured(4, 64, 0) != compounding.measured(4, 64, 1)


# what ships, and what is refused

def shipped() -> dict:
    return zoo.results("noise")


def test_shipped_rows_are_complete_and_below_the_truth():
    results = shipped()
    entries = {entry["name"]: entry for entry in zoo.models()}
    names = [name for name in entries if name.partition("/")[0] in ("max-of-4", "max-of-4-uniform", "max-of-4-decayed")]
    assert sorted(row["name"] for row in results["models"]) == sorted(names) and len(names) == 161
    for row in results["models"]:
        truth = entries[row["name"]]["accuracy"]["correct"]
        for rank in ("1", "4"):
            rungs, noised = row["ladder"][rank]["rungs"], row["noised"][rank]
            assert list(rungs) == list(RUNGS) and all(step["correct"] <= truth for step in rungs.values())
            assert row["ablated"][rank]["itself"] == truth
            assert all(share * row["total"] <= found["correct"] + found["open"] for found in noised.values() for share in found["certified"].values())
            assert all(step["bound"] >= row["ladder"][rank]["mean"] * (1 - 1e-9) for step in rungs.values())
        assert all(set(found) == set(surrogate.NULLS) for peel in residual.PEELS for found in row["compared"][peel].values())
        assert row["slack"] == sorted(row["slack"], reverse=True) and row["slack"][0] <= truth / row["total"]


@pytest.mark.parametrize("name", ["max-of-4/77", "max-of-4-uniform/4"])
def test_a_sample_of_what_ships_is_found_again(name):
    results, model = shipped(), mp.load(name)
    row, seed = next(row for row in results["models"] if row["name"] == name), int(name.partition("/")[2])
    for peel, rank, null in (("QK", 1, "haar"), ("four", 4, "gaussian"), ("query", 8, "rows")):
        chain = residual.residual(model, peel, rank).numbers
        found = surrogate.against(surrogate.largest, chain, surrogate.NULLS[null](chain, results["draws"], surrogate.generator_of(seed)))
        assert found[:3] == pytest.approx(row["compared"][peel][str(rank)][null][:3], rel=1e-6)
    for rung in ("gram", "norms"):
        bound, stored = residual.certify(model, rung, "QK", 1), row["ladder"]["1"]["rungs"][rung]
        assert abs(bound.correct - stored["correct"]) <= 1e-4 * bound.total and bound.flops == pytest.approx(stored["flops"], rel=1e-3)
        assert stored["scores"] == residual.scores_flops(model, rung, "QK", 1)
    split = residual.residual(model, "QK", 1)
    chain, draws = split.numbers, surrogate.haar(split.numbers, results["draws"], surrogate.generator_of(seed))
    step = model.sizes["d_vocab"] // 4
    for i, quarter in enumerate(row["quarters"]):
        found = surrogate.against(surrogate.largest_within(step * i, step * (i + 1)), chain, draws)
        assert found[:3] == pytest.approx(quarter[:3], rel=1e-6)
    assert surrogate.against(surrogate.of_rung("norms"), chain, draws)[:3] == pytest.approx(row["rungs"]["haar"]["norms"][:3], rel=1e-6)
    assert row["slack"][4] == pytest.approx(ablation.under_slack(model, results["slacks"][4]), abs=1e-4)
    for kind, found in ablation.ablated(model, split, "haar", seed).items():
        assert abs(found.correct - row["ablated"]["1"][kind]) <= 10
    noisy = ablation.redrawn(split, "rows", seed)
    stored = row["noised"]["1"]["rows"]
    assert abs(ablation.accuracy(model, noisy.kept.mid + noisy.noise).correct - stored["correct"]) <= 10
    assert ablation.certified(model, noisy, "gram") == pytest.approx(stored["certified"]["gram"], abs=1e-4)


def test_shipped_facts_of_the_mlp_are_found_again_and_below_the_truth():
    rows = {row["name"]: row for row in shipped()["mlps"]}
    assert len(rows) == 25
    for name, row in rows.items():
        truth = mp.load(name).metadata["accuracy"]["correct"]
        for found in row["ranks"].values():
            assert all(proof["correct"] <= truth for proof in found["proofs"].values())
            assert all(found[rung] >= found["exact"] * (1 - 1e-9) for rung in RUNGS) and 0 <= found["noisy"] <= 1
    model, stored = mp.load("pizza-59/1"), rows["pizza-59/1"]["ranks"]["6"]
    assert mlp.facts(model, 6, 1) == pytest.approx({key: stored[key] for key in (*RUNGS, "noise", "noisy")}, rel=1e-5)
    bound = mlp.certify(model, "gram", 6)
    assert abs(bound.correct - stored["proofs"]["gram"]["correct"]) <= 3 and bound.flops == stored["proofs"]["gram"]["flops"]


@pytest.mark.parametrize("call", [
    lambda m, n: residual.residual(m, "both", 1), lambda m, n: residual.residual(m, "QK", 33), lambda m, n: residual.residual(m, "four", -1),
    lambda m, n: residual.certify(m, "guess", "QK", 1), lambda m, n: residual.residual(n, "QK", 1), lambda m, n: mlp.certify(n, "norms", 500),
    lambda m, n: mlp.certify(n, "guess", 1), lambda m, n: mlp.certify(m, "norms", 1),
    lambda m, n: residual.residual(mp.load("max-of-4-stripped/0"), "QK", 1)])
def test_what_cannot_be_done_is_said_in_one_line(call):
    with pytest.raises(InputError, match=r"^[^\n]*(expected|take)[^\n]*$"):
        call(mp.load("max-of-4/0"), mp.load("pizza-31/0"))


@pytest.mark.parametrize("spoil", [lambda a: {**a, "a0": a["a0"] * float("nan")}, lambda a: {**a, "b3": a["b3"][:, :0]}, lambda a: {},
                                   lambda a: None])
def test_bad_advice_is_said_in_one_line(spoil):
    model = mp.load("max-of-4/0")
    preset = residual.strategy(model, "gram", "QK", 1)
    with pytest.raises(InputError, match=r"^advice [^\n]*$"):
        proving.checked(model, preset, {}, spoil(preset.search(model, {})))


def test_no_name_beside_a_bar_is_cut_off():
    """Names of rungs grew once, and lost their first letters to the figure's edge."""
    survey = figures.Survey(mp.load("max-of-4/0"), 0)
    for explorer in (figures.replaced(survey, 1), figures.compounded(0)):
        explorer.frame(**explorer.start)
        figure = explorer._figures[0]
        with plots.house():
            figure.draw_without_rendering()
            names = [label for axes in figure.axes for label in axes.get_yticklabels() if len(label.get_text()) > 8]
            assert names and all(label.get_window_extent().x0 >= 0 for label in names), explorer.name
