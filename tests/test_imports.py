"""Other people's files: every layout loads as the network that it is, or is refused in one line."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest
import torch
from conftest import right_sequences, small_model
from safetensors.torch import load_file, save_file
from torch import nn

import mechproof as mp
from mechproof import verifier, zoo
from mechproof.__main__ import main
from mechproof.max_of_k.model import last_logits
from mechproof.pizza.model import logits as pizza_logits
from mechproof.proof.state import own_state
from mechproof.transformer import settings
from mechproof.transformer.forward import Network
from mechproof.transformer.trying import free_tokens, whole_inputs
from mechproof.zoo import imports
from mechproof.zoo.certificate import certify

FILES = Path(__file__).parent / "files"
LOGITS = load_file(FILES / "logits-2.safetensors") | load_file(FILES / "logits-4.safetensors")
PLAIN = {"normalization_type": "none", "n_heads": 1}
KIND = dict.fromkeys(LOGITS, "transformer") | dict.fromkeys(("plain", "biases", "bridge"), "max_of_k")
KIND |= dict.fromkeys(("bridge-heads", "narrow", "two-heads"), "max_of_k_heads")
KIND |= dict.fromkeys(("closing", "ln", "ln-pre", "no-scale", "rms", "rms-pre"), "one_layer")
# what no configuration says
SAID = {name: {"task": "max"} | ({"inputs": "? ? ? 10"} if name == "closing" else {}) for name in LOGITS}


def checkpoint(name: str) -> dict:
    return {"state_dict": load_file(FILES / f"{name}.safetensors"), "config": json.loads((FILES / f"{name}.json").read_text())}


def logits_of(model: mp.Model) -> torch.Tensor:
    """Logits of every input, in order, in float64."""
    if model.family.name in ("max_of_k", "max_of_k_heads"):
        w, (n, v) = {name: x.double() for name, x in model.tensors.items()}, (model.sizes["n_ctx"], model.sizes["d_vocab"])
        return last_logits(w, torch.cartesian_prod(*[torch.arange(v)] * n))
    with own_state():
        network = Network(model)
        free = free_tokens(network.settings, 0, network.settings.total)
        return network.logits(whole_inputs(network.settings, free)).mid


def right(logits: torch.Tensor, answers: torch.Tensor) -> int:
    """Inputs whose right logit is strictly the largest."""
    at = logits.gather(1, answers[:, None])
    return int((at > logits.scatter(1, answers[:, None], -torch.inf).amax(1, keepdim=True)).sum())


@pytest.mark.parametrize("name", sorted(LOGITS))
def test_a_file_of_transformerlens_is_the_network_that_it_was(name):
    """Logits as TransformerLens computed them on all 1 000 inputs, and the count of right ones."""
    model = mp.load(checkpoint(name), **SAID[name])
    assert torch.allclose(logits_of(model), LOGITS[name].double(), rtol=1e-5, atol=1e-5)
    assert model.family.name == KIND[name]
    assert name != "plain" or "b_Q" not in model.tensors
    answers = torch.cartesian_prod(*[torch.arange(10)] * 3).amax(1)
    for strategy in {"brute_force", "exact"} & {s.id for s in mp.strategies(model)}:
        assert mp.prove(model, strategy).correct == right(LOGITS[name].double(), answers)


@pytest.mark.parametrize("name", ["biases", "two-heads", "mlp-gelu", "two-layers"])
def test_the_layout_of_the_grokking_notebooks(name):
    """W x: embeddings in columns, heads (h, d_head, d), W_O (d, h d_head); W_U and W_pos as they are."""
    given = checkpoint(name)
    turned = {}
    for key, x in given["state_dict"].items():
        part = key.rpartition(".")[2]
        if part in ("W_E", "W_in", "W_out"):
            x = x.T
        elif part in ("W_Q", "W_K", "W_V"):
            x = x.mT
        elif part == "W_O":
            x = x.flatten(0, 1).T
        turned[key] = x.contiguous()
    model = mp.load({"model": turned, "cfg": given["config"]}, task="max")
    assert "turned from the layout Wx" in model.metadata["read_as"] and model.sha256 == mp.load(given, task="max").sha256


class Stack(nn.Module):
    """Two layers of PyTorch's own attention."""

    def __init__(self, bias: bool):
        super().__init__()
        self.embed, self.pos_embed = nn.Embedding(6, 8), nn.Embedding(3, 8)
        self.attns = nn.ModuleList(nn.MultiheadAttention(8, 2, bias=bias, batch_first=True) for _ in range(2))
        self.unembed = nn.Linear(8, 6, bias=bias)

    def forward(self, tokens):
        x = self.embed(tokens) + self.pos_embed.weight
        for attn in self.attns:
            x = x + attn(x, x, x, need_weights=False)[0]
        return self.unembed(x[:, -1])


