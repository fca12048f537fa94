"""A forward pass in float64 that knows how far off it may be.

Problem: trying an input proves something only if rounding is accounted for, through softmax, layer norm and GELU; and
what is accounted for must not grow from layer to layer, or nothing is left of the margin.  Idea: carry one number
`off`, at least the distance of every vector (the residual stream at a position, a query, a value) from the real one, in
the Euclidean norm, in which these maps hardly stretch.  With `size` at least the length of every vector:

* x W: off grows by the largest singular value of W; rounding adds gamma_n |x| |W|_F (Higham, section 3.1).
* c / s(c), s = sqrt(|c|^2 / d + eps): its derivative (I - c c^T / (d s^2)) / s has eigenvalues from 0 to 1/s, and s
  moves by no more than |c| / sqrt(d) does; taking the mean out is a projection.
* softmax: if no score moves by more than r, the weights move by at most r in all (a derivative is
  s_i (x_i - s.x), and sum s_i |x_i - s.x| <= max |x|).  With the maximum taken out, n terms in [0, 1] each within
  5.4 U, their sum, at least 1, within 6.4 n U of itself, and a quotient: (8 n + 16) U a weight covers all.
* weights p of values v: sum p (v - v') is no longer than the longest; sum (p - p') v' at most |p - p'|_1 |v'|.
* ReLU stretches by 1, GELU by less than 1.13 in both forms; its evaluation is off by at most 32 U of the argument.

Relied on besides rounding.py: torch.erf and torch.tanh in float64 are accurate to 4 U relative; both are attacked in
the tests.  All radii are scalars that go through `_up`.  What is not finite certifies nothing: every `off` contains 0
times the size of what it is about, which overflows no later than a number does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof.family import Model
from ..proof.product_bounds import frobenius, operator_norm
from ..proof.rounding import Ball, U, _largest, _up, scalar
from .settings import Settings, read

CUBIC, ROOT = 0.044715, sqrt(2 / pi)                # of the GELU by tanh


class Rows(NamedTuple):
    """Vectors in float64, along the last dimension, none farther than `off` from the real one, none longer than
    `size`."""

    mid: Float[Tensor, "*rows d"]
    off: Float[Tensor, ""]
    size: Float[Tensor, ""]

    @classmethod
    def of(cls, mid: Float[Tensor, "*rows d"], off: Tensor, rounded: int = 0) -> Rows:
        """These vectors, off by this much and by so many roundings of every entry."""
        # where squares underflow, lengths are below 2^-500
        size = _up(_largest((mid * mid).sum(-1)).sqrt()) + 2.0**-500
        return cls(mid, _up(off + rounded * U * size), size)

    def pick(self, choose: Callable[[Tensor], Tensor]) -> Rows:
        """`choose` may view and gather vectors: nothing that rounds."""
        return self._replace(mid=choose(self.mid))

    def plus(self, other: Rows) -> Rows:
        return Rows.of(self.mid + other.mid, self.off + other.off, 1)

    def times(self, W: Matrix) -> Rows:
        n = self.mid.shape[-1]
        return Rows.of(self.mid @ W.mid, W.stretch * self.off + 1.01 * n * U * self.size * W.frobenius)


class Matrix(NamedTuple):
    """Weights, and at least the largest singular value and the Frobenius norm of each head's."""

    mid: Float[Tensor, "*h a b"]
    stretch: Float[Tensor, ""]
    frobenius: Float[Tensor, ""]

    @classmethod
    def of(cls, weights: Float[Tensor, "*h a b"]) -> Matrix:
        each = [Ball(x) for x in (weights if weights.dim() == 3 else weights[None])]
        largest = [_largest(torch.stack([size(x).upper().mid for x in each])) for size in (operator_norm, frobenius)]
        return cls(weights.double(), *largest)


def softmax(scores: Float[Tensor, "*q n"], r: Tensor, but: Tensor | None) -> tuple[Float[Tensor, "*q n"], Tensor]:
    """Weights along the last dimension (none for `but`), and how far they may be off in all if no score is by more
    than r."""
    n, shown = scores.shape[-1], scores if but is None else scores.masked_fill(but, -torch.inf)
    terms = (shown - shown.amax(-1, keepdim=True)).exp()
    return terms / terms.sum(-1, keepdim=True), _up(r + n * (8 * n + 16) * U)


def normalized(x: Rows, eps: float, centred: bool) -> Rows:
    """Vectors over the root of their mean square and eps; their means taken out first, if they are to be centred."""
    d = x.mid.shape[-1]
    if centred:
        x = Rows.of(x.mid - x.mid.mean(-1, keepdim=True), x.off + (d + 1) * U * x.size, 1)
    length = ((x.mid * x.mid).mean(-1, keepdim=True) + eps).sqrt()
    # the real divisors, and those between, are at least this
    least = (length.amin() * (1 - (d + 9) * U) - _up(x.off) / sqrt(d) * (1 + 2.0**-20)).clamp_min(0)
    # a length that overflowed makes this NaN
    return Rows.of(x.mid / length, x.off / least + (d + 9) * U * sqrt(d) + 0.0 * x.size)


def activated(x: Rows, act: str) -> Rows:
    """ReLU, or GELU by erf or by tanh."""
    t = x.mid
    if act == "relu":
        return Rows.of(t.clamp_min(0), x.off)
    by_tanh = act == "gelu_new"
    bend = (ROOT * (t + CUBIC * (t * t * t))).tanh() if by_tanh else (t * sqrt(0.5)).erf()
    return Rows.of(t * (0.5 * (1 + bend)), 1.13 * x.off + 32 * U * x.size)


