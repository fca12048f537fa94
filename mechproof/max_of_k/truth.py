"""What the network really answers, for one sequence at a time, beyond any doubt of rounding.

Problem: float64 cannot tell a tie from a margin of 1e-12.  Idea: evaluate the same tables in balls of growing
precision (`proof/balls.py`).  "Right" means that the correct logit is strictly larger in real arithmetic on the float32
weights read exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

from flint import arb, arb_mat, ctx
from torch import Tensor

from ..proof.balls import PRECISIONS, all_positive, least_lo, matrix, twins
from ..proof.family import Model
from .model import alone, biased, widened


def matrices(tensors: Mapping[str, Tensor]) -> dict[str, arb_mat]:
    """The tensors of one head as matrices, with a coordinate more where there are biases (model.py)."""
    w = {name: matrix(x) for name, x in tensors.items()}
    if not biased(tensors):
        return w
    W_U = w["W_U"]
    constant = w.get("b_O", arb_mat(1, W_U.nrows())) * W_U + w.get("b_U", arb_mat(1, W_U.ncols()))
    return {name: matrix(x) for name, x in widened(tensors).items()} | {
        "W_U": arb_mat([*W_U.tolist(), *constant.tolist()])}


def tables(tensors: Mapping[str, Tensor]) -> tuple[arb_mat, ...]:
    """A [v,v], B [v,K] divided by attn_scale; EU [v,v], OV [v,v], PV [K,v]; of one head."""
    w = matrices(tensors)
    n, d, v = w["W_pos"].nrows(), w["W_E"].ncols(), w["W_E"].nrows()
    mean = [sum((w["W_pos"][p, j] for p in range(n)), arb(0)) / n for j in range(d)]
    EPq = arb_mat([[w["W_E"][q, j] + w["W_pos"][n - 1, j] for j in range(d)] for q in range(v)])
    EPk = arb_mat([[w["W_E"][k, j] + mean[j] for j in range(d)] for k in range(v)])
    shifted = arb_mat([[w["W_pos"][p, j] - mean[j] for j in range(d)] for p in range(n)])
    QK = w["W_Q"] * w["W_K"].transpose() * (1 / arb(w["W_Q"].ncols()).sqrt())
    VOU = w["W_V"] * (w["W_O"] * w["W_U"])
    return EPq * QK * EPk.transpose(), EPq * QK * shifted.transpose(), EPq * w["W_U"], w["W_E"] * VOU, w["W_pos"] * VOU


def stripped_tables(model: Model) -> tuple[arb_mat, ...]:
    """The same of a stripped model."""
    names = ("QK_left", "QK_right", "OV_left", "OV_right")
    left, right, votes, logits = (matrix(model[name]) for name in names)
    v, n, EU = left.nrows(), model.sizes["n_ctx"], model["EU"].tolist()
    return left * right.transpose(), arb_mat(v, n), arb_mat([EU] * v), votes * logits, arb_mat(n, v)


class Truth:
    """Decides single sequences of one model.  Tables are made once a precision: O(v^2 d) ball operations a head."""

    def __init__(self, model: Model):
        self.model = model
        self._tables = lru_cache(maxsize=len(PRECISIONS))(self._tables)

    def _tables(self, precision: int) -> list[tuple[arb_mat, ...]]:
        """Every head's tables; the direct path's is the same in all."""
        with ctx.workprec(precision):
            if "QK_left" in self.model.tensors:
                return [stripped_tables(self.model)]
            return [tables(tensors) for tensors in alone(self.model.tensors)]

    def margins(self, tokens: Sequence[int], precision: int) -> list[arb]:
        """Right logit minus each wrong one, as balls.  Complexity: O(K v) a head after the tables."""
        heads = self._tables(precision)
        with ctx.workprec(precision):
            q, m, EU = tokens[-1], max(tokens), heads[0][2]
            logits = [EU[q, i] for i in range(EU.ncols())]
            for A, B, _, OV, PV in heads:
                scores = [A[q, t] + B[q, p] for p, t in enumerate(tokens)]
                top = max(scores, key=lambda s: float(s.mid()))
                weights = [(s - top).exp() for s in scores]
                total = sum(weights, arb(0))
                for i in range(len(logits)):
                    votes = (w * (OV[t, i] + PV[p, i]) for p, (w, t) in enumerate(zip(weights, tokens)))
                    logits[i] += sum(votes, arb(0)) / total
            return [logits[m] - logit for i, logit in enumerate(logits) if i != m]

    def right(self, tokens: Sequence[int]) -> bool:
        """True iff the correct logit is strictly the largest."""
        m = max(tokens)
        W_U = self.model.tensors.get("W_U")
        if W_U is not None and twins(W_U, self.model.tensors.get("b_U"), m):
            return False
        return all_positive(partial(self.margins, tokens))

    def margin_lo(self, tokens: Sequence[int]) -> float:
        """A float at most the true margin (right logit minus the best wrong one)."""
        return least_lo(partial(self.margins, tokens))
