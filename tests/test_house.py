"""The map of the house in CONTRIBUTING, held against every import: arrows point down, and no files import each other in a circle."""

from __future__ import annotations

import ast
import re
import shutil
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def floor_map() -> dict[str, set[str]]:
    """Floor -> floors that it may import, as CONTRIBUTING's table has them."""
    rows = re.findall(r"^\| ((?:`\w+` ?)+)\|[^|]*\|([^|]*)\|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = lambda cell: re.findall(r"`(\w+)`", cell)
    floors = {floor: set(named(may)) for names, may in rows for floor in named(names)}
    return {floor: may & set(floors) for floor, may in floors.items()}


def imports(package: Path) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, wherever in the file: `zoo.tables`, or `zoo` for what its __init__ says."""
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
                continue
            for said in whole:
                inside = said.removeprefix(f"{package.name}.") if said.startswith(f"{package.name}.") else ""
                known = inside if inside in files else inside.rpartition(".")[0]
                found[name] |= {known} & set(files) - {name}
    return found


def faults(package: Path) -> list[str]:
    """What does not fit the map."""
    floors, graph, wrong = floor_map(), imports(package), []
    floor = lambda module: module.split(".")[0]
    for module, used in graph.items():
        if floor(module) not in floors:
            wrong.append(f"{module} stands on no floor")
        wrong += [f"{module} imports {other}" for other in sorted(used)
                  if floor(other) not in (floor(module), *floors.get(floor(module), ()))]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        wrong.append("a circle: " + " -> ".join(error.args[1]))
    return wrong


def test_every_arrow_points_down():
    assert len(floor_map()) == 10 and faults(ROOT / "mechproof") == []


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
    ("proof/rounding.py", "def f():\n    from .product_bounds import RUNGS", "a circle: "),
])
def test_an_arrow_turned_upwards_is_found(tmp_path, path, line, says):
    """Wherever the import stands, and however it is written."""
    copy = shutil.copytree(ROOT / "mechproof", tmp_path / "mechproof", ignore=shutil.ignore_patterns("data", "__pycache__"))
    file = copy / path
    file.write_text(f"{file.read_text()}\n\n{line}\n")
    assert any(fault.startswith(says) for fault in faults(copy))
