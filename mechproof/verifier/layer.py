"""One layer of attention with whatever is around it: norms, fixed tokens, more outputs than answers, several heads.

Before the attention a norm makes the tables differ from position to position:

    A_p[q, k]  score of token k at position p        V_p[k, x]  what it writes to logit x

(numbers where a token is fixed), and that is all the sums of single-token terms need.  Before the unembedding a norm
divides all logits by s > 0: what a bias adds afterwards, c_x, is worth s (c_m - c_x), and s lies between the last
stream's length less and plus the longest that the heads may write (roots of the squares over d, plus eps).

Weights are measured against the largest of their row, so that none is too large.  What the finest cells do not certify
is tried in balls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

import numpy as np
from flint import arb, arb_mat, ctx

from .exact import ENUMERABLE, PRECISIONS, TRIED
from .heads import HeadCells, HeadStage, ends_by_row
from .layout import Layout, children, edges
from .ledger import Ledger, masses
from .numbers import Mat, Real, must, reduced, require, stacked, weighted, weights, work
from .separable import Marks, by_rows, tallied
from .terms import Stage, windows

MOST = 1024             # positions
NORMS = ("none", "LN", "LNPre", "RMS", "RMSPre")
BUCKETS = 9


@dataclass(frozen=True)
class Settings:
    """What the tensors do not say; `inputs` holds None for a free token."""

    norm: str
    task: str
    inputs: tuple[int | None, ...]
    v: int
    scale: float | None
    eps: float

    @property
    def free(self) -> list[int]:
        return [p for p, token in enumerate(self.inputs) if token is None]

    @property
    def others(self) -> list[int]:
        """Free positions besides the query's."""
        return [p for p in self.free if p != len(self.inputs) - 1]

    @property
    def free_query(self) -> bool:
        return self.inputs[-1] is None

    def lines(self) -> str:
        """As they enter a model's hash."""
        said = {"task": self.task, "inputs": " ".join("?" if t is None else str(t) for t in self.inputs),
                "d_input": str(self.v), "attention": "learned", "normalization_type": self.norm,
                "attn_scale": str(self.scale or "")}
        said |= {} if self.norm == "none" else {"eps": repr(self.eps)}
        return "".join(f"{key} {value}\n" for key, value in said.items())


def short(text: str) -> bool:
    """Whether this is a whole number of a few digits."""
    return text.isdecimal() and len(text) < 10


