"""Exercises of the chapter past the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

import mechproof as mp

from .. import zoo
from ..max_of_k import separable
from ..max_of_k.edits import stripped
from ..max_of_k.paths import paths_of
from ..max_of_k.terms import Circuits, Groups, Separable
from ..max_of_k.tiers import Known, exactly
from ..proof.rounding import Ball
from ..verifier import verify_tensors
from ..zoo import tables
from ..zoo.certificate import certificate
from . import holes
from .checking import exercise, expect, whole
from .max_of_k import bound, network, small


@exercise("past-the-paper/1", "easy", 5)
def combinations(answer: int) -> str:
    """Inputs of a cell with 3 queries whose other tokens lie in buckets of 1, 2 and 8 tokens."""
    expect(whole(answer) != 16, "The queries multiply the count as well.")
    expect(answer != 3 + 1 + 2 + 8, "Choices at different positions multiply.")
    expect(answer == 3 * 1 * 2 * 8, "One factor a position, and the queries.")
    return "The theorem decides all of them by one sum."


@exercise("past-the-paper/2", "easy", 10)
def a_wrong_input(answer: Sequence[int]) -> str:
    """An input of max-of-4/0 that the network gets wrong."""
    case = bound("exact").why([int(t) for t in answer])
    expect(not case.covered, "The network is right on this one. Small maxima are where it is weak.")
    return "One of fewer than seven thousand in sixteen million."


@exercise("past-the-paper/3", "easy", 10)
def bucket_or_groups(answer: str) -> str:
    """At three buckets and one group: which brings more, 'a bucket' or 'groups' (eleven more)?"""
    expect(answer in ("a bucket", "groups"), "Either 'a bucket' or 'groups' is expected.")
    expect(answer == "a bucket", "Try both: separable:groups=12,buckets=3,query=grouped and groups=1,buckets=4.")
    return "Groups cannot tell apart what the buckets have put together."


@exercise("past-the-paper/4", "medium", 15)
def with_a_margin(answer: Callable) -> str:
    """f(t, tokens, x, mu): whether the logit of the maximum is more than mu above that of x, without dividing."""
    for seed in range(6):
        t = holes.tables_of(small(seed))
        for tokens in torch.cartesian_prod(*[torch.arange(5)] * 3)[::7].tolist():
            m, q = max(tokens), tokens[-1]
            alpha = t.A[q, torch.tensor(tokens)].softmax(0)
            logits = t.EU[q] + alpha @ (t.OV[torch.tensor(tokens)] + t.PV)
            for x in (x for x in range(5) if x != m):
                for mu in (0.0, 0.7, 3.0):
                    lead = float(logits[m] - logits[x]) - mu
                    if abs(lead) > 1e-9:
                        said = bool(answer(t, tokens, x, mu))
                        expect(said == (lead > 0), f"Wrong at tokens {tokens}, x = {x}, mu = {mu}.")
    return "A margin in logits goes through; a probability would not."


@exercise("past-the-paper/5", "medium", 20)
def moved_numbers(answer: Tensor) -> str:
    """Numbers c [64] to move from the direct path into the votes, better than none, for few buckets on max-of-4/0."""
    circuits, c = exactly(paths_of(network())), Ball(torch.as_tensor(answer, dtype=torch.float64))
    expect(c.mid.shape == (64,), "64 numbers are expected, one a token.")
    moved = Circuits(circuits.n_ctx, circuits.A, circuits.B, Known(circuits.EU.table - c, circuits.EU.slack),
                     Known(circuits.OV.table + c, circuits.OV.slack), circuits.PV)
    count = lambda some: separable.count((proof := Separable(some, Groups(6), 8)).lay, False,
                                         *separable.refine(proof, False))[0]
    none, found = count(circuits), count(moved)
    expect(found > none, f"They certify {found} inputs; with none it is {none}.")
    return f"{found - none} inputs more than without, and no sum has changed."


@exercise("past-the-paper/6", "medium", 20)
def rank_of_the_votes(answer: int) -> str:
    """The smallest rank of the votes at which the stripped max-of-4/0 is right on 99.9% of the inputs."""
    def accuracy(rank: int) -> float:
        tensors, metadata = stripped(network(), rank)
        return mp.prove(zoo.model_from_tensors(f"rank-{rank}", tensors, metadata), "exact").accuracy_lower_bound

    expect(2 <= whole(answer) <= 32, "A rank from 2 to 32 is expected.")
    expect(accuracy(answer) >= 0.999, "At this rank it is wrong more often than that.")
    expect(accuracy(answer - 1) < 0.999, "A smaller rank does it as well.")
    return "Neighbouring tokens are what the last directions tell apart."


@exercise("past-the-paper/7", "medium", 15)
def a_weaker_claim(answer: Mapping) -> str:
    """A certificate of max-of-4/0 that claims another number of inputs than ours does, and is accepted."""
    ours, _ = certificate(network(), "separable")
    weights = {name: tensor.numpy() for name, tensor in network().tensors.items()}
    expect(answer["claim"]["correct"] != ours["claim"]["correct"], "That is the number that ours claims.")
    verdict = verify_tensors(dict(answer), weights, {})
    expect(verdict.code == 0, f"The verifier says: {verdict.line}")
    return "What is less than proved is proved as well."


@exercise("past-the-paper/8", "open", 60)
def past_the_frontier(answer: str) -> str:
    """The id of a proof of max-of-4/0 that no shipped proof matches: as many inputs in as few operations."""
    found = mp.prove(network(), answer)
    expect(found.failure_probability == 0, "A proof without a chance of failing is asked for.")
    shipped = tables.shipped("max-of-4")
    shipped = shipped[(shipped.model == "max-of-4/0") & (shipped.failure_probability == 0)]
    better = shipped[(shipped.flops <= found.flops) & (shipped.correct >= found.correct)]
    expect(not len(better), f"{found}: {better.strategy.iloc[0] if len(better) else ''} certifies as much in as few.")
    return f"{found}: none of the shipped proofs is as good."
