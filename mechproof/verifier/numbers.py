"""Numbers that a proof may rest on, and the count of the work done on them.

Problem: rounding must never turn a wrong sequence into a certified one.  Idea: two kinds of numbers, each rigorous.
`Mat` is a matrix of arb balls: whatever is linear algebra is done in it, at a precision where nothing is lost.
`Real` is a float64 array with ONE radius for all its entries, for what comes after:

    every real number meant lies within `mid +- rad`, and |mid| <= mag.

Where a number overflows or is none, so does mag, and then the radius is infinite: nothing that is not finite certifies
anything.  One IEEE operation on numbers of size at most s is off by at most U s, U = 2^-53, or 2^-1074 where it
underflows.  numpy states no error for `exp`; its tests ask for less than 4 ulp, and 16 U is allowed here (tests compare
it with arb).  Radii are themselves computed in floating point: each by fewer than 2^10 operations on positive numbers,
which `up` pays for.

Operations are counted where they happen: matrix product 2abc, pointwise the size of the result, reduction the size
of the input, gathers nothing, nor index arithmetic that the sizes alone decide.  The count has a ceiling, what the
claim allows, so that no certificate can make this program work longer than it admits to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from math import exp, inf, isfinite, sqrt

import numpy as np
from flint import arb, arb_mat

U = 2.0**-53
LARGEST = 2.0**600          # tables with larger entries certify nothing: their products might overflow
LIMIT, FLOOR = 30.0, 300.0  # log-weights above LIMIT are not worth certifying; those below -FLOOR are all alike


class Refused(Exception):
    """The claim does not follow; the message says what fails."""


class Unreadable(Exception):
    """Not a certificate, or not a model; the message says where."""


def require(holds: bool, message: str) -> None:
    """What a file has to be, to be read."""
    if not holds:
        raise Unreadable(message)


def must(holds: bool, why: str) -> None:
    """What a claim has to be, to be proved."""
    if not holds:
        raise Refused(why)


class Work(threading.local):
    """Operations so far, and the ceiling; of every thread its own."""

    total, ceiling = 0, 2**62

    def __call__(self, n: int) -> None:
        self.total += n
        if self.total > self.ceiling:
            raise Refused(f"flops: the check takes more than {self.ceiling} operations, over 10% above the claimed "
                          "cost or what is allowed")

    def restart(self, ceiling: int) -> None:
        self.total, self.ceiling = 0, ceiling


work = Work()


def up(x: float) -> float:
    """At least the positive expression that was evaluated to x."""
    return x * (1 + 2.0**-40) + 2.0**-1060


class Mat:
    """A matrix of balls whose operations are counted; one row is added to every row."""

    def __init__(self, balls: arb_mat):
        self.balls = balls
        self.shape = balls.nrows(), balls.ncols()

    @classmethod
    def of(cls, array: np.ndarray) -> Mat:
        """Floats are read exactly."""
        return cls(arb_mat(*array.shape, [arb(float(x)) for x in array.flat]))

    @classmethod
    def zeros(cls, rows: int, columns: int) -> Mat:
        return cls(arb_mat(rows, columns))

    @property
    def T(self) -> Mat:
        return Mat(self.balls.transpose())

    def __matmul__(self, other: Mat) -> Mat:
        work(2 * self.shape[0] * self.shape[1] * other.shape[1])
        return Mat(self.balls * other.balls)

    def _rows(self, n: int) -> arb_mat:
        return self.balls if self.shape[0] == n else arb_mat(n, 1, [1] * n) * self.balls

    def __add__(self, other: Mat) -> Mat:
        work(self.shape[0] * self.shape[1])
        return Mat(self.balls + other._rows(self.shape[0]))

    def __sub__(self, other: Mat) -> Mat:
        work(self.shape[0] * self.shape[1])
        return Mat(self.balls - other._rows(self.shape[0]))

    def scaled(self, factor: arb) -> Mat:
        work(self.shape[0] * self.shape[1])
        return Mat(self.balls * factor)

    def last(self) -> Mat:
        columns = self.shape[1]
        return Mat(arb_mat(1, columns, self.balls.entries()[-columns:]))

    def first(self, n: int) -> Mat:
        columns = self.shape[1]
        return Mat(arb_mat(n, columns, self.balls.entries()[: n * columns]))

    def mean(self) -> Mat:
        """The mean row."""
        n, columns = self.shape
        work(n * columns)
        return Mat(arb_mat(1, n, [1] * n) * self.balls * (1 / arb(n)))

    def norms(self) -> np.ndarray:
        """At least the Euclidean norm of every row, as exact floats."""
        work(2 * self.shape[0] * self.shape[1])
        return np.array([root(dot(row, row)) for row in self.balls.tolist()])

    def real(self) -> Real:
        """Rounded once.  A conversion to float is off by at most an ulp, whichever way it rounds."""
        balls = self.balls.entries()
        mid = np.array([float(x.mid()) for x in balls]).reshape(self.shape)
        rad, mag = most(float(x.rad()) for x in balls), float(np.abs(mid).max())
        if not (isfinite(rad) and mag < LARGEST):
            raise Refused("a table overflows, and nothing can be certified")
        return Real(mid, up(up(rad) + 2 * U * mag), mag)


def dot(x: list[arb], y: list[arb]) -> arb:
    return sum((a * b for a, b in zip(x, y)), arb(0))


def root(x: arb) -> float:
    """At least the square root of a number that is not negative."""
    return up(sqrt(up(float(x.abs_upper()))))


class Real:
    """A float64 array, one radius, and the size of its largest entry."""

    __slots__ = ("mag", "mid", "rad")

    def __init__(self, mid: np.ndarray, rad: float = 0.0, mag: float | None = None):
        self.mid = mid
        self.mag = float(np.abs(mid).max(initial=0)) if mag is None else mag
        self.rad = rad if rad < inf and self.mag < inf else inf                 # NaN is no bound either

    def pick(self, choose: Callable[[np.ndarray], np.ndarray]) -> Real:
        """`choose` may view, gather and take least or largest entries: nothing that rounds."""
        return Real(choose(self.mid), self.rad, self.mag)

    def __getitem__(self, index) -> Real:
        return Real(self.mid[index], self.rad, self.mag)

    def __add__(self, other: Real) -> Real:
        mag = up(self.mag + other.mag)
        return _made(self.mid + other.mid, self.rad + other.rad + U * mag, mag)

    def __sub__(self, other: Real) -> Real:
        mag = up(self.mag + other.mag)
        return _made(self.mid - other.mid, self.rad + other.rad + U * mag, mag)

    def __mul__(self, other: Real) -> Real:
        mag = up(self.mag * other.mag)
        return _made(self.mid * other.mid, self.rad * (other.mag + other.rad) + self.mag * other.rad + U * mag, mag)

    def __matmul__(self, other: Real) -> Real:
        """An inner product of n terms is off by n U sum |a| |b|, in any order of summation (but for U^2)."""
        n, a, b = self.mid.shape[-1], np.abs(self.mid), np.abs(other.mid)
        row, column = (up(float(x.sum(axis).max(initial=0))) for x, axis in ((a, -1), (b, max(-2, -b.ndim))))
        mag = up(min(row * other.mag, self.mag * column))
        mid = self.mid @ other.mid
        work(2 * (n * mid.size + a.size + b.size) - mid.size)
        # by threads of the product's that read small numbers as zero
        flushed = n * 2.0**-1020 * (1 + self.mag + other.mag)
        return _made(mid, row * other.rad + self.rad * column + n * self.rad * other.rad + n * U * mag + flushed, mag)

    def cumsum(self, axis: int) -> Real:
        """Each partial sum off by what the whole may be."""
        n, mid = self.mid.shape[axis], self.mid.cumsum(axis)
        mag = up(n * self.mag)
        return _made(mid, n * self.rad + n * U * mag, mag)

    def relu(self) -> Real:
        return self.pick(lambda x: reduced(np.maximum, x, 0.0))

    def __neg__(self) -> Real:
        return self.pick(lambda x: reduced(np.negative, x))

    def __abs__(self) -> Real:
        return self.pick(lambda x: reduced(np.abs, x))

    def max(self, axis: int) -> Real:
        return self.pick(lambda x: reduced(np.max, x, axis))

    def min(self, axis: int) -> Real:
        return self.pick(lambda x: reduced(np.min, x, axis))

    shape = property(lambda self: self.mid.shape)
    T = property(lambda self: self.pick(np.transpose))

    def negative(self) -> np.ndarray:
        """Where the real number is negative for certain; nowhere, if that is NaN or has no bound."""
        return reduced(np.less, self.mid, -self.rad)

    def exp(self) -> Real:
        """|exp(x + e) - exp(x)| <= exp(x) |e| exp(|e|)."""
        mid = np.exp(self.mid)
        work(mid.size)
        mag = up(float(mid.max(initial=0)))
        return _made(mid, mag * (self.rad * exp(self.rad) + 16 * U) if self.rad < 1 else inf, mag)

    def sum(self, axis: int) -> Real:
        n = self.mid.shape[axis]
        work(self.mid.size)
        mag = up(n * self.mag)
        return _made(self.mid.sum(axis), n * self.rad + n * U * mag, mag)


def _made(mid: np.ndarray, rad: float, mag: float) -> Real:
    work(mid.size + 8)
    return Real(mid, up(rad), mag)


def stacked(parts: list[Real]) -> Real:
    """Along a new first axis, with the largest radius."""
    return Real(np.stack([x.mid for x in parts]), most(x.rad for x in parts), most(x.mag for x in parts))


def most(numbers: Iterable[float]) -> float:
    """The largest, which is NaN if one of them is."""
    return float(np.max(list(numbers)))


def best_other(x: np.ndarray) -> np.ndarray:
    """max over i != m of x[.., i], for every m."""
    top = reduced(np.argmax, x, -1)[..., None]
    second = x.copy()
    # of two or more, so that another is the largest
    np.put_along_axis(second, top, -inf, -1)
    return np.where(np.arange(x.shape[-1]) == top, reduced(np.max, second, -1)[..., None],
                    np.take_along_axis(x, top, -1))


def reduced(choose: Callable, x: np.ndarray, *where) -> np.ndarray:
    """choose(x, *where), the price of reading x."""
    work(x.size)
    return choose(x, *where)


def weights(*logs: Real) -> tuple[Real, np.ndarray]:
    """exp of the lower and the upper ends (or of what is exact) [end, ...], and where it is too large to bother:
    what stands there is 1, means nothing and must not be used."""
    ends = np.stack([x.mid for x in logs])
    hopeless = ~(ends[-1] <= LIMIT)
    work(ends[-1].size + 2 * ends.size)
    w = Real(np.where(hopeless, 0.0, np.maximum(ends, -FLOOR)), most(x.rad for x in logs),
             most(x.mag for x in logs)).exp()
    return Real(w.mid, up(w.rad + exp(1 - FLOOR)), w.mag), hopeless


def weighted(h: Real, w: Real) -> Real:
    """At least h times anything between the ends w[0] and w[-1]; the product itself if there is but one end.

    The end is chosen by the sign of h's midpoint; where the real h has the other sign it is smaller than its radius,
    and radius times w[-1] is in the result's radius.
    """
    if len(w.mid) == 1:
        return h * w[0]
    work(h.mid.size)
    return h * Real(np.where(h.mid < 0, w.mid[1], w.mid[0]), w.rad, w.mag)
