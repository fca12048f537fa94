"""A network that says whether one number is larger than another, and one proof about it: a family from outside the package.

It answers "a > b" where (W_E[a] - W_E[b]) W_U + b_U > 0 and "a <= b" where that is below 0.  With s = W_E W_U the v^2 answers are right
if s rises with the token by steps of the right size; a token that is out of order would spoil the rows of all others, so the
proof leaves it out.  Which tokens those are is advice: whatever it says, only pairs of tokens that are kept are counted.
"""

from __future__ import annotations

import torch

from mechproof.proof import cost
from mechproof.proof.bound import Case
from mechproof.proof.family import Family, InputError, Proved, Spec, Strategy
from mechproof.proof.rounding import Ball


def sizes(tensors, metadata) -> dict[str, int]:
    """Sizes read off the tensors; InputError where they do not fit each other."""
    v, d = tensors["W_E"].shape if tensors["W_E"].dim() == 2 else (0, 0)
    for name, expected in (("W_E", [v, d]), ("W_U", [d, 1]), ("b_U", [1])):
        if list(tensors[name].shape) != expected or v < 2:
            raise InputError(f"tensor {name} has shape {list(tensors[name].shape)}; expected W_E [d_vocab, d_model], W_U [d_model, 1], b_U [1]")
    return {"n_ctx": 2, "d_vocab": v, "d_model": d}


def in_order(model, chosen) -> dict[str, torch.Tensor]:
    """Advice: all tokens but a longest chain that rises by more than |b_U| are left out.  A search; nothing in it is trusted."""
    s = (model["W_E"].double() @ model["W_U"].double())[:, 0].tolist()
    step, chains = abs(float(model["b_U"])), []
    for t, x in enumerate(s):
        chains.append([*max((c for c in chains if s[c[-1]] + step < x), key=len, default=[]), t])
    kept = max(chains, key=len)
    return {"left_out": torch.tensor([int(t not in kept) for t in range(len(s))])}


def check(model, advice, chosen) -> Proved:
    """For every kept a two comparisons: with the largest s of the kept below it, and with the least of the others.

    Complexity: O(v d).
    """
    v, kept = model.sizes["d_vocab"], advice["left_out"] == 0
    s = (Ball(model["W_E"]) @ Ball(model["W_U"]))[:, 0]                  # numbers with a radius: what is decided survives rounding
    nobody = s.mid.amin(), s.mid.amax()                                  # in the place of who is left out: no one's maximum, no one's minimum
    below = s.pick(lambda x: torch.where(kept, x, nobody[0]).cummax(0).values)
    above = s.pick(lambda x: torch.where(kept, x, nobody[1]).flip(0).cummin(0).values.flip(0))
    b = Ball(model["b_U"])
    larger, other = s[1:] - below[:-1] + b, s - above + b                # a > b for all kept b < a; a <= b for all kept b >= a
    says_larger = torch.cat([kept[:1] & False, kept[1:] & (larger.mid > larger.rad)])
    says_other = kept & (other.mid < -other.rad)
    fewer = kept.cumsum(0) - kept.long()                                 # kept tokens below
    pairs = (says_larger * fewer).sum() + (says_other * (kept.sum() - fewer)).sum()
    with cost.charge(1, "the count leaves torch"):
        correct = int(pairs)

    def case(tokens) -> Case:
        a, b = tokens
        if not bool(kept[a] & kept[b]):
            return Case(False, f"token {b if kept[a] else a} is left out")
        sure = says_larger[a] if a > b else says_other[a]
        return Case(bool(sure), f"{a} against every kept token {'below it' if a > b else 'from it on'}")

    return Proved(correct, v * v, case)


def strategies(sizes) -> list[Strategy]:
    v, d = sizes["d_vocab"], sizes["d_model"]
    return [Strategy(id="in_order", label="tokens in order", family="in_order", cost=2 * v * d + 40 * v, parameters={}, complexity="O(v d)",
                     search=in_order, check=check, advice=lambda chosen: {"left_out": Spec((v,), 0, 1)},
                     unexplained_dimensions=lambda chosen: None)]


FAMILIES = (Family(name="comparator", tensors=("W_E", "W_U", "b_U"), foreign={}, ignored=(), sizes=sizes, strategies=strategies,
                   train=None, recipe={}, collections={}),)
