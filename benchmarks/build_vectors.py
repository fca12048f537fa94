"""Test vectors for verifiers of certificates: book/_static/certificates, each with the exit status that it must get.

    python benchmarks/build_vectors.py

Two small networks (one stripped) and one shipped of every other kind; for every strategy a certificate that holds, and the ways in which one may not.
index.json lists {certificate, model, code, why}.
"""

import copy
import json
from pathlib import Path

import torch

import mechproof as mp
from mechproof import zoo
from mechproof.max_of_k import edits
from mechproof.max_of_k.model import shapes
from mechproof.zoo.certificate import certificate

OUT = Path(__file__).parents[1] / "book" / "_static" / "certificates"
STRATEGIES = ("brute_force", "exact", "cubic", "separable", "separable:groups=1,buckets=2,query=grouped", "compact-gram", "compact-spectral",
              "compact-frobenius", "monte_carlo")


def models() -> dict[str, mp.Model]:
    """A trained network on five tokens, the same stripped, and one that ships."""
    family = zoo.family_of_collection("max-of-4")
    small = zoo.model_from_tensors("small", family.train({"n_ctx": 3, "d_vocab": 5, "d_model": 4}, 0, steps=600))
    assert {name: tuple(t.shape) for name, t in small.tensors.items()} == shapes(3, 5, 4)
    stripped = zoo.model_from_tensors("stripped", *edits.stripped(small, 2))
    return {"small": small, "stripped": stripped, "max-of-4-0": mp.load("max-of-4/0"), "pizza-31-0": mp.load("pizza-31/0"),
            "heads-0": mp.load("max-of-4-h2/0"), "norms-0": mp.load("max-of-4-ln/0"), "u-and-0": mp.load("u-and-256/0"),
            "permutations-4-0": mp.load("permutations-4/0")}


def spoiled(good: dict) -> dict[str, tuple[dict | str, int]]:
    """What must not be accepted: {why: (certificate, exit status)}."""
    def changed(code: int, **keys) -> tuple[dict, int]:
        other = copy.deepcopy(good)
        for key, value in keys.items():
            (other["claim"] if key in other["claim"] else other)[key] = value
        return other, code
    return {"claims one input more": changed(1, correct=good["claim"]["correct"] + 1), "claims half the cost": changed(1, flops=good["flops"] // 2),
            "is about another model": changed(1, model_sha256="0" * 64), "claims other inputs": changed(1, total=good["claim"]["total"] + 1),
            "names no strategy": changed(1, strategy="guess"), "counts with a decimal point": changed(2, correct=float(good["claim"]["correct"])),
            "is of another format": changed(2, format="mechproof-certificate/0"), "is cut off": (json.dumps(good)[:-20], 2)}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    index = []

    def write(name: str, model: str, content: dict | str, code: int, why: str) -> None:
        (OUT / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        index.append({"certificate": f"{name}.json", "model": f"{model}.safetensors", "code": code, "why": why})

    for name, model in models().items():
        note = zoo.told(model) | {key: str(model.sizes[key]) for key in model.family.described}
        zoo.save_atomically(OUT / f"{name}.safetensors", {key: t.clone() for key, t in model.tensors.items()}, note)
        listed = {s.id for s in mp.strategies(model)}
        chosen = STRATEGIES if name == "small" else ("exact", "separable", "wheel", "exact_activations", "features", "cells", "rivals")
        for i, strategy in enumerate(s for s in chosen if s.partition(":")[0] in listed):
            write(f"{name}-{i}", name, certificate(model, strategy)[0], 0, f"{strategy} holds")
    for i, (why, (content, code)) in enumerate(spoiled(certificate(models()["small"], "exact")[0]).items()):
        write(f"refused-{i}", "small", content, code, why)
    torch.manual_seed(0)
    other = certificate(models()["small"], "compact-gram")[0]
    other["advice"]["qk_a0"]["shape"] = other["advice"]["qk_a0"]["shape"][::-1] + [1]
    write("refused-shape", "small", other, 2, "has advice of another shape")
    (OUT / "index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    main()
