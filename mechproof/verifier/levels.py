"""The count for sequences too long to list their combinations.

Problem: twenty positions have 9^19 combinations of buckets.  Idea: round every term down to whole units and the sum
becomes a walk on a few hundred levels; what must be known is how many walks stand on each level after each position.
All levels together are ONE integer, a field of bits for each: a step of k units is a shift by k fields, a bucket of s
tokens multiplies by s.  Walks beyond the top are put back on it, and walks below the bottom fall out of the integer:
both can only make fewer sequences certain.
"""

from __future__ import annotations

import numpy as np

from .cells import Cells
from .layout import Layout
from .ledger import Sample, drawn
from .numbers import work

UNITS = 32              # units in the least that one copy of the maximum gives
REACH = 3 * UNITS       # levels above 0, and below it


def in_units(x: np.ndarray, unit: np.ndarray, slack: float) -> np.ndarray:
    """Strictly below x's real number, in units: the slack first, then what the quotient may be off by,
    then the floor."""
    work(5 * x.size)
    return np.floor(np.clip((x - slack) / unit, -2.0 * REACH, 2.0 * REACH) - 2.0**-40).astype(int)


def counted(cells: Cells, lay: Layout, m: np.ndarray, copies: np.ndarray) -> int:
    """Sequences not certain: for every row the sum over its cells (and heads), at most all that the row has."""
    found, some = [whole_units(part) for part in cells.parts], drawn(len(cells.r))
    sample = Sample(cells.take(some))
    sample.compare(~np.all([ends(own[some], f[some], sample.choices) for own, f in found], 0))
    bits = (lay.v**cells.n).bit_length() + 1                                        # no level ever holds more
    lost: dict[int, int] = {}
    for own, f in found:
        # shift, product, sum; with and without
        work(6 * f.size * (2 * REACH + 1) * -(-bits // 64))
        for i, row in enumerate(cells.r.tolist()):
            k, size, need = int(m[row]), lay.size[m[row]].tolist(), bool(cells.need[i])
            whole = (k + 1) ** cells.n - (k**cells.n if need else 0)
            good = walks(int(own[i]), f[i].tolist(), size, need, bits)
            lost[row] = min(lost.get(row, 0) + whole - good, whole)
    return sum(some * int(copies[row]) for row, some in lost.items())


def whole_units(cells: Cells) -> tuple[np.ndarray, np.ndarray]:
    """own [c] and f [c, p, b] in units, none above its real number."""
    unit = np.maximum(cells.f[:, :, 0].min(1) / UNITS, 2.0**-40)
    work(2 * cells.f[:, :, 0].size)
    # the least small term of a position goes
    small = np.where(np.abs(cells.f) < unit[:, None, None], cells.f, 0.0).min(2)
    # into own, so that small ones round to 0
    work(4 * cells.f.size)
    own = in_units(cells.own + small.sum(1) * (cells.n // small.shape[1]), unit, cells.slack)
    f = in_units(cells.f - small[..., None], unit[:, None, None], cells.slack)
    return own, np.broadcast_to(f, (len(own), cells.n, f.shape[2]))


def ends(own: np.ndarray, f: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """Whether the walk of one combination a cell is counted."""
    level, alive = np.minimum(own, REACH), own >= -REACH
    for p, b in enumerate(choices.T):
        level = level + f[np.arange(len(b)), p, b]
        alive, level = alive & (level >= -REACH), np.minimum(level, REACH)
    return alive & (level >= 0)


def walks(own: int, f: list[list[int]], size: list[int], need: bool, bits: int) -> int:
    """Choices of tokens for the other positions that end at 0 or above,
    of those that hold the maximum if they need to."""
    top, end, ones = bits * 2 * REACH, bits * (2 * REACH + 1), (1 << bits) - 1      # levels -REACH .. REACH
    if own < -REACH:
        return 0

    def moved(state: int, k: int) -> int:
        return state << bits * k if k >= 0 else state >> -bits * k

    def capped(state: int) -> int:
        # its digits to the base 2^bits, added up, are its rest by 2^bits - 1
        over = state >> end
        return state if not over else (state & ((1 << end) - 1)) + (over % ones << top)

    without, holding = 1 << bits * (min(own, REACH) + REACH), 0
    for steps in f:
        held = moved(without + holding, steps[0])
        held += sum(s * moved(holding, k) for s, k in zip(size[1:], steps[1:]) if s)
        without = capped(sum(s * moved(without, k) for s, k in zip(size[1:], steps[1:]) if s))
        holding = capped(held)
    ends = holding if need else holding + without
    return (ends >> bits * REACH) % ones
