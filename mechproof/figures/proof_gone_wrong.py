"""The fault behind the book's page "How a proof went wrong": a network, ten numbers of advice, and the count as it was.

Problem: a theorem was false, by ten numbers of advice that are finite, and the program that proved it is gone.  Idea:
what was wrong with it was one rule, that a term of +inf stands for a choice that does not exist, so that no combination
with it is listed; the rest of the proof is as it was, and counting its cells by that rule gives what it said.
"""

from __future__ import annotations

import random
from functools import lru_cache

import pandas as pd
import torch
from matplotlib.ticker import NullLocator
from torch import Tensor

import mechproof as mp

from .. import zoo
from ..explorable import plots
from ..explorable.explore import Explorer, explore
from ..max_of_k.boxes import Cells
from ..max_of_k.brute_force import count_right
from ..max_of_k.ledger import Ledger
from ..max_of_k.paths import Paths
from ..max_of_k.separable import refine
from ..max_of_k.terms import Groups, Separable, Stage
from ..max_of_k.tiers import circuits
from ..proof import names
from ..proof.bound import percent_lo, short_int
from ..proof.family import Advice, Model, parse_id
from .pieces import truth_line

SMALL = 1e-300
LARGEST = (1.7e308, 1e308, 3e307, 1e307, 1e305, 1e300, 1e290, 1e250, 1e200, 1e150, 1e100, 1e50, 1.0)
WAYS = {f"{id}:ov={tier},ov_rank=1": f"{names.TIERS[tier].label}, {names.STRATEGIES[id].label}"
        for id, tier in (("separable", "spectral"), ("separable-grouped", "spectral"), ("separable", "gram"))}


@lru_cache
def network(n_ctx: int = 10) -> Model:
    """So many tokens out of four; whatever they are, the answer is 0."""
    W_U = torch.tensor([[3.0, 0, 0, 0]] * 4 + [[0, 0, 0, 2.0]])
    weights = {"W_E": torch.eye(4, 5), "W_pos": torch.zeros(n_ctx, 5), "W_Q": torch.zeros(5, 1),
               "W_K": torch.zeros(5, 1), "W_V": torch.tensor([[0, 0.01, 0.01, 0.01, 0]]).T,
               "W_O": torch.full((1, 5), 0.01), "W_U": W_U}
    return zoo.model_from_tensors("always-0", weights)


@lru_cache
def right() -> int:
    """How many of its inputs it answers correctly, by trying all."""
    return int(count_right(network())[0].sum())


def advice(way: str, largest: float) -> Advice:
    """One direction for the table of votes: the rest stays small, and the part along it is a product of this number."""
    strategy, parameters = parse_id(way, mp.strategies(network()))
    small, large = sorted(strategy.advice(parameters))
    return {small: torch.full((5, 1), SMALL, dtype=torch.float64),
            large: torch.tensor([[0.0, 0, 0, 0, largest]], dtype=torch.float64).T}


def certified_now(way: str, largest: float) -> int:
    """What the proof certifies on this advice."""
    return mp.check(network(), way, advice(way, largest)).correct


def left_open(way: str, largest: float) -> tuple[Separable, bool, Stage, Ledger, Cells]:
    """The proof, whether its rows are single queries, its last stage, and what that leaves open."""
    _, parameters = parse_id(way, mp.strategies(network()))
    known = circuits(Paths(network()), advice(way, largest), parameters)
    proof = Separable(known.centred(), Groups(parameters["groups"]), parameters["buckets"])
    each = bool(parameters["query"])
    return proof, each, *refine(proof, each)


def certified_before(way: str, largest: float) -> int:
    """What it certified when +inf meant "no such choice": all sequences, less those listed.
    Complexity: O(b^(K-1)) a cell."""
    proof, each, stage, book, cells = left_open(way, largest)
    copies, lost = torch.ones_like(proof.lay.m) if each else proof.lay.size.flatten(), 0
    for row in book.r.unique().tolist():
        listed = torch.stack([as_listed(cells, c) for c in (book.r == row).nonzero()[:, 0].tolist()]).any(0)
        inputs = sequences(proof.lay.size[stage.m[row]], cells.positions, bool(stage.need[row]))
        lost += int(inputs[listed].sum()) * int(copies[row])
    return total() - lost


def total() -> int:
    return network().sizes["d_vocab"] ** network().sizes["n_ctx"]


def as_listed(cells: Cells, c: int) -> Tensor:
    """Whether each combination of a cell was listed: its sum is at most the slack, and no term of it is +inf."""
    bounded = lambda x: x.nan_to_num(-(2.0**1000), torch.inf, -(2.0**1000))
    sums, terms = bounded(cells.own.mid[c])[None], bounded(cells.f.mid[c].masked_fill(cells.none[c], torch.inf))
    for p in range(cells.positions):
        sums = (sums[:, None] + terms[min(p, len(terms) - 1)]).flatten()
    return (sums <= cells.slack.nan_to_num(torch.inf, torch.inf)) & (sums != torch.inf)


