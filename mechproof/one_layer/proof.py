"""The separable proof and the exact count for any network of one attention layer that names the largest token.

Heads, quotients and lists are those of several heads (max_of_k/heads.py), one head being no exception; what is new are
tables that differ from position to position, queries that are no token of the sequence, and outputs beyond the answers.
Weights are measured against the largest of their query and maximum, so that none is cut off.

The exact count tries, one by one, what the finest stage does not certify: the wrong ones, and where a norm before the
unembedding is known by a range alone, a few more.

Complexity: O(h K v^2 (d + b) + h v^3) for the tables, and what is left open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..max_of_k import separable
from ..max_of_k.exact import BUCKETS
from ..max_of_k.heads import SAMPLES, HeadCells, HeadStage, levelling, sequences
from ..max_of_k.ledger import Ledger, masses, open_cells
from ..max_of_k.terms import (
    Layout,
    OneQuery,
    Stage,
    edges,
    exponential,
    layout,
    over_bucket,
    standing_in,
    weighted,
    windows,
)
from ..proof import cost
from ..proof.bound import Case
from ..proof.family import Advice, InputError, Model, Parameters, Proved, Spec, check_tokens
from ..proof.rounding import Ball, inverse, maximum, stack
from ..transformer import trying
from .tables import Position, Tables

IN_BALLS = 2**14        # inputs that the exact count decides in balls, at most
LISTED = 2**33          # more sequences than this are not told apart


@lru_cache(maxsize=16)
def rows(d_input: int, buckets: int, outputs: int, free_query: bool) -> Layout:
    """The layout of the rows: (maximum, query), or a maximum each."""
    with cost.addresses():
        return (Layout if free_query else OneQuery)(d_input, edges(d_input, buckets), outputs)


@dataclass(frozen=True, eq=False)
class Part:
    """One head: its positions that are free (`others`) and those that are known, its part of the direct path
    share [q, x] (at least, by so much) and of a split [m, x]."""

    lay: Layout
    pairs: Layout                                    # of a maximum and any token below it
    others: tuple[Position, ...]
    known: tuple[Position, ...]                      # one token each, or the query's own
    lead: Callable[[Tensor, Tensor, Tensor], Ball]   # of m over x for query q, of this head's share
    split: Float[Ball, "m x"]
    outputs: int

    def at(self, place: Position, table: str, r: Tensor) -> tuple[Ball, Tensor]:
        """A known position's table, and which token's entry is a row's."""
        ball = getattr(place, table)
        own = ball.shape[-1 if table == "scores" else 0] > 1                                     # the query's own
        return ball, self.lay.t[r] if own else torch.zeros_like(r)

    def log_known(self) -> list[Float[Ball, " pair"]]:
        """Scores of the known positions."""
        q, found = self.lay.t, []
        for place in self.known:
            table, token = self.at(place, "scores", torch.arange(len(q)))
            found.append(table[q, token])
        return found

    @cached_property
    def top(self) -> Float[Ball, " pair"]:
        """The largest score of any token up to the maximum, at any position."""
        tops = [place.scores.pick(lambda x: x.cummax(1).values)[self.lay.t, self.lay.m] for place in self.others]
        best, *rest = [*tops, *self.log_known()]
        for x in rest:
            best = maximum(best, x)
        return best

    @cached_property
    def known_weights(self) -> list[Float[Ball, " pair"]]:
        return [exponential(x - self.top)[0] for x in self.log_known()]

    @cached_property
    def own_weights(self) -> Float[Ball, "1 pair"]:
        """All known positions together."""
        return stack(self.known_weights).sum(0)[None]

    def direct(self, x: Tensor, r: Tensor) -> Ball:
        m = self.lay.m[r]
        return self.lead(self.lay.t[r], m, x) + self.split[m, x]

    def own(self, x: Tensor, r: Tensor) -> Ball:
        """The terms of the known positions."""
        m, direct, total = self.lay.m[r], self.direct(x, r), None
        for place, weights in zip(self.known, self.known_weights):
            table, token = self.at(place, "votes", r)
            term = (direct + (table[token, m] - table[token, x])) * weights[r]
            total = term if total is None else total + term
        return total

    @cached_property
    def logs(self) -> tuple[Float[Ball, "pair p b"], Float[Ball, "pair p b"]]:
        """Log-weights of the tokens of each bucket at each free position: smallest and largest."""
        ends = []
        for better in (torch.minimum, torch.maximum):
            by_place = [place.scores.pick(lambda x, f=better: windows(x, self.lay, f)) - self.top[:, None]
                        for place in self.others]
            ends.append(stack(by_place).pick(lambda x: x.transpose(0, 1)))
        return ends[0], ends[1]

    @cached_property
    def votes(self) -> Float[Ball, "x m p b"]:
        """The least that a token of a bucket votes for a maximum rather than x."""
        with cost.addresses():
            x = torch.arange(self.outputs)[:, None]
        found = []
        for place in self.others:
            lead = place.votes[self.pairs.t, self.pairs.m] - place.votes[self.pairs.t, x]
            keys = over_bucket(lead, self.pairs).pick(lambda y: y.unflatten(1, (self.lay.d_vocab, -1)))
            found.append(standing_in(keys, self.lay.place))
        return stack(found).pick(lambda y: y.movedim(0, 2))

    def stage(self, lo: Ball, hi: Ball, m: Tensor, need: Tensor, direct: Callable, own: Callable) -> Stage:
        """A stage whose rows have these log-weights [r, p, b]."""
        with cost.addresses():
            place = self.lay.place[m][:, None].expand(lo.shape)
        keys = exponential(standing_in(lo, place), standing_in(hi, place))
        merged = self.votes.amin(2)[:, :, None]

        def votes(x: Tensor, m: Tensor, is_merged: bool) -> Ball:
            return (merged if is_merged else self.votes)[x, m]

        return Placed(len(self.others), m, need, direct, own, lambda r: keys[:, r], keys[..., 0], votes,
                      torch.ones_like(need), self.lay.none)

    def by_query(self) -> Stage:
        """Single queries and wrong tokens."""
        return self.stage(*self.logs, self.lay.m, self.lay.need, self.direct, self.own)

    def by_bucket(self) -> Stage:
        """Buckets of queries, single wrong tokens."""
        lay = self.lay
        with cost.addresses():
            x, pairs = torch.arange(self.outputs)[:, None], torch.arange(len(lay.m))
            r = torch.arange(lay.size.numel())
            m, need = r // len(lay.edges), r % len(lay.edges) > 0
        lo, hi = (over_bucket(x.pick(lambda y: y.movedim(0, -1)), lay, better).pick(lambda y: y.movedim(-1, 0))
                  for x, better in zip(self.logs, (torch.minimum, torch.maximum)))
        direct, own = (over_bucket(table(x, pairs), lay) for table in (self.direct, self.own))
        return self.stage(lo, hi, m, need, lambda x, r: direct[x, r], lambda x, r: own[x, r])

    def by_key(self, single: Stage) -> Stage:
        """Single queries, wrong tokens and keys: choice o is the token m - o, or m where there is none."""
        lay = self.lay
        with cost.addresses():
            key = torch.arange(lay.d_vocab)[:, None] - torch.arange(lay.d_vocab)                 # [m, o]
            none = key < 0
            key = torch.where(none, torch.arange(lay.d_vocab)[:, None], key)

        def keys(r: Tensor) -> Ball:
            q, k = lay.t[r][:, None], key[lay.m[r]]
            by_place = [exponential(place.scores[q, k] - self.top[r][:, None]) for place in self.others]
            return stack(by_place).pick(lambda x: x.movedim(0, 2))                               # [1, r, p, o]

        def votes(x: Tensor, m: Tensor, merged: bool) -> Ball:
            some = [place.votes[key[m], m[:, None]] - place.votes[key[m], x[:, None]] for place in self.others]
            return stack(some).pick(lambda y: y.movedim(0, 1))

        return replace(single, keys=keys, votes=votes, none=none)


