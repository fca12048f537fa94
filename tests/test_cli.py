"""The command line as a newcomer meets it: JSON, and one line with exit status 2 for every bad input."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from mechproof.__main__ import main
from mechproof.max_of_k.model import shapes


def run(capsys, *argv: str) -> tuple[int, str, str]:
    status = main(list(argv))
    out, err = capsys.readouterr()
    return status, out, err


def weights(**changes) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return {k: torch.randn(s, generator=g) for k, s in shapes(2, 4, 3).items()} | changes


def test_models_lists_names_and_collections(capsys):
    status, out, _ = run(capsys, "models", "--json")
    rows = json.loads(out)
    assert status == 0 and {"name": "max-of-4/123", "collection": "max-of-4"}.items() <= next(r for r in rows if r["name"] == "max-of-4/123").items()
    assert "max-of-4-reference/123" in run(capsys, "models")[1]


def test_strategies_lists_the_papers_102_and_ours(capsys):
    _, out, _ = run(capsys, "strategies", "max-of-4/0", "--json")
    rows = json.loads(out)
    assert len(rows) == 110 and all(set(r) == {"id", "label", "family", "cost", "parameters"} for r in rows)
    assert len({r["id"] for r in rows}) == len({r["label"] for r in rows}) == 110
    assert next(r for r in rows if r["id"].endswith("err-svd"))["parameters"] == {"rank": {"default": 1, "low": 0, "high": 32}}
    knobs = next(r for r in rows if r["id"] == "compact-gram")["parameters"]
    assert knobs["query"] == {"default": "each", "values": ["grouped", "each"]} and knobs["qk_rank"] == {"default": 8, "low": 0, "high": 32}


def test_prove_prints_the_bound(capsys):
    _, out, _ = run(capsys, "prove", "max-of-4/0", "--strategy", "EUPU-max-diff--attn-mean-query+diff--attn-err-svd", "--rank", "2", "--json")
    bound = json.loads(out)
    assert list(bound) == ["model", "strategy", "accuracy_lower_bound", "correct", "total", "flops", "unexplained_dimensions",
                           "failure_probability", "advice_bytes", "seconds", "search_seconds"]
    assert bound["strategy"].endswith("svd:rank=2") and bound["total"] == 64**4 and bound["failure_probability"] == 0
    assert run(capsys, "prove", "max-of-4/0", "--strategy", "cubic")[1].splitlines()[1].startswith(">= 95.")


def test_prove_all_covers_what_is_cheap(capsys):
    _, out, err = run(capsys, "prove", "max-of-10/0", "--strategy", "all", "--json")
    names = [b["strategy"] for b in json.loads(out)]
    assert len(names) == 108 and "exact" not in names and "brute_force" not in names and err == ""


def test_train_writes_a_model_that_proves(tmp_path, capsys, monkeypatch):
    from dataclasses import replace

    from mechproof import zoo
    family = zoo.family_of_collection("max-of-4")
    quick = replace(family, train=lambda sizes, seed, progress: family.train(sizes, seed, steps=3, progress=progress))
    monkeypatch.setattr(zoo, "family_of_collection", lambda name: quick)
    path = tmp_path / "mine.safetensors"
    assert run(capsys, "train", "max-of-4", "--seed", "3", "-o", str(path))[0] == 0
    assert run(capsys, "prove", str(path), "--strategy", "cubic")[0] == 0
    assert [p.name for p in tmp_path.iterdir()] == ["mine.safetensors"]


SVD = "EUPU-max-diff--attn-mean-query+diff--attn-err-svd"
SAYS = {"normalization_type": "none", "n_heads": "1"}
FILES = {
    "nan": weights(W_E=torch.full((4, 3), torch.nan)), "infinite": weights(W_O=torch.full((3, 3), torch.inf)),
    "shape": weights(W_K=torch.zeros(3, 2)), "flat": weights(W_Q=torch.zeros(9)), "double": weights(W_E=torch.zeros(4, 3, dtype=torch.float64)),
    "bias": weights(b_Q=torch.ones(2)), "mlp": weights(W_in=torch.ones(3, 5)), "strange": weights(extra=torch.ones(2)),
    "missing": {k: t for k, t in weights().items() if k != "W_U"}, "short": {**weights(), "W_pos": torch.zeros(1, 3)},
}
BAD = [
    (("prove", "max-of-4/0", "--strategy", "cubik"), "strategy 'cubik' is not known; nearest: cubic"),
    (("prove", "max-of-4/0", "--strategy", "cubic", "--rank", "2"), "parameter 'rank' is not one of cubic; it takes: none"),
    (("prove", "max-of-4/0", "--strategy", SVD + ":depth=2"), "parameter 'depth' is not one of"),
    (("prove", "max-of-4/0", "--strategy", SVD, "--rank", "33"), "it takes whole numbers from 0 to 32"),
    (("prove", "max-of-4/0", "--strategy", SVD + ":rank=²"), "it takes whole numbers from 0 to 32"),
    (("prove", "max-of-4/0", "--strategy", SVD, "--rank", "two"), "invalid int value: 'two'"),
    (("prove", "max-of-4/9999", "--strategy", "cubic"), "model 'max-of-4/9999' is neither shipped nor a file of weights; nearest: max-of-4/"),
    (("prove", "max-of-20/0", "--strategy", "brute_force"), "more than brute force enumerates (2^33); try cubic"),
    (("prove", "{nan}", "--strategy", "cubic"), "tensor W_E holds NaN or infinity; expected finite numbers"),
    (("prove", "{infinite}", "--strategy", "cubic"), "tensor W_O holds NaN or infinity; expected finite numbers"),
    (("prove", "{shape}", "--strategy", "cubic"), "tensor blocks.0.attn.W_K has shape [3, 2]; expected [h, 3, k] or [3, 3]"),
    (("prove", "{flat}", "--strategy", "cubic"), "tensor blocks.0.attn.W_Q has shape [9]; expected [h, 3, k] or [3, j]"),
    (("prove", "{double}", "--strategy", "cubic"), "tensor W_E is torch.float64; expected float32"),
    (("prove", "{bias}", "--strategy", "cubic"), "tensor blocks.0.attn.b_Q has shape [2]; expected [h, k] or [3]"),
    (("prove", "{mlp}", "--strategy", "cubic"),
     "tensor blocks.0.mlp.W_in comes without its partner of mlp.W_in and mlp.W_out; give both, or neither"),
    (("prove", "{strange}", "--strategy", "cubic"),
     "tensor extra is not a tensor of a network that is read here; a bound without it would be about another network"),
    (("prove", "{missing}", "--strategy", "cubic"),
     "tensors unembed.W_U are lacking; the file has embed.W_E, blocks.0.attn.W_K"),
    (("prove", "{short}", "--strategy", "cubic"), "model does not say task, and its tensors leave it open"),
    (("prove", "{text}", "--strategy", "cubic"), "is not safetensors"),
    (("prove", "{absent}", "--strategy", "cubic"), "does not exist; give a path or a name that `models` lists"),
    (("prove", "max-of-4/0"), "the following arguments are required: --strategy"),
    (("strategies", "nonsense"), "model 'nonsense' is neither shipped nor a file of weights"),
    (("train", "max-of-3", "--seed", "0", "-o", "x.safetensors"), "collection 'max-of-3' is not known; nearest: max-of-"),
    (("train", "max-of-4", "--seed", "0", "-o", "/no/such/folder/x.safetensors"), "is in a folder that does not exist; create it first"),
    (("train", "max-of-4", "--seed", "0", "-o", "x.pt"), "does not end in .safetensors"),
    (("nonsense",), "invalid choice: 'nonsense'"),
    ((), "the following arguments are required: COMMAND"),
]


@pytest.mark.parametrize("argv, text", BAD)
def test_bad_input_gets_one_line_and_status_2(argv, text, tmp_path, capsys):
    places = {name: str(tmp_path / f"{name}.safetensors") for name in [*FILES, "text", "absent"]}
    for name, tensors in FILES.items():
        if any("{" + name + "}" in a for a in argv):
            save_file(tensors, places[name], SAYS)
    (tmp_path / "text.safetensors").write_text("these are not weights")
    before = sorted(tmp_path.iterdir())
    status, out, err = run(capsys, *[a.format(**places) if a.startswith("{") else a for a in argv])
    assert status == 2 and out == "" and text in err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before


def test_zero_parts_and_buffers_are_ignored(tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    save_file(weights(b_U=torch.zeros(4), mask=torch.ones(2, 2), IGNORE=torch.tensor(-1e5)), path, SAYS)
    assert run(capsys, "prove", str(path), "--strategy", "cubic")[0] == 0


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    import mechproof as mp
    from mechproof.zoo import weights as files

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(files, "save_file", half)
    with pytest.raises(mp.InputError, match="cannot be written .disk full.; choose another path"):
        files.save_atomically(tmp_path / "x.safetensors", weights(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tokens", [[1, 2, 3], [1, 2, 3, 64], [1, 2, 3, -1], ["a"] * 4, None, 5])
def test_tokens_that_are_no_input(tokens):
    import mechproof as mp
    bound = mp.prove(mp.load("max-of-4/0"), "cubic")
    with pytest.raises(mp.InputError, match="are no input of this model; expected 4 whole numbers from 0 to 63"):
        bound.covers(tokens)


def test_importing_is_quick_and_loads_no_torch():
    code = "import sys, mechproof; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_spoiled_advice_does_not_reach_the_next_search():
    import mechproof as mp
    model, name = mp.load("max-of-4/0"), SVD.replace("EUPU-max-diff-", "EUPU-max-diff-exact-")
    before = mp.prove(model, name).correct
    for tensor in mp.search(model, name).values():
        tensor.zero_()
    assert mp.prove(model, name).correct == before


def test_advice_and_weights_are_copied():
    import mechproof as mp
    model = mp.load("max-of-4/0")
    advice = mp.search(model, SVD.replace("EUPU-max-diff-", "EUPU-max-diff-exact-"))
    bound = mp.check(model, SVD.replace("EUPU-max-diff-", "EUPU-max-diff-exact-"), advice)
    before = [bound.why(t) for t in ([1, 2, 3, 60], [59, 2, 3, 60])]
    advice["gaps"].clamp_(max=1)
    assert [bound.why(t) for t in ([1, 2, 3, 60], [59, 2, 3, 60])] == before
