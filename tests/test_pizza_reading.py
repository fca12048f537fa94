"""What the pizza chapter says of its models: the closed form of the amplitude, the rules, and the numbers that ship."""

from __future__ import annotations

from math import pi

import pytest
import torch

import mechproof as mp
from mechproof import zoo
from mechproof.figures import pizza_quadrature as figures
from mechproof.pizza import amplitude, fourier
from mechproof.pizza.train import RECIPE, train

ROWS = zoo.results("pizza")["models"]


def shaped(theta: float, t: float) -> float:
    """c_2 - (t/2) cos 2 theta by a fine midpoint rule."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) * pi / 200_000
    theta = torch.tensor(theta, dtype=torch.float64)
    P = theta.cos() * u.cos() + t * (1 - (2 * theta).cos() * (2 * u).cos())
    return float((P.abs() * (2 * u).cos()).mean() - t / 2 * (2 * theta).cos())


@pytest.mark.parametrize("t", [0.0, 0.05, 0.1283, 0.1419, 0.3, -0.1])
def test_the_closed_form_is_the_integral(t):
    """Attacks *The amplitude of a key*."""
    for theta in (0.0, 0.4, pi / 4, 1.3, pi / 2, 2.0, pi):
        found = float(amplitude.shape(torch.tensor([theta], dtype=torch.float64), t))
        assert abs(found - shaped(theta, t)) < 1e-8, (theta, t)


def test_the_landmarks_of_t():
    """The bare pizza is silent at pi/2 and (2/3 pi) high at 0; A(pi/2) = t R; where the floor is flattest, where both ends are alike."""
    at = lambda theta, t: float(amplitude.shape(torch.tensor([theta], dtype=torch.float64), t))
    assert abs(at(0.0, 0.0) - 2 / (3 * pi)) < 1e-12 and abs(at(pi / 2, 0.0)) < 1e-12 and amplitude.floor(0.0) < 1e-12
    assert all(abs(at(pi / 2, t) - t) < 1e-12 for t in (0.01, 0.1, 0.2))
    best, height = amplitude.flattest()
    assert abs(best - 0.1419) < 1e-9 and abs(height - 0.8205) < 1e-4
    assert amplitude.floor(best) >= max(amplitude.floor(best + d) for d in (-0.001, 0.001))
    even = amplitude.balance()
    assert abs(at(0.0, even) - at(pi / 2, even)) < 1e-5 and even < best


def test_a_network_made_of_its_closed_form_is_read_back():
    """Neurons spread evenly with psi = 2 phi and one t: measured amplitudes are the closed form's, and it explains everything."""
    p, n, k, t = 31, 64, 5, 0.11
    phi = torch.arange(n, dtype=torch.float64) * 2 * pi / n
    u = fourier.turn(k * torch.arange(p), p)[:, None] + phi
    H = u.cos() + t * (1 - (2 * u).cos())
    W = (fourier.turn(k * torch.arange(p), p) + 2 * phi[:, None]).cos()
    table = fourier.Tables(H, W, torch.zeros(p, p, dtype=torch.float64))
    neurons, found = fourier.read(table), amplitude.logits(table)
    assert neurons.key.unique().tolist() == [k] and (neurons.second.real + t).abs().max() < 1e-9 and (neurons.beta - t).abs().max() < 1e-9
    A = (found * amplitude.waves(k, p)).sum(2).mean(1) * 2 / p
    closed = n * amplitude.shape(fourier.turn(k * torch.arange((p + 1) // 2), p), t)
    assert (A - closed).abs().max() < 1e-2 * n
    measured = amplitude.Measured([k], A[None], torch.tensor([float(n)]), torch.zeros(1), torch.tensor([t]))
    explained = amplitude.explained(measured, found)
    assert explained["fitted"] > 0.999 > explained["pizza"] and abs(explained["t"][0] - t) < 0.005


def test_no_shipped_row_is_above_the_truth_and_a_sample_is_found_again():
    for row in ROWS:
        truth = row["proofs"]["brute_force"]
        assert all(p["correct"] <= truth["correct"] and p["total"] == row["sizes"]["p"] ** 2 for p in row["proofs"].values()), row["seed"]
    by_name = {f"{row['collection']}/{row['seed']}": row for row in ROWS}
    shipped = {entry["name"]: entry for entry in zoo.models() if entry["family"] == "pizza"}
    for name, entry in shipped.items():                                  # the erring one is one of pizza-113's seeds
        row = by_name[name.replace("pizza-113-wrong", "pizza-113")]
        assert row["proofs"]["brute_force"]["correct"] == entry["accuracy"]["correct"]
    for name, id in (("pizza-31/5", "wheel"), ("pizza-59/0", "wheel-short"), ("pizza-113/13", "wheel"), ("pizza-113/22", "moments_exact_neurons")):
        bound, stored = mp.prove(mp.load(name), id), by_name[name]["proofs"][id]
        assert abs(bound.correct - stored["correct"]) <= 1e-3 * bound.total and abs(bound.flops / stored["flops"] - 1) < 0.01, (name, id)


def test_what_the_chapter_claims_over_models_follows_from_the_data():
    clean = figures.right_everywhere(ROWS, "pizza-113")
    known, later = ([r for r in clean if (r["seed"] < figures.IN_VIEW) == known] for known in (True, False))
    assert len(known) == 20 and figures.certified(known, "wheel", 0.995, 15) >= 16
    assert len(later) >= 20 and figures.certified(later[:20], "wheel", 0.995, 15) >= 16
    table = figures.reached(ROWS)
    assert table["number"].tolist()[:3] == [20, len(later), 5] and table.iloc[2, -1] == 5
    learned = [r for r in ROWS if r["proofs"]["brute_force"]["correct"] >= 0.99 * r["proofs"]["brute_force"]["total"]]
    assert all(t < amplitude.flattest()[0] for r in learned for t, R in zip(r["t_own"], r["R"]) if 0.1 * sum(r["R"]) < R)


def test_training_is_watched_and_can_be_cut_short():
    seen = []
    train({"p": 5, "d_mlp": 4}, seed=0, steps=3, watch=lambda step, weights: seen.append(step))
    assert seen == [0, 1, 2, 3] and RECIPE["steps"] > 3


@pytest.mark.parametrize("name", ["pizza-113-wrong/10", "pizza-113-messy/1", "pizza-31/5"])
@pytest.mark.parametrize("id", ["wheel:rank=16", "moments_exact_neurons"])
def test_no_wrong_pair_of_a_shipped_model_is_covered(name, id):
    model = mp.load(name)
    truth, bound = mp.prove(model, "brute_force"), mp.prove(model, id)
    p = model.sizes["p"]
    assert all(truth.covers([a, b]) for a in range(p) for b in range(p) if bound.covers([a, b]))
    assert bound.correct <= truth.correct
