"""What the reproduction page says in words, held against the tables it prints from."""

from __future__ import annotations

import pandas as pd
import pytest

from mechproof import zoo
from mechproof.figures import max_of_k as figures
from mechproof.figures import reproduction
from mechproof.zoo import tables

PIZZAS = sorted({entry["collection"] for entry in zoo.models() if entry["family"] == "pizza"})


def mean(collection: str, proof: str) -> float:
    """The mean bound of a kind of proof, in percent."""
    return 100 * reproduction.best(reproduction.table_of(collection), reproduction.MAX_OF_K[proof]).accuracy_lower_bound.mean()


def test_the_best_of_a_kind_is_each_models_best_and_then_shortest():
    table = pd.DataFrame([("m/0", "a", 0.5, 9), ("m/0", "b:rank=2", 0.6, 8), ("m/0", "b", 0.6, 7), ("m/1", "a", 0.4, 5), ("m/1", "c", 0.9, 1)],
                         columns=["model", "strategy", "accuracy_lower_bound", "flops"])
    found = reproduction.best(table, ["a", "b"])
    assert found[["model", "strategy", "flops"]].to_numpy().tolist() == [["m/0", "b", 7], ["m/1", "a", 5]]


@pytest.mark.parametrize("proof", reproduction.THEIR_CODE)
def test_ours_certify_no_less_than_the_authors_code_in_no_more_operations(proof):
    code, flops = map(float, reproduction.THEIR_CODE[proof])
    mine = reproduction.best(reproduction.table_of("max-of-4"), reproduction.MAX_OF_K[proof])
    assert mine.flops.median() < flops
    assert mean("max-of-4", proof) == pytest.approx(100 * code, abs=0.5) if proof == "cubic" else mean("max-of-4", proof) > 100 * code


def test_what_longer_sequences_do():
    change = {proof: mean("max-of-20", proof) - mean("max-of-4", proof) for proof in reproduction.PAPERS}
    assert all(change[proof] < -3 for proof in ("cubic", "subcubic", "low-rank QK"))
    assert all(change[proof] > 3 for proof in ("low-rank EU", "low-rank QK and EU", "quadratic QK", "quadratic QK and EU"))
    assert all(abs(change[proof]) < 1.5 for proof in ("subcubic, without mean+diff", "low-rank QK, svd only"))
    assert all(mean("max-of-20", proof) < mean("max-of-10", proof) for proof in ("quadratic QK", "quadratic QK and EU"))
    assert -0.5 < mean("max-of-20", "ours, token by token") - mean("max-of-4", "ours, token by token") < 0
    ours, cubic = (reproduction.best(reproduction.table_of("max-of-20"), reproduction.MAX_OF_K[proof]).flops.median()
                   for proof in ("ours, token by token", "cubic"))
    assert 80 < ours / cubic < 130


def test_what_larger_vocabularies_do():
    known = [proof for proof in reproduction.MAX_OF_K if proof not in ("ours, branch and bound", "brute force")]
    assert all(mean("max-of-4-v256", proof) < mean("max-of-4-v128", proof) < mean("max-of-4", proof) for proof in known)
    assert all(mean("max-of-4-v256", proof) < mean("max-of-4-v256", "cubic") for proof in ("ours, compact tables", "ours, tables checked at random"))


def test_the_points_of_the_scatter_are_what_the_text_says():
    theirs = figures.certified_by_authors().correct_count
    ours = tables.shipped("max-of-4-reference").set_index("strategy").correct.loc[theirs.index].astype(int)
    edge = theirs[theirs < 0.02 * 64**4]
    assert len(edge) == 2 * sum("svd-query" in id for id in edge.index) and (ours >= theirs).all()
    assert all(ours[id] < 0.05 * 64**4 for id in edge.index if "svd-query" not in id)
    assert all(id in ("cubic", "brute_force") or ours[id] < 70 for id in ours.index if ours[id] == theirs[id])


def test_fewer_unexplained_dimensions_are_no_shorter_among_the_hundred():
    for name in reproduction.collections("max_of_k"):
        bounds = reproduction.table_of(name)
        papers = bounds[bounds.strategy.str.startswith("EUPU")].assign(dimensions=lambda table: table.unexplained_dimensions.astype(float))
        ranks = papers.groupby("strategy")[["dimensions", "flops", "accuracy_lower_bound"]].mean().rank()
        assert len(ranks) == 100 and ranks.dimensions.corr(ranks.flops) < 0.1 and ranks.dimensions.corr(ranks.accuracy_lower_bound) < 0.1
    theirs = figures.certified_by_authors()
    counted = theirs[theirs.index.str.startswith("EUPU") & theirs.flop_estimate.notna()]
    assert len(counted) == 14 and counted.flop_estimate.rank().corr(counted.effective_dimension_estimate.rank()) < 0


def test_what_is_said_of_the_networks_that_add():
    every = pd.concat([tables.shipped(name) for name in PIZZAS])
    median = every.groupby("strategy").accuracy_lower_bound.median()
    assert every[every.strategy == "paper"].accuracy_lower_bound.max() == 0 < every[every.strategy == "moments"].accuracy_lower_bound.max() < 0.25
    assert median["wheel"] == median.drop("brute_force").max()
    assert len(zoo.results("pizza")["models"]) > 100 and sum(name == "pizza-113" for name in (e["collection"] for e in zoo.models())) == 20


def test_every_setting_of_the_opening_figure_draws():
    """Also where nothing was run, and for one model."""
    explorer = reproduction.sequences("max-of-4", "cubic")
    for setting in ({"models": "max-of-20", "proof": "brute force"}, {"models": "max-of-4-reference", "proof": "cubic"}):
        _, headline, alt = explorer.frame(**setting)
        assert headline.startswith("not run" if setting["models"] == "max-of-20" else "1 model:") and setting["models"] in alt
