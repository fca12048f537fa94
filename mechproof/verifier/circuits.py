"""The network as five tables, and what a proof knows of them.

    logit_i = EU[q,i] + sum_p alpha_p (OV[t_p,i] + PV[p,i]),    alpha = softmax_p(A[q,t_p] + B[q,p])

q is the last token.  A, EU and OV are chains of factors.  A compact proof does not multiply a chain out: it takes the
mean row and some advised directions off its factors and bounds the product of what remains.  For any directions (a, b)

    F = (F a) b^T + F'        or, from the other side,        F = b (F^T a)^T + F'

defines F', and expanding the product of all F gives an identity, so that no advice can make a table wrong; a bound on
how far the differences within a row of the remaining product reach is the table's slack.  The Monte-Carlo proof reads
whole tables as advice and multiplies them and the chain with a random vector (Freivalds 1977): a table that is wrong
in any entry agrees with probability at most 2^-61, being a nonzero integer form in a vector uniform on [0, 2^61).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import reduce
from operator import matmul, mul

import numpy as np
from flint import arb, arb_mat, fmpz_mat

from .numbers import Mat, Refused, root, work

WORDS, BITS = 4, 62                                     # an entry of an advised table: signed words of 62 bits
TABLES = ("qk", "eu", "ov")
Weights = dict[str, np.ndarray]


@dataclass
class Circuits:
    """A [q,k], EU [q,i] (one row may stand for all), OV [k,i], each with the slack of its rows' differences or None;
    B [q,p], PV [p,i].  Where all positions but the last are alike, p has one entry for them and one for the last."""

    n_ctx: int
    A: Mat
    B: Mat
    EU: Mat
    OV: Mat
    PV: Mat
    slack: dict[str, np.ndarray | None]

    def centred(self) -> Circuits:
        """The same logit differences, the means of EU and PV moved into OV (attention sums to one)."""
        direct, places = self.EU.mean(), self.PV.mean()
        return Circuits(self.n_ctx, self.A, self.B, self.EU - direct, self.OV + (direct + places),
                        self.PV - places, self.slack)


def widened(w: Weights) -> Weights:
    """A network with biases is one without, of vectors one longer: a coordinate that is 1 in every embedding and 0 in
    every position, below which the biases stand (b_O W_U + b_U below W_U, by the caller).  Without biases, itself."""
    if not {"b_Q", "b_V", "b_O", "b_U"} & set(w):
        return w
    one = lambda x, entry: np.concatenate([x, np.full((len(x), 1), entry, x.dtype)], 1)
    row = lambda x, bias: np.concatenate([x, w.get(bias, np.zeros(x.shape[1], x.dtype))[None]])
    return w | {"W_E": one(w["W_E"], 1), "W_pos": one(w["W_pos"], 0), "W_O": one(w["W_O"], 0),
                "W_Q": row(w["W_Q"], "b_Q"), "W_K": row(w["W_K"], "none"), "W_V": row(w["W_V"], "b_V")}


def constant(w: Weights) -> tuple[np.ndarray, np.ndarray]:
    """b_O and b_U as rows."""
    d, v = w["W_U"].shape
    zero = lambda n: np.zeros(n, w["W_U"].dtype)
    return w.get("b_O", zero(d))[None], w.get("b_U", zero(v))[None]


def exact(w: Weights, n_ctx: int | None) -> Circuits:
    """Every table multiplied out; `n_ctx` is given for a stripped network, which has no positions."""
    if n_ctx:
        left, right, votes, logits = (Mat.of(w[name]) for name in ("QK_left", "QK_right", "OV_left", "OV_right"))
        v = left.shape[0]
        return Circuits(n_ctx, left @ right.T, Mat.zeros(v, 2), Mat.of(w["EU"][None]), votes @ logits, Mat.zeros(2, v),
                        dict.fromkeys(TABLES))
    return compact(w, {}, dict.fromkeys(TABLES, "exact"))


def shared(w: Weights) -> tuple[dict[str, list[Mat]], Mat, Mat]:
    """The chains of the three large tables, and the two tables of positions."""
    W = {name: Mat.of(x) for name, x in widened(w).items() if x.ndim == 2}
    if W["W_E"].shape[1] > len(w["W_U"]):
        b_O, b_U = map(Mat.of, constant(w))
        W["W_U"] = Mat(arb_mat([*W["W_U"].balls.tolist(), *(b_O @ W["W_U"] + b_U).balls.tolist()]))
    mean, Q = W["W_pos"].mean(), W["W_Q"].scaled(1 / arb(w["W_Q"].shape[1]).sqrt())
    queries, keys = W["W_E"] + W["W_pos"].last(), W["W_E"] + mean
    B = queries @ (Q @ ((W["W_pos"] - mean) @ W["W_K"]).T)
    chains = {"qk": [queries, Q, W["W_K"].T, keys.T], "eu": [queries, W["W_U"]],
              "ov": [W["W_E"], W["W_V"], W["W_O"], W["W_U"]]}
    return chains, B, reduce(matmul, [W["W_pos"], W["W_V"], W["W_O"], W["W_U"]])


def compact(w: Weights, advice: dict[str, np.ndarray], tiers: dict[str, str]) -> Circuits:
    """The tables of a transformer, each as exactly as its tier says."""
    chains, B, places = shared(w)
    known = {name: compacted(chain, tiers[name], name, advice) for name, chain in chains.items()}
    (A, EU, OV), slack = ([known[name][i] for name in TABLES] for i in (0, 1))
    return Circuits(len(w["W_pos"]), A, B, EU, OV, places, dict(zip(TABLES, slack)))


def folded(n: int, tier: str) -> list[int]:
    """Where a chain of n factors is cut; what lies between two cuts is multiplied out."""
    return sorted({"gram": {0, n - 1, n}, "spectral": {0, 1, n - 1, n}, "frobenius": set(range(n + 1))}[tier])


def peeled(n: int, tier: str) -> list[int]:
    """Which of n folded factors lose their advised directions."""
    return {"gram": [0], "spectral": [0] if n == 2 else [1], "frobenius": list(range(n))}[tier]


def directions(dims: list[int], tier: str) -> dict[int, int]:
    """{peeled factor: length of its directions} for a chain with these dimensions."""
    cuts = folded(len(dims) - 1, tier)
    n = len(cuts) - 1
    return {i: dims[cuts[i + 1] if 2 * i < n else cuts[i]] for i in peeled(n, tier)}


def compacted(chain: list[Mat], tier: str, name: str, advice: dict[str, np.ndarray]) -> tuple[Mat, np.ndarray | None]:
    """A chain multiplied out, or only its mean row and its part along the advice;
    by how much a row's differences may be off."""
    if tier == "exact":
        first, *inner, last = chain
        return reduce(matmul, [first, *([inner[0] @ inner[1]] if inner else []), last]), None
    cuts = folded(len(chain), tier)
    first, *others = (reduce(matmul, chain[i:j]) for i, j in zip(cuts, cuts[1:]))
    mean = first.mean()
    table, factors, rest = reduce(matmul, others, mean), [first - mean, *others], []
    low_rank = Mat.zeros(first.shape[0], table.shape[1])
    for i, factor in enumerate(factors):
        if i not in peeled(len(factors), tier):
            rest.append(factor)
            continue
        a, b = (Mat.of(advice[f"{name}_{side}{i}"]) for side in "ab")
        along = (factor if 2 * i < len(factors) else factor.T) @ a
        left, right = (along, b) if 2 * i < len(factors) else (b, along)
        rest.append(factor - left @ right.T)
        left = reduce(lambda x, M: M @ x, reversed(rest[:-1]), left)
        low_rank += left @ reduce(lambda x, M: M.T @ x, factors[i + 1 :], right).T
    return low_rank + table, reach(rest, tier)


