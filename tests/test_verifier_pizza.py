"""The independent checker on modular addition: what is honest passes, nothing else does, and a tie is wrong."""

from __future__ import annotations

import base64
import copy
import json
import subprocess
import sys
from functools import lru_cache

import numpy as np
import pytest
import torch
from conftest import small_model
from safetensors.torch import save_file
from test_verifier import claiming, judge, spoiled

from mechproof import zoo
from mechproof.pizza import brute_force, wheel
from mechproof.pizza.model import shapes
from mechproof.pizza.train import train
from mechproof.verifier import pizza, verify, verify_tensors
from mechproof.zoo.certificate import certificate

STRATEGIES = ("wheel:rank=13,nodes=8", "wheel:rank=12,nodes=7,residual_rank=30", "exact_activations:rank=13,residual_rank=13", "brute_force")
TINY = ("wheel:rank=3,nodes=3", "exact_activations:rank=3,residual_rank=8", "brute_force")


@lru_cache
def trained(biases: bool = False):
    """A network that has half learned to add modulo 13, and errs on many pairs."""
    return zoo.model_from_tensors("thirteen", train({"p": 13, "d_mlp": 30, "biases": biases}, 0, steps=1000))


KINDS = ("random", "biases", "zeros", "twins", "whole numbers", "tiny", "huge", "able")


