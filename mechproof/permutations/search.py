"""Advice for the proofs: which row of x and which column of y a neuron reads.  Nothing here is trusted."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Advice, Model, Parameters


def main_line(W: Float[Tensor, "line place n"]) -> Int[Tensor, " n"]:
    """The line of each neuron with the largest norm, once what every permutation shares is taken out."""
    W = W - W.mean(0, keepdim=True)
    return (W - W.mean(1, keepdim=True)).square().sum(1).argmax(0)


def lines(model: Model, parameters: Parameters) -> Advice:
    """Main row of W_X and main column of W_Y.  Complexity: O(n K^2)."""
    return {"row": main_line(model["W_X"].double()), "column": main_line(model["W_Y"].double().transpose(0, 1))}
