"""Exercises with a test that a reader runs: `exercises.check("max-of-k/3", answer)` says whether it is right, and why.

>>> from mechproof import exercises
>>> exercises.check("max-of-k/1", 34)
max-of-k/1: not yet. The one free token has 34 values, and can stand at any of several places.
>>> exercises.check("max-of-k/1")
max-of-k/1: no answer yet.
"""

from . import groups, max_of_k, noise, past_the_paper, pizza, superposition
from .checking import Verdict, check, names

# a chapter's file makes its tests known
__all__ = ["Verdict", "check", "groups", "max_of_k", "names", "noise", "past_the_paper", "pizza", "superposition"]
