"""The independent checker: it accepts what is honest, refuses what is not, and never breaks."""

from __future__ import annotations

import ast
import base64
import copy
import itertools
import json
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, right_sequences, small_model
from flint import arb, ctx
from safetensors.torch import save_file

import mechproof as mp
from mechproof import zoo
from mechproof.verifier import levels, numbers, separable, verify, verify_tensors
from mechproof.verifier.numbers import Mat, Real
from mechproof.zoo.certificate import certificate

SHIPPED = ("exact", "brute_force", "cubic", "separable", "separable-grouped", "separable-small", "compact-gram", "compact-spectral",
           "compact-frobenius", "monte_carlo")
SMALL = ("exact", "brute_force", "cubic", "monte_carlo:groups=2,buckets=2", "separable:groups=3,buckets=3",
         "separable:groups=1,buckets=2,query=grouped", "separable:qk=gram,qk_rank=1,eu=spectral,ov=frobenius,ov_rank=1",
         "separable:query=grouped,qk=frobenius,qk_rank=2,eu=gram,eu_rank=1,ov=spectral,ov_rank=1")


def judge(content: dict, model):
    """The verdict on a certificate that has been through JSON."""
    tensors = {name: x.numpy() for name, x in model.tensors.items()}
    return verify_tensors(json.loads(json.dumps(content)), tensors, {key: str(x) for key, x in model.metadata.items()})


def claiming(content: dict, **changes) -> dict:
    content = copy.deepcopy(content)
    content["claim"] |= changes
    return content


def stripped_model(seed: int):
    g = torch.Generator().manual_seed(seed)
    v, n_ctx = 2 + seed % 4, 2 + seed % 3
    OV = torch.cat([torch.eye(v), torch.randn(v, 1, generator=g)], 1)
    tensors = {"QK_left": torch.ones(v, 1), "QK_right": torch.arange(v)[:, None] + torch.randn(v, 1, generator=g),
               "EU": torch.randn(v, generator=g) / 2, "OV_left": OV * 3, "OV_right": torch.cat([torch.eye(v), torch.randn(1, v, generator=g)])}
    return zoo.model_from_tensors(f"stripped-{seed}", tensors, {"n_ctx": str(n_ctx)})


@pytest.mark.parametrize("strategy", SHIPPED)
def test_accepts_a_shipped_model(strategy):
    model = mp.load("max-of-4/0")
    content, bound = certificate(model, strategy)
    verdict = judge(content, model)
    assert verdict.code == 0 and "\n" not in verdict.line
    assert 0 <= verdict.correct - bound.correct <= bound.total >> 18              # the same proof, but for rounding
    assert verdict.flops <= bound.flops / 0.9
    assert strategy == "brute_force" or verdict.flops >= 0.7 * bound.flops
    dearer = {**content, "flops": verdict.flops * 2}
    cheaper = {**content, "flops": int(verdict.flops * 0.89)}
    assert judge(dearer, model).code == 0
    assert judge(cheaper, model).code == 1 and "flops" in judge(cheaper, model).line


@pytest.mark.parametrize("strategy", SHIPPED)
def test_refuses_one_more_than_it_derives(strategy):
    model = mp.load("max-of-4/0")
    content, _ = certificate(model, strategy)
    derived = judge(content, model).correct
    assert judge(claiming(content, correct=derived), model).code == 0
    assert judge(claiming(content, correct=derived + 1), model).code == 1
    assert judge(claiming(content, correct=0), model).code == 0


@pytest.mark.parametrize("name", ["max-of-10/0", "max-of-20/0"])
def test_long_sequences(name):
    model = mp.load(name)
    content, bound = certificate(model, "separable-grouped")
    verdict = judge(content, model)
    assert verdict.code == 0 and bound.correct <= verdict.correct < bound.total
    assert judge(claiming(content, correct=verdict.correct + 1), model).code == 1


@pytest.mark.parametrize("strategy", ["separable", "separable:groups=1", "separable:groups=1,query=grouped,buckets=5", "compact-gram"])
def test_walks_lose_little_and_gain_nothing(monkeypatch, strategy):
    """The same combinations counted by levels and listed one by one."""
    model = mp.load("max-of-4/0")
    content, _ = certificate(model, strategy)
    content["flops"] *= 100
    listed = judge(content, model).correct
    monkeypatch.setattr(separable, "LISTED", 0)
    counted = judge(claiming(content, correct=0), model).correct
    assert listed - content["claim"]["total"] // 100 < counted <= listed