def sequences(size: Tensor, positions: int, need: bool) -> Tensor:
    """How many sequences every combination of buckets stands for; where the query is not the maximum,
    another token has to be it."""
    inputs, held = torch.ones(1, dtype=torch.long), torch.tensor([not need])
    for _ in range(positions):
        inputs, held = (inputs[:, None] * size).flatten(), (held[:, None] | (torch.arange(len(size)) == 0)).flatten()
    return inputs * held


def one_number(largest: float, way: str) -> Explorer:
    """Certified share by the size of one number of the advice, as it was and as it is."""
    before, now = ({x: count(way, x) for x in LARGEST} for count in (certified_before, certified_now))
    # step by step, the largest first: all that happens happens there
    places = {x: i for i, x in enumerate(LARGEST)}
    sound, tight = (max(x for x in LARGEST if before[x] in found) for found in ((0, right()), (right(),)))

    def draw(figure, largest: float):
        axes = figure.add_axes((0.13, 0.22, 0.84, 0.65))
        for found, colour, style, size, words in (
                (before, plots.OV, "o-", 9, "as it was: +inf means that there is no such choice"),
                (now, plots.QK, "s-", 4, "as it is")):
            axes.plot(places.values(), [found[x] for x in LARGEST], style, color=colour, markersize=size,
                      linewidth=1.4, label=words)
        truth_line(axes, right())
        axes.plot([places[largest]] * 2, [found[largest] for found in (before, now)], "o", color=plots.CHOICE,
                  markersize=12, zorder=1, label="the number chosen")
        axes.legend(loc="center right", fontsize=8.5)
        # zero, one, and nearly all
        axes.set_yscale("symlog", linthresh=1)
        axes.set_yticks([0, 1, 1000, total()], ["none", "1 (right)", "1 000", short_int(total())])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(-0.5, 3 * total())
        axes.set_xticks(range(len(LARGEST)), [f"{x:g}".replace("+", "") for x in LARGEST], rotation=30)
        axes.tick_params(axis="x", labelsize=8.5)
        axes.set_xlabel("largest number of the advice (the largest float64 is 1.8e308)")
        axes.set_ylabel("inputs certified (log)")
        was, is_ = (percent_lo(found[largest], total()) for found in (before, now))
        axes.set_title(f"{was} of the inputs were certified; {short_int(right())} of {short_int(total())} is right")
        return (f"{largest:g}: {was} certified as it was, {is_} as it is",
                f"Certified share against the largest number of the advice. At {largest:g}, {WAYS[way]}: "
                f"{was} certified as it was, {is_} as it is, "
                f"of {short_int(total())} inputs, of which {short_int(right())} is right.")

    return explore(draw, largest=LARGEST, start={"largest": largest},
                   hint=f"Go down from the largest number, step by step: from {sound:g} on the program certified "
                        f"nothing that is wrong, and from {tight:g} on the one input that is right.".replace("e+", "e"))


def table_of_votes(way: str, largest: float) -> pd.DataFrame:
    """The table as the proof knows it (a row a token, a column a logit)."""
    _, parameters = parse_id(way, mp.strategies(network()))
    table = circuits(Paths(network()), advice(way, largest), parameters).OV.table
    frame = pd.DataFrame(table.mid.tolist(), index=[f"token {k}" for k in range(4)],
                         columns=[f"logit {i}" for i in range(4)])
    return frame.assign(radius=float(table.rad)).map(lambda x: f"{x:.2g}")


def who_said_what(way: str, largest: float, asked: int = 100) -> pd.DataFrame:
    """The count as it was, the same program asked about single inputs, and the truth."""
    bound = mp.check(network(), way, advice(way, largest))
    draw = random.Random(0)
    inputs = [[draw.randrange(4) for _ in range(10)] for _ in range(asked)]
    rows = {"the count, as it was": f"{short_int(certified_before(way, largest))} of {short_int(total())} certified",
            f"why, asked about {asked} inputs": f"{sum(bound.covers(tokens) for tokens in inputs)} certified",
            "every input, tried": f"{short_int(right())} right"}
    return pd.DataFrame({"says": rows})


def what_it_costs() -> pd.DataFrame:
    """Operations and seconds of checks with their books, over those of the program before it had any."""
    rows = zoo.results("guards")["rows"]
    return pd.DataFrame({"operations": [f"x{row['operations']:.3f}" for row in rows],
                         "time": [f"x{row['seconds']:.2f}" for row in rows]},
                        index=pd.Index([f"{row['model']} · {row['strategy']}" for row in rows], name="check"))
