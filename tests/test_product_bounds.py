"""Every rung of the ladder is at least the true row difference, of any factors, and tight where it should be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproof import product_bounds as pb
from mechproof.rounding import Ball

RUNGS = {"exact": pb.exact, "per_dimension": pb.per_dimension, "recursive": pb.recursive, "recursive_means": pb.recursive_means,
         "mean per_dimension": pb.with_mean(pb.per_dimension), "mean recursive": pb.with_mean(pb.recursive)}


def factors(seed: int, n: int, scale: float = 1.0) -> list[Ball]:
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (n + 1,), generator=g).tolist()
    return [Ball(scale * torch.randn(a, b, generator=g, dtype=torch.float64)) for a, b in zip(sizes, sizes[1:])]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.sampled_from([1e-150, 1e-3, 1.0, 1e5]))
def test_every_rung_is_at_least_the_truth(seed, n, scale):
    parts = factors(seed, n, scale)
    product = parts[0].mid
    for factor in parts[1:]:
        product = product @ factor.mid
    truth = product.amax(1) - product.amin(1)
    rungs = RUNGS | ({"spectral": pb.spectral} if n == 2 else {})
    for name, rung in rungs.items():
        bound = rung(parts)
        assert bound.shape == truth.shape
        assert ((bound.mid + bound.rad) >= truth * (1 - 1e-12)).all(), name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-30, 1.0, 1e30]))
def test_sigma_hi_is_above_and_near(seed, scale):
    left, right = factors(seed, 2, scale)
    sigma = torch.linalg.matrix_norm(left.mid @ right.mid, 2)
    found = pb.sigma_hi(left, right).mid
    n = left.shape[1]
    assert sigma * (1 - 1e-12) <= found <= sigma * n ** (1 / 64) * 1.001


def test_tight_where_it_should_be():
    ones, steps = Ball(torch.ones(3, 2)), Ball(torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 5.0]]))
    for name, rung in RUNGS.items():          # all rows agree in sign, so that worst cases meet
        assert torch.allclose(rung([ones, steps]).mid, torch.tensor(8.0, dtype=torch.float64)), name
    diagonal = Ball(torch.diag(torch.tensor([3.0, 1.0, 0.5])))
    assert abs(float(pb.sigma_hi(diagonal, Ball(torch.eye(3))).mid) - 3) < 1e-4


def test_a_residual_of_rounding_noise_gives_a_bound_of_its_size():
    noise = Ball(torch.full((4, 3), 1e-13, dtype=torch.float64), torch.tensor(1e-11, dtype=torch.float64))
    assert float(pb.spectral([noise, noise.T]).mid[0]) < 1e-15


def test_zero_factors_give_zero():
    zero = Ball(torch.zeros(4, 3))
    for name, rung in (RUNGS | {"spectral": pb.spectral}).items():
        assert float(rung([zero, zero.T]).mid.max()) == pytest.approx(0, abs=1e-100), name
