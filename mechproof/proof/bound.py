"""What was proved: how many inputs, of which model, by which strategy, at what cost.

Problem: a number like 0.955 says nothing about what it bounds, what it cost and what it leaves open.
Idea: one frozen record whose repr is the sentence a reader wants, and which can be asked about any input.

>>> Bound("max-of-4/0", "cubic", correct=3, total=4, flops=35_100_000, unexplained_dimensions=12_800)
>= 75% of 4 inputs · 35.1 MFLOP · 12 800 unexplained dimensions
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import floor, inf, isfinite, nextafter

from .state import InputError, own_state


def ratio_lo(correct: int, total: int) -> float:
    """The largest float that is at most correct / total, also for integers of any length."""
    exact = Fraction(correct, total)
    nearest = float(exact)
    return nearest if Fraction(nearest) <= exact else nextafter(nearest, -inf)


def digits_lo(x: float | Fraction, places: int) -> str:
    """x with `places` decimals, rounded down: what is printed of a bound never exceeds it."""
    return f"{floor(Fraction(x) * 10**places) / 10**places:.{places}f}" if isfinite(x) else str(x)


def share_lo(share: float, places: int = 2) -> str:
    """A share as percent with `places` decimals, rounded down (without the sign); the product with 100 is exact."""
    return digits_lo(100 * Fraction(share), places)


def percent_lo(correct: int, total: int, digits: int = 4) -> str:
    """correct / total in percent with `digits` significant digits of what is certified or of what is not,
    rounded down."""
    if correct in (0, total):
        return "100%" if correct else "0%"
    rest = min(Fraction(correct, total), 1 - Fraction(correct, total))
    places = 0
    while rest * 100 * 10**places < 10 ** (digits - 2) and places < 60:
        places += 1
    scaled = correct * 100 * 10**places // total
    whole, part = divmod(scaled, 10**places)
    return f"{whole}.{part:0{places}d}".rstrip("0").rstrip(".") + "%" if places else f"{whole}%"


def short(n: int | float, unit: str = "") -> str:
    """A count for people: 12 800, 35.1 M, 3.2 G, 8.5e23."""
    if n < 10**5:
        return f"{floor(n):,}".replace(",", " ") + (f" {unit}" if unit else "")
    for power, letter in ((10**3, "k"), (10**6, "M"), (10**9, "G"), (10**12, "T")):
        if 2 * n < 1999 * power:                                         # rounds to 999 at most
            return f"{n / power:.3g} {letter}{unit}"
    return f"{Decimal(n):.2e} {unit}".rstrip()


@dataclass(frozen=True)
class Case:
    """One input as a proof sees it: is it certified, by which case, with which margin in logits."""

    covered: bool
    reason: str
    # worked out when asked for
    margin: Callable[[], float | None] = field(default=lambda: None, repr=False, compare=False)

    @property
    def margin_lo(self) -> float | None:
        """Certified lower bound on the right logit minus the best wrong one; None if no case applies."""
        with own_state():
            return self.margin()

    def __repr__(self) -> str:
        margin = "" if self.margin_lo is None else f" · margin >= {digits_lo(self.margin_lo, 3)} logits"
        return f"{'certified' if self.covered else 'not certified'}: {self.reason}{margin}"


@dataclass(frozen=True)
class Bound:
    """`correct` of `total` inputs are certified right; see the module docstring.

    `flops` counts what the check did, `unexplained_dimensions` is the paper's estimate (None where there is
    none), `undecided` the inputs lost to rounding alone, `case` maps an input to its `Case`.
    """

    model: str
    strategy: str
    correct: int
    total: int
    flops: int
    unexplained_dimensions: int | None = None
    failure_probability: float = 0.0
    advice_bytes: int = 0
    seconds: float = 0.0
    search_seconds: float = 0.0
    undecided: int = 0
    case: Callable[[Sequence[int]], Case] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if not 0 <= self.correct <= self.total:                     # an overflow, say; no proof ever says this
            raise ArithmeticError(f"{self.strategy} counts {self.correct} of {self.total} inputs of {self.model}: "
                                  "a fault of the library")

    @property
    def accuracy_lower_bound(self) -> float:
        """The largest float that is at most correct / total."""
        return ratio_lo(self.correct, self.total)

    def covers(self, tokens: Sequence[int]) -> bool:
        """Whether this one input is among the certified ones."""
        return self.why(tokens).covered

    def why(self, tokens: Sequence[int]) -> Case:
        """By which case this input is certified and with which margin, or what keeps it out.

        Errors: InputError for a bound that was not proved here but read from somewhere."""
        if self.case is None:
            raise InputError(f"this bound of {self.model} is a number without its proof, which says nothing of single "
                             "inputs; prove it anew")
        with own_state():
            return self.case(tokens)

    def as_dict(self) -> dict:
        """The JSON of a bound (keys as the command line prints them)."""
        names = ("model", "strategy", "accuracy_lower_bound", "correct", "total", "flops", "unexplained_dimensions",
                 "failure_probability", "advice_bytes", "seconds", "search_seconds")
        return {name: getattr(self, name) for name in names}

    def __repr__(self) -> str:
        text = f">= {of_inputs(self.correct, self.total)} · {short(self.flops, 'FLOP')}"
        if self.unexplained_dimensions is not None:
            text += f" · {short_int(self.unexplained_dimensions)} unexplained dimensions"
        if self.failure_probability:
            text += f" · but for a chance of {self.failure_probability:.1e}"
        return text


def of_inputs(correct: int, total: int) -> str:
    """A share in percent, or where that would be many zeros, as a number: 56 of 16 777 216 inputs."""
    few = 0 < correct * 10**4 < total
    return f"{short_int(correct) if few else percent_lo(correct, total)} of {short_int(total)} inputs"


def short_int(n: int) -> str:
    """An integer with spaces between thousands, in scientific notation from 10^15 on."""
    return f"{n:,}".replace(",", " ") if n < 10**15 else f"{Decimal(n):.2e}"
