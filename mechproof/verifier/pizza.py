"""Modular addition: which pairs (a, b) have their right answer s = a + b mod p certainly largest.

Attention is constant, so that the linear maps fold into three tables, with half of what every pair shares in each row:

    logit_c(a, b) = S[a,c] + S[b,c] + sum_i relu(H[a,i] + H[b,i]) W[i,c],     H = R W_in, W = W_out W_U, S = R W_U.

Products are not multiplied out but taken through a narrow door, some directions Q from the advice.  With D = Q Q^T - 1,

    A B^T = (A Q^T)(B Q^T)^T - (A Q^T) D (B Q^T)^T + (A - A Q^T Q)(B - B Q^T Q)^T      for any Q,

so that the first term is off by at most o_A o_B in any entry, o_X = |X - X Q^T Q| + |X Q^T| |D|^(1/2), row by row.

A pair is (g, h): a = h + g, b = h - g, 0 <= g <= (p-1)/2, so that each unordered pair comes once.  Shifts delta = c - s
that lose on a whole row of pairs (one g) are settled first; what they leave open is compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from math import ceil, log2

import numpy as np
from flint import arb, arb_mat, fmpz, fmpz_mat

from .circuits import whole
from .numbers import Mat, Real, U, dot, most, must, reduced, require, root, stacked, up, work

ALLOWED = {"wheel": ("rank", "residual_rank", "nodes"), "exact_activations": ("rank", "residual_rank"),
           "brute_force": ()}
MOST_NODES = 1024
LARGEST = 2**26                                     # numbers in a table
POSITIONS = 3
Weights = dict[str, np.ndarray]


def limits(sizes: dict[str, int]) -> dict[str, tuple[int, int]]:
    """The range of every parameter."""
    return {"rank": (2, sizes["d"]), "residual_rank": (1, sizes["d"]), "nodes": (1, MOST_NODES)}


def expected(strategy: str, parameters: dict[str, int],
             sizes: dict[str, int]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array of advice; tables that would be too large are refused."""
    if strategy == "brute_force":
        return {}
    p, d, n, q, nodes = sizes["v"], sizes["d"], sizes["m"], parameters["rank"], parameters.get("nodes", 1)
    largest = max(p * (n + 1) * (q + 1), p * p * max(q, nodes), p * p * (n + nodes) // 2)
    must(largest <= LARGEST, "sizes: the tables do not fit into memory")
    place = {"place": ((n,), "<f8")} if strategy == "wheel" else {}
    return {"inner": ((parameters["residual_rank"], d), "<f8"), "outer": ((q, d), "<f8"),
            "keys": ((q // 2,), "<i8"), **place}


def given(x: np.ndarray) -> Real:
    """Numbers that are exact, whether they are those meant or not."""
    work(2 * x.size)
    return Real(x)


class Pairs:
    """a and b of every pair [half, p], and the right answer by h [p]."""

    def __init__(self, p: int):
        g, h = np.arange((p + 1) // 2)[:, None], np.arange(p)
        self.p, self.a, self.b, self.answer = p, (h + g) % p, (h - g) % p, 2 * h % p

    def both(self, x: np.ndarray) -> np.ndarray:
        """x[a] + x[b] of upper bounds x [p]."""
        work(self.a.size)
        return up(x[self.a] + x[self.b])


def side_by_side(w: Weights) -> Weights:
    """The heads as one product."""
    heads, d, width = w["W_V"].shape
    return {"W_V": w["W_V"].transpose(1, 0, 2).reshape(d, heads * width), "W_O": w["W_O"].reshape(heads * width, d)}


def residual(w: Weights) -> Mat:
    """R [p, d]: half of what reaches the MLP at `=`, x(a, b) = R[a] + R[b]."""
    V, out = (Mat.of(x) for x in side_by_side(w).values())
    E, pos = Mat.of(w["W_E"]), Mat.of(w["W_pos"])
    sign, rows = E.last(), E.balls.tolist()
    # goes through attention once for every pair
    rows[-1] = (sign + pos.mean().scaled(arb(POSITIONS))).balls.entries()
    seen = ((Mat(arb_mat(rows)) @ V) @ out).scaled(1 / arb(POSITIONS))
    return seen.first(len(rows) - 1) + (sign + pos.last() + seen.last()).scaled(arb(0.5))


def half_bias(w: Weights, name: str, size: int) -> Mat:
    """A bias enters once a pair, and each row of a table twice."""
    return Mat.of(w[name][None]).scaled(arb(0.5)) if name in w else Mat.zeros(1, size)


def answers(w: Weights) -> Mat:
    """W_U by classes [p, d], less what all classes share, which decides nothing."""
    U = Mat.of(w["W_U"].T)
    return U - U.mean()


class Door:
    """See the module docstring; |D| is at most its Frobenius norm."""

    def __init__(self, Q: np.ndarray):
        self.Q = Mat.of(Q)
        self.gram = self.Q @ self.Q.T
        n = len(Q)
        D = self.gram.balls - arb_mat(n, n, [int(i == j) for i in range(n) for j in range(n)])
        work(3 * n * n)
        self.tilt = up(root(dot(D.entries(), D.entries())) ** 0.5)

    def __call__(self, X: Mat) -> tuple[Mat, np.ndarray]:
        """X Q^T and o_X: |x - x Q^T Q|^2 = |x|^2 - 2 |x Q^T|^2 + (x Q^T) Q Q^T (x Q^T)^T."""
        inside = X @ self.Q.T
        bent = inside @ self.gram
        work(2 * X.shape[0] * X.shape[1] + 4 * inside.shape[0] * inside.shape[1])
        rest = [root(dot(x, x) - 2 * dot(y, y) + dot(y, z))
                for x, y, z in zip(X.balls.tolist(), inside.balls.tolist(), bent.balls.tolist())]
        return inside, upper(np.array(rest) + inside.norms() * self.tilt)


def upper(x: np.ndarray) -> np.ndarray:
    """At least what positive terms were evaluated to; finite, or there is nothing to prove."""
    work(x.size)
    x = up(x)
    must(bool(np.isfinite(x).all()), "a bound overflows, and nothing can be certified")
    return x


class Network:
    """The network through the two doors.

    H [p, n], off by u[a] v[i] + rad; its neuron i writes G[i, :-1] T, off by G[i, -1] w[c]; S off by direct[a].
    """

    def __init__(self, w: Weights, inner: Door, outer: Door):
        U, (d, n) = answers(w), w["W_in"].shape
        (R, self.u), (W_in, self.v), (classes, over) = (inner(X) for X in (residual(w), Mat.of(w["W_in"].T), U))
        self.H = (R @ W_in.T + half_bias(w, "b_in", n)).real()
        self.S = (R @ classes.T + half_bias(w, "b_out", d) @ U.T).real()
        self.direct = upper(self.u * reduced(np.max, over))
        (W_out, rest), (T, self.w) = outer(Mat.of(w["W_out"])), outer(U)
        self.T, G = T.real(), W_out.real()
        self.G = Real(np.concatenate([G.mid, rest[:, None]], 1), G.rad, most([G.mag, *rest]))

    def missed(self, at: Pairs) -> np.ndarray:
        """How far the errors of H move sum_i relu(..) G[i], in Euclidean norm;
        relu moves by no more than its argument."""
        g = upper(np.sqrt(reduced(np.sum, (np.abs(self.G.mid) + self.G.rad) ** 2, 1)))
        work(3 * self.G.mid.size + 4 * len(g) + 2 * len(self.u))
        return at.both(upper(self.u * (self.v * g).sum() + self.H.rad * g.sum()))


def one_by_one(net: Network, at: Pairs) -> Real:
    """sum_i relu(H[a,i] + H[b,i]) G[i] of every pair [half, p, q + 1], H as its midpoints are."""
    H = given(net.H.mid)
    return stacked([(H[a] + H[b]).relu() @ net.G for a, b in zip(at.a, at.b)])


def ends(h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest of each node's neurons [p, nodes], each neuron to a scale of its own; h [p, nodes, neurons].

    A product is off by U of itself, or underflows: what that moves least and largest by is taken off and put on.
    """
    # any positive numbers are sound
    scaled = h * (1 / (np.abs(h).mean(0) + 2.0**-900))
    work(3 * h.size + 2 * h[0].size)
    off = lambda x: np.abs(x) * 2.0**-50 + 2.0**-1000
    lo, hi = reduced(np.min, scaled, 2), reduced(np.max, scaled, 2)
    work(6 * lo.size)
    return lo - off(lo), hi + off(hi)


def turns(h: np.ndarray, at: Pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where, in the order of neurons, a pair's neurons go on or off:
    (pair, the first neuron of the new kind, is it on).

    A node whose least ends at a and b add up to more than 0 is on as a whole; its neurons are looked at only if it is
    not known to be on or off.  x > -y compares exactly.
    """
    p, nodes, m = h.shape
    lo, hi = ends(h)
    on, off = lo[at.a] > -lo[at.b], hi[at.a] < -hi[at.b]                                    # [half, p, nodes]
    work(2 * lo.size + 4 * on.size)
    g, s, j = np.nonzero(~(on | off))
    work(h.size + len(g) * (3 * m - 2))
    some = h[at.a[g, s], j] > -h[at.b[g, s], j]                                             # [.., m]
    entry, i = np.nonzero(some[:, 1:] != some[:, :-1])
    first, last = np.zeros((2, *on.shape[:2], nodes + 1), bool)
    first[..., :-1], last[..., 1:] = on, on
    first[g, s, j], last[g, s, j + 1] = some[:, 0], some[:, -1]
    G, S, J = np.nonzero(reduced(np.not_equal, first, last))
    work(first.size)
    return np.concatenate([(g * p + s)[entry], G * p + S]), np.concatenate([j[entry] * m + i + 1, J * m]), \
        np.concatenate([some[entry, i + 1], first[G, S, J]])


def by_turns(net: Network, place: np.ndarray, nodes: int, at: Pairs) -> Real:
    """The sums of `one_by_one`: what is on is linear, so a run of neurons is a difference of prefix sums."""
    (p, n), order = net.H.shape, np.argsort(place, kind="stable")
    m = ceil(n / nodes)
    # the last nodes may lack some
    h = np.zeros((p, nodes * m))
    h[:, :n] = net.H.mid[:, order]
    prefix = (given(h[:, :n, None]) * net.G[order]).cumsum(1)
    pair, i, on = turns(h.reshape(p, nodes, m), at)
    work(n * ceil(log2(max(n, 2))) + 3 * len(pair))
    a, b, i = at.a.ravel(), at.b.ravel(), np.minimum(i, n)
    start = prefix.pick(lambda x: np.concatenate([np.zeros_like(x[:, :1]), x], 1))
    most = int(np.bincount(pair, minlength=1).max())                                         # turns that one pair has
    z = []
    for kind in (~on, on):
        each = start[a[pair[kind]], i[kind]] + start[b[pair[kind]], i[kind]]
        total, mag = np.zeros((at.a.size, each.shape[1])), up(most * each.mag)
        np.add.at(total, pair[kind], each.mid)
        work(each.mid.size)
        z.append(Real(total, up(most * each.rad + most * U * mag), mag))
    return (z[0] - z[1]).pick(lambda x: x.reshape(*at.a.shape, -1))


def waves(keys: np.ndarray, p: int) -> Real:
    """cos and sin of 2 pi k c / p [p, 2, keys]."""
    angles = [arb(2 * j) / p for j in range(p)]
    work(2 * p + p * len(keys))
    table = Mat(arb_mat(p, 2, [f for x in angles for f in (x.cos_pi(), x.sin_pi())])).real()
    return table[np.outer(np.arange(p), keys) % p].pick(lambda x: x.transpose(0, 2, 1))


class Logits:
    """logit_c(a, b) = z(a, b) T_c + S[a,c] + S[b,c], off by at most spare(a, b) w_c + slack(a, b) / 2."""

    def __init__(self, net: Network, z: Real, missed: np.ndarray, at: Pairs):
        self.at, self.T, self.S, self.w = at, net.T, net.S, given(net.w)
        longest = up(np.sqrt(up(reduced(np.sum, (np.abs(net.T.mid) + net.T.rad) ** 2, 1).max())))
        work(3 * net.T.mid.size + 6 * missed.size)
        self.slack = given(up(2 * at.both(net.direct) + 2 * missed * longest))
        self.z, rest = z[..., :-1], z[..., -1]
        # what it bounds is not negative
        self.spare = given(up(np.maximum(rest.mid + rest.rad, 0.0) + missed))

    @cached_property
    def by_shift(self) -> np.ndarray:
        """c = s + delta of every shift delta = 1 .. p - 1 and s, [shifts, p]."""
        s = np.arange(self.at.p)
        return (s + s[1:, None]) % self.at.p

    def turned(self, wave: Real) -> tuple[Real, Real, Real]:
        """(rho, iota) [half, p, keys] with logit_s - logit_{s+delta} = sum rho (1 - cos)
        + iota sin + what the third [half, p] bounds."""
        at, p, k = self.at, self.at.p, wave.shape[2]
        wave = wave.pick(lambda x: x.reshape(p, 2 * k))
        fit = given(reduced(np.multiply, wave.mid, 2 / p))                                    # any numbers are sound
        columns = self.T.T @ fit, self.S @ fit
        T_rest, S_rest = (x - y @ wave.T for x, y in zip((self.T.T, self.S), columns))
        sums = self.z @ columns[0] + columns[1][at.a] + columns[1][at.b]
        c, s, cos, sin = (x[..., i] for x in (sums, wave[at.answer]) for i in (slice(k), slice(k, None)))
        spread = S_rest.max(1) - S_rest.min(1)
        rest = abs(self.z) @ (T_rest.max(1) - T_rest.min(1)) + spread[at.a] + spread[at.b] + self.slack
        return c * cos + s * sin, c * sin - s * cos, rest

    def settled(self, keys: np.ndarray) -> np.ndarray:
        """Which shifts lose on a whole row of pairs [half, shifts]."""
        wave = waves(keys, self.at.p)
        rho, iota, rest = self.turned(wave)
        cos, sin = (wave[1:, i].T for i in (0, 1))
        two = (self.w + self.w[self.by_shift]).max(1)                                        # at the worst s
        against = abs(iota).max(1) @ abs(sin) - rho.min(1) @ (Real(np.ones(cos.shape)) - cos) + rest.max(1)[:, None]
        return (against + self.spare.max(1)[:, None] * two).negative()

    def right(self, keys: np.ndarray) -> np.ndarray:
        """Pairs whose right answer is certainly largest [half, p]."""
        at, settled, right = self.at, self.settled(keys), np.ones(self.at.a.shape, bool)
        work(2 * settled.size + 2 * right.size)
        for g in range(len(right)):
            a, b, s, c = at.a[g], at.b[g], at.answer, self.by_shift[~settled[g]][:, at.answer]
            z, spare = self.z[g], self.spare[g]
            top = (z * self.T[s]).sum(1) + self.S[a, s] + self.S[b, s] - self.slack[g] - spare * self.w[s]
            if len(c):
                other = (z * self.T[c]).sum(2) + self.S[a, c] + self.S[b, c] + spare * self.w[c]
                right[g] = reduced(np.all, (other - top).negative(), 0)
        return right


def tried(w: Weights, at: Pairs) -> np.ndarray:
    """Every pair's logits from the folded tables; what float64 leaves undecided in whole numbers."""
    R, U, (d, n) = residual(w), answers(w), w["W_in"].shape
    H = (R @ Mat.of(w["W_in"]) + half_bias(w, "b_in", n)).real()
    S = (R @ U.T + half_bias(w, "b_out", d) @ U.T).real()
    W, right, exact = (Mat.of(w["W_out"]) @ U.T).real(), np.zeros(at.a.shape, bool), cache(lambda: exactly(w))
    for g, (a, b) in enumerate(zip(at.a, at.b)):
        logit = (H[a] + H[b]).relu() @ W + S[a] + S[b]
        margin = logit - logit[np.arange(at.p), at.answer][:, None]
        worst = margin.pick(lambda x: reduced(np.max, np.where(np.arange(at.p) == at.answer[:, None], -np.inf, x), 1))
        right[g] = worst.negative()
        for h in np.flatnonzero(~(right[g] | (-worst).negative())).tolist():
            right[g, h] = exact()(int(a[h]), int(b[h]))
    return right


def exactly(w: Weights) -> Callable[[int, int], bool]:
    """Whether the right answer is strictly largest at a pair, in whole numbers: weights times `one`,
    the residual three times as large."""
    flat = {name: np.atleast_2d(x) for name, x in {**w, **side_by_side(w)}.items()}
    *matrices, unit = whole(*flat.values(), np.ones((1, 1)))[0]
    M, one = dict(zip(flat, matrices)), unit[0, 0]
    E, pos = M["W_E"].tolist(), M["W_pos"].tolist()
    size = sum(M[name].nrows() * M[name].ncols() for name in M if name not in ("W_E", "W_pos"))

    def added(x: fmpz_mat, bias: str, factor: fmpz) -> fmpz_mat:
        return x + M[bias] * factor if bias in M else x

    def right(a: int, b: int) -> bool:
        seen = [sum(x) for x in zip(E[a], E[b], E[-1], *pos)]
        through = fmpz_mat(1, len(seen), seen) * M["W_V"] * M["W_O"]
        x = through + fmpz_mat(1, len(seen), [POSITIONS * one**2 * (y + z) for y, z in zip(E[-1], pos[-1])])
        hidden = added(x * M["W_in"], "b_in", POSITIONS * one**3).entries()
        out = added(fmpz_mat(1, len(hidden), [max(y, 0) for y in hidden]) * M["W_out"] + x * one**2, "b_out",
                    POSITIONS * one**4)
        logit = (out * M["W_U"]).entries()
        work(2 * size * max(ceil(abs(int(y)).bit_length() / 64) for y in logit))
        s = (a + b) % len(logit)
        return all(logit[s] > y for c, y in enumerate(logit) if c != s)
    return right


def certified(strategy: str, parameters: dict[str, int], w: Weights, advice: Weights) -> int:
    """How many ordered pairs the strategy certifies: those with a = b come once, all others twice."""
    p = w["W_U"].shape[1]
    at = Pairs(p)
    if strategy == "brute_force":
        right = tried(w, at)
    else:
        keys = advice["keys"]
        require(bool(((keys >= 0) & (keys <= p // 2)).all()), f"advice 'keys' holds numbers out of range 0 .. {p // 2}")
        net = Network(w, Door(advice["inner"]), Door(advice["outer"]))
        z = by_turns(net, advice["place"], parameters["nodes"], at) if strategy == "wheel" else one_by_one(net, at)
        right = Logits(net, z, net.missed(at), at).right(keys[keys > 0])
    return 2 * int(reduced(np.sum, right)) - int(right[0].sum())
