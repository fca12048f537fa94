"""The checks, in order, and the one line.

    format and fields  ->  which model  ->  which inputs  ->  strategy, parameters, advice  ->  chance of being fooled
    ->  the bound, derived anew  ->  is the claim at most that?
    ->  its cost, counted anew  ->  does the claim admit to it?
"""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import circuits, cubic, heads, layer, permutations, pizza, separable, superposition
from .exact import right_sequences
from .numbers import Refused, Unreadable, must, require, work
from .reader import Arrays, Model, advised, content, integer, keyed, model_of, parsed, safetensors
from .state import exact_state

FORMAT = "mechproof-certificate/1"
FOOLED = {"monte_carlo": 3 * 2.0**-61}          # one chance for each of three tables; others draw no coins
CHEAPEST = 0.9                                  # of the operations counted here that a claim must admit to
MOST_WORK = 2**37
LONGEST = 2**14000                              # beyond any v^K that is read, and short enough for Python to print
LARGEST = 2**26                                 # numbers in a table
TIERS = ("exact", "gram", "spectral", "frobenius")


@dataclass(frozen=True)
class Verdict:
    """code 0 proved, 1 refused, 2 unreadable; the line; what was derived, as far as it was."""

    code: int
    line: str
    correct: int | None = None
    total: int | None = None
    flops: int | None = None


def verify(certificate: bytes | str | os.PathLike, model: str | os.PathLike) -> Verdict:
    """A certificate (its bytes, or a path) about a model (a path).  Never raises."""
    return guarded(lambda: judged(read(certificate), model_of(*safetensors(content(model)))))


def verify_tensors(certificate: dict | bytes | str | os.PathLike, tensors: Arrays, metadata: dict[str, str]) -> Verdict:
    """The same for weights in memory; the certificate may be in memory too."""
    return guarded(lambda: judged(deepcopy(certificate) if isinstance(certificate, dict) else read(certificate),
                                  model_of(tensors, metadata)))


def read(certificate: bytes | str | os.PathLike) -> dict:
    return parsed(certificate if isinstance(certificate, bytes) else content(certificate), "certificate")


def guarded(derive) -> Verdict:
    """In a state of its own.  Refusals and unreadable files as verdicts;
    what no check foresaw proves nothing either."""
    try:
        with exact_state():
            return derive()
    except Refused as reason:
        return Verdict(1, f"refused: {reason}", flops=work.total)
    except Unreadable as reason:
        return Verdict(2, f"unreadable: {reason}")
    except MemoryError:
        return Verdict(1, "refused: the check does not fit into memory")
    except Exception as error:
        return Verdict(2, f"unreadable: {type(error).__name__} while checking")
    finally:
        # the next to count is somebody else
        work.ceiling = MOST_WORK


def judged(certificate: dict[str, Any], model: Model) -> Verdict:
    """The checks of the module docstring."""
    keyed(certificate, {"format", "claim", "model_sha256", "advice", "flops"}, "certificate")
    require(certificate["format"] == FORMAT, f"format is not {FORMAT!r}")
    claim = keyed(certificate["claim"], {"correct", "total", "strategy", "parameters", "failure_probability"}, "claim")
    total = integer(claim["total"], 0, LONGEST, "total")
    correct = integer(claim["correct"], 0, total, "correct")
    flops = integer(certificate["flops"], 0, 2**63, "flops")
    must(certificate["model_sha256"] == model.sha256, "model_sha256: the certificate is about another model")
    inputs = model.inputs
    must(total == inputs, f"total: {total} claimed, the model has {inputs} inputs")
    chance = claim["failure_probability"]
    require(type(chance) in (int, float) and 0 <= chance <= 1, "failure_probability is not a number from 0 to 1")
    strategy = claim["strategy"]
    require(isinstance(strategy, str), "strategy is not a name")
    allowed = {"pizza": pizza.ALLOWED, "superposition": superposition.ALLOWED, "permutations": permutations.ALLOWED,
               "heads": OF_HEADS, "layer": OF_HEADS}.get(model.kind, ALLOWED)
    must(strategy in allowed, f"strategy: none of {', '.join(allowed)}")
    parameters = settings(strategy, claim["parameters"], model)
    of_kind = {"pizza": pizza.expected, "permutations": permutations.expected,
               "superposition": lambda *_: {}}.get(model.kind, expected)
    shapes = of_kind(strategy, parameters, model.sizes)
    advice = read_advice(certificate["advice"], shapes)
    fooled = FOOLED.get(strategy, 0)
    must(chance >= fooled, f"failure_probability: {chance} claimed, {strategy} has {fooled}")
    # to all that there is to try
    admits = flops >= 2 * (model.sizes["v"] - 1) * inputs and strategy == "brute_force" and model.kind not in APART
    work.restart(MOST_WORK if admits else min(int(flops / CHEAPEST), MOST_WORK))
    work(sum(x.size for x in advice.values()))
    derived = bound(strategy, parameters, model, advice)
    if correct > derived:
        return Verdict(1, f"refused: correct: {correct} claimed, {derived} derived", derived, total, work.total)
    share = f"{correct} of {total} inputs right, by {strategy}"
    return Verdict(0, f"proved: at least {share} ({derived} derived, {work.total} operations, {flops} claimed)",
                   derived, total, work.total)


