"""A family from outside the package, as the book's page "Add a network" has it: loaded, listed, proved, swept, and sound."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from test_soundness import faults

import mechproof as mp
from mechproof import zoo
from mechproof.zoo import tables, weights
from mechproof.zoo.certificate import certificate

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
    scale = {"huge": 2.0**120, "subnormal": 2.0**-140, "overflows": 2.0**120}.get(kind, 1.0)
    bias = {"large bias": -1.5, "ties": -0.5, "no bias": 0.0, "positive bias": 0.5, "subnormal": -(2.0**-149)}.get(kind, -0.25)
    W_U = torch.full((d, 1), -1.0 if kind == "falling" else 3e38 if kind == "overflows" else 1.0)
    return mp.Model(f"{kind}-{seed}", FAMILY, {"W_E": W_E * scale, "W_U": W_U, "b_U": torch.tensor([bias])})


KINDS = ("able", "some out of order", "ties", "large bias", "no bias", "positive bias", "falling", "huge", "subnormal", "overflows", "random")
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
    for model in (model for model in MODELS if not model.name.startswith(("huge", "overflows"))):
        bound, v = mp.prove(model, "in_order"), model.sizes["d_vocab"]
        kept = v - int(mp.search(model, "in_order")["left_out"].sum())
        assert bound.correct == kept**2 or not float(model["b_U"]) < 0, model
        assert bound.correct == bound.total == len(right(model)) or not model.name.startswith("able"), model


def test_the_check_is_shorter_than_trying():
    """Of a large network: two operations a pair, or in_order."""
    model = mp.Model("large", FAMILY, {"W_E": torch.arange(2000.0)[:, None], "W_U": torch.ones(1, 1), "b_U": torch.tensor([-0.5])})
    bound = mp.prove(model, "in_order")
    assert bound.correct == bound.total == 2000**2 and bound.flops < 2 * bound.total / 100


@pytest.fixture
def registered() -> Iterator[None]:
    mp.register(FAMILY)
    yield
    del weights.families()[FAMILY.name]


def test_a_family_registers_by_name(registered, tmp_path):
    mp.register(FAMILY)                                                  # again is no harm
    with pytest.raises(mp.InputError, match="^family 'comparator' is there already; choose another name$"):
        mp.register(replace(FAMILY, recipe={"other": 1}))
    with pytest.raises(mp.InputError, match="^families are a tuple; expected a tuple of mechproof.proof.family.Family$"):
        mp.register(None)
    path = tmp_path / "one.safetensors"
    zoo.save_atomically(path, MODELS[0].tensors, {})
    assert mp.load(path).family is FAMILY
    assert mp.load("max-of-4/0").family.name == "max_of_k"               # whose tensors it has none of
    with pytest.raises(mp.InputError, match=r"^tensors have shapes .*; expected W_E \[d_vocab, d_model\], W_U"):
        zoo.model_from_tensors("odd", dict(MODELS[0].tensors) | {"W_U": torch.ones(1)})


def test_other_networks_files_are_told_what_they_lack_of_their_own(registered):
    """A family with few tensors does not answer for files that are nearly another's."""
    max_of_k = dict(mp.load("max-of-4/0").tensors)
    without = lambda *names: {name: x for name, x in max_of_k.items() if name not in names}
    with pytest.raises(mp.InputError, match="^model 'm' lacks W_Q, W_pos; max_of_k takes"):
        zoo.model_from_tensors("m", without("W_pos", "W_Q"))
    with pytest.raises(mp.InputError, match="^model 'm' lacks W_pos; max_of_k takes"):
        zoo.model_from_tensors("m", without("W_pos") | {"b_U": torch.zeros(64)})


def test_what_is_no_input_is_said_to_be_none():
    bound = mp.prove(network(3, "able"), "in_order")
    for tokens in ((-1, 0), (0, 7), (1, 2, 3), ("a", 1), 3):
        with pytest.raises(mp.InputError, match="are no input of this model; expected 2 whole numbers from 0 to 4"):
            bound.covers(tokens)


def test_certificates_are_for_networks_that_the_verifier_knows():
    """Whatever a strategy's family calls itself."""
    named = replace(FAMILY, strategies=lambda sizes: [replace(s, family="cubic") for s in FAMILY.strategies(sizes)])
    model = mp.Model("m", named, MODELS[0].tensors)
    with pytest.raises(mp.InputError, match="^strategy 'in_order' of comparator models has no certificates"):
        certificate(model, "in_order")


def environment(folder: Path, point: str, more: str = "") -> dict[str, str]:
    """One in which a package with the example and this entry point is installed, as pip would leave it."""
    site = folder / "site"
    shutil.copytree(ROOT / "examples", site)
    (site / "more.py").write_text(more)
    about = site / "comparator-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: comparator\nVersion: 1\n")
    (about / "entry_points.txt").write_text(f"[mechproof.families]\ncomparator = {point}\n")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}


REPLACED = """from dataclasses import replace
from mechproof.max_of_k.family import FAMILIES as OURS
FAMILIES = (replace(OURS[0], strategies=lambda sizes: []),)
"""


@pytest.mark.parametrize("point, more, says", [
    ("more:FAMILIES", REPLACED, "family 'max_of_k' is there already; choose another name"),
    ("nothing:FAMILIES", "", "entry point comparator = nothing:FAMILIES cannot be loaded (No module named 'nothing')"),
    ("more:FAMILY", "from comparator import FAMILIES\nFAMILY = FAMILIES[0]\n", "families are a Family; expected a tuple"),
])
def test_a_package_that_is_wrong_is_said_to_be(tmp_path, point, more, says):
    """In one line; above all it cannot take the place of a family that is there."""
    done = subprocess.run([sys.executable, "-m", "mechproof", "strategies", "max-of-4/0"], capture_output=True, text=True,
                          env=environment(tmp_path, point, more))
    assert done.returncode == 2 and done.stderr.startswith(f"error: {says}") and done.stderr.count("\n") == 1, done.stderr


def test_an_installed_family_is_on_the_command_line(tmp_path):
    """It loads, shows in `strategies`, proves, and is swept by workers of their own."""
    installed = environment(tmp_path, "comparator:FAMILIES")
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
