"""The operations of a block of torch code, counted as it runs.

Problem: a proof's length is the work of its check, and a formula beside the code drifts away from it.
Idea: let torch itself report every operation (a dispatch mode), charge each by one table, and refuse what
the table does not know, so that nothing runs for free by accident.

Rules: a matmul of a x b by b x c costs 2abc; a pointwise operation the size of its result; a reduction or
scan the size of its input; a sort n ceil(log2 n) a row; searchsorted m ceil(log2 n); views, copies and
gathers nothing.  Index arithmetic that the sizes alone decide is no part of a proof (`with addresses(): ...`);
lists that depend on the data are, and count like everything else.  Leaving torch (`.item()`, `.numpy()`, a loop
over Python numbers) raises, unless the block says what it costs: `with charge(n, "why"): ...`.

>>> with count() as cost:
...     _ = torch.ones(3, 4) @ torch.ones(4, 5)
>>> cost.flops
120
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from math import ceil, log2

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

POINTWISE = frozenset(
    "add sub rsub mul div neg abs maximum minimum where eq ne lt le gt ge bitwise_and bitwise_or bitwise_not exp log "
    "sqrt reciprocal "
    "erf tanh floor floor_divide clamp clamp_min clamp_max masked_fill nan_to_num cos sin sign acos remainder".split())
REDUCTIONS = frozenset("sum mean amax amin any all cumsum cummax cummin nonzero argmax bincount unique_consecutive "
                       "repeat_interleave".split())
FREE = frozenset(
    "view _unsafe_view permute transpose expand slice select unsqueeze squeeze gather index_select cat stack clone "
    "_to_copy alias arange zeros ones empty new_zeros new_ones new_full zeros_like ones_like empty_like lift_fresh "
    "fill diagonal flip unbind split index_copy index_fill copy full full_like scatter eye split_with_sizes "
    "scalar_tensor repeat roll".split())
LEAVING = frozenset("item numpy tolist __array__ __bool__ __float__ __int__ __index__ __dlpack__ data_ptr".split())


class Uncounted(RuntimeError):
    """An operation without a price ran inside a count."""


def _log2(n: int) -> int:
    return ceil(log2(max(n, 2)))


@cache
def name_of(func: OpOverload) -> str:
    """What the tables call an operation; in place or not is the same."""
    name = func.overloadpacket.__name__
    return name if name.startswith("__") else name.removesuffix("_")


def price(name: str, args: tuple, result) -> int:
    """Operations of one aten call that is not free, by the rules above; raises `Uncounted` for a name that has none."""
    if name in ("index", "index_put"):
        if len(args) > 3 and args[3]:
            raise Uncounted("index_put with accumulate adds: use an operation that has a price")
        return sum(i.numel() for i in args[1] if i is not None and i.dtype == torch.bool)     # a mask is scanned
    if name in POINTWISE:
        return result.numel()
    if name in REDUCTIONS:
        return max(args[0].numel(), args[1].numel() if len(args) > 1 and isinstance(args[1], Tensor) else 0)
    if name in ("mm", "bmm", "mv", "dot"):
        return 2 * result.numel() * args[0].shape[-1]
    if name in ("scatter_reduce", "scatter_add", "index_add"):
        # every number added or compared once
        return args[3].numel()
    if name == "sort":
        return args[0].numel() * _log2(args[0].shape[-1])
    if name == "searchsorted":
        return result.numel() * _log2(args[0].shape[-1])
    raise Uncounted(f"operation {name!r} has no price in cost.py: "
                    "add it to a table, or wrap it in cost.charge(n, 'why')")


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.by: Counter[str] = Counter()

    flops = property(lambda self: self.by.total())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No proof runs under a compiler (state.py), so torch need not guard every operation against one."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result, name = func(*args, **(kwargs or {})), name_of(func)
        if name == "scatter" and "reduce" in (kwargs or {}):
            raise Uncounted("scatter with reduce computes: use scatter_reduce, which has a price")
        if name not in FREE:
            self.by[name] += price(name, args, result)
        return result


class _NoWayOut(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func.__name__ in LEAVING:
            raise Uncounted(f"Tensor.{func.__name__} leaves torch inside a count: "
                            "wrap the block in cost.charge(n, 'why')")
        return func(*args, **(kwargs or {}))


_active: ContextVar[_Count | None] = ContextVar("count", default=None)        # each thread has its own


@contextmanager
def count() -> Iterator[_Count]:
    """Count what runs inside; `.flops` is the total so far, `.by` splits it by operation and charge."""
    counter = _Count()
    with counter, _NoWayOut():
        outer = _active.set(counter)
        try:
            yield counter
        finally:
            _active.reset(outer)


@contextmanager
def charge(n: int, why: str) -> Iterator[None]:
    """Charge n operations for the block, and let it do anything; without a count, just run it."""
    counter = _active.get()
    if counter is not None:
        counter.by[why] += int(n)
    with _disable_current_modes() if counter else nullcontext(), torch._C.DisableTorchFunction():
        yield


def addresses() -> AbstractContextManager[None]:
    """A block of index arithmetic that the sizes alone decide, at no cost;
    nothing in it may depend on weights or advice."""
    return charge(0, "addresses")
