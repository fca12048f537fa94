"""Chapters where nothing is installed: a stand-in for Colab, in an empty folder, and notebooks that carry everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = ("max_of_k", "past_the_paper", "several_heads", "pizza_quadrature", "noise_limits", "superposition", "groups", "reproduction")
# google.colab is there when the kernel starts; without the library, its editable installation is taken out of the way
START = """import sys
import google.colab
if {hidden}:
    sys.meta_path[:] = [finder for finder in sys.meta_path if "mechproof" not in repr(finder) and "editable" not in repr(finder).lower()]
    sys.path[:] = [entry for entry in sys.path if "mechproof" not in entry and entry != {root!r}]
"""
RUN = """import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
first = nbformat.v4.new_code_cell("import importlib.util, ipywidgets, sys\\nprint(ipywidgets.__version__, 'google.colab' in sys.modules, "
                                  "bool(importlib.util.find_spec('mechproof')))")
notebook.cells.insert(0, first)
NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A folder of what Colab has and we have not: ipywidgets 7.7 and a package google.colab."""
    folder = tmp_path_factory.mktemp("colab")
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), "ipywidgets==7.7.1",
                           "ipython_genutils==0.2.0"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    (folder / "google" / "colab").mkdir(parents=True)
    (folder / "google" / "colab" / "__init__.py").write_text("")
    return folder


def run_in_colab(colab: Path, notebook: Path, tmp_path: Path, hidden: bool) -> nbformat.NotebookNode:
    """The notebook executed live in an empty folder."""
    empty, start = tmp_path / "content", tmp_path / "start"
    for folder in (empty, start):
        folder.mkdir()
    (start / "sitecustomize.py").write_text(START.format(hidden=hidden, root=str(ROOT)))
    env = {key: value for key, value in os.environ.items() if key not in ("MECHPROOF_MODE", "JPY_SESSION_NAME", "VSCODE_PID")}
    env |= {"PYTHONPATH": f"{start}{os.pathsep}{colab}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", RUN, str(notebook), str(empty), str(tmp_path / "out.ipynb")], capture_output=True, text=True,
                          env=env, cwd=empty)
    assert done.returncode == 0, done.stderr[-2000:]
    return nbformat.read(tmp_path / "out.ipynb", as_version=4)


def check(done: nbformat.NotebookNode, found: bool, explorers: int) -> None:
    """It ran as on Colab, without errors, and its figures are widgets."""
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert code[0].outputs[0].text.split() == ["7.7.1", "True", str(found)]
    views = [o for cell in code for o in cell.outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert len(views) >= explorers and not [o for cell in code for o in cell.outputs if o.output_type == "error"]


EXPLORERS = {"max_of_k": 6, "past_the_paper": 3, "several_heads": 3, "pizza_quadrature": 8, "noise_limits": 9,
             "superposition": 6, "groups": 7, "reproduction": 3}


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_live_in_a_stand_in_colab(colab, tmp_path, chapter):
    check(run_in_colab(colab, ROOT / "book" / f"{chapter}.ipynb", tmp_path, False), True, EXPLORERS[chapter])


@pytest.mark.slow
@pytest.mark.parametrize("chapter", CHAPTERS[:-1])                       # the last draws from all models: too many to carry
def test_a_packed_chapter_needs_no_installation(colab, tmp_path, chapter):
    packed = ROOT / "book" / "_static" / "notebooks" / f"{chapter}.ipynb"
    assert packed.exists(), "the notebooks are not packed: run `make book`"
    assert packed.stat().st_size < 6 * 2**20
    check(run_in_colab(colab, packed, tmp_path, True), False, EXPLORERS[chapter])


def test_every_chapter_says_once_and_alike_where_the_library_is():
    """One setting: the same line in every chapter's first cell, the README's address, and the site's, when it has one."""
    lines = set()
    for chapter in CHAPTERS:
        sources = [c.source for c in nbformat.read(ROOT / "book" / f"{chapter}.ipynb", as_version=4).cells if c.cell_type == "code"]
        said = [line.strip() for source in sources for line in source.splitlines() if line.strip().startswith("source = ")]
        assert len(said) == 1 and sum("%pip" in source for source in sources) == 1
        lines |= set(said)
    (line,) = lines
    address = line.split('"')[1]
    assert address in (ROOT / "README.md").read_text()
    site = next(line.split(":", 1)[1].strip().strip('"') for line in (ROOT / "_config.yml").read_text().splitlines() if line.startswith("  url:"))
    assert site in ("", address.removeprefix("git+"))


def test_packing_again_gives_the_same_bytes(tmp_path):
    run = "import pathlib, sys; import pack_notebooks; pack_notebooks.pack('max_of_k', pathlib.Path(sys.argv[1]))"
    found = []
    for name in ("once", "again"):
        subprocess.run([sys.executable, "-c", run, str(tmp_path / name)], check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "book")})
        found.append((tmp_path / name / "max_of_k.ipynb").read_bytes())
    assert found[0] == found[1]