def able(p: int) -> dict[str, torch.Tensor]:
    """A network that adds: a neuron a pair, on where both numbers are there; tokens, a constant and sums on axes of their own."""
    w = {name: torch.zeros(shape) for name, shape in shapes(p, p * (p + 1) // 2, 2 * p + 2, 1).items()}
    w["W_E"][:p, :p], w["W_E"][p, p], w["W_U"][-p:] = torch.eye(p), 1.0, torch.eye(p)
    w["W_V"][0, :p, :p] = w["W_O"][0, :p, :p] = torch.eye(p)
    for i, (a, b) in enumerate(torch.triu_indices(p, p).T.tolist()):
        w["W_in"][[a, b], i], w["W_in"][p, i], w["W_out"][i, (a + b) % p - p] = 3.0, -1.5, 4.0 + 40.0 * (a == b)
    return w


def tiny(seed: int, kind: str):
    """A random or adversarial network on p = 3 or 5."""
    g = torch.Generator().manual_seed(seed)
    p = (5, 3)[seed // len(KINDS) % 2]
    w = {name: torch.randn(shape, generator=g) for name, shape in shapes(p, 6, 8, 2, kind == "biases").items()}
    if kind == "zeros":
        w["W_U"] *= 0
    elif kind == "twins":
        w["W_U"][:, -1] = w["W_U"][:, 0]
    elif kind == "whole numbers":
        w = {name: tensor.round().clamp(-1, 1) for name, tensor in w.items()}
    elif kind in ("tiny", "huge"):
        w = {name: tensor * (1e-12 if kind == "tiny" else 1e30) for name, tensor in w.items()}
    elif kind == "able":
        w = {name: tensor + 0.002 * seed * torch.randn(tensor.shape, generator=g) for name, tensor in able(p).items()}
    return zoo.model_from_tensors(f"{kind}-{seed}", w)


def truth(model) -> int:
    """Ordered pairs that are right, each by rational arithmetic."""
    p = model.sizes["p"]
    return sum(brute_force.exactly_right(model.tensors, a, b) for a in range(p) for b in range(p))


def advised(content: dict, name: str, x: np.ndarray) -> dict:
    content = copy.deepcopy(content)
    kind = "<i8" if x.dtype.kind == "i" else "<f8"
    content["advice"][name] = {"dtype": kind, "shape": list(x.shape), "base64": base64.b64encode(x.astype(kind).tobytes()).decode()}
    return content


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_accepts_what_is_honest_and_no_more(strategy, biases):
    model = trained(biases)
    content, bound = certificate(model, strategy)
    verdict = judge(content, model)
    right = judge(certificate(model, "brute_force")[0], model).correct
    assert verdict.code == 0 and verdict.total == 169
    assert 0 < bound.correct <= verdict.correct <= right < 169
    assert strategy != "brute_force" or verdict.correct == bound.correct
    assert 0.84 <= verdict.flops / bound.flops <= 1.11                      # tables in balls have no radii to add up
    assert judge(claiming(content, correct=verdict.correct), model).code == 0
    assert judge(claiming(content, correct=0), model).code == 0
    refused = {"correct": claiming(content, correct=verdict.correct + 1), "flops": {**content, "flops": int(verdict.flops * 0.85)},
               "total": claiming(content, total=168, correct=1), "model_sha256": {**content, "model_sha256": "0" * 64}}
    for word, changed in refused.items():
        assert judge(changed, model).code == 1 and word in judge(changed, model).line
    assert judge(content, trained(not biases)).code == 1


@pytest.mark.parametrize("seed", range(24))
def test_tiny_networks(seed):
    """Never more than is true; every pair tried is the truth itself, ties and all."""
    model = tiny(seed, KINDS[seed % len(KINDS)])
    right = truth(model)
    for strategy in TINY:
        content, bound = certificate(model, strategy)
        verdict = judge({**content, "flops": 10**8}, model)
        assert bound.correct <= right
        assert verdict.code == 0 or "overflows" in verdict.line, verdict
        assert verdict.correct is None or verdict.correct <= right
        assert strategy != "brute_force" or verdict.correct == right
        assert judge(claiming({**content, "flops": 10**8}, correct=right + 1), model).code == 1


def test_any_advice_is_sound():
    model, rng = trained(), np.random.default_rng(0)
    right, found = judge(certificate(model, "brute_force")[0], model).correct, 0
    for strategy in STRATEGIES[:-1]:
        content, _ = certificate(model, strategy)
        content = claiming({**content, "flops": 10**9}, correct=0)
        for name, entry in content["advice"].items():
            x = np.frombuffer(base64.b64decode(entry["base64"]), entry["dtype"]).reshape(entry["shape"])
            noise = [rng.standard_normal(x.shape) * scale for scale in (1e-3, 1.0, 1e6, 1e200, 1e307)]
            others = [*noise, x * 0, x * 1.001, x[::-1], x + noise[0], np.full_like(x, 3e-310)]
            for other in [rng.integers(0, 7, x.shape)] if x.dtype.kind == "i" else others:
                verdict = judge(advised(content, name, other), model)
                assert verdict.correct is None or verdict.correct <= right, (strategy, name)
                assert verdict.code == 0 or "overflows" in verdict.line, verdict
                found += verdict.correct or 0
    assert found > 500                                                      # sound is not the same as empty


@pytest.mark.parametrize("name, spoil", [
    ("keys", lambda x: x + 7), ("keys", lambda x: x - 13), ("keys", lambda x: x * 2**61), ("keys", lambda x: x * 1.0), ("keys", lambda x: x[1:]),
    ("inner", lambda x: x * np.nan), ("outer", lambda x: np.where(x > 0, np.inf, x)), ("outer", lambda x: x.T), ("inner", lambda x: x[:, None]),
    ("place", lambda x: x.astype(int)), ("place", lambda x: x[:-1]), ("place", lambda x: x / 0)])
def test_malformed_advice_is_unreadable(name, spoil):
    content, _ = certificate(trained(), STRATEGIES[0])
    entry = content["advice"][name]
    x = np.frombuffer(base64.b64decode(entry["base64"]), entry["dtype"]).reshape(entry["shape"])
    with np.errstate(all="ignore"):
        verdict = judge(advised(content, name, spoil(x)), trained())
    assert verdict.code == 2 and name in verdict.line and "while checking" not in verdict.line


@pytest.mark.parametrize("changes, code", [
    ({"strategy": "cubic", "parameters": {}}, 1), ({"strategy": "exact", "parameters": {}}, 1), ({"strategy": "moments"}, 1),
    ({"strategy": "exact_activations"}, 2), ({"failure_probability": 2}, 2), ({"parameters": {"rank": 13, "nodes": 8}}, 2),
    *[({"parameters": {"rank": rank, "residual_rank": 20, "nodes": nodes}}, code)
      for rank, nodes, code in ((13, 8, 0), (1, 8, 1), (13, 0, 1), (13, 1025, 1), (12, 8, 2), (13, 1024, 0))]])
def test_other_claims(changes, code):
    content, _ = certificate(trained(), STRATEGIES[0])
    assert judge({**claiming(content, **changes), "flops": 10**8}, trained()).code == code


@pytest.mark.parametrize("name, tensor, code", [
    ("W_Q", torch.ones(4, 128, 32), 2), ("W_Q", torch.zeros(4, 128, 32), 0), ("W_K", torch.ones(2, 2), 2), ("b_Q", torch.ones(3), 2),
    ("b_K", torch.zeros(3), 0),
    ("b_out", torch.ones(128), 1), ("b_in", torch.ones(7), 2), ("mask", torch.ones(3, 3), 0), ("train_pairs", torch.ones(3, 2, dtype=torch.int64), 0),
    ("W_E", torch.ones(13, 128), 2), ("W_U", torch.ones(128, 12), 2), ("W_pos", torch.ones(2, 128), 2), ("W_V", torch.ones(128, 32), 2),
    ("W_in", torch.full((128, 30), torch.nan), 2)])
def test_weights_that_are_not_this_network(tmp_path, name, tensor, code):
    content, _ = certificate(trained(), STRATEGIES[0])
    save_file({**trained().tensors, name: tensor}, tmp_path / "m.safetensors")
    verdict = verify(json.dumps(content).encode(), tmp_path / "m.safetensors")
    assert verdict.code == code and (code != 2 or name in verdict.line or name in ("W_E", "W_U", "W_pos")), verdict.line


def test_a_network_without_neurons_is_told_apart():
    """Max-of-K with an MLP of zeros has all the names of this family, in other shapes."""
    model = small_model(0)
    more = {"W_in": torch.zeros(model.sizes["d_model"], 4), "W_out": torch.zeros(4, model.sizes["d_model"])}
    tensors = {name: x.numpy() for name, x in {**model.tensors, **more}.items()}
    assert verify_tensors(certificate(model, "cubic")[0], tensors, {}).code == 0


def test_a_modulus_that_is_not_prime(tmp_path):
    tensors = {name: torch.ones(shape) for name, shape in shapes(9, 4, 4, 2).items()}
    save_file(tensors, tmp_path / "m.safetensors")
    assert "prime" in verify(json.dumps(certificate(trained(), "brute_force")[0]).encode(), tmp_path / "m.safetensors").line


def test_shifts_and_turns_are_what_they_say():
    """The sums of both ways are those of the definition, within their radius, for any places and nodes."""
    pizza.work.restart(2**62)                                            # whatever ran before
    rng = np.random.default_rng(0)
    at, plain = pizza.Pairs(11), wheel.pairs(11)
    assert (at.a == plain.a.numpy()).all() and (at.b == plain.b.numpy()).all() and ((at.a + at.b) % 11 == at.answer).all()
    for nodes in (1, 2, 5, 9, 40):
        net = object.__new__(pizza.Network)
        H, G = rng.standard_normal((11, 9)) * rng.choice([0, 1e-9, 1, 1e9], (1, 9)), rng.standard_normal((9, 4))
        net.H, net.G = pizza.given(H), pizza.given(G)
        want = np.maximum(H[at.a] + H[at.b], 0) @ G
        for z in (pizza.by_turns(net, rng.standard_normal(9), nodes, at), pizza.one_by_one(net, at)):
            assert z.rad < 1e-2 and np.abs(z.mid - want).max() <= z.rad + 1e-15 * np.abs(want).max()


def test_command_line_without_torch(tmp_path):
    content, _ = certificate(trained(), STRATEGIES[0])
    (tmp_path / "c.json").write_text(json.dumps(content))
    save_file(dict(trained().tensors), tmp_path / "m.safetensors")
    program = ("import sys, runpy; sys.modules.update(torch=None, safetensors=None, jaxtyping=None); sys.argv[0] = 'verifier'; "
               "runpy.run_module('mechproof.verifier', run_name='__main__')")
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path / "c.json"), str(tmp_path / "m.safetensors")], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.startswith("proved") and not ran.stderr, ran


def attack(tmp_path, mutations: int, seed: int) -> dict[int, int]:
    """As the attack on certificates of Max-of-K."""
    models = [tiny(seed + k, kind) for k, kind in enumerate(KINDS)]
    return spoiled(tmp_path, mutations, seed, [(model, truth(model), TINY) for model in models])


@pytest.mark.slow
def test_spoiled_certificates(tmp_path):
    seen = attack(tmp_path, 1500, seed=0)
    assert min(seen.values()) > 20, seen


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(2, 12, 2))
def test_more_spoiled_certificates(tmp_path, seed):
    attack(tmp_path, 3000, seed)