def reach(factors: list[Mat], tier: str) -> np.ndarray:
    """[q], at least the largest difference within row q of the product: one entry, times e_k - e_k', of length sqrt 2.

    gram: the norm of row q of the product, its columns centred.  Otherwise row by row |first| size(..) size(..) and the
    distance of two columns of the last, at most twice the longest.
    """
    first, *inner, last = factors
    last = last.T - last.T.mean()                                                   # its rows are the centred columns
    if tier == "gram":
        squares = first @ (last.T @ last)
        work(2 * first.shape[0] * first.shape[1])
        rows = zip(squares.balls.tolist(), first.balls.tolist())
        norms = [root(sum(map(mul, x, y), arb(0))) for x, y in rows]
        return np.array(norms) * (2**0.5 * (1 + 2.0**-50))
    size = {"spectral": operator_norm, "frobenius": frobenius_norm}[tier]
    longest = 2 * last.norms().max() * reduce(mul, map(size, inner), 1.0)
    return first.norms() * longest * (1 + 2.0**-40)


def frobenius_norm(x: Mat) -> float:
    norms = x.norms()
    return float(np.sqrt((norms * norms).sum())) * (1 + 2.0**-40)


def operator_norm(x: Mat) -> float:
    """At least the largest singular value s: s^2 is an eigenvalue of G = x^T x, and s^64 <= trace of G^32."""
    G = x.T @ x
    for _ in range(5):
        G = G @ G
    return root((G.balls.trace().abs_upper() + arb(2) ** -2000).root(32))


