"""Noise to hold the noise against: chains of factors drawn at random that keep something of the real ones.

Problem: a bound that is much larger than the truth may be loose for any factors, or the factors may be special; only a
comparison tells, and what it tells depends on what the random factors keep.  Idea: three nulls, from crude to fine.

    gaussian   independent entries, with each factor's root mean square; the Frobenius norm in expectation, nothing else
    rows       every row in a uniform direction, at its true length; so the row norms and the Frobenius norm
    haar       an independent rotation between neighbours; so all of every factor but how it lies to the next

Rows are those of the matrices as they are named, tokens or model dimensions: of a chain M1 ... Mn the factors
of the first half as they stand, of the second half transposed.  Source: Gross et al. 2024; the nulls and the
peels are told apart here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import matmul
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.product_bounds import RUNGS
from ..proof.rounding import Ball

Chain = Sequence[Tensor]                            # M1 [q, a], ..., Mn [z, k], or n draws of each
Null = Callable[[Chain, int, torch.Generator], list[Tensor]]


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def by_side(chain: Chain, make: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`make` of every factor, of the second half transposed."""
    return [make(M) if 2 * i < len(chain) else make(M.mT).mT for i, M in enumerate(chain)]


def gaussian(chain: Chain, n: int, generator: torch.Generator) -> list[Tensor]:
    """n draws [n, ., .] of independent entries.  Complexity: O(n times the factors' sizes)."""
    return by_side(chain, lambda M: normal(generator, n, *M.shape) * M.square().mean().sqrt())


def rows(chain: Chain, n: int, generator: torch.Generator) -> list[Tensor]:
    """n draws of rows in uniform directions.  Complexity: O(n times the factors' sizes)."""
    def drawn(M: Tensor) -> Tensor:
        x = normal(generator, n, *M.shape)
        return x * (M.norm(dim=1, keepdim=True) / x.norm(dim=2, keepdim=True))
    return by_side(chain, drawn)


def rotation(n: int, d: int, generator: torch.Generator) -> Float[Tensor, "n d d"]:
    """Haar measure: the QR decomposition of Gaussian entries with the signs of R's diagonal taken back.
    Complexity: O(n d^3)."""
    Q, R = torch.linalg.qr(normal(generator, n, d, d))
    return Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]


def haar(chain: Chain, n: int, generator: torch.Generator) -> list[Tensor]:
    """n draws of rotations between neighbours, each multiplied into the factor whose row norms it keeps.
    Complexity: O(n q a^2)."""
    out = [M.expand(n, *M.shape) for M in chain]
    for i, M in enumerate(chain[:-1]):
        turned, first_half = rotation(n, M.shape[1], generator), 2 * i + 2 <= len(chain)
        out[i if first_half else i + 1] = out[i] @ turned if first_half else turned @ out[i + 1]
    return out


NULLS: dict[str, Null] = {"gaussian": gaussian, "rows": rows, "haar": haar}


def invariant(null: str, n: int) -> tuple[str, ...]:
    """The rungs that a null leaves as they are, for chains of n factors: what is made of norms that the null keeps.

    Up to three factors no product is made between the first and the last, and `norms` is made of norms alone.
    """
    return {"gaussian": (), "rows": ("frobenius",),
            "haar": ("operator", "frobenius", *(("norms",) if n <= 3 else ()))}[null]


class Compared(NamedTuple):
    """A number of the real chain beside the same number of n random ones; `above` of those are at least as large."""

    real: float
    mean: float
    sd: float
    above: int
    n: int

    @property
    def z(self) -> float:
        """(real - mean) / sd; the null is skewed, so read it beside `above`."""
        return (self.real - self.mean) / self.sd

    def __str__(self) -> str:
        return (f"{self.real:.3g} against {self.mean:.3g} ± {self.sd:.2g}: z = {self.z:+.1f}, "
                f"{self.above} of {self.n} draws are as large")


def compared(real: float, draws: Float[Tensor, " n"]) -> Compared:
    """A number beside those of the draws."""
    return Compared(real, float(draws.mean()), float(draws.std()), int((draws >= real).sum()), len(draws))


def against(statistic: Callable[[Chain], Tensor], chain: Chain, draws: Chain) -> Compared:
    """A statistic [n] of batches of chains, of the real one and of draws.  Complexity: n + 1 evaluations."""
    (real,) = statistic([M[None] for M in chain]).tolist()
    return compared(real, statistic(draws))


def ranges(chain: Chain) -> Float[Tensor, "*n q"]:
    """Row differences of the products."""
    product = reduce(matmul, chain)
    return product.amax(-1) - product.amin(-1)


def largest(chain: Chain) -> Float[Tensor, "*n"]:
    """The largest row difference, the number of which the authors speak."""
    return ranges(chain).amax(-1)


def largest_within(first: int, last: int) -> Callable[[Chain], Float[Tensor, "*n"]]:
    """The largest row difference among the columns from first to last - 1."""
    return lambda chain: largest([*chain[:-1], chain[-1][..., first:last]])


def of_rung(rung: str) -> Callable[[Chain], Float[Tensor, " n"]]:
    """A rung's bound, mean over rows.  Complexity: a rung a draw."""
    def bound(chain: Chain) -> Tensor:
        return torch.stack([RUNGS[rung]([Ball(M[i]) for M in chain]).mid.mean() for i in range(len(chain[0]))])
    return bound


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
