"""The five tables that a Max-of-K model is made of.

Problem: a forward pass hides what each part does.  Idea: the model is attention-only, so it is a sum of
paths; multiply the matrices along each and the network becomes five small tables (Gross et al. 2024,
the five path products):

    logit_i = EU[q,i] + sum_p alpha_p (OV[t_p,i] + PV[p,i]),    alpha = softmax_p(A[q,t_p] + B[q,p])

q is the query token t[K-1]; A and B are already divided by attn_scale.  The mean position embedding goes
with the key token, so that B holds only what differs between positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ..proof.family import Model
from ..proof.rounding import Ball, cat, inverse_sqrt
from .model import biased, widened


@dataclass(frozen=True, eq=False)
class Paths:
    """Balls around each table, multiplied out only when asked for (a check pays for what it uses).

    Shapes: EPq, EPk [v,d]; X, Y [v,d_head] with A = X Y^T (A itself folds the d x d matrices first, which is cheaper);
    A [v,v] (query, key); B [v,K] (query, position); EU [v,v] (query, logit); OV [v,v] (key, logit);
    PV [K,v] (position, logit).
    Complexity: O(v d^2 + d^3) for X, Y and inside A, OV; O(v^2 d) for A, EU, OV; O(K v d) for B, PV.
    """

    model: Model

    def weight(self, name: str) -> Ball:
        """A tensor of the file, widened by the biases if there are any; float32 numbers are exact in float64."""
        return self.widened[name] if self.widened else Ball(self.model[name])

    @cached_property
    def widened(self) -> dict[str, Ball]:
        """The network without biases that this one is (model.py); empty where it has none.  Complexity: O(d v)."""
        w = self.model.tensors
        if not biased(w):
            return {}
        W_U, zero = Ball(w["W_U"]), torch.zeros(self.d_vocab)
        constant = Ball(w.get("b_O", torch.zeros(len(w["W_U"])))[None]) @ W_U + Ball(w.get("b_U", zero)[None])
        return {name: Ball(x) for name, x in widened(w).items()} | {"W_U": cat([W_U, constant], 0)}

    @property
    def n_ctx(self) -> int:
        return self.model["W_pos"].shape[0]

    @property
    def d_vocab(self) -> int:
        return self.model["W_E"].shape[0]

    @cached_property
    def EPq(self) -> Ball:
        return self.weight("W_E") + self.weight("W_pos")[-1]

    @cached_property
    def Pbar(self) -> Ball:
        return self.weight("W_pos").mean(0)

    @cached_property
    def EPk(self) -> Ball:
        return self.weight("W_E") + self.Pbar

    @cached_property
    def scaled_W_Q(self) -> Ball:
        return self.weight("W_Q") * inverse_sqrt(self.model["W_Q"].shape[1])

    @cached_property
    def X(self) -> Ball:
        return self.EPq @ self.scaled_W_Q

    @cached_property
    def Y(self) -> Ball:
        return self.EPk @ self.weight("W_K")

    @property
    def score_chain(self) -> list[Ball]:
        """The factors of A."""
        return [self.EPq, self.scaled_W_Q, self.weight("W_K").T, self.EPk.T]

    @cached_property
    def A(self) -> Ball:
        return (self.EPq @ (self.scaled_W_Q @ self.weight("W_K").T)) @ self.EPk.T

    @cached_property
    def B(self) -> Ball:
        return self.EPq @ (self.scaled_W_Q @ ((self.weight("W_pos") - self.Pbar) @ self.weight("W_K")).T)

    @cached_property
    def EU(self) -> Ball:
        return self.EPq @ self.weight("W_U")

    @cached_property
    def VO(self) -> Ball:
        """W_V W_O [d,d], shared by OV and PV."""
        return self.weight("W_V") @ self.weight("W_O")

    @cached_property
    def OV(self) -> Ball:
        return (self.weight("W_E") @ self.VO) @ self.weight("W_U")

    @cached_property
    def PV(self) -> Ball:
        return (self.weight("W_pos") @ self.VO) @ self.weight("W_U")

    @cached_property
    def worst_position(self) -> Ball:
        """max_p PV[p,i] - PV[p,m], [m, i].  Complexity: O(v^2 K)."""
        return (self.PV[:, None, :] - self.PV[:, :, None]).amax(0)


class Stripped(Paths):
    """The tables of a stripped model (edits.py): no positions, and one row of EU [1,v] for all queries."""

    @property
    def n_ctx(self) -> int:
        return self.model.sizes["n_ctx"]

    @property
    def d_vocab(self) -> int:
        return self.model["EU"].numel()

    @cached_property
    def A(self) -> Ball:
        return self.weight("QK_left") @ self.weight("QK_right").T

    @cached_property
    def B(self) -> Ball:
        return Ball(torch.zeros(self.d_vocab, self.n_ctx))

    @cached_property
    def EU(self) -> Ball:
        return self.weight("EU")[None]

    @cached_property
    def OV(self) -> Ball:
        return self.weight("OV_left") @ self.weight("OV_right")

    @cached_property
    def PV(self) -> Ball:
        return Ball(torch.zeros(self.n_ctx, self.d_vocab))


def paths_of(model: Model) -> Paths:
    """The tables of a model, stripped or not."""
    return (Stripped if "QK_left" in model.tensors else Paths)(model)
