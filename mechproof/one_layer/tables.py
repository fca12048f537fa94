"""What a network of one attention layer is made of, position by position.

Problem: a layer norm before the attention mixes token and position, a closing = sign has no row among the queries, a
network may have more outputs than answers.  Idea: the theorem "Sum and count" never needed more than a function of one
token at each position.  So multiply out, for every head h and every position p that is free,

    A_p[q, k]   the score of token k there, for query q          votes_p[k, x]   what it writes to logit x

and keep what stands at fixed positions as numbers.  LN(y) = (y - mean) / s * w + b with s = sqrt(var + eps): before the
attention it is computed row by row; before the unembedding s > 0 is common to all logits, so that

    lead  =  (linear lead) / s + c_m - c_x     has the sign of     (linear lead) + s (c_m - c_x),

which is taken at the worse end of a range of s (s is never multiplied out).

Tokens of a network of min are counted from the top, so that it is one of max.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof import cost
from ..proof.family import Model
from ..proof.rounding import Ball, U, _up, cat, inverse, inverse_sqrt, number
from ..transformer.settings import Settings, read

LAYER = "blocks.0"


def normalized(x: Float[Ball, "r d"], eps: float, centred: bool) -> Float[Ball, "r d"]:
    """Rows over the root of their mean square and eps, their means taken out first, if they are to be centred.

    1/sqrt has slope at most 1 / (2 least^1.5); its evaluation is two roundings of numbers at most 1/sqrt(least).
    """
    x = without_mean(x) if centred else x
    square = (x * x).mean(1) + number(eps)
    least = square.mid.amin() - square.rad
    # NaN where a square may be zero: nothing is known
    least = least.masked_fill(~(least > 0), torch.nan)
    mag = _up(1 / least.sqrt())
    over = Ball(1 / square.mid.sqrt(), _up(square.rad / (2 * least * least.sqrt()) + 4 * U * mag), mag)
    return x * over[:, None]


def without_mean(x: Float[Ball, "r d"]) -> Float[Ball, "r d"]:
    return x - x.mean(1)[:, None]


@dataclass(frozen=True, eq=False)
class Position:
    """One head at one position: scores [q, k] and votes [k, x] of the tokens that may stand there."""

    scores: Float[Ball, "q k"]
    votes: Float[Ball, "k x"]


@dataclass(frozen=True, eq=False)
class Tables:
    """Of one model.  Complexity of all: O(h K v d (d_head + v)). Theorem: *Norms and fixed tokens*."""

    model: Model

    @cached_property
    def settings(self) -> Settings:
        return read(self.model.tensors, self.model.metadata)

    @property
    def d_input(self) -> int:
        return self.settings.d_input

    @property
    def free_query(self) -> bool:
        """Whether the last token is free, and the query."""
        return self.settings.inputs[-1] is None

    @property
    def others(self) -> list[int]:
        """The free positions besides the query's."""
        return [p for p in self.settings.free if p != len(self.settings.inputs) - 1]

    def turned(self, x: Tensor) -> Tensor:
        """Rows of tokens, from the top if the network is one of min; rows beyond the answers stay."""
        if self.settings.task != "min":
            return x
        with cost.addresses():
            order = torch.arange(len(x))
            order[: self.d_input] = order[: self.d_input].flip(0)
        return x[order]

    def weight(self, name: str, head: int | None = None) -> Ball | None:
        """A tensor of the file, or None."""
        x = self.model.tensors.get(name)
        if x is None:
            return None
        x = x if head is None else x[head]
        if name == "embed.W_E":
            return Ball(self.turned(x))
        return Ball(self.turned(x.T).T if name == "unembed.W_U" else self.turned(x) if name == "unembed.b_U" else x)

    def embedded(self, p: int) -> Float[Ball, "k d"]:
        """The residual stream at a position, of each token that may stand there."""
        token, W_E = self.settings.inputs[p], self.weight("embed.W_E")
        x = W_E[: self.d_input] if token is None else W_E[self.place(token)][None]
        W_pos = self.weight("pos_embed.W_pos")
        return x if W_pos is None else x + W_pos[p]

    def place(self, token: int) -> int:
        """The row of a fixed token."""
        return self.d_input - 1 - token if self.settings.task == "min" and token < self.d_input else token

    def normal(self, x: Ball, name: str) -> Ball:
        """Rows as a layer with normalization reads them."""
        kind = self.settings.normalization_type
        if kind == "none":
            return x
        x = normalized(x, self.settings.eps, kind.startswith("LN"))
        for part, join in (("w", Ball.__mul__), ("b", Ball.__add__)):
            if (y := self.weight(f"{name}.{part}")) is not None:
                x = join(x, y[None])
        return x

    @cached_property
    def heard(self) -> list[Float[Ball, "k d"]]:
        """What the heads read at every position."""
        return [self.normal(self.embedded(p), f"{LAYER}.ln1") for p in range(len(self.settings.inputs))]

    @cached_property
    def W_U(self) -> Float[Ball, "d x"]:
        """The unembedding as the residual stream meets it, but for the divisor."""
        W_U, w = self.weight("unembed.W_U"), self.weight("ln_final.w")
        W_U = W_U if w is None else W_U * w[:, None]
        return without_mean(W_U.T).T if self.settings.normalization_type.startswith("LN") else W_U

    def projected(self, x: Ball, side: str, head: int) -> Ball:
        """Queries, keys or values; biases of keys no softmax sees."""
        out = x @ self.weight(f"{LAYER}.attn.W_{side}", head)
        bias = None if side == "K" else self.weight(f"{LAYER}.attn.b_{side}", head)
        return out if bias is None else out + bias[None]

    def queries(self, head: int) -> Float[Ball, "q k"]:
        """Divided by attn_scale."""
        said, k = self.settings.attn_scale, self.model.sizes["d_head"]
        if said is None:
            over = inverse_sqrt(k)
        else:
            mid = torch.tensor(1 / said, dtype=torch.float64)
            over = Ball(mid, mid * (4 * U), mid)
        return self.projected(self.heard[-1], "Q", head) * over

    @cached_property
    def written(self) -> list[list[Float[Ball, "k d"]]]:
        """What each head writes to the residual stream for a token at each position."""
        return [[self.projected(x, "V", h) @ self.weight(f"{LAYER}.attn.W_O", h) for x in self.heard]
                for h in range(self.model.sizes["n_heads"])]

    def positions(self, head: int) -> list[Position]:
        """The tables of one head at every position."""
        queries = self.queries(head)
        return [Position(queries @ self.projected(x, "K", head).T, y @ self.W_U)
                for x, y in zip(self.heard, self.written[head])]

    @cached_property
    def residual(self) -> Float[Ball, "q d"]:
        """The last position's stream, without what the heads write."""
        x, b_O = self.embedded(len(self.settings.inputs) - 1), self.weight(f"{LAYER}.attn.b_O")
        return x if b_O is None else x + b_O[None]

    @cached_property
    def direct(self) -> Float[Ball, "q x"]:
        """The direct path's logits."""
        out, b_U = self.residual @ self.W_U, self.weight("unembed.b_U")
        return out + b_U[None] if b_U is not None and not self.divided else out

    @property
    def divided(self) -> bool:
        """Whether a norm stands before the unembedding."""
        return self.settings.normalization_type != "none"

    @cached_property
    def constant(self) -> Float[Ball, " x"] | None:
        """What the logits get after the divisor; None for nothing."""
        if not self.divided:
            return None
        b, b_U = self.weight("ln_final.b"), self.weight("unembed.b_U")
        after = None if b is None else (b[None] @ self.weight("unembed.W_U"))[0]
        return b_U if after is None else after if b_U is None else after + b_U

    @cached_property
    def divisors(self) -> tuple[Float[Ball, " q"], Float[Ball, " q"]]:
        """At most and at least the divisor before the unembedding, for every query: its stream, give or take the
        longest that each head may write."""
        d = self.residual.shape[1]
        seen = without_mean if self.settings.normalization_type.startswith("LN") else lambda x: x
        low, high = length(seen(self.residual))
        for places in self.written:
            most = cat([length(seen(x))[1] for x in places], 0).amax(0)
            low, high = low - most, high + most
        square = [x * x * inverse(d) + number(self.settings.eps) for x in (low.relu(), high)]
        return root_lower(square[0]), square[1].sqrt_upper()


def length(x: Float[Ball, "r d"]) -> tuple[Ball, Ball]:
    """At least and at most the Euclidean length of every row."""
    square = (x * x).sum(1)
    return root_lower(square), square.sqrt_upper()


def root_lower(square: Ball) -> Ball:
    """At most the square roots, as exact numbers."""
    low = (square.mid - _up(square.rad + 2 * U * _up(square.mag))).clamp_min(0)
    return Ball(low.sqrt() * (1 - 2.0**-40))
