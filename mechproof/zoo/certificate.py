"""Certificates: a claim about a model's accuracy as a file, with all that a checker needs to derive it anew.

    {"format": "mechproof-certificate/1",
     "claim": {"correct": .., "total": .., "strategy": "separable", "parameters": {"groups": 8, "query": "each", ..},
               "failure_probability": 0.0},
     "model_sha256": "..", "advice": {"qk_a0": {"dtype": "<f8", "shape": [32, 8], "base64": ".."}}, "flops": ..}

The named settings of a strategy are written as that strategy with all its parameters.  The checker is
`mechproof.verifier`, which shares no code with the rest.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..proof import proving
from ..proof.bound import Bound
from ..proof.family import InputError, Model, parse_id
from ..proof.state import own_state
from .weights import whole

FORMAT = "mechproof-certificate/1"
COVERED = ("brute_force", "exact", "cubic", "separable", "monte_carlo", "wheel", "exact_activations",
           "features", "cells", "rivals")
NETWORKS = ("max_of_k", "max_of_k_heads", "max_of_k_stripped", "one_layer", "pizza", "superposition", "permutations")


def encoded(tensor: Tensor) -> dict:
    """An array as JSON: little-endian bytes in base64, with dtype and shape."""
    array = tensor.numpy()
    array = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "base64": base64.b64encode(array.tobytes()).decode()}


@own_state()
def certificate(model: Model, strategy: str, rank: int | None = None) -> tuple[dict, Bound]:
    """Search, check and write down.  Errors: InputError for a strategy that the verifier does not cover."""
    # hash and bound are about one network, whatever the caller does meanwhile
    model = replace(model)
    preset, parameters = parse_id(strategy, proving.strategies(model), rank)
    if preset.family not in COVERED or model.family.name not in NETWORKS:
        raise InputError(f"strategy {preset.id!r} of {model.family.name} models has no certificates; "
                         f"those that have: {', '.join(COVERED)}")
    advice = proving.search(model, strategy, rank)
    bound = proving.check(model, strategy, advice, rank)
    named = {name: p.names[value] if p.names else value for name, value, p in
             ((name, value, preset.parameters[name]) for name, value in parameters.items())}
    claim = {"correct": bound.correct, "total": bound.total, "strategy": preset.family, "parameters": named,
             "failure_probability": bound.failure_probability}
    return {"format": FORMAT, "claim": claim, "model_sha256": model.sha256,
            "advice": {name: encoded(tensor) for name, tensor in advice.items()}, "flops": bound.flops}, bound


def certify(model: Model, strategy: str, path: Path, rank: int | None = None) -> Bound:
    """Write a certificate, whole or not at all.  Errors: InputError, also where the path cannot be written."""
    content, bound = certificate(model, strategy, rank)
    with whole(path) as part:
        part.write_text(json.dumps(content), encoding="utf-8")
    return bound
