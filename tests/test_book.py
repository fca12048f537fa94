"""The chapters: executed, strict, deterministic, and runnable for other models."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import nbformat
import pytest
import torch

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_code_cell_has_run_in_order(path):
    """A cell that has not run is never compared by nbval, so that a stripped notebook would pass."""
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert path.stem == "index" or any({"parameters", "hide-input"} <= set(c.metadata.get("tags", [])) for c in cells)
    assert all(o.output_type != "error" and o.get("name") != "stderr" for c in cells for o in c.outputs)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapters_carry_no_widget_state_or_times(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert all("execution" not in c.metadata for c in notebook.cells)
    assert max(c.source.count("\n") + 1 for c in notebook.cells if c.cell_type == "code") <= 13


def nbval(path: Path) -> subprocess.CompletedProcess:
    # the kernel of a copied notebook still finds the installed library
    return subprocess.run([sys.executable, "-m", "pytest", "--nbval", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"),
                           "--rootdir", str(ROOT), str(path)], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "MECHPROOF_MODE": "page"})


def test_every_explorer_is_drawn_for_phones_and_nothing_else_is():
    """A drawing is named by a hash of what its page has, so that one that is out of date is missing here."""
    shown = {name for path in CHAPTERS for name in re.findall(r'id=\\"(explorer-[0-9a-f]{12})\\"', path.read_text())}
    assert shown == {path.stem for path in (ROOT / "book" / "_static" / "narrow").glob("*.js")} and len(shown) > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "alt text"])
def test_one_changed_digit_fails_the_strict_check(tmp_path, kind):
    """nbval on a shortened chapter passes as it is, and fails when one digit of a committed output is changed."""
    notebook = nbformat.read(ROOT / "book" / "max_of_k.ipynb", as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    picked = "figures.path_maps" if kind == "alt text" else "print(model)"
    keep = [*code[:2], next(c for c in code if picked in c.source)]
    for i, cell in enumerate(keep):
        cell.execution_count = i + 1
    notebook.cells = keep
    path = tmp_path / "short.ipynb"
    nbformat.write(notebook, path)
    assert nbval(path).returncode == 0

    output = keep[-1].outputs[0]
    text = output.text if kind == "stream" else output.data["text/html"]
    where = re.search(r"\d{7}" if kind == "stream" else r'alt="[^"]*?(\d+)%', text)
    at = where.start() if kind == "stream" else where.start(1)
    changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    if kind == "stream":
        output.text = changed
    else:
        output.data["text/html"] = changed
    nbformat.write(notebook, path)
    assert nbval(path).returncode == 1


SUBCUBIC = "EUPU-{}--attn-mean-query+diff--attn-err-{}".format


@pytest.mark.slow
@pytest.mark.parametrize("chapter, parameters, said", [
    ("max_of_k", {"seed": 17, "K": 4, "rank": 4, "strategy": SUBCUBIC("max-diff-exact", "max-diff-subproduct")}, ["max-of-4/17", "'rank': 4"]),
    ("max_of_k", {"seed": 3, "K": 10, "rank": 2, "strategy": SUBCUBIC("mean-query+max-diff", "max-diff")}, ["max-of-10/3", "'rank': 2"]),
    ("past_the_paper", {"seed": 17, "K": 4, "rank": 24, "strategy": "compact-gram"}, ["max-of-4/17", "'rank': 24"]),
    ("past_the_paper", {"seed": 3, "K": 10, "rank": 8, "strategy": "separable-grouped"}, ["max-of-10/3", "'rank': 8"]),
    ("several_heads", {"seed": 3, "maximum": 40}, ["'maximum': 40"]),
    ("your_own_network", {"model": "max-of-4-ln/1"}, ["Model(max-of-4-ln/1, one_layer"]),
    ("groups", {"collection": "group-s4", "seed": 3}, ["Model(group-s4/3, group"]),
    ("superposition", {"neurons": 256, "p": 0.33, "on": 3, "readout": "contrast"}, ["'neurons': 256", "'readout': 'contrast'"]),
    ("noise_limits", {"seed": 6, "rank": 4, "strategy": "gram", "noise_seed": 5}, ["max-of-4/6", "'rank': 4"]),
    ("pizza_quadrature", {"seed": 1, "p": 31, "rank": 8, "strategy": "moments_exact_neurons"}, ["pizza-31/1", "'rank': 8"]),
    ("pizza_quadrature", {"seed": 4, "p": 59, "rank": 12, "strategy": "wheel"}, ["pizza-59/4", "'rank': 12"]),
    ("proof_gone_wrong", {"largest": 1e307, "way": "separable:ov=gram,ov_rank=1"}, ["1e+307: 0% certified as it was"]),
    ("reproduction", {"collection": "max-of-10", "proof": "ours, compact tables", "draw": 3}, ["'proof': 'ours, compact tables'"])])
def test_papermill_runs_the_chapter_for_another_model(tmp_path, chapter, parameters, said, monkeypatch):
    import papermill
    monkeypatch.setenv("MECHPROOF_MODE", "page")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(str(ROOT / "book" / f"{chapter}.ipynb"), str(out), parameters=parameters, cwd=str(tmp_path),
                               kernel_name="python3", execution_timeout=300, progress_bar=False)
    text = "".join(str(o) for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code" for o in c.outputs)
    assert all(words in text for words in said)


@pytest.mark.slow
@pytest.mark.parametrize("chapter", ["max_of_k", "past_the_paper", "noise_limits", "pizza_quadrature"])
def test_a_chapter_is_about_a_file_of_ones_own(tmp_path, chapter, monkeypatch):
    """No accuracy in its metadata, biases, and a name that is a path."""
    import papermill

    import mechproof as mp
    from mechproof import zoo
    monkeypatch.setenv("MECHPROOF_MODE", "page")
    model, path = mp.load("pizza-31/1" if chapter == "pizza_quadrature" else "max-of-4/7"), tmp_path / "mine.safetensors"
    biases = {} if chapter == "pizza_quadrature" else {"b_Q": torch.full((32,), 0.01), "b_U": torch.linspace(0, 0.1, 64)}
    zoo.save_atomically(path, dict(model.tensors) | biases, zoo.told(model))
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(str(ROOT / "book" / f"{chapter}.ipynb"), str(out), parameters={"file": str(path), "rank": 4}, cwd=str(tmp_path),
                               kernel_name="python3", execution_timeout=300, progress_bar=False)
    text = "".join(str(o) for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code" for o in c.outputs)
    assert f"Model({path}" in text or chapter == "past_the_paper"        # which shows bounds alone


def test_the_readme_states_its_size():
    from mechproof import zoo
    assert f"{len(zoo.models())} small trained models" in (ROOT / "README.md").read_text()
    library = [p for p in (ROOT / "mechproof").rglob("*.py")]
    lines = sum(len(p.read_text().splitlines()) for p in library)
    stated = int(re.search(r"library is ([\d ]+) lines", (ROOT / "README.md").read_text().replace("\n", " ")).group(1).replace(" ", ""))
    of = lambda *floors: sum(len(p.read_text().splitlines()) for p in library if p.parent.name in floors)
    verifier, book, companions = of("verifier"), of("figures", "exercises"), of("superposition", "permutations", "groups")
    assert abs(stated - lines) <= 0.03 * lines and verifier <= 3600
    # the chapters of the paper and all that stands under them; three further kinds of network
    assert lines - verifier - book - companions <= 11600 and book <= 5800 and companions <= 2600


def test_the_readme_example_prints_what_it_says():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    names: dict = {}
    for line in code.splitlines():
        statement, _, said = line.partition("#")
        if said and "=" not in statement.split("(")[0]:
            shown = repr(eval(statement, names))
            assert shown.startswith(said.strip().removesuffix("...").strip()), f"{statement.strip()} prints {shown}"
        elif statement.strip():
            exec(statement, names)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_disabled_controls_are_those_that_change_nothing(path):
    """In every committed explorer: along a control that is off nothing changes, along one that is on something does."""
    outputs = [o for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    pages = [page for o in outputs if "data-frames" in (page := o.get("data", {}).get("text/html", ""))]
    said = lambda page, key: json.loads(re.search(rf"data-{key}>(.*?)</script>", page, re.S)[1].replace("<\\/", "</"))
    explorers = [said(page, "alts") | {"at": said(page, "frames")["at"]} for page in pages]
    assert len(explorers) >= (1 if path.stem in ("index", "proof_gone_wrong", "your_own_network") or path.stem.startswith("background") else 3)
    text = "".join(o.get("data", {}).get("text/html", "") for o in outputs)
    names = re.findall(r'location\.hash\.startsWith\("#(\w+)\?', text)
    assert len(names) == len(set(names)) == len(explorers)                 # an address means one explorer
    for data in explorers:
        assert len(data["settings"]) <= 400
        states = dict(zip(product(*map(range, data["sizes"])), zip(data["settings"], data["at"])))
        for at, (state, _) in states.items():
            for i, size in enumerate(data["sizes"]):
                along = {states[(*at[:i], j, *at[i + 1 :])][1][0] for j in range(size)}
                assert (i in state["idle"]) == (len(along) == 1)


def test_the_repository_is_small_and_holds_no_pickles():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to list")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    present = [ROOT / f for f in files if f and (ROOT / f).exists()]
    assert sum(p.stat().st_size for p in present) < 110 * 10**6
    assert not [p for p in present if p.suffix in (".pt", ".pth", ".pkl", ".pickle", ".npy", ".npz")]


def test_no_function_is_long_or_takes_much():
    import ast
    for path in (ROOT / "mechproof").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 45, f"{path.name}:{node.name} is {node.end_lineno - node.lineno + 1} lines long"
                assert len(node.args.args + node.args.kwonlyargs) <= 8, f"{path.name}:{node.name} takes too much"
