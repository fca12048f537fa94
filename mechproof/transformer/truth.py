"""The same network in balls of any precision, one input at a time: who is right where float64 cannot tell.

Problem: what the radius leaves open has to be decided.  Idea: the forward pass once more, in balls of growing precision
(`proof/balls.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from flint import arb, arb_mat, ctx

from ..proof.balls import all_positive, least_lo, matrix, twins
from ..proof.family import Model
from .settings import answers, read


def gelu(x: arb, by_tanh: bool) -> arb:
    """x times the normal distribution's share below x, or the form by tanh."""
    if by_tanh:
        return x * (1 + ((2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3)).tanh()) / 2
    return x * (1 + (x / arb(2).sqrt()).erf()) / 2


ACTS: dict[str, Callable[[arb], arb]] = {"relu": lambda x: (x + abs(x)) / 2, "gelu": lambda x: gelu(x, False),
                                         "gelu_new": lambda x: gelu(x, True)}


class Truth:
    """Decides single inputs of one model, by their free tokens."""

    def __init__(self, model: Model):
        self.model, self.sizes = model, model.sizes
        self.settings = read(model.tensors, model.metadata)
        # numbers of the file have no error, so that one reading serves every precision of 53 bits or more
        self.mat = lru_cache(maxsize=None)(lambda name, head=None: matrix(
            model[name] if head is None else model[name][head]))

    def add(self, x: arb_mat, name: str, head: int | None = None) -> arb_mat:
        """x with a bias on every row, if there is one."""
        if name not in self.model.tensors:
            return x
        bias = matrix(self.model[name] if head is None else self.model[name][head])
        return x + arb_mat([[bias[0, j] for j in range(x.ncols())]] * x.nrows())

    def norm(self, x: arb_mat, name: str) -> arb_mat:
        """Rows as a layer with normalization reads them."""
        kind = self.settings.normalization_type
        if kind == "none":
            return x
        rows = []
        for row in x.tolist():
            mean = sum(row, arb(0)) / len(row) if kind.startswith("LN") else arb(0)
            row = [y - mean for y in row]
            length = (sum((y * y for y in row), arb(0)) / len(row) + arb(self.settings.eps)).sqrt()
            rows.append([y / length for y in row])
        if f"{name}.w" in self.model.tensors:
            weight = self.mat(f"{name}.w")
            rows = [[y * weight[0, j] for j, y in enumerate(row)] for row in rows]
        return self.add(arb_mat(rows), f"{name}.b")

    def attention(self, x: arb_mat, layer: str) -> arb_mat:
        """What the heads write at every position."""
        n, k, settings = x.nrows(), self.sizes["d_head"], self.settings
        scale = arb(k).sqrt() if settings.attn_scale is None else arb(settings.attn_scale)
        out = arb_mat(n, self.sizes["d_model"])
        for head in range(self.sizes["n_heads"]):
            Q, K, V = (self.add(x * self.mat(f"{layer}.W_{side}", head), f"{layer}.b_{side}", head)
                       if side == "V" or settings.attention == "learned" else arb_mat(n, k) for side in "QKV")
            scores = [[y / scale for y in row] for row in (Q * K.transpose()).tolist()]
            seen = [p + 1 if settings.attention_dir == "causal" else n for p in range(n)]
            pattern = [[arb(int(p < k)) for p in range(n)] if settings.attention == "ones" else self.softmax(row, k)
                       for row, k in zip(scores, seen)]
            out = out + arb_mat(pattern) * V * self.mat(f"{layer}.W_O", head)
        return self.add(out, f"{layer}.b_O")

    @staticmethod
    def softmax(scores: list[arb], seen: int) -> list[arb]:
        """The weights of the first positions, and zeros."""
        top = max(scores[:seen], key=lambda s: float(s.mid()))
        terms = [(s - top).exp() for s in scores[:seen]]
        total = sum(terms, arb(0))
        return [t / total for t in terms] + [arb(0)] * (len(scores) - seen)

    def logits(self, tokens: Sequence[int]) -> list[arb]:
        """Logits at the last position, in the precision that is set."""
        x = matrix(self.model["embed.W_E"][list(tokens)])
        if "pos_embed.W_pos" in self.model.tensors:
            x = x + matrix(self.model["pos_embed.W_pos"][: len(tokens)])
        for i in range(self.sizes["n_layers"]):
            name = f"blocks.{i}"
            if f"{name}.attn.W_V" in self.model.tensors:
                x = x + self.attention(self.norm(x, f"{name}.ln1"), f"{name}.attn")
            if f"{name}.mlp.W_in" in self.model.tensors:
                inside = self.add(self.norm(x, f"{name}.ln2") * self.mat(f"{name}.mlp.W_in"), f"{name}.mlp.b_in")
                act = ACTS[self.settings.act_fn]
                inside = arb_mat([[act(y) for y in row] for row in inside.tolist()])
                x = x + self.add(inside * self.mat(f"{name}.mlp.W_out"), f"{name}.mlp.b_out")
        last = arb_mat([x.tolist()[-1]])
        return self.add(self.norm(last, "ln_final") * self.mat("unembed.W_U"), "unembed.b_U").tolist()[0]

    def tokens(self, free: Sequence[int]) -> list[int]:
        """The whole input from its free tokens."""
        rest = iter(free)
        return [next(rest) if token is None else token for token in self.settings.inputs]

    def answer(self, free: Sequence[int]) -> int:
        return int(answers(self.settings, self.model.tensors.get("answers"), torch.tensor([list(free)]))[0])

    def margins(self, free: Sequence[int], precision: int) -> list[arb]:
        """The right logit less each other one."""
        with ctx.workprec(precision):
            logits, right = self.logits(self.tokens(free)), self.answer(free)
            return [logits[right] - x for i, x in enumerate(logits) if i != right]

    def right(self, free: Sequence[int]) -> bool:
        """True iff the right logit is strictly the largest."""
        if twins(self.model["unembed.W_U"], self.model.tensors.get("unembed.b_U"), self.answer(free)):
            return False
        return all_positive(partial(self.margins, free))

    def margin_lo(self, free: Sequence[int]) -> float:
        """A float at most the true margin (right logit less the best other one)."""
        return least_lo(partial(self.margins, free))
