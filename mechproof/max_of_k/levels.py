"""How many combinations of choices a proof certifies, for sequences too long to list any.

Problem: with twenty positions the open combinations of a cell are astronomically many.  Idea: measure every term
in units of a fraction of what one copy of the maximum gives, round down to whole units, and the sum over
positions becomes a walk on a few hundred levels; count the walks that end at zero or above, one position at a time.
A level beyond either end is taken for the end, which is lower above and lost for good below: both only make a
combination count as open that is not.  Counts are exact integers of any length.
"""

from __future__ import annotations

from math import ceil

import torch
from jaxtyping import Int
from torch import Tensor

from ..proof import cost
from .boxes import Cells

UNITS = 32              # units in one copy of the maximum
REACH = 3 * UNITS       # levels on either side of zero
LEVELS = 2 * REACH      # from -REACH to REACH - 1


def in_units(cells: Cells) -> tuple[Int[Tensor, " c"], Int[Tensor, "c p b"]]:
    """own and f rounded down to units, between -2 REACH and 2 REACH; of cells that are not given up.

    unit > 0 is any number; whatever is at least the slack below a term is strictly below the real one.  Most tokens add
    next to nothing, and rounded down each would cost a whole unit: so the least of a position's small terms goes from
    all of its terms into own, and the small ones round to 0.
    Lemma: *Walks*.
    """
    f, own = cells.f.mid, cells.own.mid
    unit = (f[:, :, 0].amin(1) / UNITS).clamp_min(2.0**-40)
    small = torch.where(f.abs() < unit[:, None, None], f, 0.0).amin(2)
    own, f = own + small.sum(1) * (cells.positions // f.shape[1]), f - small[..., None]

    def units(x: Tensor, unit: Tensor) -> Tensor:
        # beyond the range only where the real one is
        lower = (x - cells.slack) / unit
        return (lower.clamp(-2.0 * REACH, 2.0 * REACH) - 2.0**-20).floor().long()          # the quotient is off by less
    return units(own, unit), units(f, unit[:, None, None]).expand(-1, cells.positions, -1)


def certain_combinations(cells: Cells, size: Int[Tensor, "c b"], d_vocab: int) -> list[int]:
    """For every cell at least how many choices of tokens for the other positions are certified, exact integers.

    Shapes: size [c, b], tokens in each bucket.
    Complexity: O(c K b) numbers of levels, each of K log2 v bits; charged per
    64-bit word for a shift, a product and a sum a bucket.
    """
    own, f = in_units(cells)
    bits = (d_vocab**cells.positions).bit_length() + 1
    with cost.charge(f.numel() * 6 * LEVELS * ceil(bits / 64), "walks, per word"):
        return [walks(*cell, bits) for cell in zip(own.tolist(), f.tolist(), size.tolist(), cells.need.tolist())]


def walks(own: int, f: list[list[int]], size: list[int], need: bool, bits: int) -> int:
    """Walks that end at 0 or above, of those that hold the maximum (choice 0) where it is needed.

    A polynomial in one variable, walks by level, as one integer: digit i to the base 2^bits counts those at level i -
    REACH. A step of k levels is a shift by k digits; what is shifted out below is lost for good.
    Lemma: *Walks*.
    """
    top = bits * LEVELS

    def step(state: int, steps: list[tuple[int, int]]) -> int:
        moved = sum(tokens * (state << bits * k if k >= 0 else state >> -bits * k) for tokens, k in steps)
        beyond = moved >> top                                      # its digits' sum is its rest by 2^bits - 1
        return (moved & ((1 << top) - 1)) + (beyond % ((1 << bits) - 1) << (top - bits)) if beyond else moved

    without, holding = (1 << bits * (min(own, REACH - 1) + REACH) if own > -REACH else 0), 0
    for steps in f:
        (_, maximum), *smaller = ((tokens, k) for tokens, k in zip(size, steps))
        some = [(tokens, k) for tokens, k in smaller if tokens]
        holding = step(holding, [(1, maximum), *some]) + step(without, [(1, maximum)])
        without = step(without, some)
    ends = holding if need else holding + without
    return (ends >> bits * REACH) % ((1 << bits) - 1)


def end(cells: Cells, choices: Int[Tensor, "c p"]) -> Int[Tensor, " c"]:
    """Where the walk of one combination a cell ends, as it is counted; -REACH - 1 is below all levels, and lost."""
    level, f = in_units(cells)
    lost = -REACH - 1
    level = torch.where(level > -REACH, level.clamp_max(REACH - 1), lost)
    for p, b in enumerate(choices.unbind(1)):
        moved = (level + f[torch.arange(len(b)), p, b]).clamp(lost, REACH - 1)
        level = torch.where((level > lost) & (moved >= -REACH), moved, lost)
    return level