@pytest.mark.parametrize("bias", [True, False])
def test_pytorchs_own_layers(bias):
    torch.manual_seed(0)
    module = Stack(bias)
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) / 2
    model = mp.load(module, n_heads=2, normalization_type="none", attention_dir="bidirectional", task="max")
    assert "layout linear" in model.metadata["read_as"]
    with torch.no_grad():
        expected = module.double()(torch.cartesian_prod(*[torch.arange(6)] * 3))
    assert torch.allclose(logits_of(model), expected, atol=1e-9)


def test_files_of_torch(tmp_path):
    """Plain tensors, nested, saved from a device; read by weights_only and nothing else."""
    given, shipped = checkpoint("biases"), mp.load(checkpoint("biases"))
    torch.save(given["state_dict"], tmp_path / "plain.pth")
    torch.save({"model": given["state_dict"], "config": given["config"], "optimizer": {"lr": 1e-3}, "step": 7}, tmp_path / "nested.pt")
    torch.save({f"module.{key}": x.bfloat16() for key, x in given["state_dict"].items()}, tmp_path / "half.pt")
    assert mp.load(tmp_path / "plain.pth", normalization_type="none").sha256 == shipped.sha256
    assert mp.load(tmp_path / "nested.pt").sha256 == shipped.sha256
    rounded = mp.load(tmp_path / "half.pt", normalization_type="none")
    assert torch.equal(rounded["W_E"], given["state_dict"]["embed.W_E"].bfloat16().float())


def test_case_1_a_state_dict_of_the_very_architecture(tmp_path):
    """Heads axis, zero biases, buffers: what `cubic` certifies of it is what it certifies of the shipped model."""
    own, zero = mp.load("max-of-4/0"), torch.zeros
    named = {"embed.W_E": own["W_E"], "pos_embed.W_pos": own["W_pos"], "unembed.W_U": own["W_U"], "unembed.b_U": zero(64),
             "blocks.0.attn.mask": torch.ones(4, 4, dtype=torch.bool).tril(), "blocks.0.attn.IGNORE": torch.tensor(-torch.inf),
             "blocks.0.attn.b_O": zero(32)}
    for side in "QKVO":
        named[f"blocks.0.attn.W_{side}"] = own[f"W_{side}"][None]
        named |= {f"blocks.0.attn.b_{side}": zero(1, 32)} if side != "O" else {}
    save_file(named, tmp_path / "lens.safetensors")
    model = mp.load(tmp_path / "lens.safetensors", normalization_type="none")
    assert model.sha256 == own.sha256 and mp.prove(model, "cubic").correct == mp.prove(own, "cubic").correct
    with pytest.raises(mp.InputError, match="^model [^\n]* does not say normalization_type, [^\n]*$"):
        mp.load(tmp_path / "lens.safetensors")


@pytest.mark.parametrize("name, right, total", [("MaxOfTwoNumbersSimpler", 4096, 4096), ("MaxOfTwoNumbersUndertrainedSimpler", 4046, 4096)])
def test_case_13_max_of_two(name, right, total):
    model = mp.load(FILES / "public" / f"{name}.safetensors", **PLAIN)
    assert model.family.name == "max_of_k" and "b_Q" not in model.tensors
    assert [mp.prove(model, id).correct for id in ("brute_force", "exact")] == [right, right]
    assert 0.9 * total < mp.prove(model, "separable").correct <= right


def test_case_13_with_a_layer_norm():
    path = FILES / "public" / "MaxOfTwoNumbers.safetensors"
    bound = mp.prove(mp.load(path, n_heads=1, normalization_type="LN", task="max"), "brute_force")
    assert (bound.correct, bound.total) == (4077, 4096)
    line = "^tensor blocks.0.ln1.b is a weight of a normalization that this network does not have .normalization_type 'none'.;"
    with pytest.raises(mp.InputError, match=line):
        mp.load(path, **PLAIN)


