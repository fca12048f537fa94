"""Exercises of the chapter Max-of-K."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import comb

import torch
from torch import Tensor

import mechproof as mp

from .. import zoo
from ..figures.max_of_k import NAMED_IDS
from ..figures.max_of_k_walk import Story
from ..max_of_k.cubic import Tables
from ..max_of_k.paths import Paths
from ..proof import names
from ..proof.bound import Bound
from ..proof.family import Model
from ..proof.product_bounds import RUNGS, row_range
from ..proof.rounding import Ball
from . import by_hand, holes
from .checking import exercise, expect, whole

SVD, EXACT_QK = (NAMED_IDS[names.SCORES[way].label] for way in ("svd", "exact_EQKE+max_diff_exact"))


@cache
def network(name: str = "max-of-4/0") -> Model:
    return mp.load(name)


@cache
def bound(strategy: str, rank: int | None = None) -> Bound:
    return mp.prove(network(), strategy, rank)


@exercise("max-of-k/1", "easy", 5)
def members(answer: int) -> str:
    """Inputs of K = 4 with query 29, maximum 41, one further token below it, and a gap of 8."""
    expect(whole(answer) != comb(3, 2) * 34**2, "That is the group of the walk, with two free tokens.")
    expect(answer != 34, "The one free token has 34 values, and can stand at any of several places.")
    expect(answer == comb(3, 1) * 34, "Count the places of the free token, then its values.")
    return "Three places, 34 values each; the other two places hold the maximum."


@exercise("max-of-k/2", "easy", 5)
def share_of_the_largest(answer: float) -> str:
    """The share of all inputs of four tokens whose maximum is 63."""
    expect(abs(answer - 4 / 64) > 1e-9, "That counts inputs with several 63 more than once.")
    expect(abs(answer - 1 / 64) > 1e-9, "The maximum of four tokens is not uniform: large ones are much more common.")
    expect(abs(answer - (1 - (63 / 64) ** 4)) < 1e-9, "It is one minus the share of inputs that hold no 63.")
    return "More than six in a hundred: a proof that fails at large maxima loses much."


@exercise("max-of-k/3", "easy", 10)
def right_and_open(answer: Sequence[int]) -> str:
    """An input that the network answers rightly and the exact QK proof leaves open."""
    tokens = [int(t) for t in answer]
    expect(not bound(EXACT_QK).covers(tokens), "The proof certifies this one; come closer to the maximum.")
    expect(mp.prove(network(), "exact").covers(tokens), "The network is wrong here, so that no proof may certify it.")
    return "Not certified is not wrong: the proof had to take this input with others of its group."


@exercise("max-of-k/4", "easy", 10)
def smallest_gap(answer: int) -> str:
    """The smallest gap with which the group of the walk passes at rank 4."""
    story = Story(network())
    expect(1 <= whole(answer) <= 12, "A gap from 1 to 12 is expected.")
    expect(story.group(4, answer).passes, "With this gap the group fails at rank 4.")
    expect(answer == 1 or not story.group(4, answer - 1).passes, "A smaller gap passes as well.")
    return "Twice as many directions again would buy one step more."


@exercise("max-of-k/5", "medium", 15)
def what_transfers(answer: str) -> str:
    """The part of another model's advice that costs least in the place of one's own."""
    mine, lie = (mp.search(network(name), SVD) for name in ("max-of-4/0", "max-of-4/1"))
    expect(answer in mine, f"The name of a part of the advice is expected: {', '.join(mine)}.")
    found = {name: mp.check(network(), SVD, {**mine, name: lie[name]}).correct for name in mine}
    expect(answer == max(found, key=lambda name: found[name]), "Another part keeps more of the bound.")
    return "Where attention is likely to be depends on the task more than on the weights."


@exercise("max-of-k/6", "medium", 30)
def frobenius_rung(answer: Callable) -> str:
    """A rung from Frobenius norms alone: two factors to a ball of row bounds."""
    g = torch.Generator().manual_seed(0)
    for _ in range(30):
        X, Y = (Ball(torch.randn(shape, generator=g, dtype=torch.float64)) for shape in ((7, 3), (3, 9)))
        found, true = answer((X, Y)), row_range(X @ Y)
        expect(tuple(found.mid.shape) == (7,), "One bound a row of the first factor is expected.")
        expect(bool((found.mid + found.rad >= true.mid - true.rad).all()),
               "It is below a true difference: what do two entries of a row differ by at most?")
        expect(bool((found.mid <= 1.01 * RUNGS["frobenius"]((X, Y)).mid).all()), "Sound, but looser than need be.")
    return "One number a factor is all that it knows."


@exercise("max-of-k/7", "hard", 45)
def cubic_skeleton(answer: Callable) -> str:
    """safe(t, q, m, k, n): whether n copies of k < m, with m else and query q, are right wherever the copies stand."""
    compared = 0
    for seed in range(12):
        model = small(seed)
        t, tables = holes.tables_of(model), Tables.of(model)
        t.B, v, K = Paths(model).B.mid, model.sizes["d_vocab"], model.sizes["n_ctx"]
        for q in range(v):
            value = tables.mixed(torch.tensor([q])).mid[0].amax(-1)      # [m, k, n-1]
            for m in range(q, v):
                for k in range(m):
                    for n in range(1, K - (q < m)):
                        if abs(float(value[m, k, n - 1])) > 1e-9:
                            said = bool(answer(t, q, m, k, n))
                            hint = "calls safe what is not" if said else "misses what the bound certifies"
                            expect(said == (float(value[m, k, n - 1]) < 0), f"At q={q}, m={m}, k={k}, n={n} it {hint}.")
                            compared += 1
    return f"It agrees with the library's in {compared} cells."


def small(seed: int) -> Model:
    """A random network of five tokens and three positions whose largest score is that of the largest token."""
    g = torch.Generator().manual_seed(seed)
    noise = lambda *shape, scale: scale * torch.randn(shape, generator=g)
    return by_hand.from_tables(2 * torch.arange(5.0) + noise(5, 5, scale=1), noise(5, 5, scale=0.5),
                               4 * torch.eye(5) + noise(5, 5, scale=1.5), noise(3, 5, scale=0.5), f"small-{seed}")


@exercise("max-of-k/8", "hard", 45)
def three_holes(answer: Sequence[Sequence[int]]) -> str:
    """For each of three proofs in `mechproof.exercises.holes` an input that it certifies and its network gets wrong."""
    expect(len(answer) == 3, "Three inputs are expected, one a proof.")
    for number, tokens in enumerate(answer, 1):
        t, tokens = holes.tables_of(holes.network(number)), [int(x) for x in tokens]
        expect(len(tokens) == 3 and all(0 <= x < 6 for x in tokens), "An input is three tokens from 0 to 5.")
        expect(holes.PROOFS[number](t, tokens), f"Proof {number} does not certify {tokens}.")
        expect(not holes.right(t, tokens), f"The network of proof {number} is right on {tokens}.")
    return "The query is a token too; most attention can be worse than least; an average is no worst case."


@exercise("max-of-k/9", "open", 60)
def by_hand_and_certified(answer: dict[str, Tensor]) -> str:
    """Weights written by hand, eight tokens or more and three positions or more, right on every input, certified."""
    model = answer if isinstance(answer, Model) else zoo.model_from_tensors("by-hand", answer)
    expect(model.sizes.get("d_vocab", 0) >= 8 and model.sizes["n_ctx"] >= 3, "At least eight tokens, three positions.")
    expect(model.sizes["d_vocab"] ** model.sizes["n_ctx"] <= 2**24, "At most 2^24 inputs, so that it ends soon.")
    found = mp.prove(model, "exact")
    expect(found.correct == found.total, f"{found.total - found.correct} of {found.total} inputs are wrong or tied.")
    cheap = mp.prove(model, "separable")
    return f"All {found.total} inputs; query by query certifies {cheap}."

