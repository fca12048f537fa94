"""How many combinations of choices a proof leaves open, for sequences too long to list any.

Problem: with twenty positions the open combinations of a cell are astronomically many.  Idea: measure every term
in units of a fraction of what one copy of the maximum gives, round down to whole units, and the sum over
positions becomes a walk on a few hundred levels; count the walks that end below zero, one position at a time.
A level beyond either end is taken for the end, which is lower above and lost for good below: both only make a
combination count as open that is not.  Counts are exact integers of any length, in words of int64.
"""

from __future__ import annotations

from math import ceil, log2

import torch
from jaxtyping import Int
from torch import Tensor

from .. import cost
from .boxes import HOPELESS, Cells

UNITS = 32              # units in one copy of the maximum
REACH = 3 * UNITS       # levels on either side of zero
BLOCK = 2**22           # numbers in a block of walks


def in_units(cells: Cells) -> tuple[Int[Tensor, " c"], Int[Tensor, "c p b"]]:
    """own and f rounded down to units, between -2 REACH and 2 REACH.

    unit > 0 is any number; whatever is at least the slack below a term is strictly below the real one.
    """
    f, own = (x.mid.nan_to_num(HOPELESS, torch.inf, HOPELESS) for x in (cells.f, cells.own))
    unit = (f[:, :, 0].amin(1) / UNITS).clamp_min(2.0**-40)
    def units(x: Tensor, unit: Tensor) -> Tensor:
        lower = ((x - cells.slack) / unit).nan_to_num(HOPELESS, 2.0**40, HOPELESS)
        return (lower.clamp(-2.0 * REACH, 2.0 * REACH) - 2.0**-20).floor().long()          # the quotient is off by less
    return units(own, unit), units(f, unit[:, None, None]).expand(-1, cells.positions, -1)


def carried(words: list[Tensor], bits: int) -> list[Tensor]:
    """Words of `bits` bits each, the excess of one carried to the next."""
    for i in range(len(words) - 1):
        words[i + 1] = words[i + 1] + words[i].bitwise_right_shift(bits)
        words[i] = words[i].bitwise_and(2**bits - 1)
    return words


def open_combinations(cells: Cells, size: Int[Tensor, "c b"], d_vocab: int) -> list[int]:
    """For every cell at most how many choices of tokens for the other positions are not certified, exact integers.

    Shapes: size [c, b], tokens in each bucket.  Complexity: O(c K b) levels of (K log2 v) / 64 words.
    """
    n, b = cells.positions, size.shape[1]
    levels = 2 * REACH + 1
    bits = 62 - ceil(log2(levels * b * d_vocab))
    words = 1 if n * log2(d_vocab) < 62 else ceil(n * log2(d_vocab) / bits) + 1
    out: list[int] = []
    for part in torch.arange(len(size)).split(max(1, BLOCK // (levels * b * words))):
        out += _walks(*in_units(cells[part]), size[part], cells.need[part], words, bits)
    return out


def _walks(own: Tensor, f: Tensor, size: Tensor, need: Tensor, words: int, bits: int) -> list[int]:
    """Walks that end below zero, of those that hold the maximum where it is needed."""
    c, n, _ = f.shape
    levels = 2 * REACH + 1
    at = torch.arange(levels)
    start = torch.zeros(c, 2, levels, dtype=torch.long)
    start[torch.arange(c), 0, (own + REACH).clamp(0, levels - 1)] = 1
    state = [start, *(torch.zeros_like(start) for _ in range(words - 1))]              # [c, (without, with), level]
    for p in range(n):
        target = (at + f[:, p, :, None]).clamp(0, levels - 1) * (at > 0)               # [c, b, level]; below is lost for good
        without = target[:, 1:].flatten(1)
        for i, word in enumerate(state):
            moved = word[:, :, None] * size[:, None, :, None]                          # [c, 2, b, level]
            new = torch.zeros_like(word)
            new[:, 1].scatter_add_(1, target[:, 0], moved[:, 0, 0])
            new[:, 1].scatter_add_(1, target.flatten(1), moved[:, 1].flatten(1))
            new[:, 0].scatter_add_(1, without, moved[:, 0, 1:].flatten(1))
            state[i] = new
        state = carried(state, bits)
    ends = torch.stack([w[:, 1, :REACH].sum(1) + torch.where(need, 0, w[:, 0, :REACH].sum(1)) for w in state])
    with cost.charge(ends.numel(), "words to integers"):
        return [sum(value << (bits * i) for i, value in enumerate(column)) for column in ends.T.tolist()]


def end(cells: Cells, chosen: list[int]) -> Int[Tensor, " c"]:
    """Where the walks of one combination end, as they are counted."""
    level, f = in_units(cells)
    level = level.clamp(-REACH, REACH)
    for p, b in enumerate(chosen):
        level = torch.where(level > -REACH, (level + f[:, p, b]).clamp(-REACH, REACH), level)
    return level