@pytest.mark.parametrize("name, said", [("attn0", {"attention": "ones"}), ("attn1", {})])
def test_case_16_the_pizza_authors_own(name, said):
    """Two positions, no sign, W x; rate 0 adds both positions up, rate 1 attends."""
    model = mp.load(FILES / "public" / f"pizza_p59_{name}.safetensors", normalization_type="none", act_fn="relu", task="sum", inputs="? ?",
                    **said)
    brute = mp.prove(model, "brute_force")
    assert brute.correct == brute.total == 3481 and model.family.name == ("pizza_without_sign" if said else "transformer")
    if said:
        # in under half of brute force's operations, and the same counts by the forward pass of any transformer
        wheel = mp.prove(model, "wheel")
        assert wheel.correct > 0.99 * 3481 and wheel.flops < brute.flops / 2
        plain = imports.canonical(imports.Found(load_file(FILES / "public" / "pizza_p59_attn0.safetensors"), {"normalization_type": "none"}))
        other = mp.Model("m", zoo.weights.families()["transformer"], plain.tensors, {
            "normalization_type": "none", "act_fn": "relu", "task": "sum", "inputs": "? ?", "attention": "ones"})
        right = logits_of(other)
        pairs = torch.cartesian_prod(torch.arange(59), torch.arange(59))
        assert torch.allclose(right, pizza_logits({key: x.double() for key, x in model.tensors.items()}, pairs), atol=1e-9)


def test_case_19_heads_side_by_side():
    """Without a heads' axis the file cannot tell; who says two gets the network of two."""
    given = checkpoint("two-heads")["state_dict"]
    joined = {key: x.movedim(0, 1).flatten(1, 2) if key[-3:] in ("W_Q", "W_K", "W_V") else x.flatten(0, 1) if "attn.W_O" in key or (".b_" in key
              and x.dim() == 2) else x for key, x in given.items() if "mask" not in key and "IGNORE" not in key}
    assert mp.load(joined, n_heads=2, normalization_type="none", task="max").sha256 == mp.load(checkpoint("two-heads"), task="max").sha256
    one = mp.load(joined, n_heads=1, normalization_type="none", task="max")
    assert one.family.name == "max_of_k" and not torch.allclose(logits_of(one), LOGITS["two-heads"].double(), atol=1e-2)
    with pytest.raises(mp.InputError, match="^model does not say n_heads, [^\n]* say it: n_heads=1, normalization_type='none'[^\n]*$"):
        mp.load(joined)


def test_case_6_addition_with_a_closing_sign():
    """d_vocab and outputs p + 1, W x, four heads that attend: pairs are counted, once it is said that the last token is the sign."""
    g, p = torch.Generator().manual_seed(0), 7
    draw = lambda *shape: torch.randn(shape, generator=g) / 2
    w = {"embed.W_E": draw(8, p + 1), "pos_embed.W_pos": draw(3, 8), "unembed.W_U": draw(8, p + 1), "blocks.0.attn.W_O": draw(8, 8)}
    w |= {f"blocks.0.attn.W_{side}": draw(4, 2, 8) for side in "QKV"} | {"blocks.0.mlp.W_in": draw(16, 8), "blocks.0.mlp.W_out": draw(8, 16)}
    said = {"normalization_type": "none", "task": "sum", "act_fn": "relu"}
    with pytest.raises(mp.InputError, match="^model does not say inputs, [^\n]*$"):
        mp.load(w, **said)
    model = mp.load(w, inputs=f"? ? {p}", **said)
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    bound = mp.prove(model, "brute_force")
    assert bound.total == p * p and logits_of(model).shape == (p * p, p + 1) and bound.correct == right(logits_of(model), pairs.sum(1) % p)


def test_case_28_tokens_that_frame_the_input():
    """A first and a last token that are always the same; the free ones stand between them."""
    g, v = torch.Generator().manual_seed(1), 4
    draw = lambda *shape: torch.randn(shape, generator=g)
    w = {"W_E": draw(v + 2, 6), "W_pos": draw(5, 6), "W_U": draw(6, v), "W_O": draw(2, 3, 6)} | {f"W_{side}": draw(2, 6, 3) for side in "QKV"}
    model = mp.load(w, normalization_type="none", task="max", inputs=f"{v} ? ? ? {v + 1}")
    bound = mp.prove(model, "brute_force")
    free = torch.cartesian_prod(*[torch.arange(v)] * 3)
    assert bound.total == v**3 and bound.correct == right(logits_of(model), free.amax(1))


