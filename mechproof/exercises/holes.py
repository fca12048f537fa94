"""Three proofs with a hole each, about networks for which they certify something false.  Read them; they look right.

All three treat the inputs of a network without position scores (K = 3) in groups: query q, maximum m, and a gap g, with
every smaller token at most m - g.  `t` holds its tables A [q,k], EU [q,x], OV [k,x], PV [p,x] in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from ..max_of_k.paths import Paths
from ..proof.family import Model
from .by_hand import from_tables

Tables = SimpleNamespace


def tables_of(model: Model) -> Tables:
    paths = Paths(model)
    return Tables(**{name: getattr(paths, name).mid for name in ("A", "EU", "OV", "PV")})


def worst_line(t: Tables, q: int, m: int, a: float, smaller: Tensor) -> float:
    """The largest wrong minus right at attention a to the maximum, others at their worst vote."""
    L = t.EU[q] - t.EU[q, m] + (t.PV - t.PV[:, m : m + 1]).amax(0)
    R = t.OV[m] - t.OV[m, m]
    line = L + a * R + (1 - a) * smaller
    return float(line[torch.arange(len(line)) != m].max())


def attention(t: Tables, q: int, m: int, copies: int, others: int, difference: float) -> float:
    """To the maximum, if every other token scores so much less."""
    return float(copies / (copies + others * torch.exp(torch.tensor(-difference))))


def proof_1(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if some gap below the maximum is free of the tokens before the query, and no wrong answer can win."""
    *before, q = tokens
    m = max(tokens)
    copies, others = tokens.count(m), len(tokens) - tokens.count(m)
    for gap in range(1, m + 1):
        if any(m - gap < k < m for k in before):
            continue
        below = t.A[q, : m - gap + 1]
        differences = float(t.A[q, m] - below.max()), float(t.A[q, m] - below.min())
        worst = (t.OV[: m - gap + 1] - t.OV[: m - gap + 1, m : m + 1]).amax(0)
        ends = [attention(t, q, m, copies, others, d) for d in differences]
        if all(worst_line(t, q, m, a, worst) < 0 for a in ends):
            return True
    return False


def proof_2(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if some gap below the maximum is free, and with the least attention to it no wrong answer can win."""
    q, m = tokens[-1], max(tokens)
    copies, others = tokens.count(m), len(tokens) - tokens.count(m)
    for gap in range(1, m + 1):
        if any(m - gap < k < m for k in tokens):
            continue
        below = t.A[q, : m - gap + 1]
        worst = (t.OV[: m - gap + 1] - t.OV[: m - gap + 1, m : m + 1]).amax(0)
        least = attention(t, q, m, copies, others, float(t.A[q, m] - below.max()))
        if worst_line(t, q, m, least, worst) < 0:
            return True
    return False


def proof_3(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if some gap below the maximum is free, and at both ends of the attention no wrong answer can win."""
    q, m = tokens[-1], max(tokens)
    copies, others = tokens.count(m), len(tokens) - tokens.count(m)
    for gap in range(1, m + 1):
        if any(m - gap < k < m for k in tokens):
            continue
        below = t.A[q, : m - gap + 1]
        differences = float(t.A[q, m] - below.max()), float(t.A[q, m] - below.min())
        worst = (t.OV[: m - gap + 1] - t.OV[: m - gap + 1, m : m + 1]).mean(0)
        ends = [attention(t, q, m, copies, others, d) for d in differences]
        if all(worst_line(t, q, m, a, worst) < 0 for a in ends):
            return True
    return False


def network(number: int) -> Model:
    """The network that proof `number` is wrong about: six tokens, three positions."""
    g = torch.Generator().manual_seed(SEEDS[number])
    noise = lambda *shape, scale=1.0: scale * torch.randn(shape, generator=g)
    A, OV = 1.5 * torch.arange(6).float() + noise(6, 6), 4 * torch.eye(6) + noise(6, 6, scale=2.0)
    if number == 2:
        A, OV = 0.1 * noise(6, 6), 4 * torch.eye(6) + 0.2 * noise(6, 6)
        A[:, 1:4] -= 6.0
        OV[:5, 5], OV[5, 5] = 6.0, -2.0
    return from_tables(A, noise(6, 6, scale=0.5), OV, noise(3, 6, scale=0.3), f"hole-{number}")


PROOFS: dict[int, Callable[[Tables, Sequence[int]], bool]] = {1: proof_1, 2: proof_2, 3: proof_3}
SEEDS = {1: 4, 2: 1, 3: 7}


def right(t: Tables, tokens: Sequence[int]) -> bool:
    """Whether the network itself answers with the maximum."""
    q, m, at = tokens[-1], max(tokens), torch.tensor(list(tokens))
    alpha = t.A[q, at].softmax(0)
    logits = t.EU[q] + alpha @ (t.OV[at] + t.PV)
    return bool((logits[m] > logits[torch.arange(len(logits)) != m]).all())
