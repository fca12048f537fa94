"""Exercises of the noise chapter."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import torch
from torch import Tensor

import mechproof as mp

from .. import zoo
from ..figures.noise_limits import LABELS, Survey
from ..figures.noise_walk import Story
from ..noise import ablation, residual, surrogate
from ..proof.bound import Bound
from ..proof.family import Model
from .checking import exercise, expect, whole


@cache
def network() -> Model:
    return mp.load("max-of-4/0")


@cache
def certified(rung: str, rank: int) -> Bound:
    return residual.certify(network(), rung, "QK", rank)


def rungs(answer: Collection[str]) -> set[str]:
    """The answer as names of rungs, as menus have them.  Errors: NotYet."""
    named = set(answer) if not isinstance(answer, str) else {answer}
    unknown = named - set(LABELS.values())
    expect(not unknown, f"{sorted(unknown)} are no rungs; the menu has: {', '.join(LABELS.values())}.")
    return named


@exercise("noise/1", "easy", 5)
def do_not_see_turns(answer: Collection[str]) -> str:
    """The rungs that give the same bound for four turned factors as for the real ones."""
    named = rungs(answer)
    expect(LABELS["norms"] not in named, "Norms around a product see how the inner factors meet.")
    expect(named == {LABELS["operator"], LABELS["frobenius"]}, "Which look at one factor at a time, at no direction?")
    return "Singular values of a factor do not change when it is turned."


@exercise("noise/2", "easy", 5)
def the_same_for_two(answer: Collection[str]) -> str:
    """The two rungs that coincide for two factors."""
    same = {LABELS["per_dimension"], LABELS["recursive"]}
    expect(rungs(answer) == same, "For two factors there is only one break point.")
    return "Both are the absolute values of the first times the ranges of the second."


@exercise("noise/3", "easy", 10)
def rank_for_a_point(answer: int) -> str:
    """The least rank at which 'norms around a product' certifies within one point of multiplying out."""
    expect(1 <= whole(answer) <= 32, "A rank from 1 to 32 is expected: at least the first direction has to go.")
    within = lambda r: certified("exact", r).accuracy_lower_bound - certified("norms", r).accuracy_lower_bound <= 0.01
    expect(within(answer), "At this rank it is still more than one point below.")
    expect(answer == 1 or not within(answer - 1), "A smaller rank is near enough as well.")
    return "Each direction takes away only its own share."


@exercise("noise/4", "easy", 10)
def slack_for_99(answer: float) -> str:
    """A slack at which 99% is still certified, and no longer at a tenth more."""
    expect(ablation.under_slack(network(), float(answer)) >= 0.99, "At this slack less than 99% is certified.")
    expect(ablation.under_slack(network(), 1.1 * float(answer)) < 0.99, "A tenth more is certified to 99% as well.")
    return "Less than the step from one key's score to the next."


@exercise("noise/5", "medium", 15)
def noise_as_bad(answer: int) -> str:
    """A seed for which turned factors of max-of-4/9 have a row difference at least as large as its own."""
    split = residual.residual(mp.load("max-of-4/9"), "QK", 1)
    real = float(surrogate.largest(split.numbers))
    drawn = surrogate.NULLS["haar"](split.numbers, 1, surrogate.generator_of(whole(answer)))
    expect(float(surrogate.largest(drawn)) >= real, "These factors are better than the trained ones, as most are.")
    return "Rare, and there: a standard score is about a typical draw, not about all."


@exercise("noise/6", "medium", 20)
def pessimal_row(answer: Tensor) -> str:
    """A rest [64] under query 29 that 'singular value' at rank 1 cannot exclude: 41 gets under a tenth with it."""
    story = Story(Survey(network(), 0))
    rest, allowed = torch.as_tensor(answer, dtype=torch.float64), story.off("spectral", 1)
    expect(rest.shape == (64,), "One number for each of the 64 keys is expected.")
    expect(float(rest.max() - rest.min()) <= allowed, f"Its entries differ by more than {allowed:.4f}: excluded.")
    share = story.least(story.known("spectral", 1).table.mid[story.q] + rest, 0.0)
    expect(share < 0.1, f"The network with this rest still gives 41 {share:.3f} of its attention.")
    return "Nobody trained this rest. The proof has to reckon with it, since it knows one number only."


@exercise("noise/7", "medium", 20)
def as_bad_as_the_bound(answer: Tensor) -> str:
    """A row z, not zero, whose farthest entries differ by sqrt(2) times its length: norms of rows are tight there."""
    z = torch.as_tensor(answer, dtype=torch.float64)
    expect(z.dim() == 1 and len(z) >= 4 and float(z.norm()) > 0, "Four numbers or more, not all zero, are expected.")
    ratio = float((z.max() - z.min()) / z.norm())
    expect(ratio >= 2**0.5 * (1 - 1e-9), f"Its entries differ by {ratio:.4f} times its length.")
    return "One entry up, one down, the rest zero: no row of noise looks like that."


@exercise("noise/8", "open", 60)
def shorter_without_products(answer: dict[str, Tensor]) -> str:
    """Other weights of this architecture, right on 99.9%; 'dimensions, factor by factor' at rank 1 certifies 99%."""
    model = answer if isinstance(answer, Model) else zoo.model_from_tensors("edited", answer)
    expect(model.family.name == "max_of_k" and (model.sizes["d_vocab"], model.sizes["n_ctx"]) == (64, 4),
           "A Max-of-4 network of 64 tokens is expected.")
    right = mp.prove(model, "exact").accuracy_lower_bound
    expect(right >= 0.999, f"It is right on {100 * right:.3f}% only.")
    found = residual.certify(model, "recursive", "QK", 1)
    expect(found.accuracy_lower_bound >= 0.99, f"Certified: {found}.")
    return f"{found}, and no two factors of the rest were multiplied."