def positive(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    require(1e-30 <= value <= 1e30, f"model metadata says {name} {text!r}, which is no number from 1e-30 to 1e30")
    return value


def settings(metadata: dict[str, str], sizes: dict[str, int]) -> Settings:
    """From the metadata; nothing that matters is assumed."""
    rows, d_head, positions = sizes["e"], sizes["h"], sizes.get("n")
    norm = {kind.lower(): kind for kind in NORMS}.get(str(metadata.get("normalization_type", "")).lower())
    task = str(metadata.get("task", "")).lower()
    require(norm is not None and task in ("max", "min"), "model metadata does not say normalization_type or task")
    plain = positions is not None and rows == sizes["o"]
    require("inputs" in metadata or plain, "model metadata does not say inputs")
    words = str(metadata.get("inputs", "? " * (positions or 0))).replace(",", " ").split()
    require(len(words) <= MOST, f"model has {len(words)} positions; at most {MOST} can be checked")
    inputs = tuple(None if word == "?" else int(word) if short(word) else -1 for word in words)
    fixed = {token for token in inputs if token is not None}
    require(None in inputs and all(0 <= token < rows for token in fixed), "model metadata says inputs of no tokens")
    text = str(metadata.get("d_input", ""))
    require(short(text) or (not text and fixed == set(range(rows - len(fixed), rows))),
            "model metadata does not say d_input")
    v, said = int(text or rows - len(fixed)), str(metadata.get("attn_scale", "")).strip()
    scale = positive(said, "attn_scale") if said else None
    if scale is not None and abs(scale**2 - d_head) < 1e-12 * d_head:
        scale = None
    eps = positive(str(metadata.get("eps", "")).strip() or "1e-05", "eps")
    return Settings(norm, task, inputs, v, scale, eps)


class Network:
    """A network's tensors as balls, at the precision there is; tokens of min counted from the top."""

    def __init__(self, w: dict[str, np.ndarray], said: Settings):
        self.w, self.said = w, said
        self.heads, self.out = w["blocks.0.attn.W_Q"].shape[0], w["unembed.W_U"].shape[1]
        # numbers of the file, the same at every precision
        self.embed = self.get("embed.W_E").balls.tolist()

    def turned(self, x: np.ndarray) -> np.ndarray:
        v = self.said.v
        return np.concatenate([x[:v][::-1], x[v:]]) if self.said.task == "min" else x

    def get(self, name: str, head: int | None = None) -> Mat | None:
        """A matrix, or a vector as a row; None for what there is not."""
        if name not in self.w:
            return None
        x = self.w[name] if head is None else self.w[name][head]
        if name == "embed.W_E":
            x = self.turned(x)
        elif name.startswith("unembed."):
            x = self.turned(x.T).T if x.ndim == 2 else self.turned(x)
        return Mat.of(np.atleast_2d(x))

    def stream(self, p: int) -> Mat:
        """What stands at a position, for each token that may."""
        token, embed = self.said.inputs[p], self.embed
        if token is not None and self.said.task == "min" and token < self.said.v:
            token = self.said.v - 1 - token
        x = Mat(arb_mat(embed[: self.said.v] if token is None else [embed[token]]))
        work(x.shape[0] * x.shape[1])
        places = self.w.get("pos_embed.W_pos")
        return x if places is None else x + Mat.of(places[p][None])

    def normal(self, x: Mat, name: str) -> Mat:
        """Rows as a layer with a norm reads them."""
        if self.said.norm == "none":
            return x
        w, b = (self.get(f"{name}.{part}") for part in "wb")
        d = x.shape[1]
        work(6 * x.shape[0] * d)
        gains = w.balls.tolist()[0] if w else [arb(1)] * d
        rows = []
        for row in self.seen(x).balls.tolist():
            over = 1 / (sum((y * y for y in row), arb(0)) / d + arb(self.said.eps)).sqrt()
            rows.append([y * over * g for y, g in zip(row, gains)])
        return Mat(arb_mat(rows)) if b is None else Mat(arb_mat(rows)) + b

    def seen(self, x: Mat) -> Mat:
        """Rows as a norm sees them: LN without their mean."""
        if not self.said.norm.startswith("LN"):
            return x
        work(2 * x.shape[0] * x.shape[1])
        rows = [(row, sum(row, arb(0)) / len(row)) for row in x.balls.tolist()]
        return Mat(arb_mat([[y - mean for y in row] for row, mean in rows]))

    def unembedding(self) -> Mat:
        """Without the divisor."""
        U, w = self.get("unembed.W_U"), self.get("ln_final.w")
        if w is not None:
            work(U.shape[0] * U.shape[1])
            gains = w.balls.tolist()[0]
            U = Mat(arb_mat([[y * g for y in row] for row, g in zip(U.balls.tolist(), gains)]))
        return self.seen(U.T).T if self.said.norm != "none" else U

    def read(self, x: Mat, side: str, head: int) -> Mat:
        out, bias = x @ self.get(f"blocks.0.attn.W_{side}", head), None
        if side != "K":
            bias = self.get(f"blocks.0.attn.b_{side}", head)
        return out if bias is None else out + bias

    @property
    def scale(self) -> arb:
        d_head = self.w["blocks.0.attn.W_Q"].shape[2]
        return 1 / (arb(d_head).sqrt() if self.said.scale is None else arb(self.said.scale))

    def last(self) -> Mat:
        """The last stream before the heads write."""
        x, bias = self.stream(len(self.said.inputs) - 1), self.get("blocks.0.attn.b_O")
        return x if bias is None else x + bias

    def direct(self) -> Mat:
        out, bias = self.last() @ self.unembedding(), self.get("unembed.b_U")
        return out if bias is None or self.said.norm != "none" else out + bias

    def after(self) -> Mat | None:
        """What the logits get after the divisor."""
        if self.said.norm == "none":
            return None
        b, bias = self.get("ln_final.b"), self.get("unembed.b_U")
        some = None if b is None else b @ self.get("unembed.W_U")
        return bias if some is None else some if bias is None else some + bias

    def divisors(self, written: list[list[Mat]]) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the divisor, by query; what each head may write, by position."""
        longest = sum(max(float(self.seen(x).norms().max()) for x in places) for places in written) * (1 + 2.0**-40)
        own, d, ends = self.seen(self.last()), self.last().shape[1], []
        for row in own.balls.tolist():
            length = sum((y * y for y in row), arb(0)).sqrt()
            low = max(float(length.lower()) * (1 - 2.0**-50) - longest, 0.0) * (1 - 2.0**-40)
            high = arb(float(length.upper()) * (1 + 2.0**-50) + longest)
            root = lambda x: ((x * x * (1 + arb(2) ** -40)) / d + arb(self.said.eps)).sqrt()
            ends.append((float((arb(low) * arb(low) * (1 - arb(2) ** -40) / d + arb(self.said.eps)).sqrt().lower()),
                         float(root(high).upper())))
        work(8 * own.shape[0] * own.shape[1])
        low, high = np.array(ends).T
        return low * (1 - 2.0**-40), high * (1 + 2.0**-40)


class OneQuery(Layout):
    """Rows of a query that is no token: the maxima."""

    def __init__(self, v: int, starts: list[int]):
        super().__init__(v, starts)
        self.m, self.t = np.arange(v), np.zeros(v, int)
        self.none = self.edges > self.m[:, None]


class Placed(Stage):
    """Keys' weights [2, row, p, b] by position."""

    def weights(self, rows: np.ndarray, merged: bool) -> Real:
        w = self.keys(rows)
        ends = lambda a: np.stack([reduced(np.min, a[0], 1), reduced(np.max, a[-1], 1)])[:, :, None]
        return w.pick(ends) if merged else w


class Head:
    """The terms of one head."""

    def __init__(self, net: Network, h: int, lays: tuple[Layout, Layout], lead: Callable, split: Real):
        self.lay, self.pairs, self.lead, self.split, self.n = *lays, lead, split, len(net.said.others)
        U, count, self.out = net.unembedding(), len(net.said.inputs), net.out
        heard = [net.normal(net.stream(p), "blocks.0.ln1") for p in range(count)]
        queries = net.read(heard[-1], "Q", h).scaled(net.scale)
        self.written = [net.read(x, "V", h) @ net.get("blocks.0.attn.W_O", h) for x in heard]
        tables = [((queries @ net.read(x, "K", h).T).real(), (y @ U).real()) for x, y in zip(heard, self.written)]
        self.free = [tables[p] for p in net.said.others]
        self.known = [tables[p] for p in range(count) if p not in net.said.others]
        t, m = self.lay.t, self.lay.m
        some = [A[t, t if A.shape[1] > 1 else 0] for A, _ in self.known]
        tops = [A.pick(lambda a: reduced(np.maximum.accumulate, a, 1))[t, m] for A, _ in self.free] + some
        self.top = stacked(tops).max(0)
        self.logs = [stacked([A.pick(lambda a, f=f: windows(a, self.lay, f)) - self.top[:, None] for A, _ in self.free])
                     .pick(lambda a: a.swapaxes(0, 1)) for f in (np.minimum, np.maximum)]        # [pair, p, b]
        self.known_weights = [weights(x - self.top)[0][0] for x in some]
        self.own_weights = stacked(self.known_weights).sum(0)[None]
        self.key_votes = self.least_votes()

    def least_votes(self) -> Real:
        """Of the tokens of a bucket, for the maximum rather than x: [x, m, p, b]."""
        pairs, every, found = self.pairs, np.arange(self.out)[:, None], []
        for _, V in self.free:
            rows = pairs.over_rows(V[pairs.t, pairs.m] - V[pairs.t, every])
            found.append(rows.pick(lambda a: spread(a, pairs)))
        return stacked(found).pick(lambda a: np.moveaxis(a, 0, 2))

    def direct(self, x: np.ndarray, r: np.ndarray) -> Real:
        m = self.lay.m[r]
        return self.lead(self.lay.t[r], m, x) + self.split[m, x]

    def own(self, x: np.ndarray, r: np.ndarray) -> Real:
        t, m, direct, total = self.lay.t[r], self.lay.m[r], self.direct(x, r), None
        for (_, V), w in zip(self.known, self.known_weights):
            at = t if V.shape[0] > 1 else np.zeros_like(t)
            term = (direct + (V[at, m] - V[at, x])) * w[r]
            total = term if total is None else total + term
        return total

    def stage(self, logs: list[Real], m: np.ndarray, need: np.ndarray, terms: tuple[Callable, Callable]) -> Stage:
        none = self.lay.edges > m[:, None]
        full = lambda a: np.where(none[:, None], a[..., :1], a)
        keys, _ = weights(*(x.pick(full) for x in logs))
        merged = self.key_votes.pick(lambda a: reduced(np.min, a, 2)[:, :, None])
        votes = lambda x, m, together: (merged if together else self.key_votes)[x, m]
        return Placed(self.n, m, need, np.ones(len(m), bool), self.lay.few, lambda r: keys[:, r], keys, *terms, votes)

    def by_query(self) -> Stage:
        need = np.ones(len(self.lay.m), bool) if isinstance(self.lay, OneQuery) else self.lay.t < self.lay.m
        return self.stage(self.logs, self.lay.m, need, (self.direct, self.own))

    def by_bucket(self) -> Stage:
        lay, pairs, every = self.lay, np.arange(len(self.lay.m)), np.arange(self.out)[:, None]
        turned = lambda x, to, at: x.pick(lambda a: np.moveaxis(a, to, at))
        rows = lambda x, f: turned(lay.over_rows(turned(x, 0, -1), f), -1, 0)
        direct, own = (lay.over_rows(table(every, pairs)) for table in (self.direct, self.own))
        logs = [rows(x, f) for x, f in zip(self.logs, (np.minimum, np.maximum))]
        return self.stage(logs, lay.row_m, lay.row_b > 0, (lambda x, r: direct[x, r], lambda x, r: own[x, r]))

    def by_key(self, single: Stage) -> Stage:
        """Choice o is the token m - o, or m where there is none."""
        lay, every = self.lay, np.arange(self.lay.v)
        key = np.where(every[:, None] < every, every[:, None], every[:, None] - every)

        def keys(r: np.ndarray) -> Real:
            q, k = lay.t[r][:, None], key[lay.m[r]]
            return stacked([weights(A[q, k] - self.top[r][:, None])[0] for A, _ in self.free]).pick(
                lambda a: np.moveaxis(a, 0, 2))

        def votes(x: np.ndarray, m: np.ndarray, merged: bool) -> Real:
            return stacked([V[key[m], m[:, None]] - V[key[m], x[:, None]] for _, V in self.free]).pick(
                lambda a: np.moveaxis(a, 0, 1))

        return replace(single, few=every + 1, keys=keys, votes=votes)


def spread(rows: np.ndarray, lay: Layout) -> np.ndarray:
    """[.., row] to [.., m, b]; bucket 0 once more in the place of an empty one."""
    out = np.zeros((*rows.shape[:-1], *lay.size.shape))
    out[..., lay.row_m, lay.row_b] = rows
    return np.where(lay.size > 0, out, out[..., :1])


class Layer:
    """All heads, and the stages that they go through together."""

    def __init__(self, w: dict[str, np.ndarray], said: Settings, split: np.ndarray, buckets: int):
        self.net, self.said = Network(w, said), said
        starts = edges(said.v, min(buckets, said.v))
        pairs = Layout(said.v, starts)
        self.lay = pairs if said.free_query else OneQuery(said.v, starts)
        n, splits = self.net.heads, [Real(x) for x in split]
        splits.append(Real(np.zeros((said.v, self.net.out))))
        for x in splits[:-1]:
            splits[-1] = splits[-1] - x
        direct, after = self.net.direct().scaled(1 / arb(n)).real(), self.net.after()
        after = None if after is None else after.scaled(1 / arb(n)).real()[0]

        def lead(q: np.ndarray, m: np.ndarray, x: np.ndarray) -> Real:
            some = direct[q, m] - direct[q, x]
            return some if after is None else some + weighted(after[m] - after[x], self.ends[:, q])

        self.heads = [Head(self.net, h, (self.lay, pairs), lead, s) for h, s in enumerate(splits)]
        self.ends = None if after is None else Real(np.stack(self.net.divisors([head.written for head in self.heads])))

    @property
    def total(self) -> int:
        return self.said.v ** len(self.said.free)

    def taken(self) -> tuple[HeadStage, Ledger, HeadCells]:
        """The stage of single queries, and what it leaves open."""
        single = HeadStage([head.by_query() for head in self.heads], [head.own_weights for head in self.heads])
        every = np.arange(self.net.out)
        if self.said.free_query:
            lay = self.lay
            stage = HeadStage([head.by_bucket() for head in self.heads],
                              [ends_by_row(head.own_weights, lay) for head in self.heads])
            book = begun(lay.row_m, every)
            stage.open(book)
            parent, r = children(lay.first[book.r], lay.count[book.r])
            book = Ledger(book.v, np.repeat(book.settled, lay.count), r, book.x[parent], book.tokens[parent])
        else:
            book = begun(self.lay.m, every)
        return single, book, single.open(book)

    def finest(self, single: HeadStage) -> HeadStage:
        return HeadStage([head.by_key(x) for head, x in zip(self.heads, single.stages)], single.own)


def begun(m: np.ndarray, every: np.ndarray) -> Ledger:
    """Every wrong token of every row."""
    r, x = np.nonzero(every != m[:, None])
    return Ledger(len(every), np.zeros_like(m), r, x, np.ones_like(r))


def certified(w: dict[str, np.ndarray], said: Settings, split: np.ndarray, buckets: int) -> int:
    """How many inputs the separable proof certifies."""
    layer = Layer(w, said, split, buckets)
    single, book, cells = layer.taken()
    return tallied(single, book, cells, layer.lay, np.ones_like(layer.lay.m), layer.total)


def right_inputs(w: dict[str, np.ndarray], said: Settings, split: np.ndarray) -> int:
    """The exact number of right inputs."""
    layer = Layer(w, said, split, BUCKETS)
    must(layer.total <= ENUMERABLE, f"sizes: {layer.total} inputs are more than this strategy tells apart")
    single, book, cells = layer.taken()
    lay, n, v, tried, wrong = layer.lay, single.n, said.v, 0, 0
    mass = masses(single.m, single.need, np.ones_like(single.m), (v, n), layer.total)
    passed, lists = book.verdicts(cells, mass)
    known, finest, trial = np.flatnonzero(lists[cells.r]), layer.finest(single), Trial(w, said)
    r, x = book.r[known], book.x[known]
    for rows, at, place in by_rows(r, v**n):
        marks = Marks(len(rows) * v**n)
        for k in range(0, len(at), 4096):
            some = at[k : k + 4096]
            for cell, code, _ in finest.cells(r[some], x[some], np.ones_like(some), False).survivors():
                code = marks.new(place[k : k + 4096][cell] * v**n + code)
                tried += len(code)
                must(tried <= TRIED, f"more than {TRIED} inputs have to be tried")
                for c in map(int, code):
                    row = rows[c // v**n]
                    others = [int(lay.m[row]) - c // v**p % v for p in reversed(range(n))]
                    wrong += not trial.right(others + ([int(lay.t[row])] if said.free_query else []))
    lost = np.flatnonzero(~(passed | lists))
    must(sum(mass[row] for row in lost) <= TRIED, f"more than {TRIED} inputs have to be tried")
    for row in lost:
        m, own = int(lay.m[row]), [int(lay.t[row])] if said.free_query else []
        for others in product(range(m + 1), repeat=n):
            wrong += max([*others, *own]) == m and not trial.right([*others, *own])
    return layer.total - wrong


class Trial:
    """Single inputs in balls, by their free tokens."""

    def __init__(self, w: dict[str, np.ndarray], said: Settings):
        self.net, self.said, self.tables = Network(w, said), said, lru_cache(self._tables)
        U, b = self.net.turned(w["unembed.W_U"].T), w.get("unembed.b_U")
        columns = U if b is None else np.concatenate([U, self.net.turned(b)[:, None]], 1)
        self.twins = [(columns == columns[m]).all(1).sum() > 1 for m in range(said.v)]
        # operations of one input
        self.numbers = 2 * U.shape[1] * (self.net.heads * len(said.inputs) + len(U))

    def _tables(self, precision: int) -> tuple:
        """By head and position scores and what is written; the last stream; at this precision."""
        net = self.net
        heard = [net.normal(net.stream(p), "blocks.0.ln1") for p in range(len(self.said.inputs))]
        heads = []
        for h in range(net.heads):
            queries = net.read(heard[-1], "Q", h).scaled(net.scale)
            heads.append([((queries @ net.read(x, "K", h).T).balls.tolist(),
                           (net.read(x, "V", h) @ net.get("blocks.0.attn.W_O", h)).balls.tolist()) for x in heard])
        return heads, net.last().balls.tolist()

    def right(self, free: list[int]) -> bool:
        """Whether the largest free token's logit is strictly the largest."""
        m = max(free)
        for precision in () if self.twins[m] else PRECISIONS:
            with ctx.workprec(precision):
                logits = self.logits(free, precision)
                margins = [logits[m] - logit for x, logit in enumerate(logits) if x != m]
            work(self.numbers * precision // 64)
            if all(x > 0 for x in margins):
                return True
            if any(x <= 0 for x in margins):
                return False
        return False

    def logits(self, free: list[int], precision: int) -> list[arb]:
        (heads, last), rest = self.tables(precision), iter(free)
        # where one token may stand, it is the first
        tokens = [next(rest) if token is None else 0 for token in self.said.inputs]
        q = tokens[-1]
        stream = list(last[q])
        for places in heads:
            scores = [A[q][t] for (A, _), t in zip(places, tokens)]
            top = max(scores, key=lambda s: float(s.mid()))
            shares = [(s - top).exp() for s in scores]
            total = sum(shares, arb(0))
            for (_, V), w, t in zip(places, shares, tokens):
                stream = [a + w / total * b for a, b in zip(stream, V[t])]
        net = self.net
        out, bias = net.normal(Mat(arb_mat([stream])), "ln_final") @ net.get("unembed.W_U"), net.get("unembed.b_U")
        return (out if bias is None else out + bias).balls.tolist()[0]
