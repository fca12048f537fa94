"""The map of the house in CONTRIBUTING, held against every import: arrows point down, and no files import each other in a circle."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BY_NAME = ("zoo.weights", "__init__")                                    # what is looked up when it is asked for


def floor_map() -> dict[str, set[str]]:
    """Floor -> floors that it may import, as CONTRIBUTING's table has them."""
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\|[^|]*\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = lambda cell: re.findall(r"`([\w.]+)`", cell)
    return {floor: set(named(may)) for names, may in rows for floor in named(names)}


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, wherever in the file: `zoo.tables`, `zoo` for what its __init__ says,
    `__init__` for what the package itself says (but its version), and `?` for a name that only the running program knows."""
    files = {path.relative_to(package).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
             for path in package.rglob("*.py")}
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        here = [package.name, *name.split(".")][: None if path.stem == "__init__" and name != "__init__" else -1]
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                whole = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = here[: len(here) - node.level + 1] if node.level else []
                base = ".".join([*base, *([node.module] if node.module else [])])
                whole = [f"{base}.{alias.name}" for alias in node.names]
            else:
                found[name] |= {"?"} if getattr(node, "id", getattr(node, "attr", "")) in ("import_module", "__import__") else set()
                continue
            for said in whole:
                if said.split(".")[0] == package.name and said != f"{package.name}.__version__":
                    inside = said.removeprefix(package.name).removeprefix(".")
                    found[name] |= {next(known for known in (inside, inside.rpartition(".")[0], "__init__") if known in files)} - {name}
    return found


def faults(package: Path) -> list[str]:
    """What does not fit the map."""
    floors, graph, wrong = floor_map(), imports(package), []
    floor = lambda module: module.split(".")[0]
    for module, used in graph.items():
        if floor(module) not in floors:
            wrong.append(f"{module} stands on no floor")
        may = {floor(module), *floors.get(floor(module), ())} | ({"?"} if module in BY_NAME else set())
        wrong += [f"{module} imports {other}" for other in sorted(used) if not may & {other, floor(other)}]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append("a circle: " + " -> ".join(error.args[1]))
    return wrong


def test_every_arrow_points_down():
    assert len(floor_map()) == 16 and faults(ROOT / "mechproof") == []


def test_every_file_says_what_it_is():
    """So that a newcomer finds a thing by folders and heads of files alone."""
    for path in (ROOT / "mechproof").rglob("*.py"):
        said = ast.get_docstring(ast.parse(path.read_text()))
        assert said and len(said.splitlines()[0]) > 30, path


@pytest.mark.parametrize("path, line, says", [
    ("proof/bound.py", "from ..zoo import weights", "proof.bound imports zoo"),
    ("max_of_k/terms.py", "from ..figures import max_of_k", "max_of_k.terms imports figures.max_of_k"),
    ("pizza/wheel.py", "from ..max_of_k.paths import Paths", "pizza.wheel imports max_of_k.paths"),
    ("verifier/numbers.py", "import mechproof.proof.rounding", "verifier.numbers imports proof.rounding"),
    ("proof/rounding.py", "from ..verifier import verify", "proof.rounding imports verifier"),
    ("proof/bound.py", "import mechproof as mp", "proof.bound imports __init__"),
    ("proof/bound.py", "from .. import load", "proof.bound imports __init__"),
    ("noise/mlp.py", "from mechproof import *", "noise.mlp imports __init__"),
    ("proof/bound.py", "from importlib import import_module\nimport_module('mechproof.zoo')", "proof.bound imports ?"),
    ("proof/rounding.py", "def f():\n    from .product_bounds import RUNGS", "a circle: "),
])
def test_an_arrow_turned_upwards_is_found(tmp_path, path, line, says):
    """Wherever the import stands, and however it is written."""
    copy = shutil.copytree(ROOT / "mechproof", tmp_path / "mechproof", ignore=shutil.ignore_patterns("data", "__pycache__"))
    file = copy / path
    file.write_text(f"{file.read_text()}\n\n{line}\n")
    assert any(fault.startswith(says) for fault in faults(copy))


def test_imports_in_texts_are_of_what_there_is():
    """Also those that stand in strings, notebooks and pages, which no checker of code reads."""
    texts = [path for folder in ("benchmarks", "tests", "book", "examples") for kind in ("*.py", "*.md", "*.ipynb")
             for path in (ROOT / folder).glob(kind) if path.name != "test_house.py"]
    said = {found for path in [*texts, ROOT / "README.md"]
            for found in re.findall(r"from (mechproof[\w.]*) import (\w+(?: as \w+)?(?:, \w+(?: as \w+)?)*)", path.read_text())}
    assert len(said) > 100
    for module, names in said:
        for name in names.split(", "):
            name = name.split(" as ")[0]
            assert hasattr(import_module(module), name) or find_spec(f"{module}.{name}"), f"from {module} import {name}"


def test_every_docstring_example_runs():
    """They are collected from every file that has some, and pass."""
    having = [path for path in (ROOT / "mechproof").rglob("*.py") if ">>> " in path.read_text()]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--doctest-modules", "mechproof"],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and len(having) > 12, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= len(having)