def test_walks_are_those_that_end_at_zero_or_above():
    rng = random.Random(0)
    for _ in range(200):
        own, need, size = rng.randint(-6, 6), rng.random() < 0.5, [1, rng.randint(0, 3), rng.randint(1, 4)]
        f = [[rng.randint(-5, 5) for _ in size] for _ in range(3)]
        sums = [(choice, own + sum(f[p][c] for p, c in enumerate(choice))) for choice in itertools.product(range(3), repeat=3)]
        good = sum(size[a] * size[b] * size[c] for (a, b, c), total in sums if total >= 0 and (not need or 0 in (a, b, c)))
        assert levels.walks(own, f, size, need, 40) == good
    high = levels.REACH + 5
    assert levels.walks(high, [[high, high], [-high, -high]], [1, 3], False, 40) == 0 < levels.walks(0, [[high, high]], [1, 3], False, 40)


def test_walks_of_small_models(monkeypatch):
    monkeypatch.setattr(separable, "LISTED", 0)
    certain = 0
    for seed in range(33):
        model = small_model(seed, KINDS[seed % len(KINDS)])
        content, _ = certificate(model, "separable")
        derived = judge({**claiming(content, correct=0), "flops": 10**9}, model).correct
        assert derived <= len(right_sequences(model))
        certain += derived
    assert certain > 1000


@pytest.mark.parametrize("seed", range(33))
def test_small_models(seed):
    model = small_model(seed, KINDS[seed % len(KINDS)])
    truth = len(right_sequences(model))
    for strategy in SMALL:
        if "rank=2" in strategy and min(model.sizes["d_model"], model.sizes["d_head"]) < 2:
            continue
        if "buckets=3" in strategy and model.sizes["d_vocab"] < 3:
            continue
        content, _ = certificate(model, strategy)
        verdict = judge(content, model)
        assert verdict.code == 0, (strategy, verdict)
        assert verdict.correct <= truth, strategy
        assert judge(claiming(content, correct=truth + 1), model).code == 1
        if strategy == "exact":
            assert verdict.correct == truth


@pytest.mark.parametrize("seed", range(8))
def test_stripped_models(seed):
    model = stripped_model(seed)
    truth, total = len(right_sequences(model)), model.sizes["d_vocab"] ** model.sizes["n_ctx"]
    parameters = {"groups": 4, "buckets": 2, "query": "each"}
    for strategy, settings in {"exact": {}, "brute_force": {}, "separable": parameters}.items():
        claim = {"correct": 0, "total": total, "strategy": strategy, "parameters": settings, "failure_probability": 0}
        content = {"format": "mechproof-certificate/1", "claim": claim, "model_sha256": model.sha256, "advice": {}, "flops": 10**9}
        derived = judge(content, model).correct
        assert derived == truth if strategy != "separable" else derived <= truth
        assert judge(claiming(content, correct=derived), model).code == 0
        assert judge(claiming(content, correct=derived + 1), model).code == 1
        assert judge(claiming(content, strategy="cubic", parameters={}), model).code == 1


def test_refusals_name_what_fails():
    model, other = mp.load("max-of-4/0"), mp.load("max-of-4/1")
    content, bound = certificate(model, "monte_carlo")
    assert "model_sha256" in judge(content, other).line and judge(content, other).code == 1
    for word, changes in {"total": {"total": bound.total + 1}, "failure_probability": {"failure_probability": 0.0},
                          "correct": {"correct": bound.total + 1}, "strategy": {"strategy": "guess"}}.items():
        verdict = judge(claiming(content, **changes), model)
        assert verdict.code == 1 and word in verdict.line
    assert judge(claiming(content, failure_probability=1e-9), model).code == 0
    swapped = {**content, "advice": {**content["advice"], "votes": content["advice"]["direct"]}}
    assert judge(swapped, model).code == 1 and "votes" in judge(swapped, model).line


def test_one_wrong_entry_of_a_table_is_noticed():
    model = mp.load("max-of-4/0")
    content, _ = certificate(model, "monte_carlo")
    entry = content["advice"]["scores"]
    words = np.frombuffer(base64.b64decode(entry["base64"]), "<i8").copy()
    words[1234] += 1
    entry["base64"] = base64.b64encode(words.tobytes()).decode()
    assert judge(content, model).code == 1


@pytest.mark.parametrize("strategy", ["compact-gram", "compact-spectral", "compact-frobenius"])
def test_random_directions_are_sound(strategy):
    rng = np.random.default_rng(0)
    model = mp.load("max-of-4/0")
    content, bound = certificate(model, strategy)
    for scale in (1e-3, 1.0, 1e6, 1e200):
        for entry in content["advice"].values():
            entry["base64"] = base64.b64encode((rng.standard_normal(entry["shape"]) * scale).astype("<f8").tobytes()).decode()
        content["flops"] = 10**9
        verdict = judge(claiming(content, correct=16770296), model)              # one more than are right
        assert verdict.code == 1 and (verdict.correct is None or verdict.correct < bound.correct)


