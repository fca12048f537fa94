"""What a float64 result may be trusted for.

Problem: a proof computed in floating point is a proof about the rounded numbers, not about the
network.  Idea: carry the error along.  A `Ball` is a float64 tensor `mid` with one radius `rad` for all
of its entries, so that the real number meant by entry i lies within `mid[i] +- rad`, and a bound `mag`
on the entries of `mid`, which makes the radius of the next sum or product cost a handful of scalar
operations and no pass over the data.  A claim "x < 0" is accepted iff `mid < -rad`; what rounding leaves
undecided never is.

Nothing that is not finite certifies.  A ball whose radius is finite has finite numbers only: every operation's
radius contains U times its `mag`, and `mag` >= |mid| overflows no later than `mid` does; the radius of a ball
made of numbers contains 0 times the largest of them, which is NaN where that is not finite.  So one look at a
radius, or at what was made of radii, tells whether a table may be used, and no entry of a table stands for anything
but its number: "no such entry" is a mask.

Facts relied on, each attacked against exact or ball arithmetic in tests/test_rounding.py:

* IEEE double precision, round to nearest (state.py sees to both): one +, -, *, / or sqrt has relative error at most
  U = 2^-53, or absolute error at most 2^-1022 where it underflows.
* An inner product of n terms has error at most gamma_n sum |a||b|, gamma_n = n U / (1 - n U), in any order
  of summation, with or without fused multiply-add (Higham, *Accuracy and Stability*, section 3.1).
* torch.exp and torch.log in float64 are accurate to 4 U relative (SLEEF and libm state 1 ulp = 2 U).
* Maxima, minima, sorting, gathering and absolute values round nothing and move by no more than `rad`
  when every entry moves by at most `rad`.

The radius itself is computed in floating point.  Every formula for it has fewer than 2^20 operations on
positive numbers, hence a relative error below 2^-30, and `_up` multiplies by 1 + 2^-20 and adds 2^-1000.

>>> x = Ball(torch.tensor([0.1, 0.2], dtype=torch.float64))
>>> (x + x).rad.item() < 1e-15, (x - x).negative().tolist()
(True, [False, False])
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

U = 2.0**-53
_SLACK, _TINY = 1 + 2.0**-20, 2.0**-1000


def _up(x: Tensor) -> Tensor:
    """A number at least as large as the positive expression that was evaluated to `x`."""
    return x * _SLACK + _TINY


def _largest(x: Tensor) -> Tensor:
    """The largest entry of a nonnegative tensor, 0 of an empty one (rank 0 peels nothing)."""
    return x.amax() if x.numel() else x.new_zeros(())


class Ball:
    """A float64 tensor `mid`, one radius `rad` for all its entries, and `mag` >= |mid|.

    Shapes: mid any; rad and mag are 0-dimensional, so that costs are counted where they arise.
    `Ball(tensor)` takes the tensor's numbers as exact (float32 weights and advice are);
    its radius is NaN if one is not finite.
    """

    __slots__ = ("mag", "mid", "rad")

    def __init__(self, mid: Tensor, rad: Tensor | None = None, mag: Tensor | None = None):
        self.mid = mid.double()
        self.mag = _largest(self.mid.abs()) if mag is None else mag
        if rad is None or mag is None:                                    # nothing else has looked at these numbers
            rad = self.mag * 0.0 if rad is None else rad + self.mag * 0.0
        self.rad = rad

    shape = property(lambda self: self.mid.shape)
    dtype = property(lambda self: self.mid.dtype)
    T = property(lambda self: self.pick(lambda x: x.mT))

    def __repr__(self) -> str:
        return f"Ball({tuple(self.shape)}, +/- {float(self.rad):.2e})"

    def pick(self, choose: Callable[[Tensor], Tensor]) -> Ball:
        """`choose` may view, gather, sort, take maxima, minima or absolute values: nothing that rounds."""
        return Ball(choose(self.mid), self.rad, self.mag)

    def __getitem__(self, index) -> Ball:
        return self.pick(lambda x: x[index])

    def amax(self, dim: int) -> Ball:
        return self.pick(lambda x: x.amax(dim))

    def amin(self, dim: int) -> Ball:
        return self.pick(lambda x: x.amin(dim))

    def abs(self) -> Ball:
        return self.pick(torch.abs)

    def __neg__(self) -> Ball:
        return self.pick(torch.neg)

    def __add__(self, other: Ball) -> Ball:
        mag = _up(self.mag + other.mag)
        return Ball(self.mid + other.mid, _up(self.rad + other.rad + U * mag), mag)

    def __sub__(self, other: Ball) -> Ball:
        mag = _up(self.mag + other.mag)
        return Ball(self.mid - other.mid, _up(self.rad + other.rad + U * mag), mag)

    def __mul__(self, other: Ball | float) -> Ball:
        if not isinstance(other, Ball):
            other = Ball(self.mid.new_tensor(other))
        mag = _up(self.mag * other.mag)
        rad = self.rad * (other.mag + other.rad) + self.mag * other.rad + U * mag
        return Ball(self.mid * other.mid, _up(rad), mag)

    def __matmul__(self, other: Ball) -> Ball:
        n = self.shape[-1]
        row = _up(_largest(self.mid.abs().sum(-1)))                       # largest l1 norm of a row
        column = _up(_largest(other.mid.abs().sum(-2 if other.mid.dim() > 1 else -1)))
        mag = _up(torch.minimum(row * other.mag, self.mag * column))      # bounds |A| |B|, entry by entry
        rad = row * other.rad + self.rad * column + n * self.rad * other.rad + n * U * mag
        return Ball(self.mid @ other.mid, _up(rad), mag)

    def sum(self, dim: int) -> Ball:
        n = self.shape[dim]
        mag = _up(n * self.mag)
        return Ball(self.mid.sum(dim), _up(n * self.rad + n * U * mag), mag)

    def mean(self, dim: int) -> Ball:
        return self.sum(dim) * inverse(self.shape[dim])

    def cumsum(self, dim: int) -> Ball:
        """Partial sums, each rounded as the whole sum may be."""
        n = self.shape[dim]
        mag = _up(n * self.mag)
        return Ball(self.mid.cumsum(dim), _up(n * self.rad + n * U * mag), mag)

    def sum_by(self, index: Tensor, size: int, most: int) -> Ball:
        """Rows of one index added up, [size, ...]; at most `most` rows have the same index."""
        mag = _up(most * self.mag)
        mid = self.mid.new_zeros(size, *self.shape[1:]).index_add(0, index, self.mid)
        return Ball(mid, _up(most * self.rad + most * U * mag), mag)

    def cos(self) -> Ball:
        """Of slope at most 1, evaluated to 4 U."""
        return Ball(self.mid.cos(), _up(self.rad + 4 * U), torch.ones_like(self.rad))

    def sin(self) -> Ball:
        """As `cos`."""
        return Ball(self.mid.sin(), _up(self.rad + 4 * U), torch.ones_like(self.rad))

    def relu(self) -> Ball:
        """max(x, 0), which moves by no more than x does."""
        return self.pick(lambda x: x.clamp_min(0))

    def exp(self) -> Ball:
        """|exp(x + e) - exp(x)| <= exp(x) |e| exp(|e|), and 4 U exp(x) for the evaluation."""
        mid = self.mid.exp()
        mag = mid.amax()
        return Ball(mid, _up(_up(mag) * (self.rad * self.rad.exp() + 4 * U)), mag)

    def logsumexp(self, dim: int, but: Tensor | None = None) -> Ball:
        """log sum exp of the entries (`but` some, never all), 1-Lipschitz in the largest change of an entry.

        With the maximum taken out, each of the n terms lies in [0, 1] and carries at most (1/e + 5) U, so the
        sum, in [1, n], carries (n + 6) n U; log has slope at most 1 there; two more roundings of the result.
        """
        # adds exp(-inf) = 0
        n, x = self.shape[dim], self.mid if but is None else self.mid.masked_fill(but, -torch.inf)
        top = x.amax(dim, keepdim=True)
        mid = (x - top).exp().sum(dim).log() + top.squeeze(dim)
        mag = _up(self.mag + n)
        return Ball(mid, _up(self.rad + ((n + 6) * n + 8) * U + 2 * U * mag), mag)

    def logistic(self) -> Ball:
        """1 / (1 + exp(-x)), of slope at most 1/4; 8 U covers exp, the sum and the quotient."""
        mid = 1 / (1 + (-self.mid).exp())
        return Ball(mid, _up(self.rad / 4 + 8 * U), mid.new_ones(()))

    def negative(self) -> Tensor:
        """Where the real number is negative for certain: an exact comparison, False where the radius is not finite."""
        return self.mid < -self.rad

    def sqrt_upper(self) -> Ball:
        """At least the square roots, as exact numbers; of what may be negative within rounding, 0 or more."""
        return Ball(_up(self.upper().mid.clamp_min(0).sqrt()))

    def upper(self) -> Ball:
        """The ball's upper end as numbers that are exact: at least the real ones."""
        return Ball(self.mid + _up(self.rad + 2 * U * _up(self.mag)))


