"""Exercises of the chapter on computation in superposition."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

import mechproof as mp

from ..proof.family import Model
from ..superposition import certify, plain
from ..zoo.weights import model_from_tensors
from .checking import exercise, expect, whole


@cache
def small() -> Model:
    return mp.load("u-and-256/0")


def own(answer: object, m: int) -> Model:
    """The answer as a network of m features.  Errors: NotYet."""
    expect(isinstance(answer, Model) and answer.family.name == "superposition", "A network of ANDs is expected.")
    expect(answer.sizes["m"] == m and answer.sizes["sparsity"] == 2, f"{m} features are expected, two of them on.")
    return answer


@exercise("superposition/1", "easy", 5)
def how_many(answer: Sequence[int]) -> str:
    """The number of ANDs of 32 features, and of inputs with three of them on."""
    expect(len(answer) == 2, "Two numbers are expected.")
    expect(list(answer) == [496, 4960], "Sets, not sequences: neither order nor repetition counts.")
    return "Every one of 4 960 inputs has 496 outputs that must be right, from 384 neurons."


@exercise("superposition/2", "easy", 5)
def bias(answer: float) -> str:
    """The mean error with one of the pair on, of a random plain network with p = 1/4, four features on."""
    expect(abs(float(answer) - 0.75) < 1e-6, "Each other feature that is on sits on a quarter of a pair's neurons.")
    return "No number of neurons helps against that: p has to fall."


@exercise("superposition/3", "easy", 10)
def the_worst(answer: Sequence[int]) -> str:
    """Two features of u-and-256/0 that are a worst input."""
    on, exact = certify.features(answer, small().sizes), plain.worst(small())[0]
    error = Fraction(1, 2) - Fraction(mp.prove(small(), "exact").why(on).margin_lo)
    expect(error >= exact, f"The largest error with these on is {float(error):.3f}, of {float(exact):.3f}.")
    return "No input is worse, and that took no look at any of them."


@exercise("superposition/4", "medium", 10)
def how_many_on(answer: int) -> str:
    """The largest number on at which the design of quadruples of 32 features is right everywhere."""
    expect(2 <= whole(answer) < 32, "A number of features is expected.")
    expect(answer <= 8, "The worst error reaches 1/2 before.")
    expect(answer == 8, "One more is still right.")
    return "7 times 2/30 is less than 1/2, and C(32, 8) = 10 518 300 inputs are right."


@exercise("superposition/5", "medium", 10)
def neurons_needed(answer: int) -> str:
    """The neurons that a plain network of 82 features needs for a worst error of 1/10, two on."""
    expect(whole(answer) >= 738, "The theorem on designs excludes so few.")
    expect(answer == 738, "The theorem does not exclude fewer.")
    return "That many the circles over nine elements have, were they built for powers of primes."


@exercise("superposition/6", "medium", 15)
def no_error(answer: Tensor) -> str:
    """W_in of zeros and ones for five features whose worst error is 0 with two on."""
    W = torch.as_tensor(answer).float()
    expect(W.dim() == 2 and len(W) == 5, "A tensor of five rows, one a feature, is expected.")
    model = model_from_tensors("answer", {"W_in": W, "b_in": -torch.ones(W.shape[1])},
                               {"sparsity": "2", "readout": "plain"})
    value = plain.worst(model)[0]
    expect(value == 0, f"Its worst error is {value}.")
    return f"{W.shape[1]} neurons for 10 ANDs: a neuron for each pair, which is what superposition is to avoid."


@exercise("superposition/7", "medium", 20)
def right_for_no_reason(answer: Model) -> str:
    """A network of 32 features, two on, that is right everywhere and of which feature by feature certifies nothing."""
    model = own(answer, 32)
    expect(mp.prove(model, "brute_force").accuracy_lower_bound == 1, "It is wrong on some input.")
    expect(mp.prove(model, "features").correct == 0, "Some of its inputs are certified.")
    return "Its errors cancel, and a proof that takes each neuron at its worst does not see that."


@exercise("superposition/8", "open", 60)
def fewer_neurons(answer: Model) -> str:
    """A network of 32 features, two on, with fewer than 62 neurons, all inputs certified feature by feature."""
    model = own(answer, 32)
    expect(model.sizes["d_mlp"] < 62, f"It has {model.sizes['d_mlp']} neurons.")
    bound = mp.prove(model, "features")
    expect(bound.correct == bound.total, f"Certified: {bound}.")
    return f"{bound}, from {model.sizes['d_mlp']} neurons."
