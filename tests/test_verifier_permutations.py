"""The independent checker on composition of permutations: what is honest passes, nothing else does, and a tie is wrong."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_permutations import KINDS, right, small
from test_verifier import claiming, judge, spoiled
from test_verifier_pizza import advised

from mechproof import zoo
from mechproof.permutations import by_hand
from mechproof.verifier import permutations, verify, verify_tensors
from mechproof.zoo.certificate import certificate

STRATEGIES = ("brute_force", "cells", "rivals")


@pytest.mark.parametrize("K", [3, 4, 5])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_accepts_what_is_honest_and_no_more(strategy, K):
    model, other = small(0, "biased", K), small(3, "biased", K)
    content, bound = certificate(model, strategy)
    verdict = judge(content, model)
    tried = judge(certificate(model, "brute_force")[0], model).correct
    assert verdict.code == 0 and verdict.total == bound.total
    assert bound.correct == verdict.correct <= tried and bound.correct > 0 and (bound.correct < bound.total or strategy == "brute_force")
    assert 0.84 <= verdict.flops / bound.flops <= 1.11
    assert judge(claiming(content, correct=0), model).code == 0
    refused = {"correct": claiming(content, correct=verdict.correct + 1), "flops": {**content, "flops": int(verdict.flops * 0.85)},
               "total": claiming(content, total=bound.total - 1, correct=0), "model_sha256": {**content, "model_sha256": "0" * 64}}
    for word, changed in refused.items():
        assert (judge(changed, model).code == 1 and word in judge(changed, model).line) or (word == "correct" and verdict.correct == bound.total)
    assert judge(content, other).code == 1


@pytest.mark.parametrize("kind", KINDS)
def test_small_networks(kind):
    """Never more than is true; every input tried is the truth itself, ties and all; as much as the library derives."""
    for seed in range(3):
        model = small(seed, kind)
        truth = int(right(model).sum())
        for strategy in STRATEGIES:
            content, bound = certificate(model, strategy)
            verdict = judge({**content, "flops": 10**9}, model)
            assert verdict.code == 0 and bound.correct <= verdict.correct <= truth, (seed, strategy, verdict)
            assert strategy != "brute_force" or verdict.correct == truth
            assert judge(claiming({**content, "flops": 10**9}, correct=truth + 1), model).code != 0


def test_any_advice_is_sound():
    rng, found = np.random.default_rng(0), 0
    for seed in range(4):
        model = small(seed, "biased")
        truth, n = int(right(model).sum()), model.sizes["d_mlp"]
        for strategy in STRATEGIES[1:]:
            content = claiming({**certificate(model, strategy)[0], "flops": 10**9}, correct=0)
            for _ in range(25):
                name = ("row", "column")[rng.integers(2)]
                x = np.frombuffer(base64.b64decode(content["advice"][name]["base64"]), "<i8")
                verdict = judge(advised(content, name, np.where(rng.random(n) < rng.random() ** 3, rng.integers(0, 3, n), x)), model)
                assert verdict.code == 0 and verdict.correct <= truth
                found += verdict.correct
    assert found > 100                                                      # sound is not the same as empty


@pytest.mark.parametrize("fault, replaced", [
    ("shifted", lambda W, line: [W.pick(lambda t: t[line, :, np.arange(t.shape[2])].T)] * 2), ("ends", lambda lo, hi, factor: (lo * factor,) * 2),
    ("least_other", lambda x, axis: x), ("factorial", lambda n: 1 if n < 3 else 6)])
def test_planted_faults_are_found(monkeypatch, fault, replaced):
    monkeypatch.setattr(permutations, fault, replaced)
    above = 0
    for seed, kind in enumerate(KINDS * 4):
        model = small(seed, kind)
        for strategy in STRATEGIES[1:]:
            verdict = judge({**claiming(certificate(model, strategy)[0], correct=0), "flops": 10**9}, model)
            above += verdict.correct > int(right(model).sum())
    assert above > 0


@pytest.mark.parametrize("name, spoil", [
    ("row", lambda x: x + 3), ("row", lambda x: x - 3), ("column", lambda x: x * 2**61 - 1), ("column", lambda x: x * 1.0), ("row", lambda x: x[1:])])
def test_malformed_advice_is_unreadable(name, spoil):
    model = small(0, "hand")
    content, _ = certificate(model, "cells")
    entry = content["advice"][name]
    x = np.frombuffer(base64.b64decode(entry["base64"]), entry["dtype"])
    verdict = judge(advised(content, name, spoil(x)), model)
    assert verdict.code == 2 and name in verdict.line and "while checking" not in verdict.line


@pytest.mark.parametrize("changes, code", [
    ({"strategy": "cubic"}, 1), ({"strategy": "wheel"}, 1), ({"strategy": "rivals"}, 0), ({"strategy": "brute_force"}, 2),
    ({"parameters": {"rank": 3}}, 2), ({"failure_probability": -1}, 2)])
def test_other_claims(changes, code):
    content, _ = certificate(small(0, "hand"), "cells")
    assert judge({**claiming(content, **changes), "flops": 10**8}, small(0, "hand")).code == code


@pytest.mark.parametrize("name, tensor, code", [
    ("W_X", torch.ones(3, 4, 18), 2), ("W_Y", torch.full((3, 3, 18), torch.inf), 2), ("b_in", torch.ones(17), 2), ("W_U", torch.ones(18, 9), 2),
    ("b_out", torch.ones(3), 2), ("b_out", torch.zeros(3), 0), ("b_U", torch.ones(3, 3), 1)])
def test_weights_that_are_not_this_network(tmp_path, name, tensor, code):
    content, _ = certificate(small(0, "hand"), "cells")
    save_file({**small(0, "hand").tensors, name: tensor}, tmp_path / "m.safetensors")
    verdict = verify(json.dumps(content).encode(), tmp_path / "m.safetensors")
    assert verdict.code == code and (code != 2 or name in verdict.line or name == "W_X"), verdict.line


def test_said_of_another_network(tmp_path):
    content, _ = certificate(small(0, "hand"), "cells")
    for said, code in (({"act_fn": "gelu"}, 2), ({"task": "max"}, 2), ({"task": "composition", "act_fn": "relu"}, 0)):
        save_file(dict(small(0, "hand").tensors), tmp_path / "m.safetensors", said)
        assert verify(json.dumps(content).encode(), tmp_path / "m.safetensors").code == code


def test_too_many_to_try_here():
    model = zoo.model_from_tensors("m", by_hand.circuit(torch.arange(7.0)))
    content, _ = certificate(model, "cells")
    content = claiming({**content, "advice": {}, "flops": 10**12}, strategy="brute_force")
    assert "too many permutations" in judge(content, model).line


def test_two_points_are_not_read():
    tensors = {"W_X": np.ones((2, 2, 3)), "W_Y": np.ones((2, 2, 3)), "b_in": np.ones(3), "W_U": np.ones((3, 2, 2)), "b_U": np.ones((2, 2))}
    content, _ = certificate(small(0, "hand"), "cells")
    verdict = verify_tensors(content, {name: x.astype(np.float32) for name, x in tensors.items()}, {})
    assert verdict.code == 2 and "three or more" in verdict.line


@pytest.mark.slow
def test_spoiled_certificates(tmp_path):
    models = [small(seed, kind) for seed, kind in enumerate(KINDS)]
    seen = spoiled(tmp_path, 2500, 0, [(model, int(right(model).sum()), STRATEGIES) for model in models])
    assert min(seen.values()) > 20, seen
