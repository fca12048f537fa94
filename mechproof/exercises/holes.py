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


def free_gaps(m: int, tokens: Sequence[int]) -> list[int]:
    """The gaps below the maximum m in which none of these tokens lies."""
    return [gap for gap in range(1, m + 1) if not any(m - gap < k < m for k in tokens)]


def votes(t: Tables, m: int, gap: int) -> Tensor:
    """What tokens at most m - gap vote for every answer less what for m, [k, x]."""
    return t.OV[: m - gap + 1] - t.OV[: m - gap + 1, m : m + 1]


def ends(t: Tables, tokens: Sequence[int], gap: int) -> tuple[float, float]:
    """Attention to the maximum if all others scored like the best, or like the worst, of the tokens at most m - gap."""
    q, m = tokens[-1], max(tokens)
    below, copies = t.A[q, : m - gap + 1], tokens.count(m)
    share = lambda end: float(copies / (copies + (len(tokens) - copies) * (end - t.A[q, m]).exp()))
    return share(below.max()), share(below.min())


def no_answer_wins(t: Tables, tokens: Sequence[int], a: float, smaller: Tensor) -> bool:
    """Whether wrong minus right is negative for every wrong answer, at attention a to the maximum with these votes."""
    q, m = tokens[-1], max(tokens)
    L, R = t.EU[q] - t.EU[q, m] + (t.PV - t.PV[:, m : m + 1]).amax(0), t.OV[m] - t.OV[m, m]
    wrong = torch.arange(len(L)) != m
    return bool(((L + a * R + (1 - a) * smaller)[wrong] < 0).all())


def proof_1(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if a gap is free of the tokens before the query, and at both ends of the attention no answer wins."""
    m = max(tokens)
    return any(all(no_answer_wins(t, tokens, a, votes(t, m, gap).amax(0)) for a in ends(t, tokens, gap))
               for gap in free_gaps(m, tokens[:-1]))


def proof_2(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if some gap is free, and with the least attention to the maximum no answer wins."""
    m = max(tokens)
    return any(no_answer_wins(t, tokens, ends(t, tokens, gap)[0], votes(t, m, gap).amax(0))
               for gap in free_gaps(m, tokens))


def proof_3(t: Tables, tokens: Sequence[int]) -> bool:
    """Certified if some gap is free, and at both ends of the attention no answer wins."""
    m = max(tokens)
    return any(all(no_answer_wins(t, tokens, a, votes(t, m, gap).mean(0)) for a in ends(t, tokens, gap))
               for gap in free_gaps(m, tokens))


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
