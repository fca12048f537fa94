"""Every AND of two features from few neurons: the network, its readouts, and its tables.

Of m boolean features exactly s are on.  With A_a the row of feature a (of W_in, or of W_E W_in where features lie in
superposition) the outputs, one a pair i < j, are

    h = relu(sum of A_a over the features a that are on + b_in),    r_ij = sum_k R[k, ij] h_k + b_out,

and an input is right iff every r_ij is less than 1/2 away from x_i x_j.  R is W_out where a file has one.  Else it
follows from which neurons a feature has, N_a = {k: W_in[a, k] = 1} (of superposed features the tensor `neurons`):
`plain` averages over the neurons of both, `contrast` over those of both and of neither less those of one,

    plain:     R = [k in N_i, N_j] / sum over such k of (2 + b_in[k])          so that i and j alone give 1
    contrast:  R = (11/c11 - 10/c10 - 01/c01 + 00/c00) / (1 - p)^(s - 2)     c: how many of that kind; p: share of ones

Source: Haenni, Mendel, Vaintrob and Chan 2024 (plain, b_in = -1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..proof import cost
from ..proof.family import InputError, Model
from ..proof.rounding import Ball, U, number

READOUTS = ("plain", "contrast", "own")
OPTIONAL = ("W_E", "neurons", "W_out", "b_out")
MOST = 1024                                                              # features


def readout(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    """Which readout a file has.  Errors: InputError where it says none, or one that its tensors contradict."""
    own = "W_out" in tensors
    said = str(metadata.get("readout", "own" if own else "")).lower()
    if said not in READOUTS or (said == "own") != own or own != ("b_out" in tensors):
        raise InputError(f"model says readout {said!r} and has {'W_out' if own else 'no W_out'}; expected metadata "
                         "readout plain or contrast, or the tensors W_out and b_out (readout own)")
    return said


def sizes(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> dict[str, int]:
    """sparsity, m, d_mlp and d_model of a file.  Errors: InputError for shapes that do not fit together (expected and
    found), for a sparsity that is not said, and for neurons that are no zeros and ones or leave a pair without any."""
    kind, text = readout(tensors, metadata), str(metadata.get("sparsity", ""))
    D, d = (*tensors["W_in"].shape, 0, 0)[:2]
    m = len(tensors["W_E"]) if "W_E" in tensors else D
    expected = {"W_in": (D, d), "b_in": (d,), "W_E": (m, D), "neurons": (m, d), "W_out": (d, m * (m - 1) // 2),
                "b_out": (m * (m - 1) // 2,)}
    for name, x in tensors.items():
        if tuple(x.shape) != expected[name]:
            raise InputError(f"tensor {name} has shape {list(x.shape)}; expected {list(expected[name])}")
    if not (3 <= m <= MOST and d):
        raise InputError(f"model has {m} features and {d} neurons; expected 3 to {MOST} features, and neurons")
    if not (text.isascii() and text.isdigit() and 2 <= int(text[:9]) < m):
        raise InputError(f"model says sparsity {text!r}; expected how many features are on: 2 to {m - 1}")
    if ("neurons" in tensors) != ("W_E" in tensors and kind != "own"):
        raise InputError(f"model has {'' if 'neurons' in tensors else 'no '}tensor neurons; expected it of superposed "
                         "features (W_E) with a readout that is not its own, and of no other")
    if kind != "own":
        check_neurons(tensors, kind)
    return {"sparsity": int(text), "m": m, "d_mlp": d, "d_model": D}


def check_neurons(tensors: Mapping[str, Tensor], kind: str) -> None:
    """Errors: as `sizes`.  Complexity: O(m^2 d)."""
    name = "neurons" if "neurons" in tensors else "W_in"
    N, b = tensors[name], tensors["b_in"]
    if not bool(((N == 0) | (N == 1)).all()):
        raise InputError(f"tensor {name} has other entries than 0 and 1; the {kind} readout is of such alone")
    if not bool((b > -2).all()):
        raise InputError(f"tensor b_in goes down to {float(b.min())}; the readouts of zeros and ones take more than -2")
    off = ~torch.eye(len(N), dtype=torch.bool)
    cells = counts(N) if kind == "contrast" else [N @ N.T]
    if not all(bool((c[off] > 0).all()) for c in cells):
        raise InputError(f"tensor {name} leaves a pair of features without a neuron of some kind; the {kind} readout "
                         "averages over such")


def known_sizes(model: Model) -> dict[str, int]:
    """The sizes inside of a proof, which pays for the look at what is zero or one."""
    w = model.tensors
    N = w.get("neurons", w["W_in"])
    with cost.charge(0 if "W_out" in w else 2 * N.numel() * (len(N) + 2), "whether neurons are zeros and ones"):
        return model.sizes


def counts(N: Float[Tensor, "m d"]) -> list[Float[Tensor, "m m"]]:
    """Neurons of both features, of the first alone, of the second alone, of neither; exact."""
    both, each = N @ N.T, N.sum(1)
    return [both, each[:, None] - both, each - both, N.shape[1] - each[:, None] - each + both]


def reciprocal(x: Ball) -> Ball:
    """1/x of what is positive for certain; not finite where something is not.

    |1/x - 1/mid| <= rad / (lo mid) with lo <= min(x, mid), and 2 U / mid for the quotient."""
    low = (x.mid.amin() - x.rad) * (1 - 4 * U)
    low = torch.where(low > 0, low, low * 0)
    mag = 1 / low * (1 + 8 * U)
    return Ball(1 / x.mid, (x.rad / low + 4 * U) * mag * (1 + 2.0**-20), mag)


class Network(NamedTuple):
    """A network as its proofs read it: `column(i)` is R of the pairs of i with every feature (i itself means
    nothing)."""

    A: Float[Ball, "m d"]
    b: Float[Ball, " d"]
    column: Callable[[int], Float[Ball, "d m"]]
    c: Float[Ball, "m m"]                                                # b_out, by pair
    s: int
    signed: bool                                                         # whether an entry of R may be negative


def place(m: int) -> Int[Tensor, "m m"]:
    """Which output a pair is, in either order; 0 on the diagonal, which is no pair."""
    at = torch.zeros(m, m, dtype=torch.long)
    i, j = torch.triu_indices(m, m, 1)
    at[i, j] = at[j, i] = torch.arange(len(i))
    return at


def opened(model: Model) -> Network:
    """The network's tables.  Complexity: O(m d_model d_mlp + m^2 d_mlp)."""
    w, (s, m, *_) = model.tensors, known_sizes(model).values()
    W_in, b = Ball(w["W_in"]), Ball(w["b_in"])
    A = Ball(w["W_E"]) @ W_in if "W_E" in w else W_in
    if "W_out" in w:
        with cost.addresses():
            at = place(m)
        R = Ball(w["W_out"])
        return Network(A, b, lambda i: R.pick(lambda x: x[:, at[i]]), Ball(w["b_out"])[at], s, True)
    N = Ball(w.get("neurons", w["W_in"]))
    kind = readout(w, model.metadata)
    column = plain(N, b) if kind == "plain" else contrast(N, s)
    return Network(A, b, column, Ball(torch.zeros(m, m)), s, kind == "contrast")