def whole(*matrices: np.ndarray) -> tuple[list[fmpz_mat], int]:
    """float32 matrices as integers times 2^-e, one e for all: 24 bits for the smallest entry that is not 0."""
    parts = [np.frexp(matrix.astype(float)) for matrix in matrices]
    e = 24 - min((int(exponent[x != 0].min()) for x, exponent in parts if x.any()), default=0)
    lifted = [[int(x * 2**24) << max(k + e - 24, 0) for x, k in zip(x.flat, exponent.ravel().tolist())]
              for x, exponent in parts]
    return [fmpz_mat(*matrix.shape, entries) for matrix, entries in zip(matrices, lifted)], e


def sampled(w: Weights, advice: dict[str, np.ndarray]) -> Circuits:
    """Tables from the advice, once each has agreed with its chain on a vector drawn now."""
    work(4 * sum(x.size for x in w.values()))
    wide = widened(w)
    (E, last), e_q = whole(wide["W_E"], np.broadcast_to(wide["W_pos"][-1], wide["W_E"].shape))
    queries, W, e = E + last, {}, {}
    for name in ("W_E", "W_Q", "W_K", "W_V", "W_O", "W_U"):
        (W[name],), e[name] = whole(wide[name])
    if wide is not w:
        W["W_U"], e["W_U"] = below(w)
    chains = {"scores": ([queries, W["W_Q"], W["W_K"].transpose(), W["W_E"].transpose()],
                         e_q + e["W_Q"] + e["W_K"] + e["W_E"]),
              "direct": ([queries, W["W_U"]], e_q + e["W_U"]),
              "votes": ([W["W_E"], W["W_V"], W["W_O"], W["W_U"]], e["W_E"] + e["W_V"] + e["W_O"] + e["W_U"])}
    table = {name: agreeing(name, advice[name], *chain) for name, chain in chains.items()}
    _, B, places = shared(w)
    A = table["scores"].scaled(1 / arb(w["W_Q"].shape[1]).sqrt())
    return Circuits(len(w["W_pos"]), A, B, table["direct"], table["votes"], places, dict.fromkeys(TABLES))


def below(w: Weights) -> tuple[fmpz_mat, int]:
    """W_U over b_O W_U + b_U in integers times 2^-e."""
    b_O, b_U = constant(w)
    (U, u), e = whole(w["W_U"], b_U)
    (b, _), more = whole(b_O, np.ones((1, 1)))                          # the 1 keeps this power from being negative
    work(4 * U.nrows() * U.ncols())
    return fmpz_mat([*(U * 2**more).tolist(), *(b * U + u * 2**more).tolist()]), e + more


def agreeing(name: str, words: np.ndarray, chain: list[fmpz_mat], e: int) -> Mat:
    """The advised table times 2^-e, after Freivalds' test."""
    v = words.shape[1]
    work(WORDS * (4 * v * v + 2 * sum(M.nrows() * M.ncols() for M in chain)))
    entries = [sum(int(x) << (BITS * i) for i, x in enumerate(entry)) for entry in words.reshape(WORDS, -1).T]
    table, r = fmpz_mat(v, v, entries), fmpz_mat(v, 1, [secrets.randbits(61) for _ in range(v)])
    if table * r != reduce(lambda x, M: M * x, reversed(chain), r):
        raise Refused(f"advice: table {name!r} is not the product of the weights")
    return Mat(arb_mat(table) * (arb(2) ** -e))
