"""Attacks on the facts that rounding.py relies on, and on every operation of Ball, with exact or ball arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import pi

import pytest
import torch
from flint import arb, ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from mechproof.proof import rounding
from mechproof.proof.rounding import Ball, U, cat, maximum, minimum

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=64)
matrices = st.integers(1, 4).flatmap(lambda n: st.tuples(*[
    st.lists(st.lists(numbers, min_size=n, max_size=n), min_size=n, max_size=n)] * 2))


def shaken(values, seed: int) -> tuple[Ball, list]:
    """A ball around rounded numbers, and exact numbers inside it that are not its midpoints."""
    g = torch.Generator().manual_seed(seed)
    mid = torch.tensor(values, dtype=torch.float64)
    rad = torch.rand((), generator=g, dtype=torch.float64) * 1e-3
    shift = (2 * torch.rand(mid.shape, generator=g, dtype=torch.float64) - 1) * rad
    inside = [[Fraction(float(m)) + Fraction(float(s)) for m, s in zip(*rows)] for rows in zip(mid.tolist(), shift.tolist())]
    return Ball(mid, rad, mid.abs().amax()), inside


def assert_inside(ball: Ball, exact) -> None:
    for mids, truths in zip(ball.mid.tolist(), exact):
        for mid, true in zip(mids, truths):
            assert abs(Fraction(mid) - true) <= Fraction(float(ball.rad))
            assert abs(mid) <= float(ball.mag)


def matmul(a, b):
    return [[sum((x * y for x, y in zip(row, column)), Fraction(0)) for column in zip(*b)] for row in a]


@settings(max_examples=150, deadline=None)
@given(matrices, st.integers(0, 10**6))
def test_arithmetic_contains_the_exact_result(pair, seed):
    (a, A), (b, B) = shaken(pair[0], seed), shaken(pair[1], seed + 1)
    entrywise = lambda f: [[f(x, y) for x, y in zip(*rows)] for rows in zip(A, B)]
    assert_inside(a + b, entrywise(lambda x, y: x + y))
    assert_inside(a - b, entrywise(lambda x, y: x - y))
    assert_inside(a * b, entrywise(lambda x, y: x * y))
    assert_inside(a @ b, matmul(A, B))
    assert_inside(minimum(a, b), entrywise(min))
    assert_inside(maximum(a, b), entrywise(max))
    assert_inside(cat([a, b], 0), A + B)
    assert_inside(a.sum(1)[None], [[sum(row, Fraction(0)) for row in A]])
    assert_inside(a.mean(1)[None], [[sum(row, Fraction(0)) / len(row) for row in A]])
    assert_inside(a.abs(), [[abs(x) for x in row] for row in A])
    assert_inside(a.relu(), [[max(x, Fraction(0)) for x in row] for row in A])
    assert_inside(a.cumsum(1), [[sum(row[: i + 1], Fraction(0)) for i in range(len(row))] for row in A])
    assert_inside(a.cumsum(0), [[sum((row[j] for row in A[: i + 1]), Fraction(0)) for j in range(len(A))] for i in range(len(A))])
    index = torch.tensor([(seed >> i) % 3 for i in range(len(A))])
    by = [[sum((row[j] for row, k in zip(A, index.tolist()) if k == i), Fraction(0)) for j in range(len(A))] for i in range(3)]
    assert_inside(a.sum_by(index, 3, int(index.bincount().max())), by)
    assert all(Fraction(u) >= x for us, xs in zip(a.upper().mid.tolist(), A) for u, x in zip(us, xs))


def arb_of(x: float) -> arb:
    return arb(x)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-800, 700), min_size=1, max_size=6), st.floats(0, 1e-3))
def test_exp_logsumexp_logistic_contain_the_ball_result(xs, slack):
    ball = Ball(torch.tensor([xs], dtype=torch.float64), torch.tensor(slack, dtype=torch.float64))
    with ctx.workprec(200):
        for sign in (-1, 1):
            true = [arb_of(x) + sign * arb_of(slack) for x in xs]
            results = [(ball.exp(), [t.exp() for t in true]),
                       (ball.logsumexp(1)[:, None], [sum((t.exp() for t in true), arb(0)).log()]),
                       (ball.logistic(), [1 / (1 + (-t).exp()) for t in true])]
            for found, truths in results:
                for mid, truth in zip(found.mid[0].tolist(), truths):
                    assert abs(arb_of(mid) - truth) <= arb_of(float(found.rad))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6) | st.floats(-10, 10) | st.sampled_from([1e15, 1e22, -1e200, pi / 2, pi, 355.0]), min_size=1, max_size=6),
       st.floats(0, 1e-3) | st.just(10.0))
def test_cos_and_sin_contain_the_ball_result(xs, slack):
    """Also of arguments beyond 2^53, whatever is left of them: as numbers that are exact, and with a radius."""
    ball = Ball(torch.tensor([xs], dtype=torch.float64), torch.tensor(slack, dtype=torch.float64))
    with ctx.workprec(1000):
        for sign in (-1, 0, 1):
            for function in ("cos", "sin"):
                found = getattr(ball, function)()
                for mid, x in zip(found.mid[0].tolist(), xs):
                    true = getattr(arb_of(x) + sign * arb_of(slack), function)()
                    assert abs(arb_of(mid) - true) <= arb_of(float(found.rad)) and abs(mid) <= float(found.mag)


def test_cos_and_sin_err_by_less_than_the_four_units_allowed():
    """Absolute error, over arguments of every size that a proof meets: angles, their multiples, phases of spoiled advice."""
    g = torch.Generator().manual_seed(0)
    sizes = 10.0 ** (20 * torch.rand(20_000, generator=g, dtype=torch.float64) - 4)
    near = torch.arange(1, 2001, dtype=torch.float64) * (pi / 2)
    x, worst = torch.cat([sizes, -sizes, near, 2 * pi * torch.rand(5000, generator=g, dtype=torch.float64)]), 0.0
    with ctx.workprec(200):
        for name in ("cos", "sin"):
            for a, b in zip(x.tolist(), getattr(torch, name)(x).tolist()):
                worst = max(worst, float(abs(arb_of(b) - getattr(arb_of(a), name)()).upper()))
    assert U / 4 < worst <= 4 * U


def test_numbers_are_what_they_are_in_python():
    """Not rounded to float32, as torch.tensor(x) would; 2 pi once was."""
    assert float(rounding.number(0.1).mid) == 0.1 and rounding.number(0.1).dtype == torch.float64
    assert float(rounding.number(0.1, 2.0**-60).rad) == 2.0**-60 and float(rounding.number(-0.1).mag) == 0.1


@pytest.mark.parametrize("function, low, high", [(torch.exp, -700, 700), (torch.log, 1e-300, 1e300)])
def test_exp_and_log_err_by_less_than_the_four_units_allowed(function, low, high):
    g = torch.Generator().manual_seed(0)
    x = low + (high - low) * torch.rand(20_000, generator=g, dtype=torch.float64) ** 3
    worst = 0.0
    with ctx.workprec(200):
        for a, b in zip(x.tolist(), function(x).tolist()):
            true = getattr(arb_of(a), function.__name__)()
            worst = max(worst, float((abs(arb_of(b) - true) / abs(true)).upper()))
    assert worst <= 4 * U


def test_inner_products_obey_gamma_n_in_whatever_order_they_are_summed():
    g = torch.Generator().manual_seed(1)
    for n in (3, 32, 500):
        a, b = (torch.randn(n, generator=g, dtype=torch.float64) * 10 ** (6 * torch.rand(n, generator=g, dtype=torch.float64)) for _ in range(2))
        exact = sum(Fraction(x) * Fraction(y) for x, y in zip(a.tolist(), b.tolist()))
        size = sum(abs(Fraction(x) * Fraction(y)) for x, y in zip(a.tolist(), b.tolist()))
        assert abs(Fraction(float(a @ b)) - exact) <= Fraction(n) * Fraction(U) / (1 - n * Fraction(U)) * size


@pytest.mark.parametrize("n", [2, 3, 5, 7, 32, 100])
def test_inverse_and_inverse_sqrt(n):
    with ctx.workprec(200):
        for ball, true in ((rounding.inverse(n), 1 / arb(n)), (rounding.inverse_sqrt(n), 1 / arb(n).sqrt())):
            assert abs(arb_of(float(ball.mid)) - true) <= arb_of(float(ball.rad))


def test_overflow_infinity_and_nan_certify_nothing():
    big = Ball(torch.full((2, 2), -1e308, dtype=torch.float64))
    one = Ball(torch.ones(2, 2, dtype=torch.float64))
    for doubtful in (big + big, big @ one, big * 10.0, Ball(torch.full((2,), torch.nan)), (big - big).exp() * big * 1e10):
        assert not doubtful.negative().any()
    assert not (one - one).negative().any() and (-one).negative().all()


def test_underflow_stays_inside():
    tiny = Ball(torch.tensor([[2.0**-600]], dtype=torch.float64))
    assert_inside(tiny * tiny, [[Fraction(2) ** -1200]])
    assert_inside(tiny @ tiny, [[Fraction(2) ** -1200]])


def test_empty_products_are_zero():
    nothing = Ball(torch.zeros(3, 0, dtype=torch.float64))
    assert (nothing @ nothing.T).mid.abs().max() == 0


def test_the_slack_of_cells_covers_every_sum():
    """own and one term a position, added in any order in float64, against the exact sum: cancelling, huge and tiny.

    Attacks *Sums within their slack*.
    """
    from fractions import Fraction

    from mechproof.max_of_k.boxes import Cells
    g = torch.Generator().manual_seed(0)
    worst = 0.0
    for case in range(300):
        n = 1 + case % 7
        own, f = (torch.randn(shape, generator=g, dtype=torch.float64) * 10.0 ** (case % 9 - 4) for shape in ((1,), (1, n, 1)))
        f[0, 0, 0] = -own[0] - f[0, 1:, 0].sum()                                            # the sum all but vanishes
        no = lambda *shape: torch.zeros(shape, dtype=torch.bool)
        cells = Cells(Ball(own), Ball(f), no(1), n, no(1, 1), ~no(1))
        numbers = [own[0].item(), *f[0, :, 0].tolist()]
        real, order = sum(map(Fraction, numbers)), torch.randperm(n + 1, generator=g).tolist()
        total = 0.0
        for i in order:
            total += numbers[i]
        worst = max(worst, float(abs(Fraction(total) - real) / Fraction(float(cells.slack))))
    assert 1e-3 < worst <= 1


def test_square_roots_round_up():
    from fractions import Fraction
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2000, generator=g, dtype=torch.float64) * 10.0 ** torch.randint(-200, 200, (2000,), generator=g).double()
    roots = Ball(x, torch.zeros((), dtype=torch.float64)).sqrt_upper().mid
    assert all(Fraction(r) ** 2 >= Fraction(v) for r, v in zip(roots.tolist(), x.tolist()))
    assert Ball(torch.tensor([-1e-20, 4.0])).sqrt_upper().mid[1] < 2.00001


EXTREMES = [0.0, 2.0**-1074, -(2.0**-1022), 1e-300, 1e-160, 1.0, -3.7, 1e154, -1e160, 1e300, 1.7e308, -1.7e308, torch.inf, -torch.inf, torch.nan]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(EXTREMES), min_size=9, max_size=9), st.lists(st.sampled_from(EXTREMES), min_size=9, max_size=9),
       st.sampled_from([0.0, 1e-300, 1.0, 1e300, torch.inf, torch.nan]))
def test_a_finite_radius_means_finite_numbers(xs, ys, rad):
    """Of every operation, and of operations on their results: what is not finite has a radius that is not, and certifies nothing."""
    a, b = (Ball(torch.tensor(x, dtype=torch.float64).view(3, 3)) for x in (xs, ys))
    around = Ball(a.mid, torch.tensor(rad, dtype=torch.float64))
    first = [a, b, around, a + b, a - b, a * b, a @ b, around @ b, a.sum(1), a.mean(0), a.cumsum(1), a.abs(), -a, a.relu(), a.cos(), a.sin(),
             a.exp(), a.logsumexp(1),
             a.logsumexp(1, torch.eye(3, dtype=torch.bool)), a.logistic(), a.sqrt_upper(), a.upper(), minimum(a, b), maximum(a, around),
             cat([a, b], 0), a * 2.0, a.sum_by(torch.tensor([0, 1, 0]), 2, 2), a.amax(1), a.amin(0), a.T, a[0]]
    second = [x * y for x, y in zip(first, first[1:]) if x.shape == y.shape == (3, 3)]
    second += [f(x) for x in first for f in (Ball.exp, Ball.upper, Ball.sqrt_upper, Ball.abs, lambda x: x - x, lambda x: x * x, lambda x: x.sum(0))
               if x.mid.dim()]
    for ball in [*first, *second]:
        if torch.isfinite(ball.rad):
            assert ball.mid.isfinite().all() and torch.isfinite(ball.mag) and (ball.mid.abs() <= ball.mag).all()
        else:
            assert not ball.negative().any() and not (-ball).negative().any()


def test_the_verifiers_numbers_likewise():
    """A radius of its float64 arrays is finite or +inf, and finite only where all numbers are; also of several with one that is none."""
    from itertools import product
    from math import isfinite

    import numpy as np

    from mechproof.verifier import numbers
    with np.errstate(all="ignore"):
        for x, y in product(EXTREMES, repeat=2):
            a, b = numbers.Real(np.array([[x, 1.0], [y, 2.0]])), numbers.Real(np.array([[y, -x], [0.0, x]]))
            found = [a, b, a + b, a - b, a * b, a @ b, a.sum(0), a.cumsum(1), a.relu(), -a, abs(a), a.max(0), a.exp(), numbers.stacked([a, b]),
                     numbers.weighted(a, numbers.Real(np.stack([b.mid, b.mid]), b.rad, b.mag)), *(numbers.weights(z)[0] for z in (a, b)),
                     (a * b) - (a * b)]
            for real in found:
                assert real.rad == np.inf or (isfinite(real.rad) and np.isfinite(real.mid).all() and (np.abs(real.mid) <= real.mag).all()), (x, y)
                assert isfinite(real.rad) or not real.negative().any()
    assert np.isnan(numbers.most([1.0, float("nan"), 2.0])) and numbers.most([1.0, 3.0]) == 3.0
