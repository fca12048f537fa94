"""What an exercise is: a test of an answer, which raises `NotYet` with a hint, or returns what the answer shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..proof.family import InputError

CHAPTERS = ("max-of-k", "past-the-paper", "pizza", "noise", "superposition", "groups")
LEVELS = ("easy", "medium", "hard", "open")


class NotYet(Exception):
    """The answer is not right; the message says in which direction to look, not what to write."""


@dataclass(frozen=True)
class Exercise:
    level: str
    minutes: int
    test: Callable[[Any], str]


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, and a sentence."""

    name: str
    ok: bool
    says: str

    def __repr__(self) -> str:
        return f"{self.name}: {self.says}"


EXERCISES: dict[str, Exercise] = {}


def exercise(name: str, level: str, minutes: int) -> Callable[[Callable[[Any], str]], Callable[[Any], str]]:
    """Make a test known under this name."""
    def known(test: Callable[[Any], str]) -> Callable[[Any], str]:
        EXERCISES[name] = Exercise(level, minutes, test)
        return test
    return known


def names(chapter: str) -> list[str]:
    """The exercises of a chapter, in their order.  Errors: InputError for a chapter that has none."""
    if chapter not in CHAPTERS:
        raise InputError(f"chapter {chapter!r} has no exercises; expected one of: {', '.join(CHAPTERS)}")
    return [name for name in EXERCISES if name.startswith(f"{chapter}/")]


def check(name: str, answer: Any = None) -> Verdict:
    """Whether the answer is right.  An answer that cannot be read is not right, and the verdict says what was expected.

    Errors: InputError for an exercise that there is none of.
    """
    if name not in names(name.partition("/")[0]):
        raise InputError(f"exercise {name!r} is not known; expected one of: {', '.join(names(name.partition('/')[0]))}")
    if answer is None or answer is ...:
        return Verdict(name, False, "no answer yet.")
    try:
        return Verdict(name, True, f"right. {EXERCISES[name].test(answer)}")
    except NotYet as hint:
        return Verdict(name, False, f"not yet. {hint}")
    except Exception as error:                                           # anybody's answer, and anybody's function
        line = (str(error).splitlines() or [""])[0]
        return Verdict(name, False, f"not yet. The answer could not be used ({type(error).__name__}: {line[:120]}).")


def expect(holds: object, hint: str) -> None:
    """Errors: NotYet with the hint where it does not hold."""
    if not bool(holds):
        raise NotYet(hint)


def whole(answer: Any) -> int:
    """The answer as a whole number.  Errors: NotYet."""
    expect(isinstance(answer, int) and not isinstance(answer, bool), "A whole number is expected.")
    return answer