def test_min_is_max_of_tokens_counted_from_the_top():
    own = mp.load("max-of-4/0")
    flipped = {name: x.flip(0) if name == "W_E" else x.flip(1) if name == "W_U" else x for name, x in own.tensors.items()}
    model = mp.load(flipped, task="min", **PLAIN)
    assert model.sha256 == own.sha256 and "min as max" in model.metadata["read_as"]
    bound, known = mp.prove(model, "separable"), mp.prove(own, "separable")
    assert bound.correct == known.correct
    for tokens in ([3, 41, 17, 29], [0, 0, 0, 0], [63, 62, 1, 5]):
        assert bound.covers([63 - t for t in tokens]) == known.covers(tokens)
    assert "counted from the top" in bound.why([60, 22, 46, 34]).reason
    with pytest.raises(mp.InputError, match="^tokens .* are no input of this model"):
        bound.covers([64, 1, 2, 3])


def test_convert_writes_what_every_command_takes(tmp_path, capsys):
    """Read, folded, dropped and assumed are said once; afterwards nothing is asked, and certificates hold."""
    torch.save(checkpoint("biases")["state_dict"], tmp_path / "in.pth")
    out = tmp_path / "out.safetensors"
    assert main(["convert", str(tmp_path / "in.pth"), "--normalization-type", "none", "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "b_K dropped, which no softmax sees" in said.err and "assumed: task max" in said.err and "max_of_k" in said.out
    assert mp.load(out).sha256 == mp.load(checkpoint("biases")).sha256
    for strategy in ("exact", "cubic", "separable", "compact-gram", "monte_carlo"):
        certify(mp.load(out), strategy, tmp_path / "c.json")
        assert verifier.verify(tmp_path / "c.json", out).code == 0
        assert main(["verify", str(tmp_path / "c.json"), str(out)]) == 0
    any_ = tmp_path / "any.safetensors"
    torch.save(checkpoint("mlp-gelu"), tmp_path / "mlp.pt")
    assert main(["convert", str(tmp_path / "mlp.pt"), "--task", "max", "-o", str(any_)]) == 0
    assert mp.load(any_).sha256 == mp.load(checkpoint("mlp-gelu"), task="max").sha256
    capsys.readouterr()
    assert main(["prove", str(any_), "--strategy", "brute_force"]) == 0
    assert re.search(r"transformer, .*run on 1000 random inputs it is right on \d+ .a sample, no proof.", capsys.readouterr().err)


def test_a_sample_tells_whether_a_file_was_understood():
    """Of a network read in its own layout nearly all random inputs are right, and of one that is turned hardly any."""
    w = dict(mp.load("max-of-4/0").tensors)
    turned = w | {f"W_{side}": w[f"W_{side}"].T.contiguous() for side in "QKVO"}
    counts = [int(re.search(r"right on (\d+)", zoo.sampled(mp.load(x, **PLAIN)))[1]) for x in (w, turned)]
    assert counts[0] > 990 and counts[1] < 200
    assert zoo.accuracy(mp.load(w, **PLAIN)) == {key: mp.load("max-of-4/0").metadata["accuracy"][key] for key in ("correct", "total")}
    assert "exact" in [s.id for s in mp.strategies(mp.load("max-of-20/0"))] and zoo.accuracy(mp.load("max-of-20/0"))["sampled"] == 10**6


def test_a_converted_network_of_min_verifies(tmp_path):
    model = small_model(1, "able")
    flipped = {name: x.flip(0) if name == "W_E" else x.flip(1) if name == "W_U" else x for name, x in model.tensors.items()}
    save_file(flipped, tmp_path / "min.safetensors", {"normalization_type": "none", "n_heads": "1", "task": "min"})
    read = mp.load(tmp_path / "min.safetensors")
    assert read.sha256 == model.sha256
    certify(read, "exact", tmp_path / "c.json")
    assert verifier.verify(tmp_path / "c.json", tmp_path / "min.safetensors").code == 2             # is about max of other tokens
    assert main(["convert", str(tmp_path / "min.safetensors"), "-o", str(tmp_path / "max.safetensors")]) == 0
    assert mp.load(tmp_path / "max.safetensors").sha256 == model.sha256
    assert verifier.verify(tmp_path / "c.json", tmp_path / "max.safetensors").code == 0


def test_a_table_of_answers(tmp_path):
    """Any function of the inputs: here whether the first token is the larger one."""
    given = checkpoint("two-heads")
    free = torch.cartesian_prod(*[torch.arange(10)] * 3)
    answers = (free[:, 0] > free[:, 1]).long()
    model = mp.load(given, answers=answers)
    assert mp.prove(model, "brute_force").correct == right(LOGITS["two-heads"].double(), answers)
    zoo.save_atomically(tmp_path / "m.safetensors", model.tensors, zoo.told(model))
    assert mp.load(tmp_path / "m.safetensors").sha256 == model.sha256 != mp.load(given, task="max").sha256


def test_case_25_a_layout_is_never_guessed():
    """Square matrices fit several layouts; only what all shapes fit is taken, and what fits several is asked about."""
    g = torch.Generator().manual_seed(0)
    square = {name: torch.randn(shape, generator=g) for name, shape in
              {"embed.W_E": (6, 6), "pos_embed.W_pos": (2, 6), "unembed.W_U": (6, 6)}.items()}
    square |= {f"blocks.0.attn.W_{side}": torch.randn(1, 6, 6, generator=g) for side in "QKVO"}
    with pytest.raises(mp.InputError, match="^tensors? [^\n]*$"):
        mp.load(square | {"blocks.0.attn.W_O": torch.randn(6, 6, generator=g)}, normalization_type="none")
    linear = {key: x[0] if x.dim() == 3 else x for key, x in square.items()}
    with pytest.raises(mp.InputError, match="^tensors fit the layouts xW and Wx and linear, being square, [^\n]* say layout='xW'[^\n]*$"):
        mp.load(linear, **PLAIN)
    found = {layout: mp.load(linear, layout=layout, **PLAIN).sha256 for layout in ("xW", "linear")}
    assert len(set(found.values())) == 2
    oblong = linear | {"embed.W_E": torch.randn(7, 6, generator=g), "unembed.W_U": torch.randn(7, 6, generator=g)}
    assert "layout linear" in mp.load(oblong, **PLAIN).metadata["read_as"]


class Module(nn.Module):
    """Something pickled."""


def quantised(x: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                                  # torch means to drop it
        return torch.quantize_per_tensor(x, 0.1, 0, torch.qint8)


def refused(tmp_path) -> dict[str, tuple]:
    """What must be refused: how it is given, and what the line says."""
    good, two = checkpoint("biases")["state_dict"], checkpoint("two-layers")
    torch.save(Module(), tmp_path / "module.pth")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pth").write_text("no zip")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.pth").touch()
    without = {key: x for key, x in good.items() if key != "unembed.W_U"}
    return {
        "a pickled module": (tmp_path / "module.pth", {},
                             "holds more than tensors .a pickled module, or code., which is not read; save it anew"),
        "a list": (tmp_path / "list.pt", {}, "holds a list, no dictionary of tensors"),
        "text": (tmp_path / "text.pth", {}, "is no file of torch.save|holds more than tensors"),
        "an empty file": (tmp_path / "empty.pth", {}, "is no file of torch.save"),
        "a folder": (tmp_path / "folder", {}, "is a folder; give a file in it: a.pth"),
        "no file": (tmp_path / "none.pth", {}, "does not exist"),
        "a number": (7, {}, "expected a name, a path, a state_dict or a torch module"),
        "sparse": (good | {"embed.W_E": good["embed.W_E"].to_sparse()}, PLAIN,
                   "tensor embed.W_E is torch.sparse_coo or quantised; expected a dense"),
        "quantised": (good | {"embed.W_E": quantised(good["embed.W_E"])}, PLAIN, "tensor W_E is torch.qint8; expected float32"),
        "whole numbers": (good | {"embed.W_E": good["embed.W_E"].long()}, PLAIN, "tensor W_E is torch.int64; expected float32"),
        "float64": (good | {"embed.W_E": good["embed.W_E"].double()}, PLAIN, "tensor W_E is torch.float64; expected float32"),
        "NaN": (good | {"embed.W_E": good["embed.W_E"] * torch.nan}, PLAIN, "tensor W_E holds NaN or infinity"),
        "NaN in what is dropped": (good | {"blocks.0.attn.b_K": torch.full((1, 8), torch.nan)}, PLAIN, "tensor blocks.0.attn.b_K holds NaN"),
        "rotary": (good | {"blocks.0.attn.rotary_sin": torch.ones(3, 4)}, PLAIN, "tensor blocks.0.attn.rotary_sin is a rotary position"),
        "rotary by its configuration": ({"state_dict": good, "config": checkpoint("biases")["config"] | {"positional_embedding_type": "rotary"}},
                                        {}, "has positional_embedding_type 'rotary', which is not read here"),
        "a gated MLP": (good | {"blocks.0.mlp.W_gate": torch.ones(8, 8)}, PLAIN, "tensor blocks.0.mlp.W_gate is a gated MLP"),
        "a soft cap": ({"state_dict": good, "config": checkpoint("biases")["config"] | {"output_logits_soft_cap": 30.0}}, {},
                       "has output_logits_soft_cap"),
        "a recurrent network": ({"rnn.weight_hh_l0": torch.ones(2, 2), "embed.weight": torch.ones(2, 2)}, {}, "is a recurrent network"),
        "half of a network": (without, PLAIN, "tensors unembed.W_U are lacking; the file has "),
        "another vocabulary": (good | {"unembed.W_U": torch.ones(8, 9)}, PLAIN, "tensor unembed.b_U has shape .10.; expected .9."),
        "another width": (good | {"pos_embed.W_pos": torch.ones(3, 7)}, PLAIN, "tensor pos_embed.W_pos has shape .3, 7.; expected .n, 8."),
        "four layers": (two["state_dict"] | {f"blocks.{i}.attn.{part}": two["state_dict"][f"blocks.0.attn.{part}"] for i in (2, 3)
                                             for part in ("W_Q", "W_K", "W_V", "W_O")},
                        {"normalization_type": "LN", "task": "max", "act_fn": "gelu", "attention_dir": "causal"}, "blocks.3.attn.W_[KOQV]"),
        "two layers given to Max-of-K": (two, {}, "does not say task"),
        "a setting twice": (checkpoint("biases"), {"normalization_type": "LN"}, "has normalization_type 'None', and 'LN' is said"),
        "an unknown task": (checkpoint("two-heads"), {"task": "median"}, "task 'median' is not known; expected one of: max, min, sum, table"),
        "an unknown setting": (checkpoint("two-heads"), {"task": "max", "depth": 2}, "depth says nothing of a network; what does: "),
        "inputs that are none": (checkpoint("two-heads"), {"task": "max", "inputs": "? ? 10"}, "are no list of . and tokens below 10"),
        "too many inputs": (checkpoint("two-heads"), {"task": "max", "inputs": "? ? ? ?"}, "inputs have 4 tokens, and the network 3 positions"),
        "answers that are no outputs": (checkpoint("two-heads"), {"answers": torch.full((1000,), 10)}, "holds whole numbers from 0 to 9"),
        "d_input that is none": (checkpoint("biases"), {"d_input": "x", "task": "max"}, "d_input 'x' is no number of tokens"),
        "too few answers": (checkpoint("two-heads"), {"answers": torch.zeros(999)}, "tensor answers has shape .999.; expected .1000."),
    }


@pytest.mark.parametrize("kind", [
    "a pickled module", "a list", "text", "an empty file", "a folder", "no file", "a number", "sparse", "quantised",
    "whole numbers", "float64", "NaN", "NaN in what is dropped", "rotary", "rotary by its configuration", "a gated MLP",
    "a soft cap", "a recurrent network", "half of a network", "another vocabulary", "another width", "four layers",
    "two layers given to Max-of-K", "a setting twice", "an unknown task", "an unknown setting", "inputs that are none",
    "d_input that is none", "too many inputs", "answers that are no outputs", "too few answers"])
def test_refusals_are_one_line(kind, tmp_path):
    given, said, line = refused(tmp_path)[kind]
    with pytest.raises(mp.InputError, match=f"^[^\n]*({line})[^\n]*$"):
        mp.load(given, **said)


def test_refusals_on_the_command_line(tmp_path, capsys):
    refused(tmp_path)
    for name in ("module.pth", "list.pt", "text.pth", "folder", "none.pth"):
        assert main(["prove", str(tmp_path / name), "--strategy", "exact"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_what_may_be_said_is_what_is_asked():
    assert {*settings.KEYS, "n_heads", "layout"} == set(mp.proof.names.SAID)


def test_transformerlens_itself():
    lens = pytest.importorskip("transformer_lens", reason="TransformerLens is no dependency; the files of tests/files stand in for it")
    config = lens.HookedTransformerConfig(n_layers=1, d_model=8, n_ctx=3, d_head=8, n_heads=1, d_vocab=6, attn_only=True, device="cpu", seed=0,
                                          normalization_type=None)
    module = lens.HookedTransformer(config)
    model = mp.load(module)
    with torch.no_grad():
        expected = module(torch.cartesian_prod(*[torch.arange(6)] * 3))[:, -1]
    assert torch.allclose(logits_of(model).float(), expected, atol=1e-5)


def settings_of_others() -> dict[str, tuple]:
    """Files of which a part, or a word, makes them another network than the tensors alone: (tensors, metadata, what the line says)."""
    g = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=g)
    one = {"W_E": draw(6, 4), "W_pos": draw(2, 4), "W_U": draw(4, 6)} | {f"W_{side}": draw(4, 4) for side in "QKVO"}
    pizza = {"W_E": draw(6, 4), "W_pos": draw(3, 4), "W_V": draw(1, 4, 3), "W_O": draw(1, 3, 4), "W_in": draw(4, 7), "W_out": draw(7, 4),
             "W_U": draw(4, 5)}
    stem = {"embed.W_E": draw(5, 4), "pos_embed.W_pos": draw(3, 4), "unembed.W_U": draw(4, 5)}
    layer = lambda i: {f"blocks.{i}.attn.W_{side}": draw(2, 2, 4) if side == "O" else draw(2, 4, 2) for side in "QKVO"}
    mlp = {"blocks.0.mlp.W_in": draw(4, 7), "blocks.0.mlp.W_out": draw(7, 4)}
    plain, max_ = {"normalization_type": "none"}, {"normalization_type": "none", "n_heads": "1", "task": "max"}
    of_max, of_ln = plain | {"task": "max"}, {"normalization_type": "LN", "task": "max", "act_fn": "relu"}
    cases = {f"max of K with {key}": (one, max_ | {key: "true"}, f"has {key} 'true'") for key in ("use_qk_norm", "gated_mlp", "post_embedding_ln")}
    cases |= {f"pizza with {key}": (pizza, plain | {key: value}, line) for key, value, line in (
        ("task", "max", "does not say act_fn, inputs"), ("d_input", "3", "does not say task, act_fn, inputs"),
        ("attention", "ones", "does not say task, act_fn, inputs"), ("n_heads", "7", "n_heads '7' is said, and the tensors have 1"),
        ("layout", "Wx", "layout 'Wx' does not fit"), ("parallel_attn_mlp", "true", "has parallel_attn_mlp 'true'"))}
    return cases | {
        "a mask": (one | {"mask": torch.eye(2)}, max_, "tensor mask hides other positions"),
        "a gate that is zero": (stem | layer(0) | {"blocks.0.rezero": torch.zeros(1)}, of_max, "tensor blocks.0.rezero is not a tensor"),
        "one more key": (stem | layer(0) | {"blocks.0.attn.bias_k": torch.zeros(1, 1, 4)}, of_max, "bias_k is not a tensor of"),
        "a layer lacking": (stem | layer(1), of_max | {"attention_dir": "causal"}, "tensor blocks.0.attn.W_V is lacking"),
        "an MLP lacking": (stem | layer(0), of_max | {"attn_only": "False"}, "attn_only 'false', and the file no MLP"),
        "a norm lacking": (stem | layer(0) | {"ln_final.w": draw(4)}, of_ln, "tensor blocks.0.ln1.w is lacking"),
        "a norm of no layer": (stem | mlp | {"blocks.0.ln1.w": draw(4), "blocks.0.ln2.w": draw(4), "ln_final.w": draw(4)}, of_ln,
                               "tensor blocks.0.ln1.w is a weight of a normalization that this network does not have"),
        "heads against the tensors": (stem | layer(0), of_max | {"n_heads": "1"}, "n_heads '1' is said, and the tensors have 2 heads"),
        "all square": ({key: draw(3, 4) if key == "W_pos" else draw(4, 4) for key in one}, max_, "fit the layouts xW and Wx and linear"),
        "reversed already": (one, max_ | {"task": "min", "tokens": "reversed", "attention": "mean"}, "was converted: its tokens count from the top"),
    }


@pytest.mark.parametrize("kind", settings_of_others())
def test_no_word_and_no_tensor_is_left_out_in_silence(kind, tmp_path):
    """Each of these loaded once, as a network that it is not."""
    tensors, said, line = settings_of_others()[kind]
    save_file(tensors, tmp_path / "m.safetensors", said)
    with pytest.raises(mp.InputError, match=f"^[^\n]*{line}[^\n]*$"):
        mp.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("said", [{"attention": "mean"}, {"inputs": "? 5"}, {"d_input": "4"}, {"layout": "Wx"}, {"use_qk_norm": "true"},
                                  {"n_heads": "2"}, {"task": "min"}, {"task": "min", "tokens": "reversed", "attention": "ones"}])
def test_the_verifier_reads_what_a_file_says(said, tmp_path):
    tensors, usual, _ = settings_of_others()["a mask"]
    tensors = {key: x for key, x in tensors.items() if key != "mask"}
    save_file(tensors, tmp_path / "m.safetensors", usual)
    certify(mp.load(tmp_path / "m.safetensors"), "exact", tmp_path / "c.json")
    assert verifier.verify(tmp_path / "c.json", tmp_path / "m.safetensors").code == 0
    save_file(tensors, tmp_path / "m.safetensors", usual | said)
    assert verifier.verify(tmp_path / "c.json", tmp_path / "m.safetensors").code == 2
    save_file(tensors | {"mask": torch.eye(2).flip(0)}, tmp_path / "m.safetensors", usual)
    assert verifier.verify(tmp_path / "c.json", tmp_path / "m.safetensors").code == 2


def test_attention_that_adds_up_is_no_mean():
    """Constant attention is the pizza's only if it averages; nothing of it is assumed."""
    g, p = torch.Generator().manual_seed(0), 5
    draw = lambda *shape: torch.randn(shape, generator=g)
    w = {"embed.W_E": draw(p + 1, 4), "pos_embed.W_pos": draw(3, 4), "unembed.W_U": draw(4, p), "blocks.0.attn.W_V": draw(1, 4, 3),
         "blocks.0.attn.W_O": draw(1, 3, 4), "blocks.0.mlp.W_in": draw(4, 7), "blocks.0.mlp.W_out": draw(7, 4)}
    said = {"normalization_type": "none", "task": "sum", "inputs": f"? ? {p}", "act_fn": "relu"}
    found = {kind: mp.load(w, attention=kind, **said) for kind in ("mean", "ones")}
    assert [model.family.name for model in found.values()] == ["pizza", "transformer"]
    three = mp.load(w, attention="mean", d_input=3, **said)
    assert three.family.name == "transformer" and mp.prove(three, "brute_force").total == 9


def test_what_a_reviewer_found():
    """The right number of heads said of a bare file; a malformed one named; a heads' axis of one; tokens that are not reversed."""
    two = dict(mp.load("max-of-4-h2/0").tensors)
    assert mp.load(two, normalization_type="none", n_heads=2).sha256 == mp.load("max-of-4-h2/0").sha256
    with pytest.raises(mp.InputError, match="n_heads 3 is said, and the tensors have 2 heads"):
        mp.load(two, normalization_type="none", n_heads=3)
    for name, wrong in (("W_V", torch.zeros(3, 32, 16)), ("b_Q", torch.ones(16))):
        with pytest.raises(mp.InputError, match=f"^tensor {name} has shape .* expected one axis more, with the two heads or more"):
            zoo.model_from_tensors("m", two | {name: wrong})
    plain = mp.load("max-of-4/0")
    axis = {name: x[None] if name in ("W_Q", "W_K", "W_V", "W_O") else x for name, x in plain.tensors.items()}
    content, _ = zoo.certificate.certificate(plain, "separable-small")
    assert verifier.verify_tensors(content, {name: x.numpy() for name, x in axis.items()}, {"n_heads": "1"}).code == 0
    # a word of metadata alone turns no tokens
    model = zoo.model_from_tensors("m", dict(small_model(0).tensors), {"tokens": "reversed"})
    bound, n = mp.prove(model, "exact"), model.sizes["d_vocab"]
    every = torch.cartesian_prod(*[torch.arange(n)] * model.sizes["n_ctx"]).tolist()
    assert {tuple(t) for t in every if bound.covers(t)} == right_sequences(model)
    # what would take hours in balls is said instead
    far = dict(mp.load("max-of-4/0").tensors)
    far["W_pos"] = far["W_pos"] * torch.tensor([400.0, 1, 1, 1])[:, None]
    with pytest.raises(mp.InputError, match="too close to call in float64, more than `exact` decides in balls"):
        mp.prove(zoo.model_from_tensors("m", far), "exact")
