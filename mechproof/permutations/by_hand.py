"""The circuit that training finds, written down: K^2 neurons compose K! elements by comparing K numbers.

Choose distinct numbers a_0 .. a_{K-1}.  Neuron (j, q) is relu(a at x^-1(j) - a at y(q)), a vote against j at q:

    sum over q of the logits of z = - sum_q relu(a_{x^-1(z(q))} - a_{y(q)}) = - |P a - Q a|_1 / 2,

since the differences add up to 0.  That is 0 if x^-1 z = y, which is z = x y, and any other z loses by at least the
smallest gap between two of the numbers.  A logit by itself is 0 where j is right and may be 0 where it is wrong
(wherever a at x^-1(j) is smaller): so a second K^2 neurons with the sign turned vote too, and a logit is -|difference|.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gap(a: Float[Tensor, " K"]) -> float:
    """The smallest distance between two of the numbers."""
    return float(a.sort().values.diff().min())


def circuit(a: Float[Tensor, " K"]) -> dict[str, Tensor]:
    """Tensors of the network with 2 K^2 neurons whose logit of j at q is -|a at x^-1(j) - a at y(q)|.

    Its margin is the smallest gap between two numbers.
    """
    K = len(a)
    eye = torch.eye(K)
    read = eye[:, None, :, None] * a.float()[:, None, None]              # [line, place, own line, other]
    W_X = read.expand(-1, -1, -1, K).reshape(K, K, K * K)                # neuron (j, q) reads row j
    W_Y = read.permute(1, 0, 3, 2).expand(-1, -1, K, -1).reshape(K, K, K * K)
    out = -torch.eye(K * K).view(K, K, K, K).transpose(2, 3).reshape(K * K, K, K)
    return {"W_X": torch.cat([W_X, -W_X], 2), "W_Y": torch.cat([-W_Y, W_Y], 2), "b_in": torch.zeros(2 * K * K),
            "W_U": torch.cat([out, out]), "b_U": torch.zeros(K, K)}
