"""Certificates on the command line, as one file, and the vectors that other verifiers are held against."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mechproof as mp
from mechproof import verifier, zoo
from mechproof.__main__ import main
from mechproof.max_of_k.paths import Stripped
from mechproof.zoo.certificate import certify

ROOT = Path(__file__).parents[1]
VECTORS = ROOT / "book" / "_static" / "certificates"
INDEX = json.loads((VECTORS / "index.json").read_text())


@pytest.mark.parametrize("entry", INDEX, ids=lambda e: f"{e['certificate']}: {e['why']}")
def test_vectors(entry):
    verdict = verifier.verify(VECTORS / entry["certificate"], VECTORS / entry["model"])
    assert verdict.code == entry["code"] and "\n" not in verdict.line, verdict.line


def test_vectors_cover_every_strategy_and_every_exit():
    claimed = [json.loads((VECTORS / e["certificate"]).read_text())["claim"]["strategy"] for e in INDEX if e["code"] == 0]
    assert set(claimed) == {"brute_force", "exact", "cubic", "separable", "monte_carlo", "wheel", "exact_activations", "features", "cells",
                            "rivals"}
    assert {e["code"] for e in INDEX} == {0, 1, 2}


def test_vectors_are_what_the_code_writes():
    """The shipped certificates claim what the library proves now, and a length within what the verifier allows."""
    for entry in INDEX:
        content = json.loads((VECTORS / entry["certificate"]).read_text()) if entry["code"] == 0 else {"claim": {"strategy": ""}}
        if content["claim"]["strategy"] in ("exact", "cubic"):
            bound = mp.prove(zoo.load(VECTORS / entry["model"]), content["claim"]["strategy"])
            assert bound.correct == content["claim"]["correct"] and abs(bound.flops / content["flops"] - 1) < 0.1


def test_the_one_file_verifier_runs_without_torch(tmp_path):
    """Packed twice, the same bytes; run with torch and this library out of reach."""
    for name in ("a.pyz", "b.pyz"):
        subprocess.run([sys.executable, ROOT / "book" / "pack_verifier.py", tmp_path / name], check=True)
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()
    blocked = ("import sys, runpy; sys.modules.update(torch=None, mechproof=None, safetensors=None); "
               "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0])")
    for entry in (INDEX[0], next(e for e in INDEX if e["code"] == 1), next(e for e in INDEX if e["code"] == 2)):
        ran = subprocess.run([sys.executable, "-c", blocked, "a.pyz", VECTORS / entry["certificate"], VECTORS / entry["model"]],
                             cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == entry["code"] and "Traceback" not in ran.stderr, ran.stderr


def test_certify_and_verify_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "proof.json"
    assert main(["certify", "max-of-4-stripped/3", "--strategy", "separable-small", "-o", str(path)]) == 0
    assert main(["verify", str(path), "max-of-4-stripped/3"]) == 0 and "proved" in capsys.readouterr().out
    assert main(["verify", str(path), "max-of-4/3"]) == 1 and "model_sha256" in capsys.readouterr().out
    claim = json.loads(path.read_text())
    claim["claim"]["correct"] = claim["claim"]["total"]
    path.write_text(json.dumps(claim))
    assert main(["verify", str(path), "max-of-4-stripped/3"]) == 1
    assert main(["verify", str(tmp_path / "none.json"), "max-of-4/3"]) == 2


@pytest.mark.parametrize("arguments, says", [
    (["certify", "max-of-4/0", "--strategy", "EUPU-max-diff--attn-mean-query+diff--attn-err-svd", "-o", "x.json"], "has no certificates"),
    (["certify", "max-of-4/0", "--strategy", "cubic", "-o", "x.txt"], "does not end in .json"),
    (["edit", "max-of-4-stripped/0", "--kind", "stripped", "-o", "x.safetensors"], "is no edit of max_of_k_stripped models")])
def test_bad_input_is_one_line(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_certificate_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def half(path, text, encoding):
        path.write_bytes(text.encode()[:99])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(mp.InputError, match="x.json' cannot be written .No space left on device.; choose another path"):
        certify(mp.load("max-of-4/0"), "separable-small", tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_edit_writes_a_model(tmp_path, capsys):
    path = tmp_path / "small.safetensors"
    assert main(["edit", "max-of-4/3", "--kind", "stripped", "-o", str(path)]) == 0
    made, ships = mp.load(path), mp.load("max-of-4-stripped/3")
    for table in ("A", "EU", "OV"):                        # the factors' last digits are the processor's
        found, expected = (getattr(Stripped(model), table).mid for model in (made, ships))
        assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max())), table
    assert made.metadata["edit"] == "stripped" and made.metadata["parent_sha256"] == ships.metadata["parent_sha256"]
    assert mp.load("max-of-4/3").sha256 in capsys.readouterr().out
