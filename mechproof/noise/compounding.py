"""How a bound falls behind as factors multiply: random square factors, measured and reckoned.

Problem: that cheap bounds are loose for four factors of width 32 does not say why.  Idea: take factors of
independent entries of variance 1/d, whose products keep the length of a row on average, and watch width and depth.
Then for n factors of width d

    truth          the range of d numbers of size 1/sqrt(d)         rho_d / sqrt(d)
    gram           sqrt2 times the row's length, 1                  sqrt(2 d) / rho_d of the truth
    per_dimension  the range of the last factor, signs forgotten    sqrt(2 d / pi), whatever n
    norms          1, sigma_1 of n - 2 factors, twice 1             2 s_{n-2} sqrt(d) / rho_d,
                                                                   s_m = sqrt((m + 1)^{m + 1} / m^m), s_0 = 1
    spectral       sqrt2 sigma_1 of n factors                       s_n sqrt(2 d) / rho_d
    operator       sqrt2 2^n                                        2^n sqrt(2 d) / rho_d
    recursive      signs forgotten n - 1 times                      (2 d / pi)^((n - 1) / 2)
    frobenius      sqrt2 sqrt(d)^n                                  d^(n / 2) sqrt(2 d) / rho_d

for large d, rho_d being the mean range of d independent standard normal numbers.  The singular values are
the true ones; the rungs bound them by traces of powers, which is nearly the same up to d = 256 and adds
about d^(1/64) a bound beyond.
Source: book, "Compounding"; sigma_1 of products of Gaussian matrices as in free probability (Fuss-Catalan moments).
"""

from __future__ import annotations

from functools import cache
from math import pi, sqrt

import torch

from ..proof.product_bounds import RUNGS
from ..proof.rounding import Ball
from .surrogate import generator_of, normal, ranges

WIDTHS, DEPTHS = (8, 16, 32, 64, 128, 256), tuple(range(2, 9))


@cache
def mean_range(d: int) -> float:
    """The mean range of d independent standard normal numbers: the integral of 1 - F^d - (1 - F)^d."""
    x = torch.linspace(-12, 12, 48_001, dtype=torch.float64)
    F = torch.special.ndtr(x)
    return float(torch.trapezoid(1 - F**d - (1 - F) ** d, x))


def sigma(n: int) -> float:
    """The largest singular value of a product of n such factors, for large d."""
    return sqrt((n + 1) ** (n + 1) / n**n) if n else 1.0


def reckoned(n: int, d: int) -> dict[str, float]:
    """Each rung's bound over the mean true row difference, by the formulas above."""
    length, flat = sqrt(2 * d) / mean_range(d), 2 * d / pi
    return {"exact": 1.0, "gram": length, "per_dimension": sqrt(flat), "norms": sqrt(2) * sigma(n - 2) * length,
            "spectral": sigma(n) * length, "operator": 2**n * length, "recursive": flat ** ((n - 1) / 2),
            "frobenius": d ** (n / 2) * length}


def measured(n: int, d: int, seed: int) -> dict[str, float]:
    """The same for one draw.  Complexity: O(n d^3)."""
    generator = generator_of(seed)
    chain = [normal(generator, d, d) / sqrt(d) for _ in range(n)]
    truth = float(ranges(chain).mean())
    return {rung: float(bound([Ball(M) for M in chain]).mid.mean()) / truth for rung, bound in RUNGS.items()}
