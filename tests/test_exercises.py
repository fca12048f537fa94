"""Every exercise: its test refuses no answer and wrong ones, accepts the solution that the book prints, and its holes are holes."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from pathlib import Path

import nbformat
import pytest
import torch

import mechproof as mp
from mechproof import exercises
from mechproof.exercises import by_hand, checking, holes

BOOK = Path(__file__).parents[1] / "book"
PAGES = {"max-of-k": "max_of_k", "past-the-paper": "past_the_paper", "pizza": "pizza_quadrature", "noise": "noise_limits",
         "superposition": "superposition", "groups": "groups"}
NAMES = [name for chapter in PAGES for name in exercises.names(chapter)]


@cache
def solutions(chapter: str) -> dict[str, str]:
    """{exercise: the code of its solution}, as the book prints it."""
    text = "\n".join(c.source for c in nbformat.read(BOOK / f"{PAGES[chapter]}.ipynb", 4).cells if c.cell_type == "markdown")
    found = re.findall(r"\{solution\} ex-([a-z-]+)-(\d+)\n.*?```python\n(.*?)```", text, re.S)
    return {f"{name}/{n}": code for name, n, code in found}


@cache
def chapter_names(chapter: str) -> dict:
    """What a chapter has set by the time its exercises come, as far as solutions use it."""
    from mechproof.figures import noise_limits, pizza_quadrature
    names = {"mp": mp, "model": mp.load("pizza-113/3" if chapter == "pizza" else "max-of-4/0"),
             "spectral": "EUPU-max-diff-exact--attn-mean-query+diff--attn-err-svd"}
    if chapter == "pizza":
        names |= {"survey": pizza_quadrature.Survey(names["model"]), "p": 113}
    if chapter == "noise":
        names |= {"survey": noise_limits.Survey(names["model"], 0)}
    return names


def frobenius_without_root(factors):
    from mechproof.proof.rounding import Ball
    size = factors[0].mid.norm() * factors[1].mid.norm()                 # lacks the square root of two
    return Ball(size.expand(len(factors[0].mid)) * 0.1)


# two plausible wrong answers each; functions where functions are asked for
WRONG = {
    "max-of-k/1": [34, 3468], "max-of-k/2": [4 / 64, 1 / 64], "max-of-k/3": [[3, 41, 17, 29], [1, 2, 3, 0]],
    "max-of-k/4": [3, 8], "max-of-k/5": ["gaps", "directions"],
    "max-of-k/6": [frobenius_without_root, lambda factors: (factors[0] @ factors[1]).abs().amax(1)],
    "max-of-k/7": [lambda *_: True, lambda t, q, m, k, n: t.A[q, m] > t.A[q, k]],
    "max-of-k/8": [[[0, 1, 5]] * 3, [[0, 5, 4], [5, 1, 0], [0, 0, 5]]],
    "max-of-k/9": [by_hand.from_tables(torch.arange(8.0).expand(8, 8) * 0.1, torch.zeros(8, 8), torch.eye(8), torch.zeros(3, 8)),
                   by_hand.from_tables(torch.arange(4.0).expand(4, 4), torch.zeros(4, 4), torch.eye(4), torch.zeros(3, 4))],
    "past-the-paper/1": [16, 14], "past-the-paper/2": [[3, 41, 17, 29], [63, 63, 63, 63]], "past-the-paper/3": ["groups", "both"],
    "past-the-paper/4": [lambda *_: True, lambda t, tokens, x, mu: t.OV[max(tokens), max(tokens)] - t.OV[max(tokens), x] > mu],
    "past-the-paper/5": [torch.zeros(64), torch.arange(64.0)], "past-the-paper/6": [10, 4],
    "past-the-paper/7": [{"claim": {"correct": 1}}, 5], "past-the-paper/8": ["cubic", "compact-gram"],
    "pizza/1": [0.7, 0.35], "pizza/2": [14, 6], "pizza/3": [0.0, 0.065], "pizza/4": [2.0, 0.5], "pizza/5": [(3, 3), (0, 200)],
    "pizza/6": [lambda phi, w: 0.0, lambda phi, w: 100.0], "pizza/7": [torch.zeros(3), mp.search(mp.load("pizza-113/3"), "wheel")["place"]],
    "pizza/8": [mp.load("max-of-4/0"), {"W_E": torch.eye(5)}],
    "noise/1": [{"norms around a product", "singular values of factors"}, "singular value"],
    "noise/2": [{"norms of rows", "multiplied out"}, {"dimension by dimension"}], "noise/3": [1, 32], "noise/4": [5.0, 0.1],
    "noise/5": [0, 1], "noise/6": [torch.zeros(64), 100 * torch.arange(64.0)], "noise/7": [[1.0, 2.0, 3.0, 4.0], [0.0] * 4],
    "noise/8": [mp.load("max-of-4/0"), mp.load("max-of-5/0")],
    "superposition/1": [(992, 4960), (496, 32768)], "superposition/2": [1.0, 0.25], "superposition/3": [(0, 1), (30, 31)],
    "superposition/4": [9, 7], "superposition/5": [737, 739], "superposition/6": [torch.ones(5, 3), torch.ones(4, 4)],
    "superposition/7": [mp.load("u-and-proof/0"), mp.load("u-and-256/0")],
    "superposition/8": [mp.load("u-and-proof/0"), mp.load("u-and-design-62/0")],
    "groups/1": [(24, 20), (5, 20)], "groups/2": [[0, 0.2, 0.6, 1], [0, 1, 2, 3]], "groups/3": [(0, 0), (1, 2)],
    "groups/4": [{"x_cells": torch.zeros(1, 24, dtype=torch.long), "y_cells": torch.zeros(1, 24, dtype=torch.long),
                  "x_of": torch.zeros(64, dtype=torch.long), "y_of": torch.zeros(64, dtype=torch.long)}, {}],
    "groups/5": [[0, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6, 1], [1, 0, 0, 0, 0, 0, 0]], "groups/6": ["cosets", "cosets:parts=1"],
    "groups/7": [torch.zeros(6, 6), torch.eye(5)], "groups/8": ["brute_force", "cosets:parts=1"],
}


@pytest.mark.parametrize("chapter", PAGES)
def test_a_chapter_has_eight_or_more_of_every_level(chapter):
    names = exercises.names(chapter)
    levels = [checking.EXERCISES[name].level for name in names]
    minutes = [checking.EXERCISES[name].minutes for name in names]
    assert len(names) >= 8 and {"easy", "medium", "open"} <= set(levels) <= set(checking.LEVELS)
    assert min(minutes) == 5 and max(minutes) >= 60
    assert sorted(levels, key=checking.LEVELS.index) == levels and set(solutions(chapter)) == set(names)
    text = "\n".join(c.source for c in nbformat.read(BOOK / f"{PAGES[chapter]}.ipynb", 4).cells)
    for name in names:                                                   # the page says what the library knows
        exercise = checking.EXERCISES[name]
        assert f"*{name} · {exercise.level} · {exercise.minutes} minutes.*" in text
        assert f'answer = ...\nexercises.check("{name}", answer)' in text


@pytest.mark.parametrize("name", NAMES)
def test_no_answer_and_wrong_answers_are_refused(name):
    assert set(WRONG) == set(NAMES)
    for empty in (None, ...):
        assert not exercises.check(name, empty).ok and "no answer yet" in repr(exercises.check(name, empty))
    for wrong in WRONG[name]:
        verdict = exercises.check(name, wrong)
        assert not verdict.ok and "\n" not in repr(verdict) and len(verdict.says) > 20, verdict
    for rubbish in ("", [], object()):
        assert not exercises.check(name, rubbish).ok


@pytest.mark.parametrize("name", NAMES)
def test_the_solution_that_the_book_prints_is_accepted(name):
    chapter = name.partition("/")[0]
    names = dict(chapter_names(chapter))
    exec(solutions(chapter)[name], names)
    verdict = exercises.check(name, names["answer"])
    assert verdict.ok and verdict.says.startswith("right. "), verdict


@pytest.mark.parametrize("number", holes.PROOFS)
def test_a_planted_hole_is_a_real_one(number):
    """Its proof certifies something false on its network, the two others certify nothing false there; and it proves something."""
    t, inputs = holes.tables_of(holes.network(number)), [list(x) for x in product(range(6), repeat=3)]
    false = {other: [x for x in inputs if proof(t, x) and not holes.right(t, x)] for other, proof in holes.PROOFS.items()}
    assert false[number] and not any(false[other] for other in false if other != number)
    assert sum(holes.PROOFS[number](t, x) and holes.right(t, x) for x in inputs) >= 5
    truth = mp.prove(holes.network(number), "brute_force")
    assert truth.correct == sum(holes.right(t, x) for x in inputs)


def test_what_is_not_known_is_said_in_one_line():
    with pytest.raises(mp.InputError, match=r"^exercise 'max-of-k/99' [^\n]*$"):
        exercises.check("max-of-k/99", 1)
    with pytest.raises(mp.InputError, match=r"^chapter 'x' [^\n]*$"):
        exercises.names("x")
