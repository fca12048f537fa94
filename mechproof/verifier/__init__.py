"""Derives what a certificate claims a second time, from the weights and the advice, and says yes or no.

Problem: a bound is only as good as the program that computed it.  Idea: a certificate carries everything that a
second, smaller program needs to compute the bound anew, and that program shares no code with the first: the standard
library, numpy and python-flint, no torch.  Tables are multiplied out in balls of 128 bits and then rounded once, so
that only the short sums after them are left to float64 and its error bounds (`numbers.py`).

    reader.py      bytes -> weights and a claim of known shape; everything else is "unreadable"
    numbers.py     matrices of balls, float64 with a radius, and the count of operations
    state.py       what of the process a check depends on: set, verified, or refused
    circuits.py    the network's five tables, exact, compact (peeled along the advice) or tested at random
    layout.py      which tokens go together: pairs, rows, buckets, groups
    cells.py       sums of single-token terms, and the combinations of buckets that they leave open
    ledger.py      the books of a proof that certifies what it does not list
    terms.py       a network's terms, query by query or queries in buckets
    levels.py      the count where there are too many combinations of buckets to list
    heads.py       several heads: quotients of such sums
    layer.py       one layer of attention with norms, fixed tokens, more outputs
    separable.py   which sequences are certain: what is left open, listed once a row and counted
    exact.py       the exact number of right sequences by branch and bound
    cubic.py       the cubic proof
    pizza.py       modular addition: products through narrow doors, sums over neurons, margins
    superposition.py   ANDs of features: sums over single features, set by set where they reach too far
    permutations.py  composition of permutations: neurons by one row and one column, leads
    verdict.py     the checks, in order, and the one line

>>> from mechproof.verifier import verify
>>> verify("book/_static/certificates/small-0.json", "book/_static/certificates/small.safetensors").code
0
"""

from .verdict import Verdict, verify, verify_tensors

__all__ = ["Verdict", "verify", "verify_tensors"]