def test_nothing_but_numpy_and_flint():
    for file in Path(numbers.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else \
                [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert all(name.split(".")[0] in {"numpy", "flint", *sys.stdlib_module_names} for name in names), file
            assert not isinstance(node, ast.ImportFrom) or node.level < 2, file


def test_command_line_without_torch(tmp_path):
    model = mp.load("max-of-4/0")
    content, _ = certificate(model, "separable-grouped")
    (tmp_path / "c.json").write_text(json.dumps(content))
    (tmp_path / "bad.json").write_text(json.dumps(claiming(content, correct=content["claim"]["total"])))
    save_file(dict(model.tensors), tmp_path / "m.safetensors")
    program = ("import sys, runpy; sys.modules.update(torch=None, safetensors=None, jaxtyping=None); sys.argv[0] = 'verifier'; "
               "runpy.run_module('mechproof.verifier', run_name='__main__')")
    for file, code, word in (("c.json", 0, "proved"), ("bad.json", 1, "refused"), ("m.safetensors", 2, "unreadable"), ("none", 2, "unreadable")):
        ran = subprocess.run([sys.executable, "-c", program, str(tmp_path / file), str(tmp_path / "m.safetensors")], capture_output=True, text=True)
        assert ran.returncode == code and ran.stdout.startswith(word) and ran.stdout.count("\n") == 1 and not ran.stderr, ran


@pytest.mark.parametrize("name, poison, code", [("W_E", float("nan"), 2), ("W_U", float("inf"), 2), ("b_Q", 1.0, 2), ("b_Q", 0.0, 0),
                                                ("mask", 7.0, 2), ("IGNORE", 7.0, 0)])
def test_weights_that_are_not_this_network(tmp_path, name, poison, code):
    model = small_model(0)
    content, _ = certificate(model, "cubic")
    tensors = {key: x.clone() for key, x in model.tensors.items()}
    tensors.setdefault(name, torch.zeros(2, 2))[0, 0] = poison
    save_file(tensors, tmp_path / "m.safetensors")
    assert verify(json.dumps(content).encode(), tmp_path / "m.safetensors").code == code


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files(tmp_path, dtype):
    half = {name: x.to(dtype) for name, x in small_model(0).tensors.items()}
    save_file(half, tmp_path / "m.safetensors")
    content, _ = certificate(mp.load(tmp_path / "m.safetensors", normalization_type="none", n_heads=1), "exact")
    assert verify(json.dumps(content).encode(), tmp_path / "m.safetensors").code == 0


def test_float64_numbers_hold_what_they_say():
    rng = np.random.default_rng(0)
    for scale in (1e-200, 1.0, 1e9):
        x, y = (rng.standard_normal((5, 7)) * scale for _ in range(2))
        p, q = Real(x), Real(y)
        a, b = (np.vectorize(Fraction, otypes=[object])(z) for z in (x, y))
        for got, want in ((p + q, a + b), (p - q, a - b), (p * q, a * b), ((p + q) * (p - q) * q, (a + b) * (a - b) * b),
                          (p * q + p - q, a * b + a - b)):
            assert all(abs(Fraction(g) - w) <= Fraction(got.rad) for g, w in zip(got.mid.flat, want.flat))
        total = Real(x).sum(1)
        assert all(abs(Fraction(got) - sum(row)) <= Fraction(total.rad) for got, row in zip(total.mid, a))
        assert total.rad < 1e-12 * scale + 1e-300
    with ctx.workprec(128):
        table = (Mat.of(x) @ Mat.of(y).T).real()
        assert all(abs(Fraction(got) - want) <= Fraction(table.rad) for got, want in zip(table.mid.flat, (a @ b.T).flat))


def test_exp_is_as_good_as_assumed():
    x = np.concatenate([np.linspace(-300, 30, 20001), np.random.default_rng(0).uniform(-40, 1, 20000), np.linspace(-1e-3, 1e-3, 1001)])
    with ctx.workprec(100):
        off = max(abs(float(arb(float(y)) / arb(float(t)).exp() - 1)) for t, y in zip(x, np.exp(x)))
    assert off < 4 * numbers.U                                                   # 16 U are allowed


class Mutator:
    """Seeded ways to spoil a certificate or a model file."""

    def __init__(self, seed: int):
        self.rng = random.Random(seed)

    def number(self):
        return self.rng.choice([0, 1, -1, 2**63, 10**30, 10**400, 0.5, float("nan"), float("inf"), True, None, "7", [], {}, "each", "gram", "exact"])

    def places(self, node, found=None) -> list:
        """Every (object, key) of a JSON tree."""
        found = [] if found is None else found
        for key in (node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()):
            found.append((node, key))
            self.places(node[key], found)
        return found

    def structure(self, content: dict) -> bytes:
        content = copy.deepcopy(content)
        for _ in range(self.rng.choice([1, 1, 2])):
            node, key = self.rng.choice(self.places(content))
            kind = self.rng.randrange(6)
            if kind == 0:
                del node[key]
            elif kind == 1 and type(node[key]) in (int, float) and abs(node[key]) < 2**70:
                node[key] += self.rng.choice([-1, 1, 2, 1000, -0.5])
            elif kind == 2 and isinstance(node, dict):
                node[self.rng.choice(["x", "correct", "flops", "W_E", "shape"])] = node[key]
            elif kind == 3:
                node[key] = copy.deepcopy(self.rng.choice(self.places(content)[:40])[0])
            else:
                node[key] = self.number()
        return json.dumps(content).encode()

    def claim(self, content: dict, truth: int) -> bytes:
        """The most tempting lie: more than is true, at any cost, or with other parameters or advice."""
        more = self.rng.randint(truth + 1, content["claim"]["total"] + 1)
        content = claiming(content, correct=more, failure_probability=self.rng.choice([0.0, 1e-12, 1]))
        content["flops"] = self.rng.choice([content["flops"], 10**7, 10**12])
        for name in content["claim"]["parameters"]:
            if self.rng.random() < 0.3:
                content["claim"]["parameters"][name] = self.rng.choice([0, 1, 2, 3, 5, 64, "each", "grouped", "exact"])
        if self.rng.random() < 0.3:
            content["claim"] |= self.rng.choice([{"strategy": s, "parameters": {}} for s in ("exact", "brute_force", "cubic")])
            content["advice"] = {}
        for entry in content["advice"].values():
            if self.rng.random() < 0.5:
                entry["base64"] = self.rng.choice(list(content["advice"].values()))["base64"]
        return json.dumps(content).encode()

    def bytes(self, data: bytes) -> bytes:
        data, kind = bytearray(data), self.rng.randrange(4)
        at = self.rng.randrange(len(data))
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at : at + self.rng.randint(1, 9)]
        else:
            for _ in range(self.rng.choice([1, 1, 5])):
                at = self.rng.randrange(len(data))
                data[at] = self.rng.choice([data[at] ^ 1 << self.rng.randrange(8), self.rng.randrange(256), ord("9")])
        return bytes(data)


def attack(tmp_path, mutations: int, seed: int) -> dict[int, int]:
    """Spoil certificates of small models, one of each kind."""
    strategies = [s for s in SMALL if "rank=2" not in s and "buckets=3" not in s]
    models = [small_model(seed + k, kind) for k, kind in enumerate(dict.fromkeys(KINDS))]
    return spoiled(tmp_path, mutations, seed, [(model, len(right_sequences(model)), strategies) for model in models])


def spoiled(tmp_path, mutations: int, seed: int, models: list[tuple[Model, int, list[str]]]) -> dict[int, int]:
    """How often each verdict came on spoiled certificates of (model, its true count, strategies).

    No false claim may pass, nothing may raise.
    """
    mutator, seen, cases = Mutator(seed), {0: 0, 1: 0, 2: 0}, []
    for k, (model, truth, strategies) in enumerate(models):
        path = tmp_path / f"{k}.safetensors"
        save_file(dict(model.tensors), path)
        cases.append((path, truth, [certificate(model, s)[0] for s in strategies]))
    bad = tmp_path / "spoiled.safetensors"
    for _ in range(mutations):
        path, truth, contents = mutator.rng.choice(cases)
        content = mutator.rng.choice(contents)
        data, kind = json.dumps(content).encode(), mutator.rng.randrange(8)
        if kind == 0:
            bad.write_bytes(mutator.bytes(path.read_bytes()))
            path = bad
        data = data if kind == 0 else mutator.structure(content) if kind < 4 else mutator.claim(content, truth) if kind < 6 else mutator.bytes(data)
        verdict = verify(data, path)
        seen[verdict.code] += 1
        assert "while checking" not in verdict.line and "\n" not in verdict.line, (verdict, data)       # an exception that nobody foresaw
        assert verdict.code or json.loads(data)["claim"]["correct"] <= truth, (verdict, data)
    return seen


@pytest.mark.slow
def test_spoiled_certificates(tmp_path):
    seen = attack(tmp_path, 2000, seed=0)
    assert min(seen.values()) > 20, seen                                        # the attack reaches every verdict


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1, 6))
def test_more_spoiled_certificates(tmp_path, seed):
    attack(tmp_path, 2000, seed)
