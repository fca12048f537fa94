"""Search for advice, check it, and say what was proved: the three calls that every strategy answers to.

The check is the proof: its operations, from the tensors of the file to the Bound, are what `flops` counts.
Reading the advice costs one operation a number.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from . import cost
from .bound import Bound, Case, short
from .family import Advice, InputError, Model, Parameters, Strategy, check_advice, check_tokens, parse_id
from .state import own_state

COST_LIMIT = 2 * 10**10


@own_state()
def strategies(model: Model) -> list[Strategy]:
    """The named presets for this model: .id .label .family .cost (predicted operations) .parameters."""
    return model.family.strategies(model.sizes)


def moderate(model: Model) -> list[Strategy]:
    """The presets that `all` means: those predicted to cost at most `COST_LIMIT` operations."""
    return [s for s in strategies(model) if s.cost <= COST_LIMIT]


@contextmanager
def in_memory(model: Model) -> Iterator[None]:
    """Errors: InputError for a model whose tables do not fit."""
    needed = 8 * model.family.numbers(model.sizes)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else needed
    message = (f"model {model.name!r} needs tables of some {short(needed, 'B')}, more than this machine's memory; "
               "take a smaller one")
    if needed > there:
        raise InputError(message)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error):
            raise InputError(message) from None
        raise


@own_state()
def search(model: Model, strategy: str, rank: int | None = None) -> Advice:
    """Advice for `strategy`, by any means; nothing in it is trusted.  Errors: InputError for an unknown id."""
    return _searched(model, *parse_id(strategy, strategies(model), rank))


def _searched(model: Model, preset: Strategy, parameters: Parameters) -> Advice:
    with in_memory(model):
        return preset.search(model, parameters)


@own_state()
def check(model: Model, strategy: str, advice: object, rank: int | None = None) -> Bound:
    """The proof: a sound Bound from weights and advice.

    Errors: InputError, in one line, for an unknown id and for advice of the wrong names, shapes or kind.
    Complexity: what `Bound.flops` says, counted as it runs.
    """
    return checked(model, *parse_id(strategy, strategies(model), rank), advice)


@own_state()
def checked(model: Model, preset: Strategy, parameters: Parameters, advice: object) -> Bound:
    """The proof of a strategy, listed or not, of the weights as they are now.  Errors and complexity: as `check`."""
    # copied and checked anew: what the caller changes meanwhile is another network
    model = replace(model)
    advice = check_advice(advice, preset.advice(parameters))
    start = time.perf_counter()
    with in_memory(model), cost.count() as counted:
        with cost.charge(sum(tensor.numel() for tensor in advice.values()), "advice read"):
            pass
        proved = preset.check(model, advice, parameters)
    return Bound(
        model=model.name, strategy=preset.full_id(parameters), correct=proved.correct, total=proved.total,
        flops=counted.flops, failure_probability=preset.failure_probability,
        unexplained_dimensions=preset.unexplained_dimensions(parameters),
        advice_bytes=sum(tensor.numel() * tensor.element_size() for tensor in advice.values()),
        seconds=time.perf_counter() - start, undecided=proved.undecided(), case=in_readers_tokens(model, proved.case))


def in_readers_tokens(model: Model, case: Callable[[Sequence[int]], Case]) -> Callable[[Sequence[int]], Case]:
    """The case of an input as the network's owner writes it, where the proof counts tokens from the top."""
    if model.metadata.get("tokens") != "reversed" or str(model.metadata.get("task", "max")).lower() != "min":
        return case
    top = model.sizes["d_vocab"] - 1

    def turned(tokens: Sequence[int]) -> Case:
        found = case([top - t for t in check_tokens(tokens, model.sizes)])
        return replace(found, reason=f"{found.reason} (tokens counted from the top: t is {top} - t)")

    return turned


@own_state()
def prove(model: Model, strategy: str, rank: int | None = None) -> Bound:
    """Search, then check.  Errors: as `check`."""
    return run(model, *parse_id(strategy, strategies(model), rank))


@own_state()
def run(model: Model, preset: Strategy, parameters: Parameters) -> Bound:
    """Search and check of a strategy, listed or not.  Errors: as `check`."""
    start = time.perf_counter()
    advice = _searched(model, preset, parameters)
    seconds = time.perf_counter() - start
    return replace(checked(model, preset, parameters, advice), search_seconds=seconds)
