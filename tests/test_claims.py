"""Comparisons in words, page by page, against what they compare: the tables that ship, or the proofs themselves."""

from __future__ import annotations

from functools import cache

import pytest

import mechproof as mp
from mechproof.zoo import tables


@cache
def share(strategy: str, rank: int | None = None) -> float:
    return mp.prove(mp.load("max-of-4/0"), strategy, rank).accuracy_lower_bound


def test_past_the_paper_opens_with_the_papers_proofs():
    """"certifies 95%", "the best of the short ones not quite 90%": on average, short of brute force."""
    bounds = tables.shipped("max-of-4")
    assert 0.95 < bounds[bounds.strategy == "cubic"].accuracy_lower_bound.mean() < 0.96
    short = bounds[bounds.strategy.str.startswith("EUPU")].groupby("model").accuracy_lower_bound.max()
    assert 0.88 < short.mean() < 0.9


@pytest.mark.parametrize("query", ["grouped", "each"])
def test_one_bucket_brings_more_than_eleven_groups(query):
    of = lambda groups, buckets: share(f"separable:groups={groups},buckets={buckets},query={query}")
    assert 0 < of(12, 3) - of(1, 3) < of(1, 4) - of(1, 3)


def test_how_many_directions_the_compact_proofs_need():
    """"lose little": less than two points of the exact tables' bound; one step of the slider earlier they lose more."""
    whole = share("separable")
    for tier, enough, fewer in (("gram", 12, 8), ("frobenius", 16, 12), ("spectral", 20, 16)):
        assert whole - share(f"compact-{tier}", enough) < 0.02 < whole - share(f"compact-{tier}", fewer)


def test_what_stripped_networks_cost_to_prove():
    """"between a quarter and three fifths of the operations, by the kind of proof, and says more"."""
    whole, stripped = tables.shipped("max-of-4"), tables.shipped("max-of-4-stripped")
    for id in ("separable-small", "separable-grouped", "separable", "exact"):
        one, other = (table[table.strategy == id] for table in (whole, stripped))
        assert 1 / 4 < other.flops.median() / one.flops.median() < 3 / 5
        assert other.accuracy_lower_bound.mean() > one.accuracy_lower_bound.mean()
