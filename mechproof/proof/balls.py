"""What float64 cannot decide, in balls (python-flint) of growing precision.

Problem: near a tie no number of bits that is fixed beforehand is enough.  Idea: ask for the margins, the right logit
less each wrong one, at more and more bits until every one has a sign; what 2048 bits leave undecided is a tie for every
purpose here, and a tie is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, nextafter

from flint import arb, arb_mat
from torch import Tensor

PRECISIONS = (128, 512, 2048)
Margins = Callable[[int], list[arb]]                # at so many bits


def matrix(tensor: Tensor) -> arb_mat:
    """Float32 numbers, without error: a matrix, or a vector as one row."""
    return arb_mat([[arb(x) for x in row] for row in tensor.double().reshape(-1, tensor.shape[-1]).tolist()])


def all_positive(margins: Margins) -> bool:
    """True iff every margin is positive for certain."""
    for precision in PRECISIONS:
        found = margins(precision)
        if all(x > 0 for x in found):
            return True
        if any(x <= 0 for x in found):
            return False
    return False


def least_lo(margins: Margins) -> float:
    """A float at most the least margin."""
    for precision in PRECISIONS:
        lowest = [float_lo(x) for x in margins(precision)]
        if all(isfinite(x) for x in lowest):
            break
    return min(x if isfinite(x) else -inf for x in lowest)


def float_lo(x: arb) -> float:
    """A float at most a ball's lower end, which is rounded downwards at whatever precision and then once to a float."""
    return nextafter(float(x.lower()), -inf)


def twins(W_U: Tensor, b_U: Tensor | None, answer: int) -> bool:
    """Whether another output has the very same weights: always a tie."""
    same = (W_U[:, answer : answer + 1] == W_U).all(0)
    return int((same if b_U is None else same & (b_U == b_U[answer])).sum()) > 1
