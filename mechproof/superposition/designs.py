"""Which neurons a feature has, by a table in which all pairs are alike: designs in the place of chance.

Problem: of neurons drawn at random some pair has few of its own, and some third feature sits on most of them: the
worst input.  Idea: a 3-design, features as points and neurons as blocks of k of them, such that any three features
share the same number of neurons, l.  Then any two share l (m - 2) / (k - 2), and every q of *Worst input* is the
same:

*Theorem (Designs).* The worst error of a 3-design with k >= 3 is (s - 1) (k - 2) / (m - 2), for 2 <= s <= m - 1, and
half of that with constants.  If any three share one neuron (l = 1), no plain network whose every pair shares a neuron
with a third feature has a smaller one at s = 2 with fewer neurons; nor has one with constants, whatever they are, a
smaller one than the half.

*Proof.* q = l / (l (m - 2) / (k - 2)), and the first sentence is *Worst input*.  Let a network with d neurons, n_k
features on neuron k, have the worst error e at s = 2.  Some q of a pair is positive, hence at least 1 over the size
of its G: |G| >= 1/e, and with N = sum of C(n_k, 2) = sum of |G|: N >= C(m, 2) / e.  All q of a pair add up to at most
e (m - 2), so that sum of C(n_k, 2) (n_k - 2) <= e (m - 2) N.  As a function of x = C(n, 2), x (n - 2) is convex, so
n* with C(n*, 2) = N / d has n* - 2 <= e (m - 2), and d = N / C(n*, 2) >= m (m - 1) / (e k (k - 1)) with k = e (m - 2)
+ 2, which is what a design with l = 1 has.  At s = 2 an output's errors are 0, with both on, and its e_ij: no constant
makes the larger of them less than e_ij / 2.

Source: designs are classical (Hadamard 3-designs, Steiner quadruple systems, inversive planes); the use of them here
is new to us.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from ..proof.family import InputError


def binary(n: int) -> Tensor:
    """[2^n, n]: the numbers below 2^n by their digits."""
    return torch.arange(2**n)[:, None] >> torch.arange(n) & 1


def halves(n: int) -> Float[Tensor, "m d"]:
    """Blocks are the half spaces of n bits: m = 2^n features, d = 2 m - 2 neurons, k = m/2."""
    x = binary(n)
    inside = (x @ x[1:].T) % 2
    return torch.cat([inside, 1 - inside], 1).float()


def quadruples(n: int) -> Float[Tensor, "m d"]:
    """Blocks are four n-bit numbers that add up to 0, bit by bit: m = 2^n, d = m (m-1) (m-2) / 24, k = 4, l = 1."""
    m = 2**n
    triples = torch.combinations(torch.arange(m), 3)
    fourth = triples[:, 0] ^ triples[:, 1] ^ triples[:, 2]
    blocks = torch.cat([triples, fourth[:, None]], 1)[fourth > triples[:, 2]]
    return torch.zeros(len(blocks), m).scatter(1, blocks, 1.0).T.contiguous()


def circles(q: int) -> Float[Tensor, "m d"]:
    """Blocks are where planes cut a quadric that holds no line, modulo a prime q > 2: m = q^2 + 1, d = q m, k = q + 1,
    l = 1 (an inversive plane)."""
    squares = {x * x % q for x in range(q)}
    bent = next(x for x in range(q) if x not in squares)                 # y^2 = bent z^2 only at 0
    space = torch.tensor([p for p in product(range(q), repeat=4) if next((x for x in p if x), 0) == 1])
    w, x, y, z = space.T
    points = space[(w * x + y * y - bent * z * z) % q == 0]
    on = ((points @ space.T) % q == 0).float()
    return on[:, on.sum(0) > 1].contiguous()


DESIGNS = {"halves": halves, "quadruples": quadruples, "circles": circles}


def design(name: str, size: int) -> Float[Tensor, "m d"]:
    """W_in of a design.  Errors: InputError for a name or a size that there is not."""
    prime = size > 2 and all(size % p for p in range(2, size))
    if name not in DESIGNS or not 2 <= size <= 11 or (name == "circles" and not prime):
        raise InputError(f"design {name!r} of size {size} is not known; expected {' or '.join(DESIGNS)}, a size from 2 "
                         "to 11 (circles: an odd prime)")
    return DESIGNS[name](size)


def error(m: int, k: int, s: int) -> Fraction:
    """The worst error of a 3-design.  Theorem: *Designs*."""
    return Fraction((s - 1) * (k - 2), m - 2)


def neurons_lo(m: int, worst: Fraction) -> Fraction:
    """No plain network with this worst error at s = 2, whose pairs share neurons with third features, has fewer."""
    k = worst * (m - 2) + 2
    return m * (m - 1) / (worst * k * (k - 1))
