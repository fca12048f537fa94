"""Which partitions the neurons of a group network should share: advice for `cosets`, which trusts none of it.

Problem: a neuron would best have cells of its own, but every partition in use is one more table to add up.  Idea:
candidates are the cosets of every subgroup; what a neuron loses under each is the slack of `cosets` on average; take
partitions one by one, each the one that helps most when every neuron then chooses the best of those taken.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Advice, Model, Parameters
from .cosets import check, ends
from .group import cosets, subgroups

# logits of slack that one more cell of a neuron should save: tried from the dearest on, from short proofs to long ones
A_CELL = (0.03, 0.01, 0.003, 0.001, 0.0003, 0.0001)


def losses(x: Float[Tensor, "G n"], U: Float[Tensor, "n G"], cells: Int[Tensor, "candidates G"]) -> Tensor:
    """[candidates, n]: slack on average.  Complexity: O(candidates G n)."""
    ahead, behind = (U.amax(1)[:, None] - U).mean(1), (U - U.amin(1)[:, None]).mean(1)
    least, reach = ahead < behind, torch.minimum(ahead, behind)
    off = torch.stack([(x - ends(x, cell[:, None].expand_as(x), least)).abs().mean(0) for cell in cells])
    return off * reach


def shared(loss: Float[Tensor, "candidates n"], cells: Int[Tensor, "candidates G"],
           parts: int) -> tuple[Tensor, Tensor]:
    """So many partitions, one by one, and for each neuron the best of them."""
    taken, best = [], loss.new_full(loss.shape[1:], torch.inf)
    for _ in range(parts):
        taken.append(int(torch.minimum(loss, best).sum(1).argmin()))
        best = torch.minimum(best, loss[taken[-1]])
    return cells[taken], loss[taken].argmin(0)


@lru_cache(maxsize=1)
def candidates(model: Model) -> dict[str, tuple[Tensor, Tensor]]:
    """By side, what each neuron would lose under the cosets of every subgroup, H x of x and y H of y, and these as
    cells; the last are the elements themselves, for tables that are no group's."""
    answers, U, found = model["answers"].long(), model["W_U"].double(), {}
    some = subgroups(answers)
    for side, name, table in (("x", "W_L", answers.T), ("y", "W_R", answers)):
        cells = torch.stack([*(cosets(table, one) for one in some), torch.arange(len(table))])
        found[side] = losses(model[name].double(), U, cells), cells
    return found


def priced(model: Model, parts: int, price: float) -> Advice:
    """At most so many partitions a side, where a cell has to save so many logits of slack."""
    advice = {}
    for side, (loss, cells) in candidates(model).items():
        dear = loss + price * (cells.amax(1)[:, None] + 1) * (loss.sum(0) > 0)
        advice |= dict(zip((f"{side}_cells", f"{side}_of"), shared(dear, cells, parts)))
    return advice


def advise(model: Model, parameters: Parameters) -> Advice:
    """The first partitions that certify `aim` percent, else those that certify most."""
    best, most = {}, -1
    for price in A_CELL:
        advice = priced(model, parameters["parts"], price)
        certified = check(model, advice, parameters).correct
        best, most = (advice, certified) if certified > most else (best, most)
        if 100 * certified >= parameters["aim"] * model["answers"].numel():
            break
    return best
