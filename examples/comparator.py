"""A network that says whether a > b, and one proof about it: a family from outside.

It says yes where (W_E[a] - W_E[b]) W_U + b_U > 0, and no where that is below 0.  With
s = W_E W_U all v^2 answers are right if b_U < 0 and s rises by steps above |b_U|.  A token
out of order would spoil the rows of all others, so the proof leaves it out.  Which those
are is advice: whatever it says, only pairs of tokens that are kept are counted.
"""

import torch

from mechproof.proof import cost
from mechproof.proof.bound import Case
from mechproof.proof.family import Family, InputError, Proved, Spec, Strategy, check_tokens
from mechproof.proof.rounding import Ball


def sizes(tensors, metadata):
    """Sizes, read off the tensors.  Errors: InputError where they do not fit together."""
    shape = {name: list(tensor.shape) for name, tensor in tensors.items()}
    v, d = (shape["W_E"] + [0, 0])[:2]
    if v < 2 or shape != {"W_E": [v, d], "W_U": [d, 1], "b_U": [1]}:
        raise InputError(f"tensors have shapes {shape}; expected W_E [d_vocab, d_model], "
                         "W_U [d_model, 1] and b_U [1]")
    return {"n_ctx": 2, "d_vocab": v, "d_model": d}


def in_order(model, chosen):
    """Advice: all but a longest chain of tokens that rises by steps above |b_U|."""
    s = (model["W_E"].double() @ model["W_U"].double())[:, 0].tolist()
    step, chains = abs(float(model["b_U"])), []
    for t, x in enumerate(s):
        before = [chain for chain in chains if s[chain[-1]] + step < x]
        chains.append([*max(before, key=len, default=[]), t])
    kept = max(chains, key=len)
    return {"left_out": torch.tensor([int(t not in kept) for t in range(len(s))])}


def check(model, advice, chosen):
    """Each kept a against the largest s of those below, and the least of the others.

    Complexity: O(v d).
    """
    v, kept = model.sizes["d_vocab"], advice["left_out"] == 0
    s = (Ball(model["W_E"]) @ Ball(model["W_U"]))[:, 0]
    # who is left out gets a number that is nobody's largest, and nobody's least
    below = s.pick(lambda x: torch.where(kept, x, x.amin()).cummax(0).values[:-1])
    above = s.pick(lambda x: torch.where(kept, x, x.amax()).flip(0).cummin(0).values.flip(0))
    larger, other = s[1:] - below + Ball(model["b_U"]), s - above + Ball(model["b_U"])
    yes = torch.cat([kept[:1] & False, kept[1:] & (larger.mid > larger.rad)])
    no = kept & (other.mid < -other.rad)
    fewer = kept.cumsum(0) - kept.long()                 # kept tokens below each
    pairs = (yes * fewer).sum() + (no * (kept.sum() - fewer)).sum()
    with cost.charge(1, "the count leaves torch"):
        correct = int(pairs)

    def case(tokens):
        a, b = check_tokens(tokens, model.sizes)
        if not kept[a] or not kept[b]:
            return Case(False, f"token {b if kept[a] else a} is left out")
        others = "below it" if a > b else "from it on"
        return Case(bool((yes if a > b else no)[a]), f"{a} against all kept {others}")

    return Proved(correct, v * v, case)


def strategies(sizes):
    """One way to prove, for networks of these sizes."""
    v, d = sizes["d_vocab"], sizes["d_model"]
    return [Strategy(
        id="in_order", label="tokens in order", family="in_order", cost=2 * v * d + 40 * v,
        parameters={}, complexity="O(v d)", search=in_order, check=check,
        advice=lambda chosen: {"left_out": Spec((v,), 0, 1)},
        unexplained_dimensions=lambda chosen: None)]


FAMILIES = (Family(
    name="comparator", tensors=("W_E", "W_U", "b_U"), foreign={}, ignored=(), sizes=sizes,
    strategies=strategies, train=None, recipe={}, collections={}),)
