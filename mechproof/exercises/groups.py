"""Exercises of the chapter on composition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch

import mechproof as mp

from ..groups.by_hand import by_hand
from ..groups.group import cosets, multiplication, subgroups
from ..proof.family import Model
from ..zoo.weights import model_from_tensors
from .checking import exercise, expect, whole


@cache
def shipped(name: str) -> Model:
    return mp.load(name)


def margin(group: str, numbers: Sequence[float]) -> float:
    """The least margin of the network by hand, over all pairs."""
    expect(all(0 <= float(a) <= 1 for a in numbers), "Numbers from 0 to 1 are expected.")
    model = model_from_tensors("by hand", by_hand(group, [float(a) for a in numbers]))
    bound, G = mp.prove(model, "brute_force"), model.sizes["d_vocab"]
    return min(bound.why((x, y)).margin_lo for x in range(G) for y in range(G))


@exercise("groups/1", "easy", 5)
def how_many_cosets(answer: Sequence[int]) -> str:
    """Cosets in S5 of a point's stabiliser, and of a subgroup with 20 elements."""
    expect(len(answer) == 2, "Two numbers are expected.")
    table = multiplication("S5")
    found = {len(one): len(cosets(table, one).unique()) for one in subgroups(table) if len(one) in (20, 24)}
    expect(list(answer) == [found[24], found[20]], "Cosets have the subgroup's size, and together they are the group.")
    return "A neuron with such a subgroup is told one of five things, or one of six, in the place of 120."


@exercise("groups/2", "easy", 10)
def widest(answer: Sequence[float]) -> str:
    """Four numbers from 0 to 1 with the largest margin."""
    expect(len(answer) == 4, "Four numbers are expected.")
    least = margin("S4", answer)
    expect(least > 1 / 3 - 1e-6, f"The margin is {least:.3f}.")
    return "Three gaps share an interval of length 1, and the smallest is the margin."


@exercise("groups/3", "easy", 10)
def worst_pair(answer: Sequence[int]) -> str:
    """The pair of group-s4/0 with the smallest margin."""
    bound = mp.prove(shipped("group-s4/0"), "brute_force")
    least = min(bound.why((x, y)).margin_lo for x in range(24) for y in range(24))
    found = bound.why(tuple(answer)).margin_lo
    expect(found <= least + 1e-9, f"Its margin is {found:.3f} logits, and there is a smaller one.")
    return f"By {least:.3f} logits. A proof has to leave less open than that."


@exercise("groups/4", "medium", 15)
def everything_told(answer: Mapping) -> str:
    """Advice for `cosets:parts=1` in which every element is a cell of its own."""
    bound = mp.check(shipped("group-s4/0"), "cosets:parts=1", answer)
    brute = mp.prove(shipped("group-s4/0"), "brute_force")
    expect(bound.correct == brute.correct, f"It certifies {bound.correct} of {bound.total}.")
    price = bound.flops / brute.flops
    return f"All that is right, at {price:.2f} times the price of trying: nothing was left out, and nothing saved."


@exercise("groups/5", "medium", 15)
def seven(answer: Sequence[float]) -> str:
    """Seven numbers from 0 to 1 that compose the turns of seven points with a margin of 2."""
    expect(len(answer) == 7, "Seven numbers are expected.")
    least = margin("C7", answer)
    expect(least > 2 - 1e-6, f"The margin is {least:.3f}. Numbers may be equal here.")
    return "Every turn moves four of the ones off ones or onto them: a perfect difference set."


@exercise("groups/6", "medium", 15)
def cheaper(answer: str) -> str:
    """An id of `cosets` that certifies every pair of group-s5/0 in a fourteenth of the operations of trying."""
    expect(isinstance(answer, str) and answer.startswith("cosets"), "The id of a proof coset by coset is expected.")
    bound, brute = mp.prove(shipped("group-s5/0"), answer), mp.prove(shipped("group-s5/0"), "brute_force")
    expect(bound.correct == bound.total, f"It certifies {100 * bound.accuracy_lower_bound:.1f}%.")
    expect(14 * bound.flops <= brute.flops, f"It takes 1/{brute.flops / bound.flops:.1f} of trying.")
    return f"{bound}, 1/{brute.flops / bound.flops:.1f} of trying."


@exercise("groups/7", "hard", 30)
def by_a_table(answer: torch.Tensor) -> str:
    """A table of products [6, 6] that is no group's, of which the network of S3 by hand gets 30 pairs or more right."""
    expect(isinstance(answer, torch.Tensor) and answer.shape == (6, 6), "A table of six by six is expected.")
    tensors = by_hand("S3", [0, 1, 3]) | {"answers": answer.float()}
    expect(bool((answer != multiplication("S3")).any()), "This is the table of S3.")
    bound = mp.prove(model_from_tensors("another table", tensors), "cosets")
    expect(whole(bound.correct) >= 30, f"{bound.correct} of 36 pairs are certified.")
    return f"{bound.correct} of 36: the proof reads the answers from the file and asks nothing of them."


@exercise("groups/8", "open", 60)
def weight_decay(answer: str) -> str:
    """An id of `cosets` that certifies 95% of group-s5-decay/0 in a quarter of the operations of trying."""
    model = shipped("group-s5-decay/0")
    bound, brute = mp.prove(model, answer), mp.prove(model, "brute_force")
    expect(answer != "brute_force", "A proof other than trying is expected.")
    expect(bound.accuracy_lower_bound >= 0.95, f"It certifies {100 * bound.accuracy_lower_bound:.1f}%.")
    expect(4 * bound.flops <= brute.flops, f"It takes 1/{brute.flops / bound.flops:.1f} of trying.")
    return f"{bound}, 1/{brute.flops / bound.flops:.1f} of trying."
