"""Max-of-K against the reference case, the paper's formulas, and what the models are said to be."""

from __future__ import annotations

import csv
import itertools
from math import comb, factorial
from statistics import mean

import pytest
import torch
from conftest import from_tables, right_sequences, small_model

import mechproof as mp
from mechproof import zoo
from mechproof.figures import max_of_k as figures
from mechproof.max_of_k import losses, subcubic
from mechproof.max_of_k.brute_force import count_right
from mechproof.max_of_k.model import last_logits, widened
from mechproof.max_of_k.paths import Paths
from mechproof.max_of_k.train import RECIPE, train
from mechproof.max_of_k.truth import Truth
from mechproof.zoo import tables


@pytest.fixture(scope="module")
def theirs():
    with open(zoo.DATA / "results" / "max-of-4-reference.csv") as file:
        return {row["strategy"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def ours(reference):
    return {s.id: mp.prove(reference, s.id) for s in mp.strategies(reference)}


def test_the_exact_count_of_the_reference_model(ours, theirs):
    assert ours["brute_force"].correct == 16_763_235 == int(theirs["brute_force"]["correct_count"])


def test_all_102_names_and_unexplained_dimensions_are_the_papers(ours, theirs):
    assert set(theirs) <= set(ours) and len(theirs) == 102
    for name, row in theirs.items():
        assert ours[name].unexplained_dimensions == int(row["effective_dimension_estimate"])


def test_against_the_authors_own_verifier(ours, theirs):
    assert ours["cubic"].correct >= int(theirs["cubic"]["correct_count"])
    hundred = [name for name in ours if name.startswith("EUPU")]
    assert sum(ours[name].correct >= int(theirs[name]["correct_count"]) for name in hundred) >= 95
    assert all(bound.correct <= ours["brute_force"].correct for bound in ours.values())
    assert all(bound.undecided == 0 for bound in ours.values())


def test_best_subcubic_over_all_151_models():
    bounds = tables.shipped("max-of-4")
    best = figures.best_of(bounds, [name for name in set(bounds.strategy) if name.startswith("EUPU")])
    assert len(best) == 151 and mean(best) >= 0.85


@pytest.mark.parametrize("kind", ["able", "random", "huge scores"])
def test_paths_give_the_models_own_logits(kind):
    model = small_model(1, kind)
    v, n_ctx = model.sizes["d_vocab"], model.sizes["n_ctx"]
    tokens = torch.tensor(list(itertools.product(range(v), repeat=n_ctx)))
    p, q = Paths(model), tokens[:, -1]
    alpha = (p.A.mid[q[:, None], tokens] + p.B.mid[q]).softmax(1)
    logits = p.EU.mid[q] + torch.einsum("bp,bpi->bi", alpha, p.OV.mid[tokens] + p.PV.mid)
    expected = last_logits({k: t.double() for k, t in model.tensors.items()}, tokens)
    torch.testing.assert_close(logits, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("seed", range(6))
def test_brute_force_counts_every_cell(seed):
    model = small_model(seed, ("able", "exact ties", "steep")[seed % 3])
    right, _ = count_right(model)
    cells = torch.zeros_like(right)
    for t in right_sequences(model):
        cells[t[-1], max(t)] += 1
    assert (right == cells).all()


def test_a_tie_is_wrong():
    w = {k: t.clone() for k, t in small_model(3, "able").tensors.items()}
    w["W_U"][:, 1:] = w["W_U"][:, :1]
    model = zoo.model_from_tensors("tied", w)
    assert right_sequences(model) == set() and mp.prove(model, "brute_force").correct == 0


def test_margins_are_below_the_truth():
    model = mp.load("max-of-4/1")
    truth, g = Truth(model), torch.Generator().manual_seed(0)
    for name in ("cubic", figures.NAMED_IDS["exact QK"], "brute_force"):
        bound = mp.prove(model, name)
        for tokens in torch.randint(64, (150, 4), generator=g).tolist():
            case = bound.why(tokens)
            if case.covered:
                assert 0 < case.margin_lo <= min(float(x.upper()) for x in truth.margins(tokens, 128))


@pytest.mark.parametrize("seed", range(20))
def test_tight_where_nothing_is_pessimistic(seed):
    """Two tokens and no positions leave no worst case to take: the cubic and the exact subcubic proof find every right input."""
    g = torch.Generator().manual_seed(seed)
    A, EU, OV = torch.randn(2, 2, generator=g) * 2, torch.randn(2, 2, generator=g), 2 * torch.randn(2, 2, generator=g) + torch.eye(2)
    model = from_tables(A, EU, OV, torch.zeros(4, 2))
    right = len(right_sequences(model))
    for name in ("brute_force", "cubic", figures.NAMED_IDS["exact QK"]):
        assert mp.prove(model, name).correct == right


def test_more_rank_certifies_more():
    model = mp.load("max-of-4/2")
    for name in ("svd", "max-diff", "max-diff-subproduct"):
        id = f"EUPU-max-diff-exact--attn-mean-query+diff--attn-err-{name}"
        counts = [mp.prove(model, id, rank=r).correct for r in (0, 1, 4, 16, 32)]
        assert counts == sorted(counts) and counts[-1] > counts[1] > counts[0]


def test_rank_32_is_nearly_exact():
    model = mp.load("max-of-4/2")
    exact = mp.prove(model, figures.NAMED_IDS["exact QK"]).correct
    peeled = mp.prove(model, figures.NAMED_IDS["rank-r QK, rest by singular value"], rank=32).correct
    assert peeled == pytest.approx(exact, rel=1e-3)


def test_exact_attention_is_at_least_either_handling():
    model = mp.load("max-of-4/3")
    for handling in subcubic.HANDLINGS:
        skeleton = subcubic.Skeleton("max_diff_exact", handling, "max_diff")
        assert losses.exact_handling(skeleton, model, {"rank": 1}).correct >= mp.prove(model, figures.skeleton_id(skeleton)).correct


@pytest.mark.parametrize("strategy", figures.NAMED_IDS)
def test_losses_sum_to_what_is_not_certified(strategy):
    skeleton = figures.NAMED[strategy]
    if strategy == "cubic":
        return
    model = mp.load("max-of-4/4")
    right = model.metadata["accuracy"]["correct"]
    parts = losses.losses(model, skeleton, {"rank": 1}, right)
    bound = mp.prove(model, figures.skeleton_id(skeleton))
    assert sum(parts.values()) * bound.total == bound.total - bound.correct
    assert min(parts.values()) >= -0.002


def test_shipped_models_are_complete():
    names = {entry["collection"]: 0 for entry in zoo.models()}
    for entry in zoo.models():
        names[entry["collection"]] += 1
        sizes = entry["sizes"]
        if entry["family"] == "permutations":
            inputs, most = factorial(sizes["K"]) ** 2, 2**20
        elif "sparsity" in sizes:
            inputs, most = comb(sizes["m"], sizes["sparsity"]), 2**32
        else:
            tokens = sizes.get("d_input", sizes.get("d_vocab")), sizes.get("n_free", sizes.get("n_ctx"))
            inputs, most = sizes["p"] ** 2 if entry["family"] == "pizza" else tokens[0] ** tokens[1], 2**32
        assert ("correct" in entry["accuracy"]) == (inputs <= most)
    assert names == {"max-of-4": 151, "max-of-5": 25, "max-of-10": 25, "max-of-20": 25, "max-of-10-v128": 25,
                     "max-of-4-v128": 5, "max-of-4-v256": 5, "max-of-4-reference": 1, "max-of-4-stripped": 151, "max-of-4-projected": 25,
                     "max-of-4-uniform": 5, "max-of-4-decayed": 5,
                     "pizza-31": 5, "pizza-59": 5, "pizza-113": 20, "pizza-227": 3, "pizza-113-biases": 5, "pizza-113-polished": 5,
                     "pizza-113-messy": 3, "pizza-113-wrong": 1,
                     "max-of-4-h2": 25, "max-of-4-h4": 25, "max-of-10-h2": 5, "max-of-4-ln": 5, "max-of-5-sign": 5, "max-of-4-biases": 5,
                     "min-of-4": 5, "tasks-sorted": 1, "tasks-second-largest": 1, "tasks-brackets": 1, "tasks-induction": 1, "tasks-addition": 1,
                     **dict.fromkeys(("u-and-256", "u-and-1024", "u-and-examples", "u-and-proof", "u-and-proof-s3"), 5),
                     **dict.fromkeys(("u-and-design-62", "u-and-design-130", "u-and-design-1240"), 1),
                     **{f"permutations-{K}": 5 for K in range(4, 11)}, "permutations-12": 1,
                     "group-s5": 10, "group-s5-decay": 5, "group-s4": 20, "group-a5": 5, "group-d12": 5}
    for path in zoo.DATA.glob("*.safetensors"):
        assert path.stat().st_size < 8 * 2**20


@pytest.mark.parametrize("name", ["max-of-4/0", "max-of-4/150", "max-of-20/7", "max-of-4-v256/4", "max-of-4-reference/123"])
def test_hashes_are_those_of_the_tensors(name):
    model = mp.load(name)
    assert model.sha256 == model.metadata["sha256"]


def test_exact_accuracies_are_what_brute_force_gives():
    for name in ("max-of-4/9", "max-of-4/99"):
        model = mp.load(name)
        assert mp.prove(model, "brute_force").correct == model.metadata["accuracy"]["correct"]


def test_sampled_accuracies_hold_for_another_sample():
    model = mp.load("max-of-20/3")
    found, g = model.metadata["accuracy"], torch.Generator().manual_seed(99)
    tokens = torch.randint(64, (40_000, 20), generator=g)
    share = float((last_logits(model.tensors, tokens).argmax(1) == tokens.amax(1)).double().mean())
    assert abs(share - found["right"] / found["sampled"]) < 5 * (0.002 / 40_000) ** 0.5


def test_the_recipe_trains_and_repeats():
    sizes = {"n_ctx": 3, "d_vocab": 8, "d_model": 16}
    one, two, other = (train(sizes, seed, steps=400) for seed in (5, 5, 6))
    assert all(torch.equal(one[k], two[k]) for k in one) and not torch.equal(one["W_E"], other["W_E"])
    tokens = torch.cartesian_prod(*[torch.arange(8)] * 3)
    assert (last_logits(one, tokens).argmax(1) == tokens.amax(1)).double().mean() > 0.8
    assert RECIPE["steps"] == 3000


@pytest.mark.parametrize("name", ["max-of-20/0", "max-of-10-v128/0", "max-of-5/0"])
def test_counts_are_exact_integers_at_any_k(name):
    model = mp.load(name)
    bound = mp.prove(model, "cubic")
    assert isinstance(bound.correct, int) and bound.total == model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    assert 0.2 < bound.accuracy_lower_bound < 1
    assert bound.accuracy_lower_bound <= bound.correct / bound.total


def naive_faults(seeds: range) -> list[str]:
    """Models with biases whose counted sequences are not those of the plain formula, where that is not near a tie."""
    found = []
    for seed in seeds:
        model = small_model(seed, "biases")
        v, n = model.sizes["d_vocab"], model.sizes["n_ctx"]
        tokens = torch.cartesian_prod(*[torch.arange(v)] * n)
        logits, truth = last_logits({name: x.double() for name, x in model.tensors.items()}, tokens), Truth(model)
        answer = tokens.amax(1, keepdim=True)
        margin = logits.gather(1, answer)[:, 0] - logits.scatter(1, answer, -torch.inf).amax(1)
        clear = margin.abs() > 1e-9 * (1 + logits.abs().amax())
        found += [model.name for t, m, c in zip(tokens.tolist(), margin.tolist(), clear.tolist()) if c and truth.right(t) != (m > 0)]
    return found


def test_biases_are_what_the_plain_formula_says():
    """Attacks *A network with biases is one without*."""
    assert naive_faults(range(120)) == []


@pytest.mark.parametrize("fault", ["b_Q taken for b_K", "b_V left out", "b_O not unembedded"])
def test_planted_biases_are_found(fault, monkeypatch):
    def wrong(w):
        right = widened(w)
        if fault == "b_Q taken for b_K":
            right["W_K"], right["W_Q"] = (torch.cat([w["W_K"], right["W_Q"][-1:]]), torch.cat([w["W_Q"], 0 * w["W_Q"][:1]]))
        elif fault == "b_V left out":
            right["W_V"] = torch.cat([w["W_V"], torch.zeros_like(w["W_V"][:1])])
        else:
            right["W_pos"][-1, -1] = 1.0
        return right
    monkeypatch.setattr("mechproof.max_of_k.truth.widened", wrong)
    assert naive_faults(range(120))