APART = ("pizza", "superposition", "permutations")          # what it takes to try all is counted by their own files
SEPARABLE = ("groups", "buckets", "query", *circuits.TABLES, *(f"{name}_rank" for name in circuits.TABLES))
ALLOWED = {"brute_force": (), "exact": (), "cubic": (), "separable": SEPARABLE, "monte_carlo": SEPARABLE[:3]}
OF_HEADS = {"brute_force": (), "exact": (), "separable": ("buckets",)}


def settings(strategy: str, given: Any, model: Model) -> dict[str, Any]:
    """The strategy's parameters, each in its range."""
    if model.kind == "pizza":
        keyed(given, set(pizza.ALLOWED[strategy]), "parameters")
        for name in given:
            integer(given[name], *pizza.limits(model.sizes)[name], name)
        return given
    if model.kind in ("permutations", "superposition"):
        return keyed(given, set(), "parameters")
    names, v = (OF_HEADS if "a" in model.sizes else ALLOWED)[strategy], model.sizes["v"]
    if model.stripped:
        must(strategy in ("brute_force", "exact", "separable"),
             f"strategy {strategy!r} has no meaning for a stripped network")
        names = names[:3]                                                       # its tables are always exact
    keyed(given, set(names), "parameters")
    for name in names:
        if name == "query":
            must(given[name] in ("grouped", "each"), "query: neither 'grouped' nor 'each'")
        elif name in circuits.TABLES:
            must(given[name] in TIERS, f"{name}: none of {', '.join(TIERS)}")
        else:
            high = {"groups": 64, "buckets": v}.get(name) or min(model.sizes["d"], model.sizes["h"])
            integer(given[name], {"groups": 1, "buckets": 2}.get(name, 0), high, name)
    n, b, g = model.sizes["n"], given.get("buckets", 9), given.get("groups", 6)
    # single wrong tokens, by head and position
    wide = model.sizes.get("a", 0) * v * model.sizes.get("o", v) * max(b * n, v // 2)
    must(max(v * max(v * b, v * g, v * n, g * n * b), wide) <= LARGEST, "sizes: the tables do not fit into memory")
    return given


def expected(strategy: str, parameters: dict[str, Any],
             sizes: dict[str, int]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and type of every array of advice."""
    if "a" in sizes:
        shape = (sizes["a"] - 1, sizes["v"], sizes.get("o", sizes["v"]))
        return {} if strategy == "brute_force" else {"split": (shape, "<f8")}
    if strategy == "monte_carlo":
        return {name: ((circuits.WORDS, sizes["v"], sizes["v"]), "<i8") for name in ("scores", "direct", "votes")}
    dims = {name: [sizes[letter] for letter in letters]
            for name, letters in {"qk": "vdhdv", "eu": "vdv", "ov": "vdhdv"}.items()
            if parameters.get(name, "exact") != "exact"}
    return {f"{name}_{side}{i}": ((n, parameters[f"{name}_rank"]), "<f8") for name in dims
            for i, n in circuits.directions(dims[name], parameters[name]).items() for side in "ab"}


def read_advice(given: Any, shapes: dict[str, tuple[tuple[int, ...], str]]) -> Arrays:
    """Exactly the expected arrays, finite, words of at most 62 bits."""
    keyed(given, set(shapes), "advice")
    advice = {name: advised(given[name], shape, dtype, name) for name, (shape, dtype) in shapes.items()}
    for name, x in advice.items():
        fine = np.isfinite(x) if x.dtype.kind == "f" else (x >= -(2**circuits.BITS)) & (x <= 2**circuits.BITS)
        require(bool(fine.all()), f"advice {name!r} holds numbers out of range")
    return advice


def bound(strategy: str, parameters: dict[str, Any], model: Model, advice: Arrays) -> int:
    """How many inputs the strategy certifies."""
    weights, n_ctx = model.weights, model.sizes["n"] if model.stripped else None
    if model.kind == "pizza":
        return pizza.certified(strategy, parameters, weights, advice)
    if model.kind == "superposition":
        return superposition.certified(strategy, weights, model.sizes["n"])
    if model.kind == "permutations":
        return permutations.certified(strategy, weights, advice)
    if model.kind == "layer":
        none = np.zeros((model.sizes["a"] - 1, model.sizes["v"], model.sizes["o"]))
        if strategy == "separable":
            return layer.certified(weights, model.settings, advice["split"], parameters["buckets"])
        return layer.right_inputs(weights, model.settings, advice.get("split", none))
    if model.kind == "heads" and strategy == "separable":
        return heads.certified(weights, advice["split"], parameters["buckets"])
    if strategy in ("exact", "brute_force"):
        rows = ("EU", "OV_right") if model.stripped else ("W_U", "b_U")
        logits = np.concatenate([np.atleast_2d(weights[name]) for name in rows if name in weights])
        sizes = model.sizes["n"], model.sizes["v"]
        if model.kind == "heads":
            shape = (model.sizes["a"] - 1, sizes[1], sizes[1])
            return heads.right_sequences(weights, advice.get("split", np.zeros(shape)), logits, sizes)
        return right_sequences(lambda: circuits.exact(weights, n_ctx), logits, sizes)
    if strategy == "cubic":
        return cubic.certified(circuits.exact(weights, n_ctx))
    if strategy == "monte_carlo":
        tables = circuits.sampled(weights, advice)
    elif model.stripped:
        tables = circuits.exact(weights, n_ctx)
    else:
        tables = circuits.compact(weights, advice, {name: parameters[name] for name in circuits.TABLES})
    return separable.certified(tables, parameters["groups"], parameters["buckets"], parameters["query"] == "each")
