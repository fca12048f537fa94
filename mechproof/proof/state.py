"""The state of the process that proofs compute in: their own.

Problem: a theorem must not depend on who called.  A default dtype, an autocast, a compiler, worker threads that read
the smallest numbers as zero: each has made a proof speak of another network.  Idea: one place that `load`, `search`,
`check`, `certify`, `verify`, `sweep` and `Bound.why` enter.  It sets what can be set, on this thread alone and with the
others kept out, verifies that the arithmetic is what rounding.py relies on, refuses what it cannot set in one line, and
leaves everything as it was.

A new setting of torch is one more line of `SETTINGS`, or of `refusals`.

>>> torch.set_default_dtype(torch.float64)
>>> with own_state(): torch.get_default_dtype(), torch.get_num_threads()
(torch.float32, 1)
>>> torch.set_default_dtype(torch.float32)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from flint import ctx
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..verifier.state import ALONE, arithmetic, reads_small_numbers


class InputError(ValueError):
    """Bad input, told in one line: the argument, its value, what would do."""


class Setting(NamedTuple):
    """Something of the process, or of this thread, that a result could depend on, and what it is in here."""

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], Any]
    own: Any


SETTINGS = (
    # workers may flush, or sum in another order
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads, 1),
    Setting("flushing of small numbers", lambda: not reads_small_numbers(), torch.set_flush_denormal, False),
    Setting("the default dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    Setting("the precision of float32 products",
            lambda: _matmul_precision(), torch.set_float32_matmul_precision, "highest"),
    Setting("autocast",
            lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), False),
    Setting("gradients", torch.is_grad_enabled, torch._C._set_grad_enabled, False),
    Setting("the precision of flint", lambda: ctx.prec, lambda bits: setattr(ctx, "prec", bits), 53),
)
# 2^-149, so often that torch would share the work out
SMALL = torch.ones(2**15 + 64, dtype=torch.int32, device="cpu").view(torch.float32)
_inside = threading.local()


def _matmul_precision() -> str:
    """As set by the one call for all backends; where torch's newer settings are used besides,
    that call raises (proofs multiply in float64)."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"


def compiler() -> Any:
    """What compiles the code that this thread runs, if something does."""
    before = torch._C._dynamo.eval_frame.set_eval_frame(None)
    torch._C._dynamo.eval_frame.set_eval_frame(before)
    return before


def refusals() -> Iterator[str]:
    """What is in force that cannot be set from here, and what would do."""
    modes = [*_get_current_function_mode_stack(), *_get_current_dispatch_mode_stack()]
    if modes:
        yield (f"a torch mode ({type(modes[-1]).__name__}) is in force; leave its `with` block, "
               "or restart a process that was interrupted in one")
    if torch.compiler.is_compiling() or compiler():
        yield "torch.compile is at work; call this outside of compiled code"
    if torch.jit.is_tracing():
        yield "torch.jit.trace is at work; call this outside of it"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        yield "a transform of torch.func (vmap, grad, ...) is at work; call this outside of it"
    if reason := arithmetic():
        yield reason
    elif not float(SMALL.double().amin()) > 0:
        yield "torch reads numbers below 2^-126 as zero; use another process"


@contextmanager
def own_state() -> Iterator[None]:
    """Where everything that a bound rests on is computed; may be entered again.

    Errors: InputError for what is in force that cannot be set, and where somebody else set something meanwhile.
    """
    if getattr(_inside, "own", False):
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(ALONE)
        for setting in SETTINGS:
            before = setting.get()
            if before != setting.own:
                stack.callback(setting.set, before)
                setting.set(setting.own)
        _without_device(stack)
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
        stack.enter_context(np.errstate(all="ignore"))
        for reason in refusals():
            raise InputError(f"the state of this process: {reason}")
        stack.callback(setattr, _inside, "own", False)       # first, so that no interrupt leaves it set
        _inside.own = True
        yield
        for setting in SETTINGS:
            if setting.get() != setting.own:
                raise InputError(f"the state of this process: {setting.name} was set meanwhile, by another thread "
                                 "perhaps; try again")


def _without_device(stack: ExitStack) -> None:
    """No default device, until the stack ends, where torch.set_default_device has set one."""
    modes = _get_current_function_mode_stack()
    if len(modes) == 1 and isinstance(modes[0], DeviceContext):
        torch.set_default_device(None)
        if not _get_current_function_mode_stack():                        # else it is a `with` block's
            stack.callback(torch.set_default_device, modes[0].device)
