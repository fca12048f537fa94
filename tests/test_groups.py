"""Networks that compose in a group: every group of order up to 24, against every pair of small and nasty networks."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from itertools import product

import pytest
import torch
from test_soundness import faults

import mechproof as mp
from mechproof.groups import cosets, directions
from mechproof.groups.by_hand import by_hand
from mechproof.groups.family import COLLECTIONS, FAMILIES
from mechproof.groups.group import cosets as cosets_of
from mechproof.groups.group import isotypic, multiplication, subgroups
from mechproof.groups.train import RECIPE, train

FAMILY = FAMILIES[0]
KNOWN = {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 2, 7: 1, 8: 5, 9: 2, 10: 2, 11: 1, 12: 5, 13: 1, 14: 2, 15: 1, 16: 14, 17: 1, 18: 5, 19: 1, 20: 5,
         21: 2, 22: 2, 23: 1, 24: 15}                                    # how many groups there are of each order


# --- all groups of order up to 24 -------------------------------------------------------------------------------------

def automorphisms(table: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """All of a small group, element 0 its identity: images of a few generators, carried on to all products."""
    n = len(table)

    def closed(start: dict[int, int]) -> dict[int, int] | None:
        known, fresh = dict(start), list(start)
        while fresh:
            a = fresh.pop()
            for b in list(known):
                for left, right in ((a, b), (b, a)):
                    at, image = table[left][right], table[known[left]][known[right]]
                    if known.setdefault(at, image) != image:
                        return None
                    if at not in start and at not in fresh and at not in seen:
                        fresh.append(at)
                        seen.add(at)
        return known if len(set(known.values())) == len(known) else None

    generators: list[int] = []
    seen: set[int] = set()
    while len(closed({0: 0} | {g: g for g in generators}) or {}) < n:
        seen = set()
        reached = closed({0: 0} | {g: g for g in generators}) or {}
        generators.append(next(g for g in range(n) if g not in reached))
        seen = set()
    found = []
    for images in product(range(n), repeat=len(generators)):
        seen = set()
        whole = closed({0: 0} | dict(zip(generators, images)))
        if whole and len(whole) == n:
            found.append(tuple(whole[i] for i in range(n)))
    return found


def invariants(table: tuple[tuple[int, ...], ...]) -> tuple:
    """What tells groups of these orders apart: of every element its order, how many square to it, cube to it and commute with it, and of
    pairs which of these their product has."""
    n = len(table)

    def order(g: int) -> int:
        power, k = g, 1
        while power:
            power, k = table[power][g], k + 1
        return k
    orders = [order(g) for g in range(n)]
    squares, cubes = Counter(table[g][g] for g in range(n)), Counter(table[table[g][g]][g] for g in range(n))
    kind = [(orders[g], squares[g], cubes[g], sum(table[g][h] == table[h][g] for h in range(n))) for g in range(n)]
    pairs = Counter((kind[g], kind[h], kind[table[g][h]]) for g in range(n) for h in range(n))
    return tuple(sorted(Counter(kind).items())), tuple(sorted(pairs.items()))


@cache
def groups(order: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Tables of all groups of an order that has solvable groups only, each once: extensions of a group N of prime index by an element t with
    t n t^-1 = s(n) and t^p = c, for every automorphism s that fixes c and whose p-th power is conjugation by c."""
    if order == 1:
        return (((0,),),)
    found = {}
    for p in (p for p in (2, 3, 5, 7, 11, 13, 17, 19, 23) if order % p == 0):
        for table in groups(order // p):
            n, inverse = len(table), [row.index(0) for row in table]
            for s in automorphisms(table):
                powers = [tuple(range(n))]
                for _ in range(p):
                    powers.append(tuple(s[i] for i in powers[-1]))
                for c in range(n):
                    if s[c] == c and all(powers[p][i] == table[table[c][i]][inverse[c]] for i in range(n)):
                        # (a, i) is a t^i
                        times = lambda a, i, b, j: (table[table[a][powers[i][b]]][c if i + j >= p else 0], (i + j) % p)
                        at = lambda pair: pair[0] * p + pair[1]
                        new = tuple(tuple(at(times(*divmod(x, p), *divmod(y, p))) for y in range(order)) for x in range(order))
                        found.setdefault(invariants(new), new)
    return tuple(found.values())


def all_tables() -> list[torch.Tensor]:
    return [torch.tensor(table) for order in range(2, 25) for table in groups(order)]


def test_all_groups_up_to_order_24_are_there():
    """As many as there are, and each is a group."""
    assert {order: len(groups(order)) for order in KNOWN} == KNOWN
    for table in all_tables():
        every = torch.arange(len(table))
        assert torch.equal(table[table], table[every[:, None, None], table]) and torch.equal(table[0], every)
        assert all(len(set(row)) == len(row) for row in table.tolist())


# --- networks whose logits float64 holds exactly ----------------------------------------------------------------------

def network(table: torch.Tensor, seed: int, kind: str) -> mp.Model:
    """Weights are small whole numbers times a power of two."""
    g, G = torch.Generator().manual_seed(seed), len(table)
    whole = lambda *shape: torch.randint(-8, 9, shape, generator=g).float()
    n = 3 + seed % 9
    tensors = {"W_L": whole(G, n), "W_R": whole(G, n), "W_U": whole(n, G), "answers": table.float()}
    if kind in ("able", "nearly", "ties", "huge", "subnormal", "overflows", "biased"):
        # the distance of by_hand, of the group's own elements, in a few neurons an element
        inverse = (table == 0).long().argmax(1)
        a = torch.randperm(G, generator=g).float()
        every = torch.arange(G)
        votes = -(table[:, every].T[None] == every[:, None, None]).float()                # [j, j', z]
        tensors = {"W_L": a[table[inverse]][:, :, None].expand(G, G, G).flatten(1), "W_R": -a[table][:, None].expand(G, G, G).flatten(1),
                   "W_U": votes.flatten(0, 1), "answers": table.float()}
        if kind == "nearly":
            tensors["W_L"] = tensors["W_L"] + torch.randint(-1, 2, tensors["W_L"].shape, generator=g)
        if kind == "ties":
            tensors["W_U"] = tensors["W_U"] * (torch.rand(len(tensors["W_U"]), 1, generator=g) < 0.9)
    scale = {"huge": 2.0**100, "subnormal": 2.0**-140, "overflows": 2.0**116}.get(kind, 1.0)
    tensors = {name: x if name == "answers" else x * scale for name, x in tensors.items()}
    if kind in ("biased", "random"):
        tensors |= {"b_in": whole(len(tensors["W_U"])) / 8, "b_U": whole(G) / 8}
    if kind == "silent":
        tensors["W_U"] = torch.zeros_like(tensors["W_U"])
    if kind == "no group":
        tensors["answers"] = torch.randint(G, (G, G), generator=g).float()
    return mp.Model(f"{kind}-{seed}", FAMILY, tensors)


KINDS = ("able", "nearly", "ties", "huge", "subnormal", "overflows", "biased", "random", "silent", "no group")


def right(model: mp.Model) -> set[tuple[int, int]]:
    """The pairs that it answers correctly; sums of few whole numbers times one power of two, so float64 is exact."""
    w = {name: x.double() for name, x in model.tensors.items()}
    logits = torch.relu((w["W_L"] + w.get("b_in", 0))[:, None] + w["W_R"]) @ w["W_U"] + w.get("b_U", 0)
    s = w["answers"].long()[..., None]
    ahead = logits.gather(2, s)[..., 0] > logits.scatter(2, s, -torch.inf).amax(2)
    return set(map(tuple, ahead.nonzero().tolist()))


def spoiled(advice: dict, specs: dict, draw: random.Random) -> dict:
    """The same advice gone wrong: any cells and partitions, and numbers from both ends of what a float can be."""
    ends = (0.0, -0.0, 5e-324, 1.7e308, -1.7e308, 1e-300, 1.0, -3.0, 1e16)
    wrong = {}
    for name, x in advice.items():
        if x.is_floating_point():
            some = torch.tensor(draw.choices(ends, k=max(x.numel(), 1)), dtype=torch.float64)[: x.numel()].view_as(x)
            wrong[name] = torch.where(torch.rand(x.shape) < draw.random(), some, x)
        else:
            some = torch.tensor(draw.choices(range(specs[name].high + 1), k=x.numel())).view_as(x)
            wrong[name] = torch.where(torch.rand(x.shape) < draw.random(), some, x)
    return wrong


def run(table: torch.Tensor, seed: int, kind: str, times: int) -> int:
    """Every strategy on one network, its advice and `times` spoiled ones; returns how many cases ran."""
    model, draw, ran = network(table, seed, kind), random.Random(seed), 0
    torch.manual_seed(seed)
    truth = right(model)
    for strategy in mp.strategies(model):
        values = {name: draw.randint(p.low, min(p.high, 6)) for name, p in strategy.parameters.items()}
        id = strategy.full_id(values if seed % 2 else {name: p.default for name, p in strategy.parameters.items()})
        values = values if seed % 2 else {name: p.default for name, p in strategy.parameters.items()}
        good = mp.search(model, id)
        for advice in [good, *(spoiled(good, strategy.advice(values), draw) for _ in range(times if good else 0))]:
            bound = mp.check(model, id, advice)
            assert faults(bound, model, truth, covers=ran % 3 == 0 and len(table) < 13) == [], (model, id)
            assert strategy.id != "brute_force" or bound.correct == len(truth) or kind == "overflows", model
            ran += 1
    return ran


def test_no_bound_is_above_the_truth_in_any_group_of_order_up_to_24():
    """Attacks *Cosets*. Attacks *Directions*."""
    ran = sum(run(table, seed, KINDS[seed % len(KINDS)], 2) for seed, table in enumerate(all_tables()))
    assert ran == 7 * (sum(KNOWN.values()) - 1)


@pytest.mark.slow
def test_no_bound_is_above_the_truth_on_ten_thousand_cases():
    """Attacks *Cosets*. Attacks *Directions*."""
    tables = [multiplication(name) for name in ("C2", "C3", "C4", "C5", "S3", "D4")]
    ran = sum(run(table, seed, kind, 40) for seed, (table, kind) in enumerate(list(product(tables, KINDS)) * 2))
    assert ran > 9_800


def middles(x, cell, least):
    """Planted: the middle of a cell, from which an activation may fall as well as rise."""
    low, high = ends(x, cell, torch.ones_like(least)), ends(x, cell, torch.zeros_like(least))
    return (low + high) / 2


def half_of_what_is_left(net):
    """Planted: a remainder that is too small."""
    of_x, of_y, left = apart(net)
    return of_x, of_y, left * 0.5


def same_number_for_all(cell):
    """Planted: cells renumbered so that two share a number."""
    names, one = renumbered(cell)
    return names // 2, one[: len(one) // 2 + len(one) % 2]


ends, apart, renumbered = cosets.ends, directions.apart, cosets.renumbered
PLANTED = {"middles": (cosets, "ends", middles), "half": (directions, "apart", half_of_what_is_left),
           "cells": (cosets, "renumbered", same_number_for_all)}


@pytest.mark.parametrize("fault", [None, *PLANTED])
def test_planted_faults_are_found(fault, monkeypatch):
    """The soundness test finds each of three unsound proofs, and nothing when none is planted. Attacks *Cosets*. Attacks *Directions*."""
    if fault:
        monkeypatch.setattr(*PLANTED[fault])
    found = 0
    for seed in range(40):
        try:
            run(multiplication("S3"), seed, ("nearly", "able", "random", "ties")[seed % 4], 4)
        except AssertionError:
            found += 1
    assert (found > 0) == (fault is not None)


@pytest.mark.parametrize("group, numbers", [("S4", [0, 1, 3, 7]), ("S3", [-2, 0.5, 1]), ("D5", [0, 1, 2, 3, 5]), ("A4", [0, 1, 2, 4])])
def test_a_network_by_hand_is_certified_whole_and_exactly(group, numbers):
    """Every pair, by cells that are cosets of points, with the margin that the theorem says for elements that differ by a swap, and at
    least the smallest difference always. Attacks *Composition by a distance*. Attacks *Cosets*."""
    model = mp.Model(group, FAMILY, by_hand(group, numbers))
    bound, brute = mp.prove(model, "cosets"), mp.prove(model, "brute_force")
    gap = min(abs(a - b) for i, a in enumerate(numbers) for b in numbers[:i])
    margins = [bound.why(pair).margin_lo for pair in product(range(model.sizes["d_vocab"]), repeat=2)]
    assert bound.correct == bound.total == brute.correct and (bound.flops < brute.flops) == (bound.total >= 100)
    assert gap * (1 - 1e-9) <= min(margins) and (group[0] != "S" or min(margins) < gap * (1 + 1e-9))
    assert all(brute.why(pair).margin_lo == pytest.approx(margin, abs=1e-9)
               for pair, margin in zip(product(range(model.sizes["d_vocab"]), repeat=2), margins))


def test_groups_are_what_their_names_say():
    """Orders, numbers of subgroups, squares of the dimensions of irreps (two complex ones together), and cosets that are."""
    known = {"S4": (24, 30, [1, 1, 4, 9, 9]), "A5": (60, 59, [1, 9, 9, 16, 25]), "S5": (120, 156, [1, 1, 16, 16, 25, 25, 36]),
             "D12": (24, 34, [1, 1, 1, 1, 4, 4, 4, 4, 4]), "C7": (7, 2, [1, 2, 2, 2])}
    for name, (order, count, irreps) in known.items():
        table, bases = multiplication(name), isotypic(multiplication(name))
        some = subgroups(table)
        assert len(table) == order and len(some) == count and sorted(len(basis) for basis in bases) == irreps
        whole = torch.cat(bases)
        assert torch.allclose(whole @ whole.T, torch.eye(order, dtype=whole.dtype), atol=1e-10) and float(bases[0].std()) < 1e-10
        for one in some[:: max(1, len(some) // 9)]:
            cell = cosets_of(table, one)
            assert all(int((cell == c).sum()) == len(one) for c in range(order // len(one)))
            assert all(len(set(cell[table[y, sorted(one)]].tolist())) == 1 for y in range(order))
    for name, says in (("Q8", "is not known"), ("S7", "is not known"), ("D2", "has flips"), ("S", "is not known")):
        with pytest.raises(mp.InputError, match=f"^group '{name}' {says}"):
            multiplication(name)
    with pytest.raises(mp.InputError, match="^numbers are 3; expected one for each of the 4 points that S4 moves$"):
        by_hand("S4", [1, 2, 3])


def test_a_file_that_is_no_such_network_is_refused():
    good = network(multiplication("S3"), 0, "able").tensors
    for change, says in (({"W_R": torch.zeros(6, 3)}, r"^tensor W_R has shape \[6, 3\]; expected \[6, 36\]"),
                         ({"answers": torch.full((6, 6), 6.0)}, "^tensor answers is no table of products; expected whole numbers from 0 to 5$"),
                         ({"answers": torch.full((6, 6), 0.5)}, "^tensor answers is no table of products")):
        with pytest.raises(mp.InputError, match=says):
            mp.Model("odd", FAMILY, dict(good) | change)


def test_training_makes_the_same_network_again():
    one, two = (train(COLLECTIONS["group-s4"], 3, steps=20) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one) and one["W_L"].shape == (24, 64)
    assert all(torch.equal(x.half().float(), x) for x in one.values()) and RECIPE["rounded"] == "float16"


def test_bounds_of_all_seeds_are_those_of_the_networks_that_ship():
    """The stored bounds: no proof is above trying, and where a network ships they are about it, count by count."""
    shipped = {entry["name"]: entry for entry in mp.models() if entry["family"] == "group"}
    found = {name: rows for name, rows in mp.zoo.results("groups").items() if name in COLLECTIONS}
    assert set(found) == set(COLLECTIONS) and len(shipped) == 45
    for collection, rows in found.items():
        by = {(row["model"], row["strategy"]): row for row in rows}
        seeds = {model for model, _ in by}
        assert seeds == {f"{collection}/{seed}" for seed in range(len(seeds))} and len(rows) == 4 * len(seeds)
        assert all(row["correct"] <= by[row["model"], "brute_force"]["correct"] for row in rows)
        for model in seeds & set(shipped):
            truth = by[model, "brute_force"]
            assert truth["sha256"] == shipped[model]["sha256"] and truth["correct"] == shipped[model]["accuracy"]["correct"]
    for model in ("group-s5/0", "group-a5/1", "group-s4/2", "group-d12/0"):
        row = next(row for row in found[model.partition("/")[0]] if row["model"] == model and row["strategy"] == "cosets")
        bound = mp.prove(mp.load(model), "cosets")
        assert bound.correct == row["correct"] and bound.flops == pytest.approx(row["flops"], rel=1e-3)


def test_a_network_says_the_recipe_that_it_was_trained_by():
    """Also where its collection changes the family's."""
    for model, said in (("group-s5/0", 2e-5), ("group-s5-decay/0", 0.0), ("group-a5/0", 2e-5)):
        assert mp.load(model).metadata["recipe"]["votes"] == said
    assert mp.load("group-a5/0").metadata["recipe"]["share"] == 0.9
