"""Any small transformer, tried: what float64 says within its radius, what balls say, and a count that can be stopped."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import pytest
import torch
from flint import arb, ctx
from safetensors.torch import save_file

import mechproof as mp
from mechproof import zoo
from mechproof.proof.rounding import U
from mechproof.proof.state import own_state
from mechproof.transformer import forward, trying
from mechproof.transformer.truth import Truth, gelu

KINDS = ("plain", "plain", "large", "small", "ties", "steep", "zeros")


def small_network(seed: int) -> mp.Model:
    """A random network of up to three layers, v <= 4 and up to three tokens, with settings of every kind; nasty in one of seven ways."""
    g = torch.Generator().manual_seed(seed)
    pick = lambda *options: options[int(torch.randint(len(options), (), generator=g))]
    kind, layers, v, n = KINDS[seed % len(KINDS)], pick(0, 1, 1, 2, 2, 3), pick(2, 3, 4), pick(1, 2, 2, 3)
    d, h, k, m = pick(2, 4, 5), pick(1, 2, 3), pick(1, 2, 3), pick(0, 3, 6)
    noise = lambda *shape: torch.randn(shape, generator=g) * {"large": 1e12, "small": 1e-12, "steep": 30.0, "zeros": 0.0}.get(kind, 1.0)
    closing, norm = pick(0, 0, 1), pick("none", "none", "LN", "LNPre", "RMS", "RMSPre")
    w = {"embed.W_E": noise(v + closing, d), "unembed.W_U": noise(d, v)} | ({"pos_embed.W_pos": noise(n + closing, d)} if pick(0, 1, 1) else {})
    for i in range(layers):
        at, learned = f"blocks.{i}.attn", pick(0, 1, 1)
        shapes = {"W_V": (h, d, k), "W_O": (h, k, d), "b_V": (h, k), "b_O": (d,)} | (
            {"W_Q": (h, d, k), "W_K": (h, d, k), "b_Q": (h, k), "b_K": (h, k)} if learned else {})
        w |= {f"{at}.{part}": noise(*shape) for part, shape in shapes.items() if part[0] == "W" or pick(0, 1)}
        if m:
            w |= {f"blocks.{i}.mlp.W_in": noise(d, m), f"blocks.{i}.mlp.W_out": noise(m, d), f"blocks.{i}.mlp.b_in": noise(m)}
    for place in ([f"blocks.{i}.ln{j}" for i in range(layers) for j in (1, 2)[: 1 + bool(m)]] + ["ln_final"]) if norm in ("LN", "RMS") else []:
        w |= {f"{place}.w": 1 + 0.1 * noise(d).clamp(-9, 9), f"{place}.b": noise(d).clamp(-9, 9)}
    if kind == "ties":                                     # all coordinates alike, and two outputs that add them up in two ways
        writing = ("W_E", "W_pos", "W_O", "W_out", "b_O", ".b")
        w = {key: x[..., :1].expand(x.shape).contiguous() if key.endswith(writing) else x for key, x in w.items()}
        w["unembed.W_U"][:, 0], w["unembed.W_U"][:, 1] = torch.tensor([float(d)] + [0.0] * (d - 1)), 1.0
    every = all(f"blocks.{i}.attn.W_Q" in w for i in range(layers)) and layers
    said = {"normalization_type": norm, "task": pick("max", "min", "sum"), "act_fn": pick("relu", "gelu", "gelu_new"), "eps": pick("1e-5", "1e-8"),
            "attention_dir": pick("causal", "bidirectional"), "attention": pick("learned", "mean", "ones") if every else pick("mean", "ones"),
            "inputs": " ".join(["?"] * n + [str(v)] * closing)} | pick({}, {"attn_scale": "0.5"})
    return mp.Model(f"{kind}-{seed}", zoo.weights.families()["transformer"], w, said)


def inputs(model: mp.Model) -> list[tuple[int, ...]]:
    return list(itertools.product(range(model.sizes["d_input"]), repeat=model.sizes["n_free"]))


def radius_holds(model: mp.Model) -> int:
    """The number of inputs whose real logits are as near to the computed ones as is said; asserts that all are."""
    truth, free = Truth(model), torch.tensor(inputs(model))
    with own_state():
        network = forward.Network(model)
        found = network.logits(trying.whole_inputs(network.settings, free))
    off = arb(float(found.off)) if bool(found.off.isfinite()) else None
    for tokens, row in zip(free.tolist(), found.mid.tolist()):
        if off is not None:
            with ctx.workprec(400):
                apart = sum((abs(x - arb(y)) ** 2 for x, y in zip(truth.logits(truth.tokens(tokens)), row)), arb(0)).sqrt()
                assert not apart > off, f"{model.name}: {apart} > {off}"
    return len(free)


def run_cases(seeds: range) -> int:
    """Radius and count of networks of every kind against balls; returns how many inputs were decided."""
    ran = 0
    for seed in seeds:
        model = small_network(seed)
        ran += radius_holds(model)
        truth = Truth(model)
        right = {tokens for tokens in inputs(model) if truth.right(tokens)}
        bound = mp.prove(model, "brute_force")
        assert bound.correct == len(right) and bound.total == len(inputs(model)), model.name
        if seed % 10 == 0:
            assert {tokens for tokens in inputs(model) if bound.covers(list(tokens))} == right
    return ran


@pytest.mark.slow
def test_ten_thousand_inputs_of_networks_of_every_kind():
    assert run_cases(range(700)) > 10_000


@pytest.mark.exhaustive
@pytest.mark.parametrize("first", range(1000, 8000, 700))
def test_a_hundred_thousand_inputs(first):
    assert run_cases(range(first, first + 700)) > 10_000


def test_a_few_of_every_kind():
    assert run_cases(range(70)) > 500


def test_most_inputs_need_no_balls():
    """A radius that swallowed the margins would make every count right and none of them quick."""
    doubtful = total = 0
    for seed in range(140):
        model = small_network(seed)
        if model.name.startswith("plain"):
            with own_state():
                count = trying.tried(model, 0, len(inputs(model)))
            doubtful, total = doubtful + count.doubtful, total + len(inputs(model))
    assert total > 400 and doubtful <= 0.05 * total


PLANTED = {
    "no radius": (forward, "lead", lambda logits, answer: (real_lead(logits, answer)[0], torch.zeros((), dtype=torch.float64))),
    "what comes later is seen": (forward.Network, "hidden", lambda self, n, q: None),
    "no norm before the unembedding": (forward.Network, "norm", lambda self, x, name: x if name == "ln_final" else real_norm(self, x, name)),
    "the mean left in": (forward, "normalized", lambda x, eps, centred: real_normalized(x, eps, False)),
}
real_lead, real_norm, real_normalized = forward.lead, forward.Network.norm, forward.normalized


@pytest.mark.parametrize("fault", PLANTED)
def test_planted_faults_are_found(fault, monkeypatch):
    owner, name, wrong = PLANTED[fault]
    monkeypatch.setattr(owner, name, wrong)
    monkeypatch.setattr(trying, "lead", forward.lead)
    with pytest.raises(AssertionError):
        for seed in range(300):
            model = small_network(seed)
            truth = Truth(model)
            assert mp.prove(model, "brute_force").correct == sum(truth.right(tokens) for tokens in inputs(model))


@pytest.mark.parametrize("by_tanh", [False, True])
def test_gelu_has_slope_below_1_13(by_tanh):
    """In balls, on intervals that cover -40 .. 40; beyond, it is 0 or x to within 10^-100."""
    with ctx.workprec(100):
        step = arb(1) / 512
        for i in range(-20_480, 20_480, 8):
            left = i * step / 1
            rise = max(abs(gelu(left + j * step, by_tanh) - gelu(left + (j - 1) * step, by_tanh)) / step for j in range(1, 9))
            assert rise < arb("1.1295")
        # the slope itself is at most 1.13: it moves by less than |second derivative| <= 2 over half a step
        assert arb("1.1295") + 2 * step / 8 < arb("1.13")


@pytest.mark.parametrize("name", ["erf", "tanh"])
def test_erf_and_tanh_are_as_accurate_as_relied_on(name):
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(4000, generator=g, dtype=torch.float64) * s for s in (1e-9, 1e-3, 0.3, 1.0, 3.0, 10.0)])
    computed = getattr(torch, name)(x)
    with ctx.workprec(200):
        for a, b in zip(x.tolist(), computed.tolist()):
            exact = getattr(arb(a), name)()
            assert abs(arb(b) - exact) <= 4 * arb(U) * abs(exact)


def test_ties_are_wrong():
    tied = [small_network(seed) for seed in range(4, 200, 7)]
    assert all(model.name.startswith("ties") for model in tied)
    with own_state():
        counts = [trying.tried(model, 0, len(inputs(model))) for model in tied]
    assert sum(count.doubtful for count in counts) > 20


def long_network() -> mp.Model:
    """One whose spans are several, once they are made small."""
    return next(model for seed in range(500) if (model := small_network(seed)).name.startswith("plain") and len(inputs(model)) == 64)


@pytest.fixture
def by_spans(monkeypatch, tmp_path):
    """Every count by processes, four inputs a span, with a journal here."""
    monkeypatch.setattr(trying, "LONG", 0)
    monkeypatch.setattr(trying, "SPAN", 4)
    monkeypatch.setenv("MECHPROOF_CACHE", str(tmp_path))
    return tmp_path


def test_processes_find_what_one_finds(by_spans, monkeypatch):
    model = long_network()
    shared = mp.prove(model, "brute_force")
    monkeypatch.setattr(trying, "LONG", 10**18)
    alone = mp.prove(model, "brute_force")
    assert (shared.correct, shared.total, shared.flops) == (alone.correct, alone.total, alone.flops)
    assert list(by_spans.iterdir()) == []                                # the journal is gone


def test_a_count_that_was_stopped_goes_on(by_spans, monkeypatch):
    model, asked = long_network(), []
    real = trying.by_processes

    def dying(model, wanted):
        asked.append(len(wanted))
        for i, found in enumerate(real(model, wanted)):
            if len(asked) == 1 and i == 5:
                raise KeyboardInterrupt
            yield found

    expected = mp.prove(model, "brute_force").correct
    monkeypatch.setattr(trying, "by_processes", dying)
    with pytest.raises(KeyboardInterrupt):
        mp.prove(model, "brute_force")
    (journal,) = by_spans.iterdir()
    assert len(journal.read_text().splitlines()) == 5
    with journal.open("a") as file:
        file.write('[0, 4, 1')                                           # what a killed process leaves
    assert mp.prove(model, "brute_force").correct == expected and asked == [16, 11]
    assert list(by_spans.iterdir()) == []


def test_where_no_journal_can_be_written_there_is_none(by_spans, monkeypatch):
    model = long_network()
    expected = mp.prove(model, "brute_force").correct
    (by_spans / "file").touch()
    monkeypatch.setenv("MECHPROOF_CACHE", str(by_spans / "file" / "folder"))
    assert mp.prove(model, "brute_force").correct == expected


def test_a_journal_of_another_network_is_not_read(by_spans):
    one = long_network()
    changed = {name: x + 0.25 if name == "unembed.W_U" else x for name, x in one.tensors.items()}
    other = mp.Model("other", one.family, changed, one.metadata)
    trying.journal_of(one).write_text("".join(json.dumps([i, i + 4, 4, 0, 1]) + "\n" for i in range(0, 64, 4)))
    assert mp.prove(other, "brute_force").correct == sum(Truth(other).right(t) for t in inputs(other))
    assert trying.journal_of(one).exists() and trying.journal_of(one) != trying.journal_of(other)


def test_lines_that_are_no_counts_are_left_out(by_spans):
    path = by_spans / "j.jsonl"
    path.write_text('[0, 4, 3, 0, 9]\n[4, 8, -1, 0, 9]\n[4, 9, 1, 0, 9]\nnonsense\n[8, 12, 1.5, 0, 9]\n{"a": 1}\n[12, 16, true, 0, 9]\n7\n[4, 8]\n')
    assert trying.kept(path, 64) == {(0, 4): trying.Count(3, 0, 9)}


def test_more_inputs_than_are_tried():
    w = {"embed.W_E": torch.eye(300, 4), "unembed.W_U": torch.eye(4, 300), "pos_embed.W_pos": torch.zeros(3, 4)}
    model = mp.load(w, normalization_type="none", task="max")
    with pytest.raises(mp.InputError, match="^model 'dict' has 27000000 inputs, more than are tried one by one .16777216.; say which are meant"):
        mp.prove(model, "brute_force")


def test_settings_make_another_network():
    """What changes an answer changes the hash, and what changes none does not."""
    model = next(small_network(seed) for seed in range(100) if "blocks.1.mlp.W_in" in small_network(seed).tensors
                 and small_network(seed).metadata["normalization_type"] == "LN")
    again = lambda **said: mp.Model("again", model.family, model.tensors, model.metadata | said).sha256
    assert again(collection="x") == model.sha256 == again(normalization_type="ln")
    for key, values in {"task": ("max", "min", "sum"), "act_fn": ("relu", "gelu", "gelu_new"), "attention_dir": ("causal", "bidirectional"),
                        "eps": ("1e-5", "1e-6"), "normalization_type": ("LN", "RMS")}.items():
        assert len({again(**{key: value}) for value in values}) == len(values), key


def test_a_worker_says_one_line_a_span(tmp_path):
    model = long_network()
    save_file(dict(model.tensors), tmp_path / "m.safetensors", {key: str(value) for key, value in model.metadata.items()})
    done = subprocess.run([sys.executable, "-m", "mechproof.transformer.worker", tmp_path / "m.safetensors"], input="0 8 8 64",
                          capture_output=True, text=True, check=True, env=os.environ)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line[:2] for line in lines] == [[0, 8], [8, 64]] and sum(line[2] for line in lines) == mp.prove(model, "brute_force").correct
