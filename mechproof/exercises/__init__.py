"""Exercises with a test that a reader runs: `exercises.check("max-of-k/3", answer)` says whether it is right, and why.

>>> from mechproof import exercises
>>> exercises.check("max-of-k/1", 34)
max-of-k/1: not yet. The one free token has 34 values, and can stand at any of several places.
>>> exercises.check("max-of-k/1")
max-of-k/1: no answer yet.
"""

from .checking import Verdict, check, names

__all__ = ["Verdict", "check", "names"]
