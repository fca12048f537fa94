"""The plain readout of zeros and ones: the worst input exactly, in whole numbers.

With A = W of zeros and ones, b = -1 and R the mean over the neurons G of both i and j, let q_a = |G and N_a| / |G|.

*Theorem (Worst input).* Let every pair share a neuron, 2 <= s <= m - 1.  Over all inputs with s features on and all
pairs i < j, the largest error is exactly

    max over i < j of e_ij,  e_ij the sum of the s - 1 largest q_a, a other than i and j,

with exactly one of i, j on.  With the constants c_ij = -e_ij / 2 added to the outputs it is exactly half as large.

*Proof.* Let n_k count the features that are on, other than i and j, in neuron k of G.  One of i, j on: h_k = relu(1 +
n_k - 1) = n_k, so r - 0 = sum of q_a over the s - 1 others: attained by the largest.  Both on: h_k = 1 + n_k, and r -
1 is the same sum over s - 2 others, which is no larger.  Neither: h_k = relu(n_k - 1) <= n_k (s - 1) / s, so r <= (s
- 1) / s times a sum of s of the q, which is at most the sum of the s - 1 largest.  No error is negative.  So all of
an output's errors lie between 0 and e_ij, and e_ij is one of them: less e_ij / 2 they lie between -e_ij / 2 and e_ij /
2, and the upper end is one of them.

One product of matrices a feature gives all q; there are C(m, s) inputs.  What the theorem leaves open when the worst
error reaches 1/2 is listed set by set: with one on or both the sum is the error, so that the set is an input that is
wrong; with neither on it is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof import cost
from ..proof.family import InputError, Model
from .bounds import outputs
from .listing import Rows
from .model import readout


def is_plain(model: Model) -> bool:
    """Whether the theorem is about this network."""
    w = model.tensors
    if "W_E" in w or readout(w, model.metadata) != "plain":
        return False
    with cost.charge(w["b_in"].numel(), "whether every bias is -1"):
        return bool((w["b_in"] == -1).all())


def needs_theorem(model: Model) -> None:
    """Errors: InputError for a network that the theorem is not about."""
    if not is_plain(model):
        raise InputError(f"model {model.name!r} has another readout, bias or inputs; the worst input is known exactly "
                         "for the plain readout, b_in = -1 and features that are not superposed")


def overlaps(W: Float[Tensor, "m d"], i: int) -> tuple[Float[Tensor, "m m"], Float[Tensor, " m"]]:
    """|N_i and N_j and N_a| by j and a, and |N_i and N_j|; whole numbers below 2^53, hence exact.
    Complexity: O(m^2 d)."""
    both = W[i] * W
    return both @ W.T, both.sum(1)


def rows(W: Float[Tensor, "m d"], s: int, i: int) -> Iterator[Rows]:
    """What the theorem says of the outputs of i, times 2 s |G|: whole numbers.  Complexity: O(m^2 d)."""
    common, size = overlaps(W, i)
    every, late = outputs(len(W), i)
    table, need = common * (2 * s), size * s
    at = every[:, 1]
    yield Rows(every[:, :1], every, table[at], need[at], s - 1)
    at = late[:, 1]
    yield Rows(late, late, table[at], need[at], s - 2)
    yield Rows(late[:, :0], late, common[at] * (2 * (s - 1)), need[at], s)


def worst(model: Model) -> tuple[Fraction, list[int], tuple[int, int]]:
    """The largest error of all, exactly; an input that has it; the pair whose output has it.

    Theorem: *Worst input*.
    Errors: InputError for a network that the theorem is not about.  Complexity: O(m^3 d).
    """
    needs_theorem(model)
    W, s, best = model["W_in"].double(), model.sizes["sparsity"], (Fraction(-1), [], (0, 0))
    m = len(W)
    for i in range(m):
        common, size = overlaps(W, i)
        with cost.addresses():
            itself = (torch.arange(m) == i) | torch.eye(m, dtype=torch.bool)
        value, feature = common.masked_fill(itself, -1.0).sort(1, descending=True)
        # fractions of such small numbers differ by more than their quotients are rounded
        total = value[:, : s - 1].sum(1)
        share = (total / size).masked_fill(itself[i], -1.0)
        with cost.charge(2 * m, "the largest of a feature's pairs"):
            j = int(share.argmax())
            found = Fraction(int(total[j]), int(size[j]))
            if found > best[0]:
                best = found, sorted([i, *feature[j, : s - 1].tolist()]), (min(i, j), max(i, j))
    return best


def with_constants(model: Model) -> dict[str, Tensor]:
    """The tensors of the same network with the constants that halve its error, as a readout of its own (whose rounding
    to float32 the bounds see).  Shapes: W_out [d, pairs], b_out [pairs].

    Theorem: *Worst input*, the last sentence.
    Errors: InputError for a network that the theorem is not about.  Complexity: O(m^3 d).
    """
    needs_theorem(model)
    W, s = model["W_in"].double(), model.sizes["sparsity"]
    (i, j), m, half = torch.triu_indices(len(W), len(W), 1), len(W), []
    for a in range(m - 1):
        common, size = overlaps(W, a)
        itself = (torch.arange(m) == a) | torch.eye(m, dtype=torch.bool)
        total = common.masked_fill(itself, -1.0).sort(1, descending=True).values[:, : s - 1].sum(1)
        half.append(total[a + 1 :] / size[a + 1 :] / 2)
    both = W[i] * W[j]
    R = (both / both.sum(1, keepdim=True)).T.contiguous()
    return {"W_in": model["W_in"], "b_in": model["b_in"], "W_out": R.float(), "b_out": -torch.cat(half).float()}