class Network:
    """The tensors of a model as matrices, by name, and its settings."""

    def __init__(self, model: Model):
        self.settings: Settings = read(model.tensors, model.metadata)
        self.sizes, zero = model.sizes, scalar(0.0)
        self.matrix = {name: Matrix.of(x) for name, x in model.tensors.items() if ".W_" in name and "_pos" not in name
                       and name != "embed.W_E"}
        # exact as they are
        self.rows = {name: Rows.of(x.double(), zero) for name, x in model.tensors.items() if name not in self.matrix}

    def norm(self, x: Rows, name: str) -> Rows:
        """x as a layer with normalization reads it."""
        kind = self.settings.normalization_type
        if kind == "none":
            return x
        x = normalized(x, self.settings.eps, kind.startswith("LN"))
        if f"{name}.w" in self.rows:
            w = self.rows[f"{name}.w"].mid
            x = Rows.of(x.mid * w, w.abs().amax() * x.off, 1)
        return self.add(x, f"{name}.b")

    def add(self, x: Rows, bias: str) -> Rows:
        return x.plus(self.rows[bias]) if bias in self.rows else x

    def heads(self, x: Rows, layer: str, side: str) -> Rows:
        """Queries, keys or values of every head, [b, h, n, k]."""
        found = x.pick(lambda t: t[:, None]).times(self.matrix[f"{layer}.W_{side}"])
        bias = self.rows.get(f"{layer}.b_{side}")
        return found if bias is None else found.plus(bias.pick(lambda t: t[:, None]))

    def attention(self, x: Rows, layer: str, q: slice) -> Rows:
        """What the heads write at the positions q of x [b, n, d]."""
        n, (at, values) = x.mid.shape[1], (x.pick(lambda t: t[:, q]), self.heads(x, layer, "V"))
        but, kind, most = self.hidden(n, q), self.settings.attention, 1
        flat = torch.zeros(at.mid.shape[1], n, dtype=torch.float64)
        if kind == "learned":
            pattern, apart = softmax(*self.scores(self.heads(at, layer, "Q"), self.heads(x, layer, "K")), but)
        elif kind == "mean":
            pattern, apart = softmax(flat, scalar(0.0), but)
        else:
            pattern, apart, most = (flat + 1.0 if but is None else (~but).double()), scalar(0.0), n
        # weights of sum 1, or n of them
        off = _up(most * values.off + (apart + 1.2 * n * most * U) * values.size)
        # heads side by side
        mixed = Rows.of((pattern @ values.mid).transpose(1, 2).flatten(2), off * (sqrt(self.sizes["n_heads"]) * 1.001))
        return self.add(mixed.times(self.joined(self.matrix[f"{layer}.W_O"])), f"{layer}.b_O")

    def joined(self, W: Matrix) -> Matrix:
        """The heads' matrices one below the other, which stretches by no more than sqrt(h) times one of them."""
        most = sqrt(len(W.mid)) * 1.001
        return Matrix(W.mid.flatten(0, 1), W.stretch * most, W.frobenius * most)

    def scores(self, queries: Rows, keys: Rows) -> tuple[Float[Tensor, "b h q n"], Tensor]:
        """Scores, and how far each may be off."""
        k, said = self.sizes["d_head"], self.settings.attn_scale
        scale = 1 / sqrt(k) if said is None else 1 / said
        product = queries.size * keys.size
        off = queries.off * keys.size + queries.size * keys.off + queries.off * keys.off + (1.01 * k + 8) * U * product
        return (queries.mid @ keys.mid.mT) * scale, _up(off * (scale * 1.001))

    def hidden(self, n: int, q: slice) -> Tensor | None:
        """[q, n], what lies after a position, where that is not seen."""
        if self.settings.attention_dir == "bidirectional":
            return None
        at = torch.arange(n)
        return at[q][:, None] < at

    def mlp(self, x: Rows, layer: str) -> Rows:
        inside = self.add(x.times(self.matrix[f"{layer}.W_in"]), f"{layer}.b_in")
        return self.add(activated(inside, self.settings.act_fn).times(self.matrix[f"{layer}.W_out"]), f"{layer}.b_out")

    def logits(self, tokens: Int[Tensor, "b n"]) -> Rows:
        """Logits at the last position, [b, out].  Complexity: O(b n (h n d + h d k + d m)) a layer."""
        x = self.rows["embed.W_E"].pick(lambda t: t[tokens])
        if "pos_embed.W_pos" in self.rows:
            x = x.plus(self.rows["pos_embed.W_pos"].pick(lambda t: t[: tokens.shape[1]]))
        for i in range(self.sizes["n_layers"]):
            # nobody reads the other positions of the last layer
            q, name = slice(-1 if i == self.sizes["n_layers"] - 1 else None, None), f"blocks.{i}"
            heard = self.norm(x, f"{name}.ln1") if f"{name}.attn.W_V" in self.matrix else x
            x = x.pick(lambda t, q=q: t[:, q])
            if f"{name}.attn.W_V" in self.matrix:
                x = x.plus(self.attention(heard, f"{name}.attn", q))
            if f"{name}.mlp.W_in" in self.matrix:
                x = x.plus(self.mlp(self.norm(x, f"{name}.ln2"), f"{name}.mlp"))
        last = self.norm(x.pick(lambda t: t[:, -1]), "ln_final")
        return self.add(last.times(self.matrix["unembed.W_U"]), "unembed.b_U")


def lead(logits: Rows, answer: Int[Tensor, " b"]) -> tuple[Float[Tensor, " b"], Tensor]:
    """The right logit less the largest other one, and how far it may be off: two entries, sqrt 2 of the distance."""
    right = logits.mid.gather(1, answer[:, None])[:, 0]
    other = logits.mid.scatter(1, answer[:, None], -torch.inf).amax(1)
    return right - other, _up(1.4143 * logits.off + 2 * U * logits.size)
