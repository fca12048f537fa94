"""Each chapter as one notebook that carries the library and the models it needs: book/_static/notebooks/<chapter>.ipynb.

    python book/pack_notebooks.py

For Colab by upload, and for any Jupyter without an installation or a repository.  Where mechproof is installed, that is used.
"""

import base64
import json
import sys
import tempfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell
from pack_verifier import zipped

from mechproof import zoo

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).parent / "_static" / "notebooks"
SEEDS = tuple(range(5))
# what a chapter loads: seeds by collection; and the results it prints from
MODELS = {
    "max_of_k": {"max-of-4": SEEDS, "max-of-4-reference": (123,)},
    "past_the_paper": {"max-of-4": SEEDS, "max-of-5": (0,), "max-of-10": (0,), "max-of-20": (0,), "max-of-4-v128": (0,), "max-of-4-v256": (0,),
                       "max-of-4-stripped": SEEDS},
    "several_heads": {"max-of-4-h2": SEEDS, "max-of-4-h4": SEEDS, "max-of-4": (0,)},
    "pizza_quadrature": {"pizza-113": (3, 6), "pizza-113-wrong": (10,)},
    "superposition": {f"u-and-{kind}": SEEDS for kind in ("256", "1024", "examples", "proof", "proof-s3")}
    | {f"u-and-design-{n}": (0,) for n in (62, 130, 1240)},
    "groups": {"group-s5": SEEDS, "group-s4": SEEDS, "group-s5-decay": (0,), "permutations-10": (0, 1)},
    "noise_limits": {"max-of-4": SEEDS, "max-of-4-projected": SEEDS, "max-of-4-decayed": SEEDS, "pizza-113": (3,)},
}
RESULTS = {
    "max_of_k": ("max-of-4.parquet", "max-of-4-reference.csv", "singular_ratios.json", "counting.json", "speed.json"),
    "past_the_paper": ("max-of-4.parquet", "max-of-4-stripped.parquet", "max-of-5.parquet", "max-of-10.parquet", "max-of-20.parquet",
                       "max-of-4-v128.parquet", "max-of-4-v256.parquet"),
    "several_heads": ("max-of-4.parquet", "max-of-4-h2.parquet", "max-of-4-h4.parquet", "max-of-10-h2.parquet"),
    "pizza_quadrature": ("pizza.json",),
    "noise_limits": ("noise.json",),
    "superposition": (),
    "groups": ("permutations.json", "groups.json"),
}
NEEDED = {"safetensors": "safetensors", "jaxtyping": "jaxtyping", "flint": "python-flint", "pandas": "pandas",           # modules and their packages
          "pyarrow": "pyarrow"}
UNPACK = """import base64
import io
import sys
import tempfile
import zipfile
from importlib.util import find_spec

# the library and the models of this chapter, as text
PACKED = "{packed}"

if not find_spec("mechproof"):
    missing = [name for module, name in {needed}.items() if not find_spec(module)]
    if missing:
        %pip install -q {{" ".join(missing)}}
    folder = tempfile.mkdtemp()
    zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKED))).extractall(folder)
    sys.path.insert(0, folder)
"""


def some_models(collection: str, seeds: tuple[int, ...], folder: Path) -> None:
    """The collection's shards with these seeds alone."""
    members = []
    for seed in seeds:
        model = zoo.load(f"{collection}/{seed}")
        recipe = {key: model.metadata[key] for key in ("family", "sizes", "recipe") if key in model.metadata}
        entry = {key: value for key, value in model.metadata.items() if key not in recipe and key != "collection"}
        members.append((entry, dict(model.tensors)))
    zoo.save_collection(collection, recipe, members, folder)


def library(chapter: str) -> dict[str, bytes]:
    """Names and contents of everything that a chapter needs of the package."""
    package = ROOT / "mechproof"
    files = {str(path.relative_to(ROOT)): path.read_bytes() for path in [*package.rglob("*.py"), *package.rglob("*.mplstyle")]}
    with tempfile.TemporaryDirectory() as folder:
        for collection, seeds in MODELS[chapter].items():
            some_models(collection, seeds, Path(folder))
        files |= {f"mechproof/data/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}
    return files | {f"mechproof/data/results/{name}": (zoo.DATA / "results" / name).read_bytes() for name in RESULTS[chapter]}


def pack(chapter: str, folder: Path = OUT) -> Path:
    """Write one notebook, without outputs; the same bytes at every run."""
    notebook = nbformat.read(ROOT / "book" / f"{chapter}.ipynb", as_version=4)
    packed = base64.b64encode(zipped(library(chapter))).decode()
    first = new_code_cell(UNPACK.format(packed=packed, needed=json.dumps(NEEDED)), id="packed",
                          metadata={"jupyter": {"source_hidden": True}, "cellView": "form", "tags": ["hide-input"]})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(1, first)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{chapter}.ipynb"
    with zoo.whole(path) as part:
        nbformat.write(notebook, part)
    return path


if __name__ == "__main__":
    for name in sys.argv[1:] or MODELS:
        pack(name)