def off_diagonal(x: Ball) -> Ball:
    """With ones in place of a feature's pair with itself, which stands for nothing."""
    return x.pick(lambda y: y.masked_fill(torch.eye(len(y), dtype=torch.bool), 1.0))


def plain(N: Float[Ball, "m d"], b: Float[Ball, " d"]) -> Callable[[int], Ball]:
    """The mean over the neurons of both."""
    scale = reciprocal(off_diagonal(((b + number(2.0)) * N) @ N.T))
    return lambda i: (N[i][:, None] * N.T) * scale[i]


def contrast(N: Float[Ball, "m d"], s: int) -> Callable[[int], Ball]:
    """The interaction of i and j in a table of two by two."""
    one = number(1.0)
    inverse = [reciprocal(off_diagonal(Ball(c))) for c in counts(N.mid)]
    zeros = (one - N).sum(1).sum(0)
    share = reciprocal(zeros) * number(float(N.mid.numel()))             # 1 / (1 - p)

    def column(i: int) -> Ball:
        mine, theirs = N[i][:, None], N.T
        kinds = (mine * theirs, mine * (one - theirs), (one - mine) * theirs, (one - mine) * (one - theirs))
        both, first, second, neither = (kind * n[i] for kind, n in zip(kinds, inverse))
        R = both - first - second + neither
        for _ in range(s - 2):
            R = R * share
        return R

    return column
