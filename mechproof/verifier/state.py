"""What of the process a check depends on: set where that can be done, verified where it computes, refused otherwise.

Problem: a theorem must not depend on who called.  A package built with -ffast-math makes the processor read the
smallest numbers as zero when it is loaded, and a weight of 2^-149 that is read as zero belongs to another network; the
direction of rounding is the thread's; flint's precision is the whole process's.  Idea:
one place that every check enters, alone.

>>> with exact_state(): ctx.prec
128
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from flint import ctx

from .numbers import Refused

PRECISION = 128                                 # bits of the tables' balls
ALONE = threading.RLock()                       # one check at a time: flint's precision is all threads'
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ALONE._at_fork_reinit)   # whoever held it is no thread of the child's
LEAST, NORMAL, ONE, HALF_ULP = 2.0**-1074, 2.0**-1022, 1.0, 2.0**-53
SINGLE = np.full(64, 2.0**-149, np.float32)     # whether whole arrays are read as they are


def reads_small_numbers() -> bool:
    """Whether this thread computes with numbers below 2^-1022 and not with zeros in their place."""
    return LEAST * 2.0**60 > 0 and NORMAL * 0.5 > 0 and bool((SINGLE.astype(float) > 0).all())


def rounds_to_nearest() -> bool:
    """Whether this thread does, and not up, down or towards zero."""
    return ONE + HALF_ULP / 2 == ONE == ONE - HALF_ULP / 4 and -ONE - HALF_ULP / 2 == -ONE


def arithmetic() -> str | None:
    """What is wrong with this thread's arithmetic, None if nothing is."""
    if not reads_small_numbers():
        return ("this thread reads numbers below 2^-1022 as zero, as a package built with -ffast-math does; "
                "use another process")
    if not rounds_to_nearest():
        return "this thread does not round to nearest; set that back, or use another process"
    return None


@contextmanager
def exact_state() -> Iterator[None]:
    """Where the verifier checks.  Raises `Refused` where the thread's arithmetic is not what every error bound here
    takes it for."""
    with ALONE, np.errstate(all="ignore"):
        before, ctx.prec = ctx.prec, PRECISION
        try:
            for at in ("before", "after"):
                reason = arithmetic()
                if reason or ctx.prec != PRECISION:
                    raise Refused(f"state: {reason or 'another thread set the precision of flint meanwhile'}")
                if at == "before":
                    yield
        finally:
            ctx.prec = before