def largest_but(x: Tensor, but: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """The largest entry along a dimension, but for some, never all."""
    return x.masked_fill(but, -torch.inf).amax(dim, keepdim)


def smallest_but(x: Tensor, but: Tensor, dim: int = -1) -> Tensor:
    """The smallest entry along a dimension, but for some, never all."""
    return x.masked_fill(but, torch.inf).amin(dim)


def scalar(x: float) -> Tensor:
    """[] float64, wherever tensors are made by default."""
    return torch.tensor(x, dtype=torch.float64, device="cpu")


def number(x: float, rad: float = 0.0) -> Ball:
    """A Python float as it is: torch.tensor(x) alone would round it to float32."""
    return Ball(scalar(x), scalar(rad))


def inverse(n: int) -> Ball:
    """1/n as a ball."""
    mid = scalar(1.0 / n)
    return Ball(mid, mid * U, mid)


def inverse_sqrt(n: int) -> Ball:
    """1/sqrt(n) as a ball: a square root and a quotient, each rounded once."""
    mid = scalar(n**-0.5)
    return Ball(mid, mid * (4 * U), mid)


def minimum(a: Ball, b: Ball) -> Ball:
    """Entry by entry the smaller of two; it moves no more than the looser of the two."""
    return Ball(torch.minimum(a.mid, b.mid), torch.maximum(a.rad, b.rad), torch.maximum(a.mag, b.mag))


def maximum(a: Ball, b: Ball) -> Ball:
    """Entry by entry the larger of two."""
    return -minimum(-a, -b)


def cat(balls: list[Ball], dim: int) -> Ball:
    """Balls side by side, with the largest radius."""
    rad, mag = (torch.stack([getattr(b, name) for b in balls]).amax() for name in ("rad", "mag"))
    return Ball(torch.cat([b.mid for b in balls], dim), rad, mag)


def stack(balls: list[Ball]) -> Ball:
    """Balls of one shape along a new first dimension."""
    return cat([ball[None] for ball in balls], 0)
