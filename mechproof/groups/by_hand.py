"""A network that composes, written down in one line: the distance between two arrangements of the same numbers.

Give every point k a number a_k.  Neuron (j, j') sees a at x^-1(j) less a at y(j'), and its ReLU votes against every z
that sends j' to j:

    logit_z(x, y) = -sum_{j'} relu(a[x^-1 z(j')] - a[y(j')]),

which is 0 for z = x y and for every other z at most minus the smallest difference of two of the numbers, since what is
summed is half of sum_{j'} |a[x^-1 z(j')] - a[y(j')]|: the differences add up to 0.

>>> by_hand("S3", [0, 1, 3])["W_U"].shape
torch.Size([9, 6])
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..proof.family import InputError
from .group import elements, multiplication


def by_hand(group: str, numbers: Sequence[int | float]) -> dict[str, Tensor]:
    """The tensors of such a network, [points^2 neurons].  Theorem: *Composition by a distance*.
    Errors: InputError for other than a number a point."""
    all_ = torch.tensor(elements(group))
    G, points = all_.shape
    a = torch.tensor(numbers, dtype=torch.float32)
    if len(a) != points:
        raise InputError(f"numbers are {len(a)}; expected one for each of the {points} points that {group} moves")
    back = all_.argsort(1)                                               # x^-1
    against = -(all_[:, None] == torch.arange(points)[:, None]).float()  # [z, j, j']
    return {"W_L": a[back][:, :, None].expand(G, points, points).flatten(1),
            "W_R": -a[all_][:, None].expand(G, points, points).flatten(1),
            "W_U": against.flatten(1).T.contiguous(), "answers": multiplication(group).float()}
