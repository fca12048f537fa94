"""One thing has one name: every strategy, rung, peel, null, tier, way and edit is in the table, and what readers see comes from there."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path

import mechproof as mp
from mechproof.figures import max_of_k as figures
from mechproof.max_of_k import direct, edits, scores, subcubic, tiers
from mechproof.noise import residual, surrogate
from mechproof.pizza import family as pizza
from mechproof.proof import names
from mechproof.proof.product_bounds import RUNGS
from mechproof.transformer import settings

ROOT = Path(__file__).parents[1]


def test_everything_that_there_is_has_a_name():
    models = ("max-of-4/0", "max-of-4-stripped/0", "pizza-31/0", "u-and-256/0", "permutations-4/0", "group-s4/0")
    listed = {s.id for name in models for s in mp.strategies(mp.load(name)) if not s.id.startswith("EUPU")}
    there = {"STRATEGIES": listed, "DIRECT": direct.WAYS, "SCORES": scores.WAYS, "ATTENTION": subcubic.HANDLINGS,
             "TIERS": tiers.TIERS, "RUNGS": RUNGS, "SAID": {*settings.KEYS, "n_heads", "layout"},
             "PEELS": residual.PEELS, "BASES": {"irreps", "singular"}, "NULLS": surrogate.NULLS, "EDITS": {*edits.EDITS, *pizza.FAMILIES[0].edits}}
    assert {kind: set(getattr(names, kind)) for kind in there} == {kind: set(ids) for kind, ids in there.items()}
    assert {id(table) for table in names.KINDS.values()} == {id(getattr(names, kind)) for kind in there}


def test_a_name_is_one_things_name():
    """Two that are called the same are the same."""
    every = {name for table in names.KINDS.values() for name in table.values()}
    assert len({name.label for name in every}) == len(every)
    assert all(name.says.endswith(".") and name.says.count(". ") == 0 for name in every)


def test_no_label_is_typed_twice():
    """Whoever shows a label looks it up; a single word may mean other things."""
    labels = {name.label for table in names.KINDS.values() for name in table.values() if " " in name.label}
    labels -= set(figures.ROWS)                                          # the paper calls rows of its Table 1 so
    typed = {}
    for path in (ROOT / "mechproof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in labels and path.name != "names.py":
                typed.setdefault(path.name, []).append(node.value)
    assert typed == {}


def test_strategies_are_called_what_the_table_says():
    for name in ("max-of-4/0", "max-of-4-stripped/0", "pizza-31/0", "permutations-4/0", "group-s4/0"):
        for s in mp.strategies(mp.load(name)):
            if s.id in names.STRATEGIES:
                assert s.label == names.STRATEGIES[s.id].label
            else:
                path, score, attention = s.label.split(" · ")
                assert path in names.labels(names.DIRECT).values() and score in names.labels(names.SCORES).values()
                assert attention in names.labels(names.ATTENTION).values()


def test_the_glossary_is_what_the_table_says():
    glossary = runpy.run_path(str(ROOT / "book" / "write_glossary.py"))
    assert glossary["PAGE"].read_text() == glossary["page"](), "run python book/write_glossary.py"
    assert all(said.endswith(".") for said in glossary["TERMS"].values())
