"""The tables that ship: whole, below the truth, and what the code gives."""

from __future__ import annotations

import gzip
import hashlib
import re
from fractions import Fraction
from pathlib import Path

import pytest
from safetensors.torch import load

import mechproof as mp
from mechproof import zoo
from mechproof.proof import proving
from mechproof.proof.bound import ratio_lo
from mechproof.zoo import tables

ROOT = Path(__file__).parents[1]
RESULTS = zoo.DATA / "results"
MODELS = {entry["name"]: entry for entry in zoo.models()}
TABLES = sorted(path.stem for path in RESULTS.glob("*.parquet"))
EXACT = ("brute_force", "exact")


def test_every_collection_has_its_table():
    assert sorted({entry["collection"] for entry in MODELS.values()}) == TABLES


@pytest.mark.parametrize("collection", TABLES)
def test_a_table_is_whole_and_of_these_models(collection):
    rows = tables.read(RESULTS / f"{collection}.parquet")
    found = {name: {row["strategy"] for row in rows if row["model"] == name} for name in {row["model"] for row in rows}}
    assert set(found) == {name for name, entry in MODELS.items() if entry["collection"] == collection}
    for name, strategies in found.items():
        assert {s.id for s in proving.moderate(mp.load(name))} <= strategies and len(strategies) == len(rows) / len(found)
    for row in rows:
        accuracy = MODELS[row["model"]]["accuracy"]
        assert row["sha256"] == MODELS[row["model"]]["sha256"] and row["version"] == mp.__version__ and row["error"] is None
        assert (row["right"], row["tried"]) in (tuple(accuracy.values())[:2], (accuracy.get("right"), accuracy.get("sampled")))
        assert row["flops"] > 0 and row["accuracy_lower_bound"] == ratio_lo(row["correct"], row["total"])


@pytest.mark.parametrize("collection", TABLES)
def test_no_bound_is_above_the_truth(collection):
    """From the table alone: exact accuracies, or the upper end of the interval of the sampled ones."""
    rows, high = tables.read(RESULTS / f"{collection}.parquet"), {}
    for row in rows:
        if row["model"] not in high:
            high[row["model"]] = tables.truth_hi(row)
        assert Fraction(row["correct"], row["total"]) <= high[row["model"]], (row["model"], row["strategy"])
        if row["strategy"] in EXACT:
            assert row["correct"] == row["right"] and row["total"] == row["tried"], row["model"]


def test_the_upper_end_of_a_sample_is_where_its_tail_is_that_thin():
    """Against the binomial law in exact rationals; and a bound above it is found."""
    def tail(right: int, tried: int, p: Fraction) -> Fraction:
        term, total = (1 - p) ** tried, Fraction(0)
        for k in range(right + 1):
            total += term
            term = term * (tried - k) / (k + 1) * p / (1 - p)
        return total

    for right, tried, chance in ((17, 20, 1e-6), (0, 30, 1e-3), (29, 30, 1e-6)):
        high = tables.truth_hi({"right": right, "tried": tried, "total": 64**20}, chance)
        assert tail(right, tried, high) < chance < tail(right, tried, high - Fraction(1, 10**6)) or right == 0
    assert tables.truth_hi({"right": 17, "tried": 20, "total": 20}) == Fraction(17, 20)
    assert Fraction(999_500, 10**6) > tables.truth_hi({"right": 999_000, "tried": 10**6, "total": 64**20}) > Fraction(999_000, 10**6)


SAMPLE, ADVICE = zoo.results("sample")["rows"], load(gzip.decompress((RESULTS / "sample.safetensors.gz").read_bytes()))


@pytest.mark.slow
@pytest.mark.parametrize("i", range(len(SAMPLE)))
def test_a_sample_is_what_the_code_gives(i):
    """With the stored advice to the last input; with a search of one's own, whose last digits a machine may round otherwise, nearly."""
    name, strategy = SAMPLE[i]
    row = next(r for r in tables.read(RESULTS / f"{name.partition('/')[0]}.parquet") if r["model"] == name and r["strategy"] == strategy)
    model = mp.load(name)
    kept = mp.check(model, strategy, {key.partition("/")[2]: tensor for key, tensor in ADVICE.items() if key.startswith(f"{i}/")})
    assert (kept.correct, kept.total, kept.unexplained_dimensions) == (row["correct"], row["total"], row["unexplained_dimensions"])
    if strategy != "monte_carlo":                                       # whose coins differ, and with them a few operations
        assert kept.flops == pytest.approx(row["flops"], rel=1e-3)
    fresh = mp.prove(model, strategy)
    assert fresh.correct == row["correct"] if strategy in EXACT else abs(fresh.correct - row["correct"]) <= 1e-4 * row["total"]


def test_the_card_names_every_file_and_column():
    card = (RESULTS / "README.md").read_text()
    assert len(SAMPLE) == 50 and all(name in card for name in tables.KINDS)
    for collection in TABLES:
        assert hashlib.sha256((RESULTS / f"{collection}.parquet").read_bytes()).hexdigest() in card
        assert f"\n| {collection} | " in card.partition("# The weights")[2]


def test_nothing_ships_that_nobody_reads():
    """Each file of measurements is named by a page, a figure or a test, and each shard by the card."""
    readers = [*ROOT.glob("book/*.ipynb"), *ROOT.glob("mechproof/figures/*.py"), *ROOT.glob("tests/*.py")]
    text = "".join(path.read_text() for path in readers)
    results = {path.name.split(".")[0] for path in RESULTS.iterdir() if path.name != "README.md"}
    assert {path.name.split(".")[0] for path in zoo.DATA.glob("*.safetensors")} == set(TABLES) <= results
    unread = [name for name in results - set(TABLES) if not re.search(rf"""["'/\\]{name}(\\?["'.])""", text)]
    assert not unread