@dataclass(frozen=True, eq=False)
class Placed(Stage):
    """A stage whose keys' weights [e, r, p, b] differ by position."""

    def weights(self, rows: Tensor, merged: bool) -> Float[Ball, "e r p b"]:
        w = self.keys(rows)
        return w.pick(lambda x: torch.stack([x[0].amin(1), x[-1].amax(1)])[:, :, None]) if merged else w


@dataclass(frozen=True, eq=False)
class Heads:
    """All heads of a network, and the stages that they go through together."""

    parts: tuple[Part, ...]

    lay = property(lambda self: self.parts[0].lay)

    @classmethod
    def of(cls, tables: Tables, split: Float[Tensor, "others m x"], buckets: int) -> Heads:
        """Complexity: that of the tables."""
        v, outputs = tables.d_input, tables.direct.shape[1]
        share, rest, n = lead_of(tables), Ball(split), tables.model.sizes["n_heads"]
        with cost.addresses():
            # as many rows of the split as heads but one: of one head it is nothing
            none = torch.zeros(v, outputs)
        splits = [*(rest[h] for h in range(n - 1)), -rest.sum(0) if n > 1 else Ball(none)]
        lays, parts = (rows(v, buckets, outputs, tables.free_query), layout(v, buckets)), []
        for h in range(n):
            places = tables.positions(h)
            known = (place for p, place in enumerate(places) if p not in tables.others)
            parts.append(Part(*lays, tuple(places[p] for p in tables.others), tuple(known), share, splits[h], outputs))
        return cls(tuple(parts))

    @cached_property
    def single(self) -> HeadStage:
        """Single queries and wrong tokens."""
        return HeadStage(tuple(part.by_query() for part in self.parts), tuple(part.own_weights for part in self.parts))

    def by_key(self) -> HeadStage:
        """And single keys."""
        stages = zip(self.parts, self.single.stages)
        return HeadStage(tuple(part.by_key(stage) for part, stage in stages), self.single.own_weights)

    def by_bucket(self) -> HeadStage:
        """Buckets of queries, single wrong tokens."""
        ends = lambda x: stack([over_bucket(x, self.lay, better) for better in (torch.minimum, torch.maximum)])
        return HeadStage(tuple(part.by_bucket() for part in self.parts),
                         tuple(ends(part.own_weights[0]) for part in self.parts))

    def begun(self, m: Tensor, there: Tensor) -> Ledger:
        """Every wrong token in every row that there is."""
        with cost.addresses():
            x = torch.arange(self.parts[0].outputs)
            r, x = ((x != m[:, None]) & there[:, None]).nonzero().unbind(1)
            return Ledger(torch.zeros_like(m), r, x, torch.ones_like(r))

    def taken(self) -> tuple[HeadStage, Ledger, HeadCells]:
        """The stage of single queries, and what is left open."""
        lay = self.lay
        if isinstance(lay, OneQuery):
            book = self.begun(lay.m, torch.ones_like(lay.m, dtype=torch.bool))
        else:
            stage = self.by_bucket()
            book, _ = open_cells(stage, self.begun(stage.m, ~lay.none.flatten()))
            book = book.by_query(lay)
        book, cells = open_cells(self.single, book)
        return self.single, book, cells


