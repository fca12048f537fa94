"""A family from outside the package, as the book's page "Add a network" has it: loaded, listed, proved, swept, and sound."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from test_soundness import faults

import mechproof as mp
from mechproof import zoo
from mechproof.zoo import tables

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
import comparator  # noqa: E402

FAMILY = comparator.FAMILIES[0]


def network(seed: int, kind: str):
    """A comparator that is able, has tokens out of order, ties, a large bias, numbers of all sizes, or none that mean anything."""
    g = torch.Generator().manual_seed(seed)
    v, d = 2 + seed % 11, 1 + seed % 3
    s = torch.arange(v).float()
    if kind == "some out of order":
        s[torch.randint(v, (2,), generator=g)] = torch.randn(2, generator=g) * v
    elif kind == "ties":
        s = (s / 2).floor()
    W_E = s[:, None] * torch.ones(d) / d if kind != "random" else torch.randn(v, d, generator=g)
    if kind == "huge":
        W_E = W_E * 2.0**120
    bias = {"large bias": -1.5, "ties": -0.5, "no bias": 0.0}.get(kind, -0.25)
    return mp.Model(f"{kind}-{seed}", FAMILY, {"W_E": W_E, "W_U": torch.ones(d, 1), "b_U": torch.tensor([bias])})


KINDS = ("able", "some out of order", "ties", "large bias", "no bias", "huge", "random")
MODELS = [network(seed, kind) for seed in range(6) for kind in KINDS]


def right(model) -> set[tuple[int, int]]:
    """The pairs that it answers correctly, in exact rationals."""
    exact = lambda name: [[Fraction(x) for x in row] for row in model[name].reshape(-1, model[name].shape[-1]).tolist()]
    out, (bias,) = [row[0] for row in exact("W_U")], exact("b_U")[0]
    s = [sum(x * y for x, y in zip(row, out)) for row in exact("W_E")]
    return {(a, b) for a in range(len(s)) for b in range(len(s)) if (s[a] - s[b] + bias > 0 if a > b else s[a] - s[b] + bias < 0)}


def test_no_bound_is_above_the_truth():
    for seed, model in enumerate(MODELS):
        truth = right(model)
        for strategy in mp.strategies(model):
            advice, draw = mp.search(model, strategy.id), random.Random(seed)
            spoiled = [{name: torch.tensor(draw.choices((0, 1), k=len(x))) for name, x in advice.items()} for _ in range(20)]
            for some in [advice, *spoiled]:
                assert faults(mp.check(model, strategy.id, some), model, truth) == []


def test_it_is_tight_where_it_should_be():
    """Every pair of kept tokens is certified, where b_U < 0 is not lost in rounding; of able networks all are kept."""
    for model in (model for model in MODELS if not model.name.startswith("huge")):
        bound, v = mp.prove(model, "in_order"), model.sizes["d_vocab"]
        kept = v - int(mp.search(model, "in_order")["left_out"].sum())
        assert bound.correct == kept**2 or not float(model["b_U"]) < 0, model
        assert bound.correct == bound.total == len(right(model)) or not model.name.startswith("able"), model


def test_the_check_is_shorter_than_trying():
    """Of a large network: two operations a pair, or in_order."""
    model = mp.Model("large", FAMILY, {"W_E": torch.arange(5000.0)[:, None], "W_U": torch.ones(1, 1), "b_U": torch.tensor([-0.5])})
    bound = mp.prove(model, "in_order")
    assert bound.correct == bound.total == 5000**2 and bound.flops < 2 * bound.total / 100


def test_a_family_registers_by_name(tmp_path):
    mp.register(FAMILY)
    mp.register(FAMILY)                                                  # again is no harm
    with pytest.raises(mp.InputError, match="^family 'comparator' is there already; choose another name$"):
        mp.register(replace(FAMILY, recipe={"other": 1}))
    path = tmp_path / "one.safetensors"
    zoo.save_atomically(path, MODELS[0].tensors, {})
    assert mp.load(path).family is FAMILY
    assert mp.load("max-of-4/0").family.name == "max_of_k"               # whose tensors it has none of
    with pytest.raises(mp.InputError, match=r"^tensors have shapes .*; expected W_E \[d_vocab, d_model\], W_U"):
        zoo.model_from_tensors("odd", dict(MODELS[0].tensors) | {"W_U": torch.ones(1)})


@pytest.fixture
def installed(tmp_path) -> dict[str, str]:
    """An environment in which a package with the example names its families, as pip would leave it."""
    site = tmp_path / "site"
    shutil.copytree(ROOT / "examples", site)
    about = site / "comparator-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: comparator\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[mechproof.families]\ncomparator = comparator:FAMILIES\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


def test_an_installed_family_is_on_the_command_line(installed, tmp_path):
    """It loads, shows in `strategies`, proves, and is swept by workers of their own."""
    folder = tmp_path / "models"
    folder.mkdir()
    for i, model in enumerate(MODELS[:3]):
        zoo.save_atomically(folder / f"{i}.safetensors", model.tensors, {})
    run = lambda *argv: subprocess.run([sys.executable, "-m", "mechproof", *map(str, argv)], env=installed, capture_output=True, text=True)
    assert run("strategies", folder / "0.safetensors").stdout.startswith("in_order  (tokens in order; about ")
    proved = run("prove", folder / "0.safetensors", "--strategy", "in_order")
    assert proved.stdout.splitlines()[-1].startswith(">= 100% of 4 inputs"), proved.stderr
    done = run("sweep", folder, "--workers", 2, "-o", tmp_path / "all.parquet")
    assert "3 rows asked for, 3 of them made now" in done.stdout, done.stderr
    rows = tables.read(tmp_path / "all.parquet")
    assert [int(row["correct"]) for row in rows] == [mp.prove(model, "in_order").correct for model in MODELS[:3]]
