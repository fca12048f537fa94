"""Execute the chapters in place, deterministically: outputs are committed, so that what is checked is published.

    python book/execute.py [CHAPTER.ipynb ...]

A last cell, which is not kept, draws every explorer of the chapter once more for phones, into _static/narrow: a page
loads these only where it is narrow, and they need no kernel.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).parent
NARROW = BOOK / "_static" / "narrow"
DRAW_NARROW = f"""
from pathlib import Path
from mechproof.explorable.explore import Explorer
for shown in list(Out.values()):
    if isinstance(shown, Explorer):
        name, script = shown.narrow_script()
        Path({str(NARROW)!r}, name + ".js").write_text(script)
"""


def execute(path: Path) -> None:
    """Run every cell; write the notebook back only if all succeeded."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(DRAW_NARROW))
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True,
                   resources={"metadata": {"path": str(BOOK)}}).execute()
    notebook.cells.pop()
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    part = path.with_suffix(".part")
    nbformat.write(notebook, part)
    part.replace(path)


def forget() -> None:
    """Remove the drawings of explorers that no chapter has any more."""
    chapters = "".join(path.read_text() for path in BOOK.glob("*.ipynb"))
    for path in NARROW.glob("*.js"):
        if path.stem not in chapters:
            path.unlink()


if __name__ == "__main__":
    os.environ |= {"MECHPROOF_MODE": "page", "OMP_NUM_THREADS": "1"}
    NARROW.mkdir(exist_ok=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(execute, map(Path, sys.argv[1:] or sorted(BOOK.glob("*.ipynb")))))
    forget()