def lead_of(tables: Tables) -> Callable[[Tensor, Tensor, Tensor], Ball]:
    """At least a head's share of the direct path's lead, with the worse end of the divisor before the unembedding."""
    over = inverse(tables.model.sizes["n_heads"])
    direct, constant = tables.direct * over, tables.constant
    if constant is None:
        return lambda q, m, x: direct[q, m] - direct[q, x]
    ends, after = stack(list(tables.divisors)), constant * over
    return lambda q, m, x: (direct[q, m] - direct[q, x]) + weighted(after[m] - after[x], ends[:, q])


def proof_of(model: Model, advice: Advice, buckets: int) -> Heads:
    return Heads.of(Tables(model), advice["split"], min(buckets, model.sizes["d_input"]))


def check(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """The separable proof."""
    proof = proof_of(model, advice, parameters["buckets"])
    correct, undecided = separable.count(proof.lay, True, *proof.taken())
    return Proved(correct, proof.lay.sequences(proof.single.others), Explained(model, proof), undecided)


def check_exactly(model: Model, advice: Advice, parameters: Parameters) -> Proved:
    """The exact number of right inputs.  Errors: InputError where too many have to be tried."""
    proof = proof_of(model, advice, BUCKETS)
    lay, n = proof.lay, proof.single.others
    if lay.sequences(n) > LISTED:
        raise InputError(f"model {model.name!r} has {lay.sequences(n)} inputs, more than `exact` tells apart (2^33); "
                         "try separable")
    _, book, cells = proof.taken()
    of = masses(lay, n, True)
    book.rows_left(of)
    known, _, given_up = book.given_up(cells.given_up)
    if of.sum(given_up) > trying.LIMIT:
        raise InputError(f"model {model.name!r} leaves {of.sum(given_up)} inputs open of which nothing is known in "
                         "float64; try brute_force")
    finest, judge, wrong = proof.by_key(), trying.Judge(model, IN_BALLS), 0
    for block, _ in separable.left_open(finest, known.r, known.g, lambda at: finest.cells(known.r[at], known.g[at])):
        at = block.distinct()
        for some in at.split(trying.SPAN):
            wrong += len(some) - judge(inputs(model, lay, block.row[some], block.choices[some])).right
    with cost.charge(0, "tried one by one"):
        rest = given_up.nonzero()[:, 0].tolist()
    for row in rest:
        wrong += sum(len(some) - judge(some).right for some in all_inputs(model, lay, row, n).split(trying.SPAN))
    return Proved(lay.sequences(n) - wrong, lay.sequences(n), trying.case_of(model))


def inputs(model: Model, lay: Layout, row: Int[Tensor, " i"], offsets: Int[Tensor, "i p"]) -> Int[Tensor, "i f"]:
    """The free tokens, as the network's owner counts them, of sequences in some rows."""
    free = lay.m[row][:, None] - offsets
    if not isinstance(lay, OneQuery):
        free = torch.cat([free, lay.t[row][:, None]], 1)
    return lay.d_vocab - 1 - free if Tables(model).settings.task == "min" else free


def all_inputs(model: Model, lay: Layout, row: int, n: int) -> Int[Tensor, "i f"]:
    """All of one row."""
    with cost.addresses():
        m = int(lay.m[row])
        offsets = torch.cartesian_prod(*[torch.arange(m + 1)] * n).reshape(-1, n)
        offsets = offsets[(offsets == 0).any(1) | ~lay.need[row]]
        return inputs(model, lay, torch.full((len(offsets),), row), offsets)


@dataclass(frozen=True, eq=False)
class Explained:
    """Whether one input is certified: the last stage's sums of quotients for its tokens, wrong token by wrong token."""

    model: Model
    proof: Heads

    def __call__(self, tokens: Sequence[int]) -> Case:
        sizes, lay = self.model.sizes, self.proof.lay
        free = check_tokens(tokens, {"n_ctx": sizes["n_free"], "d_vocab": sizes["d_input"]})
        if Tables(self.model).settings.task == "min":
            free = [sizes["d_input"] - 1 - t for t in free]
        m, row = max(free), lay.pair(max(free), free[-1])
        others = free if isinstance(lay, OneQuery) else free[:-1]
        chosen = [int((torch.tensor(lay.edges) <= m - t).sum()) - 1 for t in others]
        x = torch.tensor([x for x in range(self.proof.parts[0].outputs) if x != m])
        cells, choices = self.proof.single.cells(torch.full_like(x, row), x), torch.tensor(chosen).expand(len(x), -1)
        certain = cells.certain(choices)
        if separable.by_levels(lay, self.proof.single):
            certain = certain | ~separable.lost(cells, choices)
        covered = bool((certain & ~cells.given_up).all())
        turned = " (tokens counted from the top)" if Tables(self.model).settings.task == "min" else ""
        reason = f"maximum {m}, tokens in buckets {', '.join(map(str, chosen))}{turned}"
        reason += "" if covered else ": some wrong token might beat the maximum"

        def margin() -> float | None:
            lowest = cells.leads(torch.arange(len(x)), choices, 1.0).amin()
            over = 1.0 if not Tables(self.model).divided else float(Tables(self.model).divisors[1].upper().mid.amax())
            return float(lowest) / over * (1 - 1e-12) if covered else None

        return Case(covered, reason, margin)


def specs(sizes: Mapping[str, int]) -> dict[str, Spec]:
    """The split: a part of the direct path for every head but the last, of every maximum and wrong token."""
    return {"split": Spec((sizes["n_heads"] - 1, sizes["d_input"], sizes["d_out"]))}


def advise(model: Model) -> Advice:
    """What levels the heads' leads on the inputs, of some drawn at random, that are nearest to going wrong."""
    tables, sizes = Tables(model), model.sizes
    if sizes["n_heads"] == 1:
        return {"split": torch.zeros(0, sizes["d_input"], sizes["d_out"], dtype=torch.float64)}
    proof = proof_of(model, {"split": torch.zeros(sizes["n_heads"] - 1, sizes["d_input"], sizes["d_out"])}, 2)
    return {"split": levelling(torch.stack([sampled_leads(proof, tables, m) for m in range(sizes["d_input"])]))}


def sampled_leads(proof: Heads, tables: Tables, m: int) -> Float[Tensor, "h s x"]:
    """Each head's lead over every output, the direct path shared, on inputs of this maximum."""
    tokens, out = sequences(m, len(tables.settings.free)), proof.parts[0].outputs
    q = tokens[:, -1] if tables.free_query else torch.zeros(SAMPLES, dtype=torch.long)
    found = []
    for part in proof.parts:
        known = [(place, q if place.scores.shape[1] > 1 else torch.zeros_like(q)) for place in part.known]
        places = [*zip(part.others, tokens.unbind(1)), *known]
        weights = torch.stack([place.scores.mid[q, t] for place, t in places]).softmax(0)
        logits = sum(w[:, None] * place.votes.mid[t] for w, (place, t) in zip(weights, places))
        direct = part.lead(q[:, None], torch.full((SAMPLES, 1), m), torch.arange(out)[None]).mid
        found.append(direct + logits[:, m : m + 1] - logits)
    return torch.stack(found)
