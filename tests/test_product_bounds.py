"""Every rung of the ladder is at least the true row difference, of any factors, and tight where it should be."""

from __future__ import annotations

from functools import reduce
from operator import mul

import pytest
import torch
from flint import fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproof.proof import cost
from mechproof.proof import product_bounds as pb
from mechproof.proof.rounding import Ball

SIGNS = {"exact": pb.exact, "per_dimension": pb.per_dimension, "recursive": pb.recursive, "recursive_means": pb.recursive_means,
         "mean per_dimension": pb.with_mean(pb.per_dimension), "mean recursive": pb.with_mean(pb.recursive)}
EVERY = {**pb.RUNGS, **SIGNS, "mean norms": pb.with_mean(pb.RUNGS["norms"]), "norms of each": pb.norms(pb.frobenius)}


def factors(seed: int, n: int, scale: float = 1.0) -> list[Ball]:
    g = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (n + 1,), generator=g).tolist()
    return [Ball(scale * torch.randn(a, b, generator=g, dtype=torch.float64)) for a, b in zip(sizes, sizes[1:])]


def structured(seed: int, n: int, scale: float) -> list[Ball]:
    """Factors in which things line up, or cancel, or vanish: of rank one, orthogonal, each undoing the one before."""
    parts = [factor.mid for factor in factors(seed, n, scale)]
    kind = seed % 4
    if kind == 0:
        parts = [factor[:, :1] @ factor[:1] for factor in parts]
    elif kind == 1:
        parts = [factor.round().clamp(-1, 1) * scale for factor in parts]
    elif kind == 2:
        square = [torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(seed + i), dtype=torch.float64)).Q for i in range(n)]
        parts = [scale * (square[i // 2].T if i % 2 else square[i // 2]) for i in range(n)]
    else:
        parts[seed % n] = parts[seed % n] * 1e-9
    return [Ball(factor) for factor in parts]


@pytest.mark.parametrize("make", [factors, structured])
@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from([1e-150, 1e-3, 1.0, 1e5]))
def test_every_rung_is_at_least_the_truth(make, seed, n, scale):
    """Against exact rational arithmetic. Attacks *Rungs*."""
    parts = make(seed, n, scale)
    product = reduce(mul, (fmpq_mat([[fmpq(*x.as_integer_ratio()) for x in row] for row in factor.mid.tolist()]) for factor in parts))
    rows = [[product[i, j] for j in range(product.ncols())] for i in range(product.nrows())]
    truth = [max(row) - min(row) for row in rows]
    for name, rung in EVERY.items():
        bound = rung(parts)
        top = [fmpq(*x.as_integer_ratio()) + fmpq(*float(bound.rad).as_integer_ratio()) for x in bound.mid.tolist()]     # a sum of floats rounds
        assert len(top) == len(truth) and all(t >= x for t, x in zip(top, truth)), name


def test_a_rung_that_forgets_the_pairing_is_found_out():
    """sigma_1 without sqrt2, and norms without the factor 2: both below the truth on two opposite columns."""
    parts = [Ball(torch.tensor([[1.0]])), Ball(torch.tensor([[1.0, -1.0]]))]
    assert float(pb.exact(parts).mid) == 2
    assert all(float(rung(parts).upper().mid) >= 2 for rung in EVERY.values())
    assert float(pb.sigma_hi(parts).mid) < 2 > float((pb.row_norms(parts[0]) * pb.row_norms(parts[1].T).amax(0)).mid)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1e-30, 1.0, 1e30]))
def test_sigma_hi_is_above_and_near(seed, scale):
    """Attacks *Spectral rung*."""
    left, right = factors(seed, 2, scale)
    sigma = torch.linalg.matrix_norm(left.mid @ right.mid, 2)
    found = pb.sigma_hi([left, right]).mid
    n = left.shape[1]
    near = 1.001 if scale >= 1 else 1.1                                  # what is added for underflow shows at 1e-60
    assert sigma * (1 - 1e-12) <= found <= sigma * n ** (1 / 64) * near


def test_tight_where_it_should_be():
    ones, steps = Ball(torch.ones(3, 2)), Ball(torch.tensor([[0.0, 1.0, 3.0], [0.0, 2.0, 5.0]]))
    for name, rung in SIGNS.items():          # all rows agree in sign, so that worst cases meet
        assert torch.allclose(rung([ones, steps]).mid, torch.tensor(8.0, dtype=torch.float64)), name
    diagonal = Ball(torch.diag(torch.tensor([3.0, 1.0, 0.5])))
    assert abs(float(pb.sigma_hi([diagonal, Ball(torch.eye(3))]).mid) - 3) < 1e-4


def test_a_residual_of_rounding_noise_gives_a_bound_of_its_size():
    noise = Ball(torch.full((4, 3), 1e-13, dtype=torch.float64), torch.tensor(1e-11, dtype=torch.float64))
    assert float(pb.spectral([noise, noise.T]).mid[0]) < 1e-15


def test_zero_factors_give_zero():
    zero = Ball(torch.zeros(4, 3))
    for name, rung in EVERY.items():
        assert float(rung([zero, zero.T]).mid.max()) == pytest.approx(0, abs=1e-100), name


@pytest.mark.parametrize("n", [2, 4, 8])
def test_rungs_cost_what_they_say(n):
    """Operations of every rung on n square factors of width 64, over those of one of their products, 2 d^3: by the table of the module."""
    d = 64
    parts = [Ball(torch.randn(d, d, generator=torch.Generator().manual_seed(i), dtype=torch.float64)) for i in range(n)]
    products = {"exact": n - 1, "gram": n, "per_dimension": 2 * (n - 2), "norms": n - 3 + 6 if n > 2 else 0,
                "spectral": max(n - 3, 0) + 2 * (n > 2) + 8, "operator": 6 * n, "recursive": 0, "frobenius": 0}
    for name, rung in pb.RUNGS.items():
        with cost.count() as counted:
            rung(parts)
        least, thin = products[name] * 2 * d**3, 24 * n * d * d
        assert least - thin <= counted.flops <= 1.25 * least + thin, (name, counted.flops / 2 / d**3)
